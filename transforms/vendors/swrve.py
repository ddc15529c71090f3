"""Swrve: sessions, events, purchases, in-app purchases, currency given and user attributes.

Rules are from Swrve's document "Swrve Events API". Three ways to send, chosen by `send:`:
one user a request (/1/batch), many users a request (/1/multi_user_batch), or one call an item.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec

from transforms.elements import Item
from transforms.vendors.base import (
    Answer,
    Batch,
    Credential,
    Delivered,
    Frame,
    Limits,
    Model,
    On,
    Option,
    Partial,
    Reject,
    Retry,
    Route,
    Settings,
    Split,
    Stop,
    Vendor,
    Verdict,
    answer_fields,
    excerpt,
)

BATCH_EVENTS = 10_000
"""Events a request. Source: Swrve Events API, Multi-user batch, Error codes."""

BATCH_BYTES = 4_000_000
"""4 MB of UTF-8 characters a request, counted here as bytes, which are never fewer.
Source: Swrve Events API, Multi-user batch, Error codes."""

SINGLE_BYTES = 1_000_000
"""Bytes of a single call: Swrve's document names no limit, so this only stops runaway records."""

BATCH_VERSION = "2"
"""Source: Swrve Events API, Batch, URL parameters."""

MULTI_USER_VERSION = "3"
"""Source: Swrve Events API, Multi-user batch, URL parameters."""

RESERVED_PARAMETERS = frozenset(
    {"api_key", "user", "app_version", "external_user_id", "identity_secret_key", "user_initiated", "session_token"}
)
"""Names that user attributes cannot have in the single /1/user call, whose parameters they become.
Source: Swrve Events API, User, URL parameters."""

# The document names no limit for /1/batch. A batch that the multi-user endpoint takes is taken as fit for one user too.
BATCH = Route(
    "batch",
    "/1/batch",
    Limits(BATCH_EVENTS, BATCH_BYTES, "Swrve Events API, Multi-user batch, Error codes"),
    by_user=True,
)
MULTI_USER = Route(
    "multi_user_batch",
    "/1/multi_user_batch",
    Limits(BATCH_EVENTS, BATCH_BYTES, "Swrve Events API, Multi-user batch, Error codes"),
    wrapped=True,
)

_DOCS = {
    "session_start": "A user connects to the app.",
    "session_end": "A user disconnects from the app.",
    "event": "A named event with a payload.",
    "purchase": "An item bought for virtual currency.",
    "iap": "A real-money purchase.",
    "currency_given": "Virtual currency the app gave.",
    "user": "User attributes.",
}


def _single_route(name: str) -> Route:
    return Route(
        f"single_{name}",
        f"/1/{name}",
        Limits(1, SINGLE_BYTES, f"Swrve Events API, {name}"),
        by_user=True,
        content_type="application/json" if name == "iap" else "application/x-www-form-urlencoded",
        wrapped=True,
    )


_BATCH_MODELS = {name: Model(f"swrve/{name}", BATCH, doc) for name, doc in _DOCS.items()}
_MULTI_MODELS = {name: Model(f"swrve/{name}", MULTI_USER, doc) for name, doc in _DOCS.items()}
_SINGLE_MODELS = {name: Model(f"swrve/single_{name}", _single_route(name), doc) for name, doc in _DOCS.items()}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _models_for(options: Mapping[str, Any]) -> Mapping[str, Model]:
    return {"single": _SINGLE_MODELS, "multi_user_batch": _MULTI_MODELS}.get(options.get("send", ""), _BATCH_MODELS)


def _mapping(options: Mapping[str, Any]) -> str:
    return "swrve_single.yaml" if options.get("send") == "single" else "swrve.yaml"


def _external(credentials: Collection[str], options: Mapping[str, Any]) -> bool:
    """Whether user ids are the studio's own: as `user_ids` says, else when only the identity key is there."""
    chosen = options.get("user_ids")
    return chosen == "external" if chosen else "api_key" not in credentials


