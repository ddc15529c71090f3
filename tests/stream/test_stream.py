"""`playrelay stream` on the Pub/Sub emulator: killed, stopped, with vendors that are down, a disk that is full, a clock
that jumps: nothing is lost, and nothing sent twice that need not be."""

from __future__ import annotations

import gzip
import random
import signal
import time
from pathlib import Path

import pytest
from emulator import Emulator
from streamed import PROBES, SHARDS, Streamed, to, told
from streams import VENDORS, Command, Elsewhere, check_arrived, event, events, relay_file, set_clock, until
from surroundings import Mounted, Pipe

pytestmark = pytest.mark.xdist_group("stream")

NEVER_ACKNOWLEDGES = {"pipelines.run_stream.ACKNOWLEDGE_S": 1000.0}
DOWN = "HTTP 503"


# What comes in ---------------------------------------------------------------------------------------


def test_messages_of_every_kind(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to())
    kinds = (
        lambda records: records,
        lambda records: [b"[" + b",".join(records) + b"]"],
        lambda records: [b"\n".join(records)],
        lambda records: [gzip.compress(b"\n".join(records))],
        lambda records: [gzip.compress(b"[" + b",".join(records) + b"]")],
    )
    with relay.start() as command:
        for turn in range(10):
            relay.publish(kinds[turn % 5](events(20, 20 * turn)))
        relay.wait(command, VENDORS, 200)
        command.stop()
    relay.check(200)
    assert relay.dead == []
    assert "Traceback" not in command.output
    for slug in VENDORS:
        assert relay.report["destinations"][slug]["delivered"] == 200


