"""What a vendor is: its models, its limits, how a batch becomes a request, and what each answer means.

A vendor is data and a few small functions, in one module beside this one. Everything else
(order, concurrency, rate, retries, accounting) is the same for all and lives in transforms/deliver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from transforms.elements import Item, Origin


@dataclass(frozen=True)
class Credential:
    """A key of `credentials:` in the relay file."""

    name: str
    doc: str
    secret: bool = True


@dataclass(frozen=True)
class Option:
    """A key of the destination that only this vendor has."""

    name: str
    doc: str
    default: Any = None
    choices: tuple[str, ...] = ()
    """Allowed texts; empty: any value of the default's type (text when the default is None)."""


@dataclass(frozen=True)
class Limits:
    """What the vendor takes. `source` names the document and heading."""

    items: int
    """Items a request."""
    bytes: int
    """Bytes of a request body."""
    source: str


@dataclass(frozen=True)
class Route:
    """An endpoint. Items whose models share a route may travel in one request."""

    name: str
    path: str
    limits: Limits
    by_user: bool = False
    """A request holds items of one user only, whatever `batch.by` says."""
    content_type: str = "application/json"
    wrapped: bool = False
    """Items stand in the body as Vendor.wrap makes them, not as their payload."""


@dataclass(frozen=True)
class Model:
    """One of the vendor's record types."""

    schema: str
    """Name for schemas.load, such as `teak/event`."""
    route: Route
    doc: str
    passthrough: bool = False
    """The payload is the record's original bytes."""
    by_default: bool = True
    """Sent when the relay file names no `models:`."""


@dataclass(frozen=True)
class Settings:
    """A destination as its worker sees it: references resolved, so never pickled, logged or shown."""

    name: str
    url: str
    """Base URL without a trailing slash."""
    credentials: Mapping[str, str] = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


class Frame(NamedTuple):
    """The bytes around a request's items: body = prefix + b','.join(parts) + suffix.

    Its length must not depend on when it is made, as batches are cut by the exact size of the body.
    """

    prefix: bytes
    suffix: bytes


class Batch(NamedTuple):
    """The items of one request, in time order of each user."""

    route: Route
    user: str
    """The user when the batch is by user, else the empty text."""
    items: Sequence[tuple[Item, Origin]]
    parts: Sequence[bytes]
    """The items as they stand in the body."""


class Answer(NamedTuple):
    """A vendor's answer to a request."""

    status: int
    body: bytes
    retry_after: float = 0.0
    """Seconds, from a Retry-After header in either form; 0 when there is none."""
    location: str = ""


# What an answer means for the items of its batch ------------------------------------------------


class Delivered(NamedTuple):
    """All items were taken."""


class Partial(NamedTuple):
    """Each item has its own answer: index -> reason for the rejected, indexes to send again; the rest were taken."""

    rejected: Mapping[int, str]
    again: Sequence[int] = ()


class Retry(NamedTuple):
    """Nothing was taken; send the same again later."""

    reason: str


class Split(NamedTuple):
    """Something in the batch is not acceptable: halve it until the culprit stands alone, and reject that."""

    reason: str


class Reject(NamedTuple):
    """None of these items will ever be taken."""

    reason: str


class Stop(NamedTuple):
    """The configuration is wrong: stop the destination and name the relay file's key to mend."""

    key: str
    reason: str


Verdict = Delivered | Partial | Retry | Split | Reject | Stop


@dataclass(frozen=True)
class On:
    """A row of an answer table: the first row whose status (and `when`) fits gives the verdict."""

    status: int | tuple[int, ...] | range
    then: Verdict | Callable[[Answer, Batch], Verdict]
    when: Callable[[Answer], bool] | None = None

    def fits(self, answer: Answer) -> bool:
        """Whether this row speaks of the answer."""
        status = self.status
        if answer.status != status if isinstance(status, int) else answer.status not in status:
            return False
        return self.when is None or self.when(answer)


