"""A plain HTTP client for the sandbox's tests: standard library only, one connection a request."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any, NamedTuple

from sandbox.credentials import PARCELVOY_API_KEY, TEAK_GAME_ID, TEAK_SECRET_KEY
from sandbox.server import Running

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TEAK_BATCH = "/teak/v2/analytics_events/batch"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def send(
    sandbox: Running,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    timeout: float = 10,
) -> Answer:
    """One request, exactly as given."""
    connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def post(sandbox: Running, path: str, body: object, headers: dict[str, str] | None = None) -> Answer:
    """POST a JSON body; `bytes` go out as they are."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(sandbox, "POST", path, encoded, {"Content-Type": JSON, **(headers or {})})


def post_form(sandbox: Running, path: str, params: dict[str, str] | list[tuple[str, str]]) -> Answer:
    """POST form-encoded parameters."""
    return send(sandbox, "POST", path, urllib.parse.urlencode(params).encode(), {"Content-Type": FORM})


def reasons(sandbox: Running) -> list[str]:
    """The violations' reasons, most frequent first."""
    return [each["reason"] for each in sandbox.violations()]


def counts(sandbox: Running, vendor: str) -> tuple[int, int, int]:
    """Requests, accepted and rejected items of a vendor."""
    view = sandbox.received(vendor=vendor)["vendors"][vendor]
    return view["requests"], view["accepted"], view["rejected"]


def teak(sandbox: Running, *users: str, timeout: float = 10) -> Answer:
    """A correct Teak batch with one event of each user."""
    events = [{"user_id": user, "action_type": "spin"} for user in users]
    body = {"game_id": TEAK_GAME_ID, "secret_key": TEAK_SECRET_KEY, "events": events}
    return send(sandbox, "POST", TEAK_BATCH, json.dumps(body).encode(), {"Content-Type": JSON}, timeout)


def parcelvoy(sandbox: Running, user: str = "u") -> Answer:
    """A correct Parcelvoy event of the user."""
    body = [{"external_id": user, "name": "spin"}]
    return post(sandbox, "/parcelvoy/api/client/events", body, {"Authorization": f"Bearer {PARCELVOY_API_KEY}"})


def view(sandbox: Running, vendor: str = "teak") -> dict[str, Any]:
    """A vendor's counts."""
    found: dict[str, Any] = sandbox.received(vendor=vendor)["vendors"][vendor]
    return found