def test_messages_that_come_again_are_not_sent_again(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    relay.publish(events(200))
    all_ = relay.snapshot()
    with relay.start(altered=NEVER_ACKNOWLEDGES) as command:
        relay.wait(command, ("traitly", "teak"), 200)
        command.kill()
    assert len(relay.left()) == 200
    with relay.start() as command:
        relay.publish(events(100, 200))
        relay.wait(command, ("traitly", "teak"), 300)
        relay.give_again(all_)  # what was acknowledged, as Pub/Sub may
        relay.publish(events(100, 300))
        relay.wait(command, ("traitly", "teak"), 400)
        relay.settle(command)
        command.stop()
    relay.check(400, ("traitly", "teak"))


def test_acknowledgements_whose_answer_is_lost(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("teak"))
    altered = {"pipelines.run_stream.ACKNOWLEDGE_S": 1.0, "transforms.subscriber.TELL_S": 0.4}
    with (
        Pipe(emulator.port) as pipe,
        relay.start(altered=altered, PUBSUB_EMULATOR_HOST=f"127.0.0.1:{pipe.port}") as command,
    ):
        relay.publish(events(200))
        relay.wait(command, ("teak",), 200)
        pipe.answers = False
        until(lambda: command.output.count("not acknowledged, tried again") >= 2)
        pipe.answers = True
        pipe.cut()
        time.sleep(2.0)  # the emulator would give messages to pulls that nobody waits for
        relay.publish(events(100, 200))
        relay.wait(command, ("teak",), 300)
        command.stop()
    relay.check(300, ("teak",))


def test_events_of_the_same_id(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly"), {"dedupe": {"by": "id", "within": "10m"}})
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    with relay.start(clock=clock) as command:
        relay.publish(events(50))
        relay.publish(events(50))
        relay.publish(events(10, 50))
        relay.wait(command, ("traitly",), 60)
        command.kill()
    relay.left()
    with relay.start(clock=clock) as command:
        relay.publish(events(70))
        relay.wait(command, ("traitly",), 70)
        relay.settle(command)
        command.stop()
    assert relay.left() == []
    relay.check_report(180)
    assert relay.report["destinations"]["traitly"]["filtered"] == 110
    set_clock(clock, 660)
    with relay.start(clock=clock) as command:
        relay.publish(events(5))
        relay.wait(command, ("traitly",), 75)
        command.stop(signal.SIGINT)
    assert sorted(sandbox.numbers("traitly")) == sorted([*range(70), *range(5)])


# How it ends -----------------------------------------------------------------------------------------


def test_kills_lose_nothing(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator, moments: random.Random) -> None:
    portion, kills = 1000, 3
    count = portion * (kills + 1)
    relay = Streamed(tmp_path, sandbox, emulator, to())
    for slug in VENDORS:
        sandbox.fault(vendor=slug, delay_s=0.005, next=None)
    for kill in range(kills):
        before = sandbox.accepted("traitly")
        relay.publish(events(portion, kill * portion))
        with relay.start() as command:
            relay.wait(command, ("traitly",), before + 50)
            time.sleep(moments.uniform(0.0, 0.5))
            assert command.running, command.output
            command.kill()
        relay.left()  # so that what the process had comes at once
    relay.publish(events(portion, kills * portion))
    with relay.start() as command:
        relay.wait(command, VENDORS, count)
        relay.settle(command)
        command.stop()
    relay.check(count, twice_in_requests=kills * SHARDS)
    for slug in VENDORS:
        assert relay.report["destinations"][slug]["delivered"] == count


def test_messages_in_memory(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """Those that wait for their age are given back by a stop, and come again by themselves after a kill."""
    relay = Streamed(tmp_path, sandbox, emulator, to("teak", batch={"age": "1h"}))
    relay.publish(events(300))
    for stopped in (True, False):
        with relay.start() as command:
            until(lambda command=command: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 300)
            if stopped:
                assert command.stop() < 5
            else:
                command.kill()
    relay_file(tmp_path, sandbox, to("teak"))
    with relay.start() as command:
        relay.wait(command, ("teak",), 300)
        command.stop()
    relay.check(300, ("teak",), in_order=False)  # the emulator gives them as their deadlines end


def test_signals(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """While a vendor never answers, and one is parked."""
    relay = Streamed(tmp_path, sandbox, emulator, to())
    healthy = [slug for slug in VENDORS if slug not in ("traitly", "teak")]
    sandbox.fault(vendor="traitly", drop=True, next=None)
    sandbox.fault(vendor="teak", status=503, next=None)
    relay.publish(events(100))
    with relay.start() as command:
        relay.wait(command, healthy, 100)
        until(lambda: relay.parked("teak"))
        assert command.stop(signal.SIGTERM) < 10
    assert relay.left() == []
    relay.check_report(100)
    for slug in VENDORS:
        assert relay.report["destinations"][slug]["undelivered"] == (0 if slug in healthy else 100)
    relay.publish(events(100, 100))
    with relay.start() as command:
        relay.wait(command, healthy, 200)
        sandbox.freeze(True)
        command.send(signal.SIGINT)
        time.sleep(0.5)
        assert command.running
        at = time.monotonic()
        command.send(signal.SIGINT)
        assert command.wait(5) == -signal.SIGINT
        assert time.monotonic() - at < 1
        sandbox.freeze(False)
    relay.left()
    sandbox.clear_faults()
    with relay.start() as command:
        relay.wait(command, VENDORS, 200)
        relay.settle(command)
        assert command.stop(signal.SIGINT) < 10
    relay.check(200)


# A vendor's bad day ----------------------------------------------------------------------------------


def test_every_vendor_down_and_back(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to())
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=401, next=None)
    relay.publish(events(100))
    with relay.start() as command:
        until(lambda: all(relay.parked(slug) for slug in VENDORS))
        for slug in VENDORS:
            assert f"check destinations.{slug}.credentials" in relay.parked(slug)
        command.stop()
    assert relay.left() == [], "what waits on disk is acknowledged"
    status = " ".join(relay.status().split())
    assert "parked for" in status
    assert "401" in status
    sandbox.clear_faults()
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=503, next=None)
    relay.publish(events(100, 100))
    with relay.start() as command:
        until(lambda: all(DOWN in (relay.parked(slug) or "") for slug in VENDORS))
        until(lambda: all(relay.waiting(slug) == 200 for slug in VENDORS))
        sandbox.clear_faults()
        relay.wait(command, VENDORS, 200)
        until(lambda: not any(relay.parked(slug) for slug in VENDORS))
        command.stop()
    relay.check(200)


def test_one_vendor_down_holds_up_no_other(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    """The others get everything while it is down for a whole stream; it gets everything when it is back, in order."""
    portion, turns = 1250, 4
    count = portion * turns
    relay = Streamed(tmp_path, sandbox, emulator, to())
    others = [slug for slug in VENDORS if slug != "teak"]
    sandbox.fault(vendor="teak", status=503, next=None)
    with relay.start(altered=PROBES) as command:
        for turn in range(turns):
            relay.publish(events(portion, portion * turn, users=500))
            relay.wait(command, others, portion * (turn + 1))
        until(lambda: relay.waiting("teak") == count)
        until(lambda: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 0)
        for slug in others:
            check_arrived(sandbox, slug, range(count))
        asked = sandbox.received(vendor="teak")["vendors"]["teak"]
        assert asked["accepted"] == 0
        assert asked["requests"] < 30, "one probe at a time"
        assert DOWN in relay.parked("teak")
        sandbox.clear_faults()
        relay.publish(events(100, count, users=500))
        relay.wait(command, VENDORS, count + 100)
        until(lambda: relay.parked("teak") is None)
        command.stop()
    relay.check(count + 100)


def test_a_slow_vendor_does_not_hold_acknowledgements(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("traitly", "teak"))
    sandbox.fault(vendor="traitly", drop=True, next=None)
    altered = {"pipelines.run_stream.PATIENCE_S": 2.0}
    with relay.start(altered=altered) as command:
        relay.publish(events(100))
        relay.wait(command, ("teak",), 100)
        until(lambda: any(line["unacknowledged"] == 100 for line in told(command)))
        until(lambda: told(command)[-1:] and told(command)[-1]["unacknowledged"] == 0, 10)
        assert relay.waiting("traitly") == 100
        command.kill()
    assert relay.left() == []
    sandbox.clear_faults()
    with relay.start() as command:
        relay.wait(command, ("traitly", "teak"), 100)
        command.stop()
    relay.check(100, ("traitly", "teak"))


def test_pulling_holds_while_too_much_waits(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    names = ("parcelvoy", "swrve")
    relay = Streamed(tmp_path, sandbox, emulator, {**to("parcelvoy", park={"max": "1MB"}), **to("swrve")})
    sandbox.fault(vendor="parcelvoy", status=503, next=None)
    with relay.start() as command:
        relay.publish(events(9000))
        until(lambda: "nothing is pulled: parcelvoy has" in command.output)
        assert "the most that `park: max` allows" in command.output
        relay.publish(events(6000, 9000))
        time.sleep(1.0)
        assert sandbox.accepted("swrve") < 10_000, "but for what was on its way"
        sandbox.clear_faults()
        relay.wait(command, names, 15_000)
        assert "pulling again" in command.output
        command.stop()
    relay.check(15_000, names)


# Errors ----------------------------------------------------------------------------------------------


def refused(command: Command) -> str:
    """What a command says that ends with a message for the user."""
    assert command.wait() == 2, command.output
    assert "Traceback" not in command.output
    return command.output


def test_errors_name_what_is_wrong(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("teak"))
    with relay.start() as command:
        relay.publish(events(10))
        relay.wait(command, ("teak",), 10)
        words = refused(relay.start())
        assert f"in use by process {command.pid}; stop that one" in words
        relay.publish(events(10, 10))
        relay.wait(command, ("teak",), 20)
        command.stop()
    relay.check(20, ("teak",))
    there, relay.subscription = relay.subscription, f"projects/{emulator.project}/subscriptions/nobody-made-it"
    words = refused(relay.start())
    assert relay.subscription in words
    assert len(words.strip().splitlines()) == 1
    relay.subscription = there
    assert relay.left() == []


def test_a_disk_that_is_full(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("parcelvoy", "traitly", "12traits"))
    names = ("parcelvoy", "traitly", "12traits")
    pad = "x" * 20_000
    padded = [event(number, event_data={"level": number, "pad": pad}) for number in range(800)]
    sandbox.fault(vendor="parcelvoy", status=503, next=None)
    with Mounted(relay.state, "12m") as disk:
        with relay.start(before=disk.before) as command:
            relay.publish(padded[:50])
            relay.wait(command, ("traitly", "12traits"), 50)
            relay.publish(padded[50:])
            words = refused(command)
        assert "No space left on device" in words or "database or disk is full" in words
        last = words.strip().splitlines()[-1]
        assert str(relay.state) in last or "the ledger in the state folder" in last
        assert relay.left() != []
        sandbox.clear_faults()
        disk.remount("size=200m")
        with relay.start(before=disk.before) as command:
            relay.wait(command, names, 800)
            command.stop()
    # What the first process had comes again when it comes.
    relay.check(800, names, twice_in_requests=SHARDS, in_order=False)


def test_a_disk_that_cannot_be_written_to(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to("teak"))
    relay.publish(events(10))
    with Mounted(relay.state, "10m") as disk:
        disk.remount("ro")
        words = refused(relay.start(before=disk.before))
        assert "Read-only file system" in words
        assert len(relay.left()) == 10
        disk.remount("rw")
        with relay.start(before=disk.before) as command:
            relay.wait(command, ("teak",), 10)
            command.stop()
    relay.check(10, ("teak",))


def test_a_clock_that_jumps(tmp_path: Path, sandbox: Elsewhere, emulator: Emulator) -> None:
    relay = Streamed(tmp_path, sandbox, emulator, to())
    others = [slug for slug in VENDORS if slug != "swrve"]
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    relay.publish(events(100))
    all_ = relay.snapshot()
    with relay.start(altered=NEVER_ACKNOWLEDGES) as command:
        relay.wait(command, VENDORS, 100)
        command.kill()
    with relay.start(clock=clock, altered={"pipelines.run_stream.FORGET_S": 0.1}) as command:
        for turn, hours in enumerate((3, -3, 5, 0), 1):
            set_clock(clock, 3600 * hours)
            relay.publish(events(50, 50 + 50 * turn))
            # Swrve takes no request whose time is wrong by hours: it waits until the clock is right.
            relay.wait(command, others if hours else VENDORS, 100 + 50 * turn)
        relay.give_again(all_)
        relay.publish(events(50, 300))
        relay.wait(command, VENDORS, 350)
        relay.settle(command)
        command.stop()
    relay.check(350)
