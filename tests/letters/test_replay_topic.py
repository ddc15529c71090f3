"""`playrelay replay` of a subscription to a topic of dead letters, on the emulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator import Emulator
from replays import QUICK, SHARDS, Replays, check_once, write
from streams import Command, Elsewhere, until
from streams import events as numbered

from pipelines import replay_sources
from sandbox.server import Running
from transforms.letter_marks import NAME


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as sandbox:
        yield sandbox


# Google's client says so of the flag by which a pull tells at once whether the subscription is there.
of_a_topic = pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated:DeprecationWarning")


@pytest.fixture
def of_the_emulator(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator, which commands in this process use."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(replay_sources, "QUIET_S", 2.0)
    return emulator


def check_left(emulator: Emulator, subscription: str, **expected: int) -> None:
    """So many letters of each destination are not acknowledged.

    The emulator gives what is given back to a pull of the client that is gone, and knows after the ack deadline of 10 s
    that nobody has it. So each replay in these tests has a subscription of its own.
    """

    def left() -> Counter[str]:
        return Counter(one.attributes.get("destination", "none") for one in emulator.left(subscription))

    until(lambda: left() == expected, 25, every=1.0)


@of_a_topic
def test_from_a_subscription(tmp_path: Path, sandbox: Running, of_the_emulator: Emulator) -> None:
    """What is not meant is given back; what is replayed is acknowledged, though it was published twice."""
    emulator = of_the_emulator
    replays = Replays(tmp_path, sandbox, {"teak": QUICK, "parcelvoy": QUICK})
    topic, looked_at = emulator.make()
    some, rest = emulator.subscribe(topic), emulator.subscribe(topic)
    for _ in range(2):
        replays.down(write(tmp_path / "in.jsonl", numbered(20, users=4)), dead=topic)
    emulator.publish(topic, [b"no letter"])
    replays.replay(place=looked_at, code=2)
    assert "--dead-letters" in replays.output
    before = replays.requests()
    replays.replay("--dry-run", place=looked_at)
    assert "would replay 20 dead letters of teak event" in replays.output
    assert replays.requests() == before
    sandbox.configure("teak", unknown_users=["u3"])
    options = ("--dead-letters", replays.dead, "--state", tmp_path / "state")
    done = replays.replay("--only", "teak", *options, place=some)
    assert (done["teak"]["delivered"], done["teak"]["rejected"]) == (15, 5)
    # The same letters from elsewhere: those of Teak are known.
    done = replays.replay(*options, place=rest)
    assert (done["teak"]["read"], done["parcelvoy"]["delivered"]) == (0, 20)
    assert {(one.failures, one.source.name) for one in replays.letters} == {(2, str(tmp_path / "in.jsonl"))}
    assert all("could not be found" not in one.first.reason for one in replays.letters)
    sandbox.configure("teak", unknown_users=[])
    assert replays.replay()["teak"]["delivered"] == 5
    for slug in ("teak", "parcelvoy"):
        assert sorted(replays.numbers(slug)) == list(range(20))
    check_left(emulator, looked_at, teak=40, parcelvoy=40, none=1)
    check_left(emulator, some, parcelvoy=40, none=1)
    check_left(emulator, rest, none=1)


@of_a_topic
def test_a_kill_before_it_is_acknowledged(
    tmp_path: Path, elsewhere: Elsewhere, of_the_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 400
    topic, subscription = of_the_emulator.make()
    replays = Replays(tmp_path, elsewhere, {"traitly": {**QUICK, "shards": SHARDS}})
    replays.down(write(tmp_path / "in.jsonl", numbered(count)), dead=topic)
    elsewhere.fault(vendor="traitly", delay_s=0.02, next=None)
    options = ("--dead-letters", replays.dead, "--state", tmp_path / "state")
    arguments = ("replay", replays.relay, "--from", subscription, *options)
    short = {"transforms.pull.LEASE_S": 10, "transforms.pull.RENEW_S": 3.0}
    with Command(*arguments, log=tmp_path / "log", altered=short, **of_the_emulator.environment) as command:
        until(lambda: elsewhere.accepted("traitly") > 50 or not command.running)
        assert command.running, command.output
        command.kill()
    elsewhere.clear_faults()
    # What the killed process held comes again when its leases are over.
    monkeypatch.setattr(replay_sources, "QUIET_S", 13.0)
    done = replays.replay(*options, place=subscription)
    assert done["traitly"]["delivered"] == count
    check_once(replays, "traitly", count, kills=1)
    check_left(of_the_emulator, subscription)
    assert not list(replays.dead.glob("*.jsonl")) and not (replays.dead / NAME).exists()


@of_a_topic
def test_to_the_topic_that_it_comes_from(tmp_path: Path, sandbox: Running, of_the_emulator: Emulator) -> None:
    """What fails again there is for the next run; this one ends. Of several letters of a record the last is sent, and
    all are acknowledged."""
    emulator = of_the_emulator
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    topic, subscription = emulator.make()
    both = emulator.subscribe(topic)
    sandbox.configure("teak", unknown_users=["u1"])
    replays.run(write(tmp_path / "in.jsonl", numbered(20, users=4)), dead=topic)
    arguments = (
        "replay",
        replays.relay,
        "--from",
        subscription,
        "--dead-letters",
        topic,
        "--state",
        tmp_path / "state",
    )
    quick = {"pipelines.replay_sources.QUIET_S": 2.0}
    with Command(*arguments, log=tmp_path / "log", altered=quick, **emulator.environment) as command:
        assert command.wait(40) == 0, command.output
    assert len(emulator.left(both)) == 10, "each failed once more"
    check_left(emulator, subscription, teak=5)
    sandbox.configure("teak", unknown_users=[])
    done = replays.replay("--dead-letters", topic, "--state", tmp_path / "other", place=both)
    assert done["teak"]["delivered"] == 5
    assert sorted(replays.numbers("teak")) == list(range(20))
    check_left(emulator, both)


@of_a_topic
def test_a_subscription_that_is_not_there(tmp_path: Path, sandbox: Running, of_the_emulator: Emulator) -> None:
    replays = Replays(tmp_path, sandbox, {"teak": QUICK})
    name = f"projects/{of_the_emulator.project}/subscriptions/none"
    replays.replay("--dead-letters", replays.dead, "--state", tmp_path / "state", place=name, code=2)
    says = f"{name}: there is no such subscription; create it: gcloud pubsub subscriptions create {name} --topic TOPIC"
    assert says in replays.output
