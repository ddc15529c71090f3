"""The presets over what their sources really write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import schemas
from transforms import presets
from transforms.located import parse
from transforms.mapping import MapTally, ModelSpec, compile_mapping

CANONICAL = schemas.load("telemetry/event")
ROOT = Path(__file__).parents[2]


def canonical_events(name: str, lines: list[bytes]) -> tuple[list[Any], MapTally]:
    """The canonical events that a preset makes of records: a model with all of the event's fields takes them."""
    preset = presets.get(name)
    schema = schemas.load(preset.schema)
    paths = []
    for field in CANONICAL.fields.values():
        if "record" in field.type.kinds and field.type.fields is not None:
            paths += [f"{field.name}.{inner}" for inner in field.type.fields]
        else:
            paths.append(field.name)
    mapping = (
        "event: {fields: {" + ", ".join(f"{path}: ${path}" for path in paths if path != "event_data.rewards") + "}}"
    )
    mapper = compile_mapping(
        source_schema=schema,
        hop_one=preset.hop_one,
        hop_one_override=None,
        canonical=CANONICAL,
        models=[ModelSpec("event", CANONICAL)],
        hop_two=parse(mapping, "all.yaml"),
        hop_two_override=None,
        shards=1,
    )
    struct = schemas.struct_type(schema)
    tally, shards = MapTally(), [[]]  # type: tuple[MapTally, list[list[Any]]]
    mapper.map_chunk([msgspec.json.decode(line, type=struct) for line in lines], None, 0, shards, tally)
    return [msgspec.json.decode(item[0]) for item in shards[0]], tally


def test_names() -> None:
    assert presets.names() == ("canonical", "aws-game-analytics", "playfab")
    assert [presets.get(name).name for name in presets.names()] == list(presets.names())
    assert presets.get("canonical") == ("canonical", "telemetry/event", None, ())
    with pytest.raises(KeyError):
        presets.get("aws")


AWS_TYPES = {
    "view_item": 909, "level_end": 804, "login": 472, "level_start": 413, "logout": 307, "user_knockout": 243, "sign_up": 219,
    "spend_virtual_currency": 210, "user_sentiment": 204, "user_report": 182, "match_end": 153, "match_start": 152,
    "level_up": 146, "matchmaking_start": 127, "matchmaking_complete": 121, "purchase": 110, "matchmaking_failed": 48,
}  # fmt: skip


def test_all_of_awss_sample() -> None:
    lines = (ROOT / "templates/demo/aws_game_analytics.ndjson").read_bytes().splitlines()
    events, tally = canonical_events("aws-game-analytics", lines)
    assert (len(lines), len(events), tally.rejected, tally.filtered) == (5000, 5000, [], {})
    records = [json.loads(line)["event"] for line in lines]
    assert all(
        event["event_timestamp"] == record["event_timestamp"] * 1000
        for event, record in zip(events, records, strict=True)
    )
    assert all(
        event["event_id"] == event["user_id"] == record["event_id"]
        for event, record in zip(events, records, strict=True)
    )
    types: dict[str, int] = {}
    for event in events:
        types[event["event_type"]] = types.get(event["event_type"], 0) + 1
    tutorial = {name: types.pop(name) for name in ("tutorial_begin", "tutorial_step", "tutorial_complete")}
    assert types == AWS_TYPES
    assert sum(tutorial.values()) == 180
    assert all(event["params"] == record["event_data"] for event, record in zip(events, records, strict=True))
    countries = {event["country"] for event in events if "country" in event}
    assert countries == {"AU", "BR", "CA", "FR", "DE", "JP", "SG", "KR", "GB", "US"}
    assert {event["event_data"]["currency"] for event in events if event["event_type"] == "purchase"} == {
        "EUR",
        "CNY",
        "USD",
        "JPY",
    }
    for event in events:
        data = event.get("event_data", {})
        match event["event_type"]:
            case "purchase":
                assert data.keys() >= {"amount", "currency", "quantity", "item_id", "product_id", "transaction_id"}
            case "spend_virtual_currency":
                assert data["currency"] == "coins"
                assert data["amount"] == event["params"]["lootbox_cost"]
                assert data["item_id"] == event["params"]["lootbox_id"]
            case "level_up":
                assert f"{data['level']}_" == data["level_name"][:2]
            case "level_start" | "level_end":
                assert str(data["level"]) == data["level_name"] == event["params"]["level_id"]
            case "login":
                assert event["last_login_timestamp"] == event["params"]["last_login_time"] * 1000
    assert {event["event_data"]["success"] for event in events if event["event_type"] == "level_end"} == {True, False}


