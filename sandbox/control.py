"""The control and view API under /_sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox import page
from sandbox.credentials import Credentials
from sandbox.faults import Faults
from sandbox.gate import Gate
from sandbox.journal import Journal, Stored
from sandbox.vendors import all_vendors
from sandbox.vendors.base import Vendor, encode

#: How many items `?items=1` shows unless `limit` says otherwise; `limit=0` is all that are held.
DEFAULT_LIMIT = 1000


@dataclass
class Sandbox:
    """All state of one sandbox: made anew by `reset`."""

    credentials: Credentials
    keep: int

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything that arrived, and every fault and setting."""
        self.vendors: dict[str, Vendor] = all_vendors(self.credentials, self.keep)
        self.journal = Journal(list(self.vendors), self.keep)
        self.faults = Faults(self.vendors)
        self.gates = {slug: Gate(vendor, self.journal, self.faults) for slug, vendor in self.vendors.items()}

    def view(self, vendor: str | None = None) -> dict[str, Any]:
        return {**self.journal.view(vendor), "faults": self.faults.view(), "settings": self.settings()}

    def settings(self) -> dict[str, Any]:
        return {slug: vendor.settings() for slug, vendor in self.vendors.items() if vendor.setting_names}

    def configure(self, asked: object) -> None:
        """Change settings, `{vendor: {name: value}}`; raises ValueError."""
        if type(asked) is not dict:
            raise ValueError("settings are a JSON object by vendor")
        for slug, settings in asked.items():
            vendor = self.vendors.get(slug)
            if vendor is None or not isinstance(settings, dict) or not settings:
                raise ValueError(f"{slug}: must be a vendor with an object of settings")
            for name in settings:
                if name not in vendor.setting_names:
                    known = ", ".join(vendor.setting_names) or "none"
                    raise ValueError(f"{slug}.{name}: unknown setting; there are: {known}")
            try:
                vendor.configure(settings)
            except ValueError as error:
                raise ValueError(f"{slug}: {error}") from None


def routes(sandbox: Sandbox) -> list[BaseRoute]:
    """The control API's routes and the page's."""

    async def received(request: Request) -> Response:
        query = request.query_params
        vendor = query.get("vendor")
        if vendor is not None and vendor not in sandbox.vendors:
            return _wrong(f"vendor: must be one of {', '.join(sandbox.vendors)}")
        answer = sandbox.view(vendor)
        if query.get("items") in ("1", "true"):
            try:
                limit, since = int(query.get("limit", DEFAULT_LIMIT)), int(query.get("after", 0))
            except ValueError:
                return _wrong("limit and after: must be integers")
            wanted = (vendor, query.get("model"), query.get("user"))
            answer["items"] = _items(sandbox.journal, wanted, limit, since)
        return _json(answer)

    async def violations(request: Request) -> Response:
        found = sandbox.journal.violation_list()
        return _json({"count": sum(each["count"] for each in found), "violations": found})

    async def reset(request: Request) -> Response:
        sandbox.reset()
        return _json({"status": "ok"})

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            sandbox.faults.clear()
        if request.method != "POST":
            return _json({"faults": sandbox.faults.view()})
        try:
            return _json(sandbox.faults.add(msgspec.json.decode(await request.body())).view(), 201)
        except (ValueError, msgspec.DecodeError) as error:
            return _wrong(str(error))

    async def settings(request: Request) -> Response:
        if request.method == "POST":
            try:
                sandbox.configure(msgspec.json.decode(await request.body()))
            except (ValueError, msgspec.DecodeError) as error:
                return _wrong(str(error))
        return _json(sandbox.settings())

    async def home(request: Request) -> Response:
        latest = list(islice(reversed(sandbox.journal.items), page.LATEST))
        return Response(page.render(sandbox.view(), latest), headers=page.HEADERS, media_type="text/html")

    return [
        Route("/", home),
        Route("/_sandbox/received", received),
        Route("/_sandbox/violations", violations),
        Route("/_sandbox/reset", reset, methods=["POST"]),
        Route("/_sandbox/faults", faults, methods=["GET", "POST", "DELETE"]),
        Route("/_sandbox/settings", settings, methods=["GET", "POST"]),
    ]


def _items(
    journal: Journal, wanted: tuple[str | None, str | None, str | None], limit: int, since: int
) -> list[dict[str, Any]]:
    """Held items in order of arrival, the first `limit` of those behind order number `since`."""
    found = (item for item in journal.items if item.order > since and _fits(item, wanted))
    return [_item(item) for item in (islice(found, limit) if limit > 0 else found)]


def _fits(item: Stored, wanted: tuple[str | None, str | None, str | None]) -> bool:
    vendor, model, user = wanted
    return vendor in (None, item.vendor) and model in (None, item.model) and user in (None, item.user)


def _item(item: Stored) -> dict[str, Any]:
    return {
        "order": item.order,
        "at": item.at,
        "vendor": item.vendor,
        "model": item.model,
        "user": item.user,
        "time": item.time_ms,
        "request": item.request,
        "item": msgspec.Raw(item.body),
    }


def _json(answer: object, status: int = 200) -> Response:
    return Response(encode(answer), status, media_type="application/json")


def _wrong(message: str) -> Response:
    return _json({"error": message}, 400)
