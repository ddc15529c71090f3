"""The JSON Schema for editors says what the loader says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipelines import relay_file, relay_schema
from transforms import located, vendors
from transforms.located import Problems
from transforms.mapping.tree import MODEL_KEYS

HEAD = "source: {preset: canonical}\ndestinations:\n"
TEAK = "credentials: {game_id: a, secret_key: env:X}"


def editor() -> Any:
    schema = json.loads(Path(relay_schema.PATH).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = Path(relay_schema.PATH).read_text(encoding="utf-8")
    remedy = "keys or vendors changed; run: python -m pipelines.relay_schema > pipelines/relay_file.schema.json"
    assert shipped == relay_schema.text(), remedy


GOOD = [
    HEAD + f"  teak: {{{TEAK}}}",
    HEAD + f"  mine: {{vendor: teak, {TEAK}, send: single}}",
    "x-a: 1\nallow_literal_secrets: true\n" + HEAD + f"  teak: {{{TEAK}, batch: {{by: user, items: 100, bytes: 1MB, window: 1m, age: 5s}}}}",
    HEAD + f"  teak: {{{TEAK}, rate: 6000/m, retry: {{for: 1h30m}}, timeout: {{connect: 1s, total: 5s}}, shards: 8}}",
    HEAD + f"  teak: {{{TEAK}, retry: {{for: 0}}, rate: unlimited, models: [event], gzip: false}}",
    HEAD + f"  teak: {{{TEAK}, map: {{event: {{when: {{event_type: login}}, fields: {{user_id: $user_id, value: null}}}}}}}}",
    HEAD + f"  teak: {{{TEAK}, map: {{event: {{drop: [{{when: {{event_type: a}}, reason: b}}], reject: [{{when: {{event_type: c}}, reason: d}}]}}}}}}",
    HEAD + "  12traits: {credentials: {api_key: env:X}, models: [playfab], map: {playfab: {fields: $record}}}",
    HEAD + f"  teak: {{{TEAK}, map: {{event: off}}, url: http://127.0.0.1:9000/teak}}",
    HEAD + "  swrve: {credentials: {app_id: 123, identity_secret_key: env:X}, region: eu, user_initiated: false, send: single}",
    HEAD + "  parcelvoy: {credentials: {api_key: env:X}, gzip: true, batch: {items: 5000}, models: [event, identify]}",
    "source: {preset: canonical, event: {user_id: $id}, format: csv, delimiter: tab, max_record: 1MiB}\ndestinations:\n  teak: {" + TEAK + "}",
]  # fmt: skip

BAD = [
    "source: {event: {user_id: $id}}\ndestinations:\n  teak: {" + TEAK + "}",
    "source: {preset: canonical}",
    "source: {format: json}\ndestinations:\n  teak: {" + TEAK + "}",
    "source: {preset: canon}\ndestinations:\n  teak: {" + TEAK + "}",
    "more: 1\n" + HEAD + f"  teak: {{{TEAK}}}",
    "source: {preset: canonical}\ndestinations: {}",
    HEAD + f"  mine: {{{TEAK}}}",
    HEAD + f"  mine: {{vendor: teek, {TEAK}}}",
    HEAD + f"  teak: {{vendor: swrve, {TEAK}}}",
    HEAD + f"  mine: {{vendor: swrve, {TEAK}}}",
    HEAD + "  teak: {credentials: {game_id: a}}",
    HEAD + "  teak: {credentials: {game_id: a, secret_key: env:X, more: env:X}}",
    HEAD + "  teak: {}",
    HEAD + f"  a b: {{vendor: teak, {TEAK}}}",
    HEAD + f"  teak: {{{TEAK}, batch: {{items: 101}}}}",
    HEAD + f"  teak: {{{TEAK}, batch: {{size: 1}}}}",
    HEAD + f"  teak: {{{TEAK}, batch: {{window: 60}}}}",
    HEAD + f"  teak: {{{TEAK}, batch: {{window: 60 parsecs}}}}",
    HEAD + f"  teak: {{{TEAK}, rate: 100}}",
    HEAD + f"  teak: {{{TEAK}, gzip: true}}",
    HEAD + f"  teak: {{{TEAK}, models: [purchase]}}",
    HEAD + f"  teak: {{{TEAK}, models: []}}",
    HEAD + f"  teak: {{{TEAK}, send: never}}",
    HEAD + f"  teak: {{{TEAK}, url: 'https://x/?q=1'}}",
    HEAD + "  swrve: {credentials: {api_key: env:X}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_editor_and_loader_accept(text: str) -> None:
    relay_file.loads(text.encode(), "relay.yaml")
    assert [error.message for error in editor().iter_errors(located.parse(text, "relay.yaml").plain())] == []


@pytest.mark.parametrize("text", BAD)
def test_editor_and_loader_refuse(text: str) -> None:
    with pytest.raises(Problems):
        relay_file.loads(text.encode(), "relay.yaml")
    assert not editor().is_valid(located.parse(text, "relay.yaml").plain())


def test_every_key_of_a_models_mapping_is_described() -> None:
    definitions = json.loads(Path(relay_schema.PATH).read_text(encoding="utf-8"))["definitions"]
    for definition in definitions.values():
        for model in definition["properties"]["map"]["properties"].values():
            assert tuple(model["anyOf"][1]["properties"]) == MODEL_KEYS


def test_every_vendor_model_option_and_credential_is_described() -> None:
    definitions = json.loads(Path(relay_schema.PATH).read_text(encoding="utf-8"))["definitions"]
    for slug in vendors.slugs():
        vendor, properties = vendors.get(slug), definitions[f"vendor-{slug}"]["properties"]
        assert list(properties["credentials"]["properties"]) == [credential.name for credential in vendor.credentials]
        assert set(vendor.models) <= set(properties["map"]["properties"])
        for option in vendor.options:
            assert properties[option.name]["description"] == option.doc