def aws(event_type: str, **data: Any) -> bytes:
    event = {
        "event_id": "e",
        "event_type": event_type,
        "event_name": event_type,
        "event_timestamp": 1.5,
        "event_data": data,
    }
    return json.dumps({"event": event, "application_id": "app"}).encode()


def test_aws_players_levels_and_countries() -> None:
    lines = [
        aws("x", player_id="p", country_id="NO", level_id=3),
        aws("x", playerId=7, anonymous_id="a", country_id="ATLANTIS", level_id="forest"),
        aws("x", user_id="u", player_id="p", country_id="NORWAY"),
    ]
    events, tally = canonical_events("aws-game-analytics", lines)
    assert not tally.rejected
    assert [event["user_id"] for event in events] == ["p", 7, "u"]
    assert [event.get("country") for event in events] == ["NO", None, "NO"]
    assert [event.get("event_data") for event in events] == [
        {"level": 3, "level_name": "3"},
        {"level_name": "forest"},
        None,
    ]
    assert [event["event_timestamp"] for event in events] == [1500] * 3


def test_playfabs_documented_samples() -> None:
    samples = json.loads((ROOT / "tests/data/playfab_samples.json").read_text())
    lines = [json.dumps(sample["sample"]).encode() for sample in samples if sample["parsed"]]
    events, tally = canonical_events("playfab", lines)
    assert [(event["event_type"], event["user_id"], event["event_timestamp"]) for event in events] == [
        ("player_defeated_enemy", "{{PlayFabId}}", 1457308800000),
        ("sent_email", "64647AA368D6448E", 1509096916294),
        ("sent_email", "64647AA368D6448E", 1509148438871),
        ("entity_language_updated", "36163DA3783B0C8A", 1535136587875),
    ]
    assert tally.filtered == {"an event of the title, not of a player": 1}


def playfab(name: str, **more: Any) -> bytes:
    common = {
        "EventName": name, "EventNamespace": "com.playfab", "EventId": "e1", "Source": "PlayFab", "EntityType": "player",
        "EntityId": "P1", "TitleId": "T", "Timestamp": "2024-01-02T03:04:05.6789012Z",
    }  # fmt: skip
    return json.dumps(common | more).encode()


def test_playfabs_events() -> None:
    lines = [
        playfab("player_logged_in", Platform="Steam", Location={"CountryCode": "DE", "City": "Ulm"}),
        playfab("player_created"),
        playfab("player_realmoney_purchase", OrderTotal=499, OrderId="o1", TransactionId="t1"),
        playfab(
            "player_vc_item_purchased", CurrencyCode="GO", UnitPrice=5, Quantity=3, ItemId="sword", PurchaseId="p1"
        ),
        playfab("guild_disbanded", EntityType="com.mygame.guild"),
    ]
    events, tally = canonical_events("playfab", lines)
    assert not tally.rejected
    assert [event["event_type"] for event in events] == ["login", "sign_up", "purchase", "spend_virtual_currency"]
    assert [event["event_timestamp"] for event in events] == [1704164645678] * 4
    login, _, purchase, spent = events
    assert (login["country"], login["city"], login["event_data"]["method"]) == ("DE", "Ulm", "Steam")
    assert purchase["event_data"] == {"amount": 4.99, "currency": "USD", "item_id": "o1", "transaction_id": "t1"}
    assert spent["event_data"] == {
        "amount": 15, "currency": "GO", "price": 5, "quantity": 3, "item_id": "sword", "transaction_id": "p1"
    }  # fmt: skip
    assert tally.filtered == {"an event of no player": 1}
