"""Every shipped schema: an Avro schema that fastavro takes, told in words, with sourced rules, fitting its payloads."""

from __future__ import annotations

import importlib.util
import json
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import fastavro.validation
import msgspec
import pytest
from schema_golden import GOLDEN

import schemas
from schemas import Schema
from schemas.loader import FOLDER

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
RULES = ("minLength", "maxLength", "pattern", "minimum", "exclusiveMinimum", "maximum", "oneOf", "maxPairs")
KNOWN = {"name", "type", "default", "doc", "json", "source", *RULES}

MODELS = {
    "twelve_traits": "action kpi player_login purchase virtual_purchase level_up item social_dynamics playfab",
    "traitly": "event customer",
    "parcelvoy": "alias identify device event",
    "swrve": "session_start session_end event purchase iap currency_given user",
    "teak": "event",
}

EACH = pytest.mark.parametrize("name", schemas.names())
GOOD = [(name, payload) for name, golden in GOLDEN.items() for payload in golden.good]
BAD = [(name, payload, words) for name, golden in GOLDEN.items() for payload, words in golden.bad]


def records(avro: Any) -> Iterator[dict[str, Any]]:
    """All record definitions in an Avro schema."""
    if isinstance(avro, list):
        for branch in avro:
            yield from records(branch)
    elif isinstance(avro, dict):
        if avro.get("type") == "record":
            yield avro
            for field in avro["fields"]:
                yield from records(field["type"])
        else:
            for key in ("type", "items", "values"):
                yield from records(avro.get(key))


def faults(schema: Schema, payload: Mapping[str, Any]) -> list[str]:
    """What is wrong with a payload: types, rules, presence."""
    found = [rule.fault(payload) for rule in schema.presence]
    try:
        msgspec.convert(payload, schemas.struct_type(schema, forbid_unknown=True))
    except msgspec.ValidationError as error:
        found.append(str(error))
    return [fault for fault in found if fault]


def test_every_model_has_its_schema() -> None:
    models = {f"{vendor}/{model}" for vendor, listed in MODELS.items() for model in listed.split()}
    single = {f"swrve/single_{model}" for model in MODELS["swrve"].split()}
    presets = {"telemetry/event", "telemetry/aws_game_analytics", "telemetry/playfab"}
    assert set(schemas.names()) == models | single | presets | {"swrve/identity"}
    assert set(GOLDEN) == set(schemas.names())


@EACH
def test_fastavro_takes_it(name: str) -> None:
    fastavro.parse_schema(json.loads((FOLDER / f"{name}.avsc").read_text(encoding="utf-8")))


@EACH
def test_is_told_in_words_and_every_rule_has_a_source(name: str) -> None:
    for record in records(schemas.load(name).avro):
        assert record["doc"]
        for rule in record.get("presence", ()):
            assert rule["source"]
        for field in record["fields"]:
            assert set(field) <= KNOWN, f"{field['name']}: misspelt attribute"
            assert field["doc"].endswith("."), field["name"]
            ruled = any(rule in field for rule in RULES)
            assert bool(field.get("source")) == ruled, field["name"]


@EACH
def test_required_fields_stand_first_so_that_structs_are_made_by_position(name: str) -> None:
    pending = [schemas.load(name).type]
    while pending:
        type = pending.pop()
        pending += [inner for inner in (type.items, *(field.type for field in (type.fields or {}).values())) if inner]
        if type.fields:
            required = [field.required for field in type.fields.values()]
            assert required == sorted(required, reverse=True)


@pytest.mark.parametrize(("name", "payload"), GOOD)
def test_good_payload(name: str, payload: dict[str, Any]) -> None:
    schema = schemas.load(name)
    parsed = fastavro.parse_schema(schema.avro)
    assert fastavro.validation.validate(payload, parsed, strict=True)
    assert faults(schema, payload) == []
    struct = schemas.struct_type(schema)
    encoded = msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(payload), type=struct))
    assert json.loads(encoded) == payload
    # Rules must not depend on the order of fields, nor nulls count as values.
    nulls = {field.name: None for field in schema.fields.values() if "null" in field.type.kinds}
    assert json.loads(msgspec.json.encode(msgspec.convert({**nulls, **payload}, struct))) == payload


