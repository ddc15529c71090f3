"""The shipped mappings compile as they are, for every preset, and take canonical events where they belong."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from mapping_cases import CANONICAL, TIME, event

import schemas
from transforms import located, presets, vendors
from transforms.mapping import Mapper, MapTally, ModelSpec, compile_mapping

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "12traits": [{"unlinked_word": word} for word in ("unlinked", "unllinked")],
    "swrve": [
        {
            "send": send,
            "illegal_names": names,
            "region": "us",
            "user_ids": "swrve",
            "app_version": None,
            "user_initiated": True,
        }
        for send, names in itertools.product(("batch", "single"), ("replace", "reject"))
    ],
}
CASES = [
    (vendor, options, preset)
    for vendor in vendors.slugs()
    for options in OPTIONS.get(vendor, [{}])
    for preset in presets.names()
]


def shipped(vendor: str, options: dict[str, Any], preset: str = "canonical", access: str = "attribute") -> Mapper:
    source = presets.get(preset)
    models = vendors.get(vendor).models_under(options)
    return compile_mapping(
        source_schema=schemas.load(source.schema),
        hop_one=source.hop_one,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec(name, schemas.load(model.schema), model.passthrough) for name, model in models.items()],
        hop_two=located.read(vendors.mapping_file(vendor, options)),
        hop_two_override=None,
        shards=4,
        options=options,
        access=access,
    )


@pytest.mark.parametrize(("vendor", "options", "preset"), CASES)
@pytest.mark.parametrize("access", ["attribute", "item"])
def test_compiles(vendor: str, options: dict[str, Any], preset: str, access: str) -> None:
    mapper = shipped(vendor, options, preset, access)
    assert set(mapper.models) == set(vendors.get(vendor).models_under(options))
    assert compile(mapper.code, "explained", "exec")


def relayed(vendor: str, *records: dict[str, Any], **options: Any) -> tuple[list[tuple[str, Any]], MapTally]:
    """(model, payload) of each item, each payload checked against its schema by decoding."""
    mapper = shipped(vendor, options or OPTIONS.get(vendor, [{}])[0])
    struct = schemas.struct_type(CANONICAL)
    raws = [msgspec.json.encode(record) for record in records]
    tally = MapTally()
    shards: list[list[Any]] = [[] for _ in range(4)]
    mapper.map_chunk([msgspec.json.decode(raw, type=struct) for raw in raws], raws, 0, shards, tally)
    assert tally.records == len(records) == tally.touched + sum(tally.filtered.values())
    models = vendors.get(vendor).models_under(options or OPTIONS.get(vendor, [{}])[0])
    found = []
    for item in sorted((item for shard in shards for item in shard), key=lambda item: item[4]):
        name = mapper.models[item[1]]
        if not models[name].passthrough:
            msgspec.json.decode(
                item[0], type=schemas.struct_type(schemas.load(models[name].schema), forbid_unknown=True)
            )
        found.append((name, msgspec.json.decode(item[0])))
    return found, tally


LEVEL_UP = event("level_up", country="DE", platform="ios", event_data={"level": 7, "currency": "gold", "amount": 5})
PURCHASE = event(
    "purchase",
    country="Germany",
    event_data={
        "currency": "EUR",
        "amount": 9.98,
        "quantity": 2,
        "price": 4.99,
        "item_id": "sword",
        "product_id": "p.sword",
    },
    params={"odd": [1], "n": None, "f": 1.5},
)


def test_teak() -> None:
    found, tally = relayed("teak", LEVEL_UP, PURCHASE, event("identify"), event("login", user_id=None))
    assert found == [
        (
            "event",
            {
                "user_id": "u1",
                "action_type": "level_up",
                "object_type": "level",
                "object_instance_id": "7",
                "country_code": "DE",
            },
        ),
        (
            "event",
            {
                "user_id": "u1",
                "action_type": "purchase",
                "object_type": "item",
                "object_instance_id": "sword",
                "value": 9.98,
                "sum_of_squares": 9.98 * 9.98,
            },
        ),
    ]
    assert tally.filtered == {"no model takes identify": 1, "no user_id": 1}


def test_twelve_traits() -> None:
    social = event("social", event_data={"target_user_id": "u2", "connection": "unlinked", "interaction": "friend"})
    custom = event("boss", params={"b": True, "n": None, "l": [1]}, event_data={"level": 3})
    found, _ = relayed("12traits", LEVEL_UP, PURCHASE, social, custom, unlinked_word="unllinked")
    stamp = "2025-11-24 16:00:00"
    payloads = [one for one in found if one[0] != "playfab"]
    assert payloads[0] == ("level_up", {"timestamp": stamp, "player_id": "u1", "level": 7})
    assert payloads[1] == (
        "purchase",
        {"timestamp": stamp, "player_id": "u1", "item_id": "sword", "count": 2, "price": 9.98},
    )
    assert payloads[2][1]["connection"] == "unllinked"
    assert payloads[3] == (
        "action",
        {
            "timestamp": stamp,
            "player_id": "u1",
            "action_id": "boss",
            "action_name": "boss",
            "action_params": [
                {"key": "level", "value": "3"},
                {"key": "b", "value": "true"},
                {"key": "l", "value": "[1]"},
            ],
        },
    )
    assert [model for model, _ in found].count("playfab") == 4


def test_swrve() -> None:
    spend = event(
        "spend_virtual_currency", event_data={"currency": "gold", "amount": 10, "quantity": 3, "item_id": "x"}
    )
    mail = event("login", user_id="a@b.de")
    found, tally = relayed("swrve", LEVEL_UP, PURCHASE, spend, mail, event("odd name!", params={"b": True, "i": 3}))
    assert [model for model, _ in found] == ["event", "iap", "event"]
    assert found[0][1]["time"] == TIME
    assert (found[1][1]["local_cost"], found[1][1]["quantity"], found[1][1]["app_store"]) == (4.99, 2, "unknown_store")
    assert found[2][1] == {"type": "event", "time": TIME, "name": "odd_name_", "payload": {"b": "true", "i": 3}}
    assert [(one.ref, one.model) for one in tally.rejected] == [(2, "purchase"), (3, "session_start")]


def test_traitly_and_parcelvoy() -> None:
    found, _ = relayed(
        "traitly", LEVEL_UP, event("identify", name="N", email="e@x.de", plan="free", register_date="2024-02-03")
    )
    assert [model for model, _ in found] == ["event", "customer"]
    assert found[0][1] == {"customer_id": "u1", "name": "level_up", "created_at": TIME // 1000}
    assert found[1][1]["created_at"] == 1706918400
    found, _ = relayed("parcelvoy", PURCHASE, event("identify", email="e@x.de"), event("alias", previous_id=5))
    assert [model for model, _ in found] == ["event", "identify", "alias"]
    assert found[0][1]["data"]["event_timestamp"] == "2025-11-24T16:00:00.000Z"
    assert found[0][1]["data"]["odd"] == [1]
    assert "n" not in found[0][1]["data"]
    assert found[2][1] == {"anonymous_id": "5", "external_id": "u1"}
