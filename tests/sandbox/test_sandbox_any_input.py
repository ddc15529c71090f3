"""Whatever is sent, each vendor answers, and what it refuses is either a violation or a documented item error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import credentials as known
from sandbox.credentials import Credentials
from sandbox.exchange import Request
from sandbox.journal import Journal
from sandbox.vendors import all_vendors
from sandbox.vendors.base import FORM, JSON

PATHS = {
    "12traits": ["/v1/games/actions", "/v1/games/kpis", "/v1/games/purchases", "/v1/games/playfab"],
    "traitly": ["/api/v1/event", "/api/v1/customer", "/api/v1/recommended-next-actions"],
    "parcelvoy": ["/api/client/alias", "/api/client/identify", "/api/client/devices", "/api/client/events"],
    "swrve": ["/1/batch", "/1/multi_user_batch", "/1/iap", "/1/user", "/1/event", "/1/purchase", "/1/currency_given"],
    "teak": ["/v2/analytics_events", "/v2/analytics_events/batch"],
}
AUTHORIZATION = {
    "12traits": f"Bearer {known.TWELVE_TRAITS_API_KEY}",
    "traitly": f"Token {known.TRAITLY_TOKEN}",
    "parcelvoy": f"Bearer {known.PARCELVOY_API_KEY}",
    "swrve": "",
    "teak": "",
}
# Objects with the vendors' own keys and values of any kind get deeper than arbitrary ones.
BASE: dict[str, Any] = {
    "user": "u",
    "api_key": known.SWRVE_API_KEY,
    "identity_secret_key": known.SWRVE_IDENTITY_SECRET_KEY,
    "game_id": known.TEAK_GAME_ID,
    "secret_key": known.TEAK_SECRET_KEY,
    "app_store": "google",
    "version": "3",
}
LISTS = ["actions", "kpis", "purchases", "data", "events", "action_params"]
FIELDS = [
    "player_id", "user_id", "customer_id", "external_id", "external_user_id", "name", "type", "time", "attributes",
    "payload", "swrve_payload", "rewards", "amount", "action_type", "value", "session_token", "cost", "client_ip",
    "timestamp", "created_at", "email", "timezone", "EventName", "EntityId", "Timestamp", "kpi_id", "item",
]  # fmt: skip

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**18, max_value=10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["event", "purchase", "user", "iap", "2019-01-01 15:04:05", "Swrve.user_tag_update", "1000=u=1=x"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(FIELDS + LISTS), st.text(max_size=4)), inner, max_size=6),
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
bodies = st.one_of(
    st.binary(max_size=40),
    values.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda key, rows, more: json.dumps({**BASE, **more, key: rows}).encode(),
        st.sampled_from(LISTS),
        st.lists(objects, max_size=3),
        objects,
    ),
)


@pytest.mark.parametrize("vendor", PATHS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_input_gets_an_answer(vendor: str, data: st.DataObject) -> None:
    vendors = all_vendors(Credentials(), keep=10)
    journal = Journal(list(vendors), keep=10)
    request = Request(
        data.draw(st.sampled_from(["POST", "POST", "POST", "GET"])),
        data.draw(st.sampled_from(PATHS[vendor])),
        data.draw(st.sampled_from([b"", b"a", f"api_key={known.TWELVE_TRAITS_API_KEY}".encode(), b"customer_id=%ff"])),
        {
            b"authorization": AUTHORIZATION[vendor].encode(),
            b"content-type": data.draw(st.sampled_from([JSON, JSON, FORM])).encode(),
        },
        data.draw(bodies),
        1_800_000_000.0,
    )
    reply = vendors[vendor].answer(request)
    for reason in reply.violations:
        journal.violation(vendor, request.path, reason)
    journal.commit(vendor, request, reply)
    vendors[vendor].accepted(reply.items)
    if reply.body:
        json.loads(reply.body)
    if reply.status >= 300:
        assert reply.violations
        assert not reply.items
    else:
        assert sum(reply.rejected.values()) + len(reply.items) == request.count
