"""`playrelay run --state`, killed, stopped, called again: nothing is lost, and nothing sent twice that need not be."""

from __future__ import annotations

import gzip
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from streams import VENDORS, Elsewhere, Relay, check_arrived, events, until

pytestmark = pytest.mark.xdist_group("streams")

SHARDS = 4
TO = {
    "12traits": {"shards": SHARDS, "batch": {"items": 20}},
    "traitly": {"shards": SHARDS},
    "parcelvoy": {"shards": SHARDS, "batch": {"items": 20}},
    "swrve": {"shards": SHARDS},
    "teak": {"shards": SHARDS, "batch": {"items": 20}},
}


def write(path: Path, records: list[bytes]) -> Path:
    data = b"\n".join(records) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_kills_lose_nothing(tmp_path: Path, sandbox: Elsewhere, moments: random.Random) -> None:
    count, kills = 6000, 3
    inputs = [write(tmp_path / f"{n}.jsonl", events(count // 3, n * count // 3)) for n in range(3)]
    relay = Relay(tmp_path, sandbox, {slug: {**more, "rate": "unlimited"} for slug, more in TO.items()})
    for slug in VENDORS:
        sandbox.fault(vendor=slug, delay_s=0.02, next=None)
    for kill in range(kills):
        before = sandbox.accepted("traitly")
        with relay.command("run", *inputs_of(inputs), altered={"transforms.intake.SLICE_BYTES": 100_000}) as command:
            until(lambda before=before: sandbox.accepted("traitly") > before + 50 or not command.running)
            time.sleep(moments.uniform(0.0, 0.4))
            assert command.running, command.output
            command.kill()
        assert kill or relay.status()
    sandbox.clear_faults()
    relay.run(*inputs)
    relay.check_report(count)
    for slug in VENDORS:
        check_arrived(sandbox, slug, range(count), twice_in_requests=kills * SHARDS)
        assert relay.report["destinations"][slug]["delivered"] == count
    requests = sum(view["requests"] for view in sandbox.received()["vendors"].values())
    relay.run(*inputs)
    relay.check_report(0)
    assert sum(view["requests"] for view in sandbox.received()["vendors"].values()) == requests


def inputs_of(paths: list[Path]) -> list[object]:
    return [part for path in paths for part in ("--input", path)]


def test_a_run_that_is_stopped_goes_on_from_another_folder(tmp_path: Path, sandbox: Elsewhere) -> None:
    count = 4000
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.jsonl.gz", events(count))
    relay = Relay(tmp_path, sandbox, {slug: TO[slug] for slug in ("traitly", "swrve")})
    sandbox.fault(vendor="traitly", delay_s=0.01, next=None)
    slices = {"transforms.intake.SLICE_BYTES": 100_000}
    with relay.command("run", "--input", "in/*.gz", cwd=tmp_path, altered=slices) as command:
        until(lambda: sandbox.accepted("traitly") > 20 or not command.running)
        command.send(signal.SIGTERM)
        assert command.wait(20) == 3, command.output
    assert "interrupted" in command.output
    report = relay.report
    assert report["balanced"] is True
    assert report["destinations"]["traitly"]["undelivered"] > 0
    sandbox.clear_faults()
    with relay.command("run", "--input", "../in/a.jsonl.gz", cwd=relay.state) as command:
        assert command.wait() == 0, command.output
    relay.check_report(count)
    for slug in ("traitly", "swrve"):
        assert check_arrived(sandbox, slug, range(count)) == 0, "what is on its way when a run is stopped is waited for"


def test_a_run_that_sends_all_again_goes_on_after_a_kill(tmp_path: Path, sandbox: Elsewhere) -> None:
    count = 3000
    path = write(tmp_path / "a.jsonl", events(count))
    relay = Relay(tmp_path, sandbox, {"traitly": {**TO["traitly"], "rate": "unlimited"}, "teak": TO["teak"]})
    slugs = ("traitly", "teak")
    relay.run(path)
    for slug in slugs:
        sandbox.fault(vendor=slug, delay_s=0.01, next=None)
    slices = {"transforms.intake.SLICE_BYTES": 100_000}
    with relay.command("run", "--input", path, "--again", altered=slices) as command:
        until(lambda: sandbox.accepted("traitly") > count + 500 or not command.running)
        command.kill()
    sandbox.clear_faults()
    relay.run(path, "--again")
    relay.check_report(count)
    for slug, in_flight in (("traitly", SHARDS), ("teak", 20 * SHARDS)):
        times = Counter(Counter(sandbox.numbers(slug)).values())
        assert set(times) <= {2, 3}, "the first run, the second, and what was on its way at the kill"
        assert times[3] <= in_flight, times
        assert relay.report["destinations"][slug]["delivered"] == count
    before = sandbox.accepted("traitly")
    relay.run(path)
    relay.check_report(0)
    relay.run(path, "--again")
    relay.check_report(count)
    assert sandbox.accepted("traitly") == before + count, "all of it, as the run before came to its end"
