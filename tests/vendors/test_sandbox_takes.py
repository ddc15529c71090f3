"""Every golden payload, sent as the vendor's module sends it, is taken by the sandbox, which is written from the documents."""

from __future__ import annotations

import http.client
import time
from typing import Any

import pytest
from mapped import mapped
from test_mappings import GOLDEN
from vendor_requests import batches, body

from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.vendors import get
from transforms.vendors.base import Answer, Delivered, Settings

WAYS = [
    (slug, options, record, credentials)
    for slug, given, record, _ in GOLDEN
    if slug in RELAY_FILE
    for options in (
        [given, {**given, "send": "multi_user_batch"}] if slug == "swrve" and "send" not in given else [given]
    )
    for credentials in get(slug).credential_sets
]


@pytest.mark.parametrize(
    ("slug", "options", "record", "credentials"),
    WAYS,
    ids=[f"{w[0]}-{'-'.join(map(str, w[1].values()))}-{w[2]['event_type']}-{'+'.join(sorted(w[3]))}" for w in WAYS],
)
def test_takes(
    sandbox: Running, slug: str, options: dict[str, Any], record: dict[str, Any], credentials: frozenset[str]
) -> None:
    vendor = get(slug)
    defaults = {option.name: option.default for option in vendor.options}
    keys = {name: RELAY_FILE[slug][name] for name in credentials}
    at = Settings(slug, f"{sandbox.url}/{slug}", keys, {**defaults, **options})
    sandbox.reset()
    for model, payload in mapped(slug, record, options).raw.items():
        (batch,) = batches(at, model, [payload])
        assert vendor.read(_post(sandbox, at, batch), batch) == Delivered()
        view = sandbox.received(vendor=slug)["vendors"][slug]
        assert (view["accepted"], view["rejected"]) == (1, 0)
        assert view["models"][model]["accepted"] == 1
    assert sandbox.violations() == []


def test_every_vendor_of_the_sandbox_is_tried() -> None:
    assert {slug for slug, *_ in WAYS} == set(RELAY_FILE)


def _post(sandbox: Running, at: Settings, batch: Any) -> Answer:
    vendor = get(at.name)
    headers = {"Content-Type": batch.route.content_type}
    headers |= dict(header.split(": ", 1) for header in vendor.headers(at, batch.route))
    query = vendor.query(at, batch.route) if vendor.query else ""
    connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=10)
    try:
        path = f"/{at.name}{batch.route.path}{query}"
        connection.request("POST", path, body(at, batch, time.time()), headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read())
    finally:
        connection.close()