def excerpt(body: bytes, limit: int = 300) -> str:
    """The start of a vendor's answer as one line of text, for reasons and messages."""
    text = " ".join(body[: 4 * limit].decode("utf-8", "replace").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def answer_fields(answer: Answer) -> dict[str, Any]:
    """The JSON object in a vendor's answer; empty when the body holds none, whatever it is."""
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def error_text(errors: Any) -> str:
    """A vendor's `{field: message}` or `{field: [message, …]}` as one line: "user_id could not be found"."""
    if isinstance(errors, dict):
        return "; ".join(f"{field} {error_text(messages)}" for field, messages in errors.items())
    if isinstance(errors, list):
        return ", ".join(map(error_text, errors))
    return excerpt(str(errors).encode("utf-8", "replace"))


COMMON_ANSWERS: tuple[On, ...] = (
    On(range(200, 300), Delivered()),
    On((408, 425, 429), lambda answer, _: Retry(f"HTTP {answer.status}")),
    On(range(500, 600), lambda answer, _: Retry(f"HTTP {answer.status}")),
    On(range(300, 400), lambda answer, _: Stop("url", f"HTTP {answer.status}: redirect, which is never followed")),
    On((401, 403), lambda answer, _: Stop("credentials", f"HTTP {answer.status}: {excerpt(answer.body)}")),
    On((404, 405, 410), lambda answer, _: Stop("url", f"HTTP {answer.status}: {excerpt(answer.body)}")),
    On((400, 413, 422), lambda answer, _: Split(f"HTTP {answer.status}: {excerpt(answer.body)}")),
    On(range(400, 500), lambda answer, _: Split(f"HTTP {answer.status}: {excerpt(answer.body)}")),
)
"""What an answer means where the vendor's own table is silent. 401 to 410 speak of the configuration, never of an item."""


@dataclass(frozen=True)
class Vendor:
    """One vendor. The callables get `Settings`, so they run on workers only."""

    slug: str
    title: str
    credentials: tuple[Credential, ...]
    credential_sets: tuple[frozenset[str], ...]
    """The combinations of credentials that are enough."""
    models: Mapping[str, Model]
    base_url: Callable[[Mapping[str, str], Mapping[str, Any]], str]
    """(resolved credentials, options) -> the vendor's own base URL."""
    frame: Callable[[Settings, Route, str, float], Frame]
    """(settings, route, user, now in Unix seconds) -> the bytes around the items."""
    headers: Callable[[Settings, Route], list[str]]
    """Headers besides Content-Type."""
    doc: str = ""
    options: tuple[Option, ...] = ()
    rate: float | None = None
    """Requests a second the vendor takes; None when its documents name none."""
    rate_source: str = ""
    query: Callable[[Settings, Route], str] | None = None
    """Query string with its `?`, where the vendor authenticates there."""
    wrap: Callable[[Settings, Route], Callable[[Item], bytes]] | None = None
    """How an item stands in the body, where that differs from its payload."""
    models_for: Callable[[Mapping[str, Any]], Mapping[str, Model]] | None = None
    """Models under these options, where options change schemas or routes."""
    mapping: Callable[[Mapping[str, Any]], str] | None = None
    """File name of the shipped mapping under these options, beside the module; None: the module's name with `.yaml`."""
    check: Callable[[Collection[str], Mapping[str, Any]], Sequence[tuple[str, str]]] | None = None
    """(names of the credentials given, options) -> what does not go together, as (key of the destination, message)."""
    answers: tuple[On, ...] = ()
    token: re.Pattern[str] | None = None
    """What requests hold that opens the account for a while, as the secrets that it was made of do: it is not shown
    either, should an answer repeat it."""
    gzip: bool = False
    """The vendor takes gzip request bodies."""
    by: str = "vendor"
    """Default of `batch.by`."""
    in_order_across_routes: bool = False
    """A user's items keep their time order across routes too (the vendor dates items by arrival)."""

    def models_under(self, options: Mapping[str, Any]) -> Mapping[str, Model]:
        """The models with the schemas and routes these options give them."""
        return self.models_for(options) if self.models_for else self.models

    def read(self, answer: Answer, batch: Batch) -> Verdict:
        """What an answer means for its batch: the vendor's own table first, then the common one."""
        if 200 <= answer.status < 300 and answer.body.lstrip()[:1] == b"<":
            # Some proxy's or portal's page: whatever it means, it is not the vendor's word that it took the items.
            return Retry(f"HTTP {answer.status} without a readable answer: {excerpt(answer.body)}")
        for row in self.answers + COMMON_ANSWERS:
            if row.fits(answer):
                return row.then(answer, batch) if callable(row.then) else row.then
        return Split(f"HTTP {answer.status}: {excerpt(answer.body)}")
