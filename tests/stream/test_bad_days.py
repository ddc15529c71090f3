"""Days on which several things go wrong with a stream at once, or one after the other."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import pytest
from emulator import Emulator, message
from streamed import PROBES, SHARDS, Streamed, to, told
from streams import VENDORS, Elsewhere, check_arrived, event, events, until
from surroundings import Pipe

pytestmark = pytest.mark.xdist_group("streams")


def test_a_vendor_that_is_back_when_the_stream_is_started_again(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    """It was parked when the first process ended, for a reason that a status names in one piece."""
    relay = Streamed(tmp_path, sandbox, emulator, to("parcelvoy", "teak", "traitly"))
    sandbox.fault(vendor="teak", status=503, next=None)
    sandbox.fault(vendor="parcelvoy", status=401, next=None)
    relay.publish(events(100))
    with relay.start() as command:
        until(lambda: relay.parked("teak") and relay.parked("parcelvoy") and relay.waiting("teak") == 100)
        relay.wait(command, ("traitly",), 100)
        command.stop()
    status = relay.status()
    assert re.search(r"^teak is parked for .*: HTTP 503.*", status, re.MULTILINE), status
    named = r"^parcelvoy is parked for .*: HTTP 401.*; check destinations\.parcelvoy\.credentials\.api_key in the relay file$"
    assert re.search(named, status, re.MULTILINE), status
    sandbox.clear_faults()
    sandbox.fault(vendor="teak", status=503, next=None)
    asked = sandbox.received(vendor="teak")["vendors"]["teak"]["requests"]
    with relay.start(altered=PROBES) as command:
        until(lambda: len(told(command)) > 5)
        # Single requests from the start, instead of those of all shards for as long as they may be tried.
        assert sandbox.received(vendor="teak")["vendors"]["teak"]["requests"] - asked <= SHARDS
        relay.publish(events(50, 100))
        relay.wait(command, ("traitly", "parcelvoy"), 150)
        until(lambda: relay.parked("parcelvoy") is None)
        until(lambda: told(command)[-1]["unacknowledged"] == 0)
        assert relay.parked("teak")
        assert "parcelvoy is parked" not in relay.status()
        sandbox.clear_faults()
        relay.wait(command, ("teak",), 150)
        until(lambda: relay.parked("teak") is None)
        command.stop()
    relay.check(150, ("parcelvoy", "teak", "traitly"))


def test_one_item_that_is_never_taken_stops_nothing_else(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    """It comes alone, so it passes for a vendor that is down, also after a restart; then others are asked with. In the end
    it is given up, with what shares its request."""
    relay = Streamed(tmp_path, sandbox, emulator, to())
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=500, containing="choking", next=None)
    relay.publish([event(0, user_id="choking")])
    with relay.start(altered=PROBES) as command:
        until(lambda: all(relay.parked(slug) for slug in VENDORS))
        command.stop()
    relay.check_requests()
    with relay.start(altered=PROBES) as command:
        until(lambda: len(told(command)) > 5)
        sent = 1
        while {one["destination"] for one in relay.dead} != set(VENDORS):
            assert sent < 1000, relay.status()
            relay.publish(events(20, sent))
            sent += 20
            time.sleep(1)
        relay.wait(command, ("traitly",), sent - 1)
        until(lambda: not any(relay.waiting(slug) for slug in VENDORS))
        assert not any(relay.parked(slug) for slug in VENDORS)
        command.stop()
    assert relay.report["balanced"] is True
    assert relay.left() == []
    for slug in VENDORS:
        dead = [one for one in relay.dead if one["destination"] == slug]
        assert {one["outcome"] for one in dead} == {"undelivered"}
        assert "choking" in {one["user"] for one in dead}
        assert len(dead) == relay.report["destinations"][slug]["items"]["undelivered"] <= 20
        assert len(sandbox.numbers(slug)) == len(set(sandbox.numbers(slug))) == sent - len(dead)


def test_nobody_answers_when_it_is_to_stop(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Neither Pub/Sub nor a vendor."""
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    with (
        Pipe(emulator.port) as pipe,
        relay.start(PUBSUB_EMULATOR_HOST=f"127.0.0.1:{pipe.port}") as command,
    ):
        relay.publish(events(100))
        relay.wait(command, ("traitly", "teak"), 100)
        until(lambda: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 0)
        sandbox.fault(vendor="teak", drop=True, next=None)
        relay.publish(events(100, 100))
        relay.wait(command, ("traitly",), 200)
        pipe.answers = False
        assert command.stop() < 10
    report = relay.report
    assert report["balanced"] is True
    assert report["records"]["read"] == 200
    assert relay.waiting("teak") == report["destinations"]["teak"]["undelivered"] == 100