def _check(credentials: Collection[str], options: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    problems = []
    if options.get("user_ids") == "external" and "identity_secret_key" not in credentials:
        problems.append(("user_ids", "external user ids need credentials.identity_secret_key"))
    if options.get("user_ids") == "swrve" and "api_key" not in credentials:
        problems.append(("user_ids", "Swrve's own user ids need credentials.api_key"))
    if options.get("user_initiated") is False and options.get("send") != "single":
        problems.append(("user_initiated", "exists only in single calls: add `send: single`"))
    if options.get("app_version") and options.get("send") in ("single", "multi_user_batch"):
        problems.append(("app_version", "is of `send: batch` only; other ways to send take no version for a request"))
    return problems


def _base_url(credentials: Mapping[str, str], options: Mapping[str, Any]) -> str:
    host = "eu-api" if options.get("region") == "eu" else "api"
    return f"https://{credentials['app_id']}.{host}.swrve.com"


def _headers(settings: Settings, route: Route) -> list[str]:
    return []


_TOKEN = re.compile(r"(?<=[=Dd])[0-9a-fA-F]{32}(?![0-9a-zA-Z])")
"""The end of a session token, behind `=` or `%3D`."""


def session_token(app_id: str, user: str, api_key: str, now: float) -> str:
    """`app_id=user=seconds=md5hex(user + seconds + api_key)`, good for 48 hours (Session Token)."""
    seconds = str(int(now))
    digest = hashlib.md5((user + seconds + api_key).encode(), usedforsecurity=False).hexdigest()
    return f"{app_id}={user}={seconds}={digest}"


def _frame(settings: Settings, route: Route, user: str, now: float) -> Frame:
    keys = settings.credentials
    external = _external(keys, settings.options)
    if route.name == MULTI_USER.name:
        key = {"identity_secret_key": keys["identity_secret_key"]} if external else {"api_key": keys["api_key"]}
        return Frame(_open({"version": MULTI_USER_VERSION, **key}) + b',"data":[', b"]}")
    who = {"external_user_id": user} if external else {"user": user}
    if route.name == BATCH.name:
        version = settings.options.get("app_version")
        envelope = {**who, "version": BATCH_VERSION, **({"app_version": version} if version else {})}
        if external:
            envelope["identity_secret_key"] = keys["identity_secret_key"]
        else:
            envelope["session_token"] = session_token(keys["app_id"], user, keys["api_key"], now)
        return Frame(_open(envelope) + b',"data":[', b"]}")
    fields = {
        **({"identity_secret_key": keys["identity_secret_key"]} if external else {"api_key": keys["api_key"]}),
        **who,
    }
    if route.content_type == "application/json":
        return Frame(_open(fields) + b",", b"")
    return Frame(urlencode(fields).encode(), b"")


def _open(fields: Mapping[str, str]) -> bytes:
    """A JSON object without its closing brace."""
    return _encode(fields)[:-1]


def _wrap(settings: Settings, route: Route) -> Callable[[Item], bytes]:
    if route.name == MULTI_USER.name:
        name = b'{"external_user_id":' if _external(settings.credentials, settings.options) else b'{"user":'
        return lambda item: b"%b%b,%b" % (name, _encode(item[2]), item[0][1:])
    if route.content_type == "application/json":
        return lambda item: item[0][1:]
    return lambda item: _form(_decode(item[0]))


def _form(fields: Mapping[str, Any]) -> bytes:
    """Fields as further form parameters, `&name=value…`; user attributes become parameters of their own."""
    fields = dict(fields)
    attributes = fields.pop("attributes", None) or {}
    pairs = list(fields.items())
    pairs += [(name, value) for name, value in attributes.items() if name not in RESERVED_PARAMETERS]
    return "".join(
        f"&{quote_plus(name)}={quote_plus(_text(value))}" for name, value in pairs if value is not None
    ).encode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _taken(answer: Answer, batch: Batch) -> Verdict:
    """HTTP 200: a multi-user batch names the external users it does not know (Multi-user batch, Output parameters)."""
    if batch.route.name != MULTI_USER.name or not batch.parts[0].startswith(b'{"external_user_id":'):
        return Delivered()
    body = answer_fields(answer)
    if not body and b"".join(answer.body.split()) not in (b"", b"{}"):
        return Retry(f"HTTP {answer.status} without a readable answer: {excerpt(answer.body)}")
    unknown = body.get("nonexistent_external_user_ids")
    if not isinstance(unknown, list) or not unknown:
        return Delivered()
    names = {str(user) for user in unknown}
    rejected = {
        index: "No such external ID (nonexistent_external_user_ids)"
        for index, (item, _) in enumerate(batch.items)
        if item[2] in names
    }
    return Partial(rejected) if rejected else Delivered()


def _forbidden(answer: Answer, batch: Batch) -> Verdict:
    """403 (API calls - external user ID, Error codes; Session start, Error codes)."""
    text = excerpt(answer.body)
    reason = f"HTTP 403: {text}"
    if "No such external ID" in text:
        return Split(reason) if batch.route.name == MULTI_USER.name else Reject(reason)
    if "Invalid Secret Key" in text:
        return Stop("credentials.identity_secret_key", reason)
    if "Invalid API Key" in text:
        return Stop("credentials.api_key", reason)
    return Stop("credentials", reason)


VENDOR = Vendor(
    slug="swrve",
    title="Swrve",
    doc="Sessions, events, purchases, currency and user attributes. Swrve dates events by its own clock.",
    credentials=(
        Credential("app_id", "App ID, part of the host name.", secret=False),
        Credential("api_key", "App API key, for Swrve's own user ids."),
        Credential("identity_secret_key", "Identity secret key, for external user ids."),
    ),
    credential_sets=(frozenset({"app_id", "api_key"}), frozenset({"app_id", "identity_secret_key"})),
    options=(
        Option(
            "send",
            "`batch`: one user a request. `multi_user_batch`: many users a request. `single`: one call an item.",
            default="batch",
            choices=("batch", "multi_user_batch", "single"),
        ),
        Option("region", "Swrve's data centre.", default="us", choices=("us", "eu")),
        Option(
            "illegal_names",
            "Event names with other characters than letters, digits, `-`, `_`, `.`: replace those by `_`, or reject.",
            default="replace",
            choices=("replace", "reject"),
        ),
        Option(
            "user_ids",
            "Whose user ids these are. Absent: Swrve's with an api_key, else external.",
            choices=("swrve", "external"),
        ),
        Option(
            "app_version",
            "Version a /1/batch request names. Absent: none; a request has one, events have each their own.",
        ),
        Option(
            "user_initiated",
            "false: attribute updates do not count as activity (DAU, MAU). Only with `send: single`.",
            default=True,
        ),
    ),
    models=_BATCH_MODELS,
    models_for=_models_for,
    mapping=_mapping,
    check=_check,
    base_url=_base_url,
    frame=_frame,
    headers=_headers,
    wrap=_wrap,
    token=_TOKEN,
    answers=(
        On(range(200, 300), _taken),
        On(400, lambda answer, _: Split(f"HTTP 400: {excerpt(answer.body)}")),
        On(403, _forbidden),
        On(410, lambda answer, _: Stop("credentials.app_id", f"HTTP 410: {excerpt(answer.body)}")),
        On(429, lambda answer, _: Retry(f"HTTP 429: {excerpt(answer.body)}")),
        On(503, lambda answer, _: Retry(f"HTTP 503: {excerpt(answer.body)}")),
    ),
    # Swrve orders events by arrival (Batch, Important notes), so single calls of one user follow each other in time order.
    in_order_across_routes=True,
)
