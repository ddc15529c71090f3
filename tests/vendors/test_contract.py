"""What holds for every vendor in the registry."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from vendor_requests import NOW, SECRETS, batches, body, combinations, settings

import schemas
from transforms.located import parse
from transforms.vendors import get, mapping_file, slugs
from transforms.vendors.base import Answer, Delivered, Partial, Reject, Retry, Route, Split, Stop

COMBINATIONS = list(combinations())
EACH = pytest.mark.parametrize(
    ("slug", "options", "credentials"),
    COMBINATIONS,
    ids=[f"{slug}-{'-'.join(str(v) for v in options.values())}-{'-'.join(c)}" for slug, options, c in COMBINATIONS],
)


def test_every_vendor_has_a_combination_that_works() -> None:
    assert {slug for slug, _, _ in COMBINATIONS} == set(slugs())


@pytest.mark.parametrize("slug", slugs())
def test_describes_itself(slug: str) -> None:
    vendor = get(slug)
    assert vendor.slug == slug
    assert vendor.title
    assert vendor.doc
    assert all(credential.doc for credential in vendor.credentials)
    names = {credential.name for credential in vendor.credentials}
    assert vendor.credential_sets
    assert all(given and given <= names for given in vendor.credential_sets)
    assert names == set().union(*vendor.credential_sets)
    assert any(credential.secret for credential in vendor.credentials)
    for option in vendor.options:
        assert option.doc
        assert not option.choices or option.default is None or option.default in option.choices
    assert vendor.rate is None or vendor.rate_source


@EACH
def test_models_have_a_schema_a_route_with_sourced_limits_and_a_mapping(
    slug: str, options: dict[str, Any], credentials: tuple[str, ...]
) -> None:
    vendor = get(slug)
    models = vendor.models_under(options)
    assert list(models) == list(vendor.models), "options change schemas and routes, never the models"
    routes: dict[str, Route] = {}
    for model in models.values():
        assert schemas.load(model.schema).type.fields is not None
        assert model.doc
        limits = model.route.limits
        assert limits.items >= 1
        assert limits.bytes >= 1
        assert limits.source
        assert model.route.path.startswith("/")
        assert "?" not in model.route.path
        assert routes.setdefault(model.route.name, model.route) == model.route, "a route's name is its own"
    file = mapping_file(slug, options)
    mapping = parse(file.read_text(), file.name).value
    assert isinstance(mapping, dict)
    assert set(mapping) == set(models)


@EACH
def test_has_a_base_url_of_https(slug: str, options: dict[str, Any], credentials: tuple[str, ...]) -> None:
    url = get(slug).base_url(settings(slug, credentials).credentials, options)
    assert url.startswith("https://")
    assert not url.endswith("/")
    assert not any(secret in url for secret in SECRETS.values())


@EACH
@examples(max_examples=30, deadline=None)
@given(
    user=st.text(max_size=30).filter(lambda text: text.isprintable()),
    now=st.floats(1e9, 9_999_999_999),
)
def test_a_frame_has_the_same_length_whenever_it_is_made(
    slug: str, options: dict[str, Any], credentials: tuple[str, ...], user: str, now: float
) -> None:
    vendor = get(slug)
    at = settings(slug, credentials, **options)
    for model in vendor.models_under(options).values():
        one, other = (vendor.frame(at, model.route, user, time) for time in (NOW, now))
        assert (len(one.prefix), len(one.suffix)) == (len(other.prefix), len(other.suffix))


@EACH
def test_a_body_holds_all_its_items_in_order(slug: str, options: dict[str, Any], credentials: tuple[str, ...]) -> None:
    vendor = get(slug)
    at = settings(slug, credentials, **options)
    marks = ['a "quoted" ü', "b&c=d", "e,}]"]
    for name, model in vendor.models_under(options).items():
        payloads = [json.dumps({"mark": mark}).encode() for mark in marks]
        packed = batches(at, name, payloads, users=['u "1"'] * 3)
        assert [len(batch.items) for batch in packed] == ([1, 1, 1] if model.route.limits.items == 1 else [3])
        found: list[str] = []
        for batch in packed:
            found += _marks(body(at, batch), model.route.content_type)
        assert found == marks


def _marks(data: bytes, content_type: str) -> list[str]:
    if content_type == "application/x-www-form-urlencoded":
        return [value for key, value in parse_qsl(data.decode(), strict_parsing=True) if key == "mark"]
    assert content_type == "application/json"
    return [one["mark"] for one in _objects(json.loads(data)) if "mark" in one]


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(found for inner in value.values() for found in _objects(inner))]
    return [found for inner in value for found in _objects(inner)] if isinstance(value, list) else []


@EACH
def test_secrets_are_in_the_request_alone(slug: str, options: dict[str, Any], credentials: tuple[str, ...]) -> None:
    vendor = get(slug)
    at = settings(slug, credentials, **options)
    secrets = [SECRETS[name] for name in credentials if name in SECRETS]
    for name, model in vendor.models_under(options).items():
        (batch,) = batches(at, name, [b'{"mark":1}'])
        query = vendor.query(at, model.route) if vendor.query else ""
        sent = body(at, batch) + query.encode() + "".join(vendor.headers(at, model.route)).encode()
        token = b"session_token" in sent  # the key is hashed into it
        assert token or any(secret.encode() in sent for secret in secrets), "a request proves who sends it"
        told = [repr(at), repr(vendor), repr(model)]
        statuses = (200, 201, 204, 400, 401, 403, 404, 409, 410, 413, 422, 429, 500, 503)
        told += [repr(vendor.read(Answer(status, b"{}"), batch)) for status in statuses]
        assert not [text for text in told for secret in secrets if secret in text]


json_answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "status",
                    "results",
                    "user_id",
                    "errors",
                    "code",
                    "data",
                    "success",
                    "message",
                    "error",
                    "nonexistent_external_user_ids",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@EACH
@examples(max_examples=30, deadline=None)
@given(
    status=st.integers(100, 599) | st.sampled_from([200, 400, 403, 404, 429]),
    answer=st.binary(max_size=60) | json_answers.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 50_000),
    count=st.integers(1, 3),
)
def test_no_answer_is_a_surprise(
    slug: str, options: dict[str, Any], credentials: tuple[str, ...], status: int, answer: bytes, count: int
) -> None:
    vendor = get(slug)
    at = settings(slug, credentials, **options)
    for name in vendor.models_under(options):
        payloads = [b'{"user_id":"u1","mark":1}'] * count
        for batch in batches(at, name, payloads):
            verdict = vendor.read(Answer(status, answer), batch)
            assert isinstance(verdict, Delivered | Partial | Retry | Split | Reject | Stop)
            if isinstance(verdict, Partial):
                told = [*verdict.rejected, *verdict.again]
                assert len(set(told)) == len(told)
                assert set(told) <= set(range(len(batch.items)))
                assert all(verdict.rejected.values())
            elif not isinstance(verdict, Delivered):
                assert verdict.reason
            assert not isinstance(verdict, Delivered) or 200 <= status < 300


@EACH
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_by_itself_is_sent_again(
    slug: str, options: dict[str, Any], credentials: tuple[str, ...], status: int
) -> None:
    at = settings(slug, credentials, **options)
    for name in get(slug).models_under(options):
        (batch,) = batches(at, name, [b'{"user_id":"u1"}'])
        assert isinstance(get(slug).read(Answer(status, b""), batch), Retry)


@EACH
@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 410])
def test_a_wrong_configuration_stops_the_destination_and_loses_nothing(
    slug: str, options: dict[str, Any], credentials: tuple[str, ...], status: int
) -> None:
    vendor = get(slug)
    at = settings(slug, credentials, **options)
    keys = {"url", "credentials"} | {f"credentials.{credential.name}" for credential in vendor.credentials}
    for name in vendor.models_under(options):
        (batch,) = batches(at, name, [b'{"user_id":"u1"}'])
        verdict = vendor.read(Answer(status, b"<html>no</html>"), batch)
        assert isinstance(verdict, Stop)
        assert verdict.key in keys
        assert str(status) in verdict.reason
