"""What comes in and how it is taken: ordering keys, messages of a schema, attributes, slices as large as the load, metrics of
a stream that goes on, and dead letters for which no place was named."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import socket
import time
from pathlib import Path
from typing import Any

import fastavro
import pytest
from commands import call, on_terminal
from emulator import Emulator, message
from streamed import QUICK, SHARDS, Streamed, to, told
from streams import START_S, Command, Elsewhere, check_arrived, event, events, until
from surroundings import Mounted
from test_metrics import scrape, values

from transforms.ledger_reader import read_ledger

pytestmark = pytest.mark.xdist_group("streams")


def test_ordering_keys(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Each key's events come in order, also where a kill came between."""
    count, users, slugs = 240, 20, ("traitly", "teak")
    relay = Streamed(tmp_path, sandbox, emulator, to(*slugs))
    relay.topic, relay.subscription = emulator.make(ordered=True)
    keyed = [message(event(number, users), key=f"u{number % users}") for number in range(count)]
    for slug in slugs:
        sandbox.fault(vendor=slug, delay_s=0.005, next=None)
    relay.publish(keyed[: count // 2])
    with relay.start() as command:
        relay.wait(command, slugs[:1], 50)
        time.sleep(random.uniform(0.0, 0.3))
        command.kill()
    relay.left()  # so that what the process had comes at once
    relay.publish(keyed[count // 2 :])
    with relay.start() as command:
        relay.wait(command, slugs, count)
        until(lambda: told(command)[-1]["unacknowledged"] == 0)
        command.stop()
    relay.check(count, slugs, twice_in_requests=SHARDS)


SCHEMA = fastavro.parse_schema({
    "type": "record", "name": "Raw", "fields": [
        {"name": "id", "type": "string"},
        {"name": "user", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "level", "type": "int"},
        {"name": "nick", "type": ["null", "string"]},
    ],
})  # fmt: skip
SOURCE = {
    "schema": "raw.avsc",
    "event": {
        "event_id": "$id",
        "event_type": {"const": "level_up"},
        "event_timestamp": {"time": "$at", "unit": "s"},
        "user_id": "$user",
        "event_data.level": "$level",
        "app_id": "$attributes.title",
    },
}


def of_schema(number: int, encoding: str) -> Any:
    """Event `number` as a topic with a schema gives it."""
    raw = {"id": f"e{number}", "user": f"u{number % 20}", "at": START_S + number, "level": number, "nick": "x"}
    data = json.dumps({**raw, "nick": {"string": "x"}}).encode()
    if encoding == "BINARY":
        file = io.BytesIO()
        fastavro.schemaless_writer(file, SCHEMA, raw)
        data = file.getvalue()
    return message(data, attributes={"googclient_schemaencoding": encoding, "title": "chess"})


def test_messages_of_a_schema_and_metrics_meanwhile(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    (tmp_path / "raw.avsc").write_text(json.dumps(SCHEMA))
    titled = {"map": {"event": {"fields": {"data.title": "$app_id"}}}}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly") | to("parcelvoy", **titled), SOURCE)
    sandbox.fault(vendor="traitly", status=503, next=None)
    relay.publish(of_schema(number, "BINARY" if number % 2 else "JSON") for number in range(100))
    broken = message(b"\x02", attributes={"googclient_schemaencoding": "BINARY"})
    zipped = message(gzip.compress(event(0)), attributes={"googclient_schemaencoding": "JSON"})
    relay.publish([broken, zipped])
    with relay.start("--metrics-port", port) as command:
        relay.wait(command, ("parcelvoy",), 100)
        until(lambda: relay.parked("traitly") and told(command)[-1]["unacknowledged"] == 0)
        found = values(scrape(port))
        expected = {
            "playrelay_records_total": 102,
            "playrelay_undecodable_records_total": 2,
            "playrelay_unacknowledged_messages": 0,
            "playrelay_oldest_unacknowledged_seconds": 0,
            "playrelay_holding": 0,
            "playrelay_items_total parcelvoy delivered": 100,
            "playrelay_items_total traitly delivered": 0,
            "playrelay_parked_items parcelvoy": 0,
            "playrelay_parked_items traitly": 100,
            "playrelay_destination_up parcelvoy": 1,
            "playrelay_destination_up traitly": 0,
        }
        assert {name: found[name] for name in expected} == expected
        assert found["playrelay_slices_total"] >= 1
        assert found["playrelay_parked_bytes traitly"] > 0
        sandbox.clear_faults()
        relay.wait(command, ("traitly",), 100)
        until(lambda: values(scrape(port))["playrelay_destination_up traitly"] == 1)
        assert values(scrape(port))["playrelay_items_total traitly delivered"] == 100
        command.stop()
    assert relay.left() == []
    relay.check_report(102)
    for slug in ("traitly", "parcelvoy"):
        check_arrived(sandbox, slug, range(100))
    assert {one["item"]["data"]["title"] for one in sandbox.items("parcelvoy")} == {"chess"}
    assert len(relay.dead) == 4, "what cannot be decoded, for each destination"


class _Amount:
    """transforms.pull.Amount, written as code for Command's `altered`."""

    def __init__(self, messages: int) -> None:
        self.messages = messages

    def __repr__(self) -> str:
        return f"importlib.import_module('transforms.pull').Amount({self.messages}, 1 << 30)"


def test_slices_are_as_large_as_the_load(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to())
    enough, most, a_pull = 300, 1000, 100
    altered: dict[str, Any] = {
        "pipelines.run_stream.ENOUGH": _Amount(enough),
        "pipelines.run_stream.MOST": _Amount(most),
        "transforms.pull.MESSAGES_A_PULL": a_pull,
    }

    def slices() -> list[int]:
        """Records of each slice so far."""
        with contextlib.closing(read_ledger(str(relay.state))) as ledger:
            return [records for (records,) in ledger.db.execute("SELECT records FROM slices ORDER BY id")]

    with relay.start(altered=altered) as command:
        for turn in range(5):
            relay.publish(events(2, 2 * turn))
            relay.wait(command, ("traitly",), 2 * turn + 2)
        quiet = slices()
        assert sum(quiet) == 10
        assert max(quiet) <= 2, "nothing waits until there is enough"
        relay.publish(events(6000, 10))
        relay.wait(command, ("traitly",), 6010)
        loaded = slices()[len(quiet) :]
        assert sum(loaded) == 6000
        assert max(loaded) < most + a_pull
        assert max(loaded) > enough + a_pull, "what came while the slice before was mapped goes into one"
        assert len(loaded) < 6000 / enough
        relay.wait(command, ("12traits", "parcelvoy", "swrve", "teak"), 6010)
        command.stop()
    relay.check(6010, in_order=False)  # there are no ordering keys, and several pulls at a time


def test_dead_letters_for_which_no_place_is_named(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    relay.letters = relay.state / "dead-letters"
    sandbox.configure("teak", unknown_users=["u3"])
    broken = [b'{"broken %d' % number for number in range(20)]
    nameless = event(200, event_type="")
    relay.publish([*broken, *events(100), nameless, event(201, event_timestamp=-5)])
    with Command(
        "stream", relay.file, "--subscription", relay.subscription, "--state", relay.state, "--report", relay.report_file,
        "--log-format", "json", log=tmp_path / "stream.log", altered=QUICK, **emulator.environment,
    ) as command:  # fmt: skip
        relay.wait(command, ("traitly",), 100)
        until(lambda: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 0)
        assert f"dead letters go to {relay.letters}" in command.output
        assert told(command)[-1]["undecodable"] == 20
        command.stop()
    assert relay.left() == []
    assert len(relay.dead) == 2 * (len(broken) + 1) + 1 + 5
    status = on_terminal("status", "--state", relay.state, columns=100)
    rows = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line}
    assert rows["teak"] == ["122", "0", "96", "26", "0", "0", "0.0"]
    assert rows["traitly"] == ["122", "0", "100", "22", "0", "0", "0.0"]
    assert "20 of the records could not be decoded" in status
    assert f"dead letters: {relay.letters}" in status
    shown = call("dead-letters", relay.letters).output
    assert "48 open dead letters" in shown
    # Those of Teak's go out once it knows the user, and stand beside the others as replayed.
    sandbox.configure("teak", unknown_users=[])
    replayed = call("replay", relay.file, "--from", relay.letters, "--reason", "could not be found")
    assert replayed.exit_code == 0, replayed.output
    assert sorted(sandbox.numbers("teak")) == [*range(100), 201]
    assert "43 open dead letters" in call("dead-letters", relay.letters).output


def test_a_full_disk_under_the_dead_letters(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("teak"))
    relay.publish([b"{broken" + b"x" * 20_000] * 100)
    with Mounted(relay.letters, "1m") as disk:
        with relay.start(before=disk.before) as command:
            assert command.wait() == 2, command.output
        assert "Traceback" not in command.output
        assert command.output.splitlines()[-1] == (
            f"{relay.letters}/rejected-teak-000001.jsonl: No space left on device; dead letters are kept there: make room, or "
            "name another place for them"
        )
        assert len(relay.left()) == 100