@pytest.mark.parametrize(("name", "payload", "words"), BAD)
def test_bad_payload(name: str, payload: dict[str, Any], words: str) -> None:
    found = faults(schemas.load(name), payload)
    assert len(found) == 1
    assert words in found[0]


@EACH
def test_every_rule_of_presence_is_shown_to_refuse(name: str) -> None:
    schema = schemas.load(name)
    refused = {rule for payload, _ in GOLDEN[name].bad for rule in schema.presence if rule.fault(payload)}
    assert refused == set(schema.presence)


def test_every_time_zone_name_fits_and_abbreviations_do_not() -> None:
    field = schemas.load("parcelvoy/identify").fields["timezone"]
    names = zoneinfo.available_timezones() - {"Factory", "localtime", "posixrules"}
    assert len(names) > 400
    assert [name for name in names if schemas.fits(field.type, name, field.rules)] == []
    for wrong in ("CEST", "PDT", "GMT+2", "Berlin", "europe/berlin", "Europe/", ""):
        assert schemas.fits(field.type, wrong, field.rules)


def test_constants_are_always_in_the_payload() -> None:
    struct = schemas.struct_type(schemas.load("swrve/session_end"))
    assert msgspec.json.encode(struct(time=1327611741945)) == b'{"time":1327611741945,"type":"session_end"}'


def test_event_times_are_longs_in_milliseconds() -> None:
    event = schemas.load("telemetry/event")
    assert event.fields["event_timestamp"].type.logical == "timestamp-millis"
    assert event.fields["last_login_timestamp"].type.logical == "timestamp-millis"
    assert event.fields["user_id"].type.kinds == {"null", "string", "long"}
    assert event.fields["params"].type.items is not None
    assert event.fields["params"].type.items.kinds == {"json"}


def test_all_aws_records_decode() -> None:
    decode = msgspec.json.Decoder(schemas.struct_type(schemas.load("telemetry/aws_game_analytics"))).decode
    lines = (ROOT / "templates/demo/aws_game_analytics.ndjson").read_bytes().splitlines()
    assert len(lines) == 5000
    for line in lines:
        assert msgspec.json.decode(msgspec.json.encode(decode(line))) == msgspec.json.decode(line)


def test_playfab_samples_decode() -> None:
    struct = schemas.struct_type(schemas.load("telemetry/playfab"))
    samples = [one["sample"] for one in json.loads((DATA / "playfab_samples.json").read_text()) if one["parsed"]]
    assert len(samples) == 5
    for sample in samples:
        record = msgspec.to_builtins(msgspec.convert(sample, struct))
        assert record["EventName"] == sample["EventName"]
        for key in ("PlayFabId", "Body", "CustomTags", "EntityId", "Language", "EntityType", "EventId"):
            assert record.get(key) == sample.get(key)
    lineage = msgspec.to_builtins(msgspec.convert(samples[3], struct))["EntityLineage"]
    assert lineage["TitlePlayerAccountId"] == "36163DA3783B0C8A"


def test_made_up_telemetry_decodes() -> None:
    decode = msgspec.json.Decoder(schemas.struct_type(schemas.load("telemetry/event"))).decode
    lines = (DATA / "made_events.ndjson").read_bytes().splitlines()
    assert len(lines) == 200
    for line in lines:
        assert msgspec.json.decode(msgspec.json.encode(decode(line))) == msgspec.json.decode(line)


def test_schemas_are_found_from_the_package() -> None:
    spec = importlib.util.find_spec("schemas")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent == FOLDER