def test_a_stop_while_much_is_mapped(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """A slice as large as they get is finished within the time there is."""
    relay = Streamed(tmp_path, sandbox, emulator, to())
    count = 40_000
    for slug in VENDORS:
        sandbox.fault(vendor=slug, delay_s=0.1, next=None)
    relay.publish(event(number, users=2000) for number in range(count))
    with relay.start() as command:
        relay.wait(command, VENDORS[:1], 1)
        time.sleep(0.3)
        assert command.stop() < 10
    report = relay.report
    assert report["balanced"] is True
    assert report["records"]["read"] + len(relay.left()) == count


def test_a_status_while_a_stream_goes_on(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Whatever is delivered meanwhile: it is a look at something that moves."""
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    sandbox.configure("teak", unknown_users=["u3"])
    with relay.start() as command:
        for turn in range(60):
            relay.publish(events(50, 50 * turn))
            if not turn:
                relay.wait(command, ("traitly",), 1)
            for _ in range(5):
                assert all(stands.totals.balanced(stands.read) for stands in relay.look().values())
        relay.wait(command, ("traitly",), 3000)
        command.stop()
    relay.check_report(3000)


def test_what_waits_is_bounded_with_the_messages_it_came_in(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    """Of which the vendor takes a small part; the rest is kept for dead letters. Also after a kill."""
    count, bound = 2000, 1_000_000
    pulled = 1_000_000 + 100 * 6500  # the buffer, and the emulator's answer that fills it
    relay = Streamed(tmp_path, sandbox, emulator, to("teak", park={"max": "1MB"}))
    sandbox.fault(vendor="teak", status=503, next=None)
    relay.publish(event(number, params={"pad": "x" * 6000}) for number in range(count))
    small = {**PROBES, "transforms.pull.BUFFER_BYTES": 1_000_000, "transforms.pull.PULLS": 1}

    def on_disk() -> int:
        return sum(path.stat().st_size for name in ("segments", "slices") for path in (relay.state / name).iterdir())

    for killed in (True, False):
        with relay.start(altered=small) as command:
            until(lambda command=command: "nothing is pulled: teak has" in command.output)
            until(lambda command=command: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 0)
            # The slice that went beyond it, and what was pulled meanwhile, here and where the second process begins.
            assert bound < on_disk() < bound + 3 * pulled < count * 6000 / 2
            if killed:
                assert relay.look()["teak"].bytes == pytest.approx(on_disk(), rel=0.1)
                command.kill()
                continue
            sandbox.clear_faults()
            relay.wait(command, ("teak",), count)
            until(lambda command=command: "pulling again" in command.output)
            command.stop()
    assert on_disk() == 0
    relay.check(count, ("teak",))


def test_a_topic_for_dead_letters_that_goes_away(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """The stream ends with the command that brings it back. What the letters are about waits on disk, or is not
    acknowledged."""
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    sandbox.configure("teak", unknown_users=["u1"])
    name = f"letters-{tmp_path.name}"
    letters = emulator.topic(name)
    missing = f"dead letters cannot be published to {letters}: there is no such topic; create it: gcloud pubsub topics create {letters}"
    with relay.start("--dead-letters", letters) as command:
        relay.publish(events(100))
        until(lambda: any(line["teak_delivered"] == 95 and not line["unacknowledged"] for line in told(command)))
        emulator.publisher.delete_topic(topic=letters)
        relay.publish(events(100, 100))
        assert command.wait() == 2, command.output
    assert command.output.splitlines()[-1] == missing
    assert relay.waiting("teak") or relay.left(), "what the letters are about"
    asked = sandbox.received(vendor="teak")["vendors"]["teak"]["requests"]
    with relay.start("--dead-letters", letters) as command:
        assert command.wait() == 2, command.output
    assert command.output.splitlines()[-1] == missing
    assert sandbox.received(vendor="teak")["vendors"]["teak"]["requests"] == asked, "nothing is sent before it is there"
    emulator.topic(name)
    subscription = emulator.subscribe(letters)
    with relay.start("--dead-letters", letters) as command:
        relay.wait(command, ("traitly",), 200)
        until(lambda: relay.waiting("teak") == 0)
        command.stop()
    ids = [one.message.attributes["id"] for one in emulator.pull(subscription)]
    assert len(set(ids)) == 5, "of the second hundred; those of the first were in the topic that is gone"
    relay.check_report(200)
    check_arrived(sandbox, "traitly", range(200))
    check_arrived(sandbox, "teak", [number for number in range(200) if number % 20 != 1])


def test_a_state_folder_that_was_moved_knows_its_records(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly"))
    sandbox.fault(vendor="traitly", status=503, next=None)
    emulator.publish(relay.topic, [message(one, key="k", attributes={"shard": "7"}) for one in events(10)])
    with relay.start() as command:
        until(lambda: relay.parked("traitly") and relay.waiting("traitly") == 10)
        command.stop()
    relay.state = relay.state.rename(tmp_path / "elsewhere")
    sandbox.clear_faults()
    sandbox.fault(vendor="traitly", status=422, next=None)
    with relay.start(altered=PROBES) as command:
        until(lambda: len(relay.dead) == 10)
        command.stop()
    assert sorted(letter["original"].encode() for letter in relay.dead) == sorted(events(10))
    for letter in relay.dead:
        assert letter["source"]["name"] == relay.subscription
        of = letter["source"]["message"]
        assert (of["ordering_key"], of["attributes"]) == ("k", {"shard": "7"})


def test_messages_are_known_for_as_long_as_nothing_is_pulled(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    """They were mapped and not acknowledged when a process was killed, and come again only when a disk has room."""
    full = {"park": {"max": "1MB"}}
    relay = Streamed(tmp_path, sandbox, emulator, {**to("teak", **full), **to("traitly")})
    sandbox.fault(vendor="teak", status=503, next=None)
    sent = [event(number, attributes={"pad": "x" * 3_000}) for number in range(400)]
    with relay.start(altered={"pipelines.run_stream.ACKNOWLEDGE_S": 1000.0}) as command:
        relay.publish(sent)
        relay.wait(command, ("traitly",), 400)
        until(lambda: relay.parked("teak") and relay.waiting("teak") == 400)
        command.kill()
    short = {f"pipelines.run_stream.{name}": 1.0 for name in ("REMEMBER_KILLED_S", "REMEMBER_S", "FORGET_S")}
    with relay.start(altered={**PROBES, **short}) as command:
        until(lambda: "nothing is pulled" in command.output)
        time.sleep(12)  # longer than the emulator's deadline of 10 s
        sandbox.clear_faults()
        relay.wait(command, ("teak",), 400)
        relay.settle(command)
        command.stop()
    for slug in ("teak", "traitly"):
        check_arrived(sandbox, slug, range(400))


def test_a_name_that_is_looked_up_in_vain_holds_up_no_stop(
    tmp_path: Path, sandbox: Elsewhere, emulator: Emulator
) -> None:
    """Nobody answers at the three servers of names."""
    servers = tmp_path / "resolv.conf"
    servers.write_text("nameserver 127.0.0.77\n" * 3)
    ways = {**to("traitly", url="https://vendor.example/traitly", retry={"for": "1m"}), **to("parcelvoy")}
    relay = Streamed(tmp_path, sandbox, emulator, ways)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        begin = f'mount --bind {servers} /etc/resolv.conf && exec "$@"'
        with relay.start(before=("unshare", "--mount", "sh", "-c", begin, "sh")) as command:
            relay.publish(events(40))
            relay.wait(command, ("parcelvoy",), 40)
            time.sleep(1)
            assert command.stop() < 10
    assert relay.report["destinations"]["traitly"]["delivered"] == 0
