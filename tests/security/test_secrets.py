"""No command writes a secret anywhere: marked secrets are planted, every command runs, against vendors that repeat to it
what it told them, and everything written is searched: output, files while it runs and afterwards, job graphs and a job's
state, dead letters of a topic, the page of metrics, `ps`.

A new command is a row of COMMANDS.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import certificates
import hostile
import marks
import pytest
import yaml
from emulator import Emulator
from marks import CORES, PUBLIC, SECRETS, found_in, search, secret

from sandbox.server import Running
from transforms import vendors

ROOT = Path(__file__).parents[2]
LONGEST_S = 120

STOP_AFTER_S = 4.0
"""Seconds that a stream goes on once every vendor was told its secrets: for retries, parking and probes."""

EVENTS = "events.ndjson"
PLAYFAB = ROOT / "tests" / "golden" / "12traits" / "playfab" / "input.ndjson"

VARIANTS: dict[str, tuple[str, Mapping[str, object]]] = {
    **{slug: (slug, {}) for slug in vendors.slugs()},
    "swrve-many": ("swrve", {"send": "multi_user_batch"}),
    "swrve-single": ("swrve", {"send": "single"}),
    "swrve-external": ("swrve", {"user_ids": "external"}),
    "teak-single": ("teak", {"send": "single"}),
}
"""Name -> vendor and options: the ways in which secrets travel."""


class Place(NamedTuple):
    """Where a command runs: everything under `folder` is searched; its secrets are elsewhere."""

    folder: Path
    secrets: Path
    environment: dict[str, str]

    def relay(self, name: str, destinations: Mapping[str, object], preset: str = "canonical", **more: object) -> str:
        """Writes a relay file."""
        document = {"source": {"preset": preset}, "destinations": destinations, **more}
        (self.folder / name).write_text(yaml.safe_dump(document, sort_keys=False))
        return name

    def destination(self, vendor: str, url: str, **more: object) -> dict[str, object]:
        """A destination whose secrets are references: to the environment and to files in turn."""
        credentials = {}
        for number, key in enumerate(vendors.get(vendor).credentials):
            name = f"{vendor}_{key.name}".upper().replace("12", "TWELVE_")
            if not key.secret:
                credentials[key.name] = PUBLIC[key.name]
            elif number % 2:
                credentials[key.name] = f"file:{self.secrets / name}"
            else:
                credentials[key.name] = f"env:{name}"
        return {"vendor": vendor, "credentials": credentials, "url": url, "retry": {"for": "1s"}, "gzip": False, **more}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder, secrets = tmp_path / "work", tmp_path / "secrets"
    folder.mkdir()
    secrets.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONFAULTHANDLER": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    for slug, key in SECRETS:
        name = f"{slug}_{key}".upper().replace("12", "TWELVE_")
        environment[name] = secret(slug, key)
        (secrets / name).write_text(secret(slug, key) + "\n")
    records = [
        f'{{"event_type":"{kind}","event_timestamp":{1_700_000_000_000 + number},"user_id":"u{number % 3}",'
        '"event_data":{"level":3,"item_id":"axe"}}\n'
        for number, kind in enumerate(("session_start", "level_up", "spin", "purchase") * 3)
    ]
    (folder / EVENTS).write_text("".join(records) + '{"event_type":7}\nno JSON\n')
    return Place(folder, secrets, environment)


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile.Addresses]:
    with hostile.listening(certificates.write(tmp_path_factory.mktemp("tls") / "server.pem")) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Running]:
    with Running(credentials=marks.ACCEPTED) as running:
        yield running


# Relay files -----------------------------------------------------------------------------------------------------


def faulty(place: Place, vendor: hostile.Addresses) -> str:
    """Every fault, those that answer with its own words for every way in which secrets travel."""
    return place.relay(
        "relay.yaml",
        {
            f"{name}-{kind}": place.destination(
                slug, vendor.url(kind, slug), shards=2, **{"rate": "50/s"} if slug == "teak" else {}, **options
            )
            for name, (slug, options) in VARIANTS.items()
            for kind in (hostile.REPEATING if name == slug else ("401", "422", "422json", "200", "302"))
        }
        | one_each(place, vendor, hostile.SILENT),
    )


def one_each(place: Place, vendor: hostile.Addresses, kinds: Sequence[str]) -> dict[str, dict[str, object]]:
    """Destinations that meet a fault each, the vendors in turn."""
    return {
        f"{slug}-{kind}": place.destination(slug, vendor.url(kind, slug), shards=2)
        for kind, slug in zip(kinds, itertools.cycle(vendors.slugs()), strict=False)
    }


def told_in_every_way(place: Place, vendor: hostile.Addresses) -> dict[str, dict[str, object]]:
    """Destinations whose vendor repeats what it was told, in a way that has to be understood."""
    return {
        f"{name}-422json": place.destination(slug, vendor.url("422json", slug), shards=2, **options)
        for name, (slug, options) in VARIANTS.items()
    }


def each_once(place: Place, vendor: hostile.Addresses) -> str:
    """Every fault once, and all secrets told in every way."""
    return place.relay("relay.yaml", told_in_every_way(place, vendor) | one_each(place, vendor, hostile.KINDS))


def repeating(place: Place, vendor: hostile.Addresses) -> str:
    """All secrets told in every way, and refused at every vendor."""
    refused = {f"{slug}-401": place.destination(slug, vendor.url("401", slug), shards=2) for slug in vendors.slugs()}
    return place.relay("relay.yaml", told_in_every_way(place, vendor) | refused)


def good(place: Place, sandbox: Running) -> str:
    """A sandbox that takes everything."""
    return place.relay(
        "relay.yaml", {slug: place.destination(slug, f"{sandbox.url}/{slug}") for slug in vendors.slugs()}
    )


def in_query(place: Place, vendor: hostile.Addresses) -> str:
    """12traits' PlayFab webhook has its key in the URL."""
    kinds = ("401", "404", "422", "500", "200", "302", "tls", "refused")
    return place.relay(
        "relay.yaml",
        {
            f"playfab-{kind}": place.destination("12traits", vendor.url(kind, "12traits"), models=["playfab"])
            for kind in kinds
        },
        "playfab",
    )


def missing(place: Place, *_: object) -> str:
    """References that lead nowhere, or to values that cannot be sent."""
    (place.secrets / "BROKEN").write_text(secret("teak", "secret_key") + "\nsecond line " + secret("traitly", "token"))
    one = place.destination("teak", "http://127.0.0.1:1")
    one["credentials"] = {"game_id": "g", "secret_key": f"file:{place.secrets / 'BROKEN'}"}
    return place.relay("relay.yaml", {"teak": one})


def pasted(place: Place, *_: object) -> str:
    """Secrets themselves where references belong, mistyped and misplaced. The relay file holds them: it is elsewhere."""
    teak, traitly = secret("teak", "secret_key"), secret("traitly", "token")
    document = {
        "source": {"preset": "canonical"},
        "destinations": {
            "teak": {"credentials": {"game_id": "g", "secret_key": teak}},
            "traitly": {"credentials": {"token": f"env:{traitly}", "tokn": traitly}},
            "swrve": {"credentials": {"app_id": "1", "api_key": f"secret:{secret('swrve', 'api_key')}"}},
            "parcelvoy": {"credentials": [secret("parcelvoy", "api_key")]},
            "12traits": {"credentials": {"api_key": {"env": secret("12traits", "api_key")}}},
        },
    }
    path = place.secrets / "relay.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def unreadable(place: Place, *_: object) -> str:
    """A relay file that is no YAML just where a secret stands."""
    path = place.secrets / "relay.yaml"
    path.write_text(f"destinations:\n  teak:\n    credentials: {{secret_key: {secret('teak', 'secret_key')}: [}}\n")
    return str(path)


# Commands --------------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A command, or several one after the other, whose output and files are searched."""

    name: str
    relay: Callable[..., str]
    """(place, what `against` names) -> the relay file's path."""
    lines: tuple[tuple[str, ...], ...]
    """Python's arguments. RELAY stands for that path, SUBSCRIPTION for one with the events, TOPIC for one of its own and
    LETTERS for a subscription to it, PORT for one that is free and whose page of metrics is fetched."""
    exits: tuple[int, ...] = (0,)
    against: str = "vendor"
    told: tuple[str, ...] = ()
    """The vendors that must have been told their secrets, or nothing was tested."""
    writes: tuple[str, ...] = ()
    """Patterns of files that must have been written."""


CLI = ("-m", "pipelines.cli")
RUN = (*CLI, "run", "RELAY", "--input", EVENTS, "--dead-letters", "dead", "--report", "report.json")
STREAM = (*CLI, "stream", "RELAY", "--subscription", "SUBSCRIPTION", "--state", "state", "--metrics-port", "PORT")
REPLAY = (*CLI, "replay", "RELAY", "--from", "dead")
WRITTEN = ("report.json", "dead/*.jsonl")
ALL = vendors.slugs()
GRAPH = """
import sys
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from pipelines.backfill import build
from pipelines.plan import make_plan
from pipelines.relay_file import load
pipeline = Pipeline(options=PipelineOptions([]))
build(pipeline, make_plan(load(sys.argv[1]))[0], ["events.ndjson"], "dead", "report.json")
open("graph.pb", "wb").write(pipeline.to_runner_api().SerializeToString())
"""

STREAMING_JOB = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(ROOT / "tests" / name) for name in ("", "command", "delivery", "unbounded")]}
from msgspec import msgpack
from pipelines import logs
from pipelines.plan import make_plan
from pipelines.relay_file import load
from test_pipeline import Messages, relay
from transforms.deliver.waiting import Held
save = Held.save
def kept(held):
    save(held)
    with open("state", "ab") as file:
        file.write(msgpack.encode(held.note))
Held.save = kept
logs.set_up()
messages = Messages().published(*Path("events.ndjson").read_bytes().splitlines()).passes(2, 3)
relay(messages, make_plan(load(sys.argv[1]))[0], Path("dead"))
"""
"""The job of pipelines/stream.py, messages scripted, and what each shard's state says."""

COMMANDS = [
    Command("check", good, ((*CLI, "check", "RELAY"),), against="sandbox"),
    Command("check --explain", good, ((*CLI, "check", "RELAY", "--explain"),), against="sandbox"),
    Command("check --credentials", good, ((*CLI, "check", "RELAY", "--credentials"),), against="sandbox"),
    Command("check, missing", missing, ((*CLI, "check", "RELAY", "--credentials"),), (2,)),
    Command("check, pasted", pasted, ((*CLI, "check", "RELAY"),), (2,)),
    Command("check, unreadable", unreadable, ((*CLI, "check", "RELAY"),), (2,)),
    Command("preview", good, ((*CLI, "preview", "RELAY", "--input", EVENTS, "-n", "20"),), against="sandbox"),
    Command("preview, in the URL", in_query, ((*CLI, "preview", "RELAY", "--input", str(PLAYFAB)),)),
    Command("run", good, (RUN,), against="sandbox", writes=WRITTEN),
    Command("run, faults", faulty, (RUN,), (3,), told=ALL, writes=WRITTEN),
    Command(
        "run, in the URL",
        in_query,
        ((*CLI, "run", "RELAY", "--input", str(PLAYFAB), "--dead-letters", "dead", "--report", "report.json"),),
        (3,),
        told=("12traits",),
        writes=WRITTEN,
    ),
    Command("run, missing", missing, (RUN,), (2,)),
    Command(
        "run --state, status",
        repeating,
        ((*RUN, "--state", "state"), (*CLI, "status", "--state", "state")),
        (3, 0),
        told=ALL,
        writes=(*WRITTEN, "state/ledger.sqlite"),
    ),
    Command(
        "dead-letters, replay",
        repeating,
        (
            RUN,
            (*CLI, "dead-letters", "dead"),
            (*CLI, "dead-letters", "dead", "--json"),
            (*REPLAY, "--dry-run"),
            (*REPLAY, "--report", "replayed.json"),
            (*REPLAY, "--as-mapped", "--dead-letters", "again"),
        ),
        (3, 0, 0, 0, 3, 3),
        told=ALL,
        writes=("replayed.json", "again/*.jsonl"),
    ),
    Command("init", good, ((*CLI, "init", "--output", "new.yaml"),), against="sandbox", writes=("new.yaml",)),
    Command(
        "stream",
        each_once,
        ((*STREAM, "--dead-letters", "dead", "--report", "report.json"),),
        told=ALL,
        writes=(*WRITTEN, "state/ledger.sqlite", "metrics"),
    ),
    Command(
        "stream, to a topic, logs as JSON; replay",
        repeating,
        (
            (*STREAM, "--dead-letters", "TOPIC", "--log-format", "json"),
            (*CLI, "status", "--state", "state"),
            (*CLI, "replay", "RELAY", "--from", "LETTERS", "--dead-letters", "again", "--state", "replay"),
        ),
        told=ALL,
        exits=(0, 0, 0),
        writes=("metrics", "again/*.jsonl", "replay/ledger.sqlite"),
    ),
    Command("streaming job", repeating, (("-c", STREAMING_JOB, "RELAY"),), told=ALL, writes=("dead/*.jsonl", "state")),
    Command(
        "backfill",
        repeating,
        (
            (
                *("-m", "pipelines.backfill", "--relay", "RELAY", f"--input={EVENTS}"),
                *("--dead_letters=dead", "--report=report.json"),
            ),
        ),
        (3,),
        told=ALL,
        writes=WRITTEN,
    ),
    Command("job graph", repeating, (("-c", GRAPH, "RELAY"),), writes=("graph.pb",)),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_secret_is_written(command: Command, place: Place, request: pytest.FixtureRequest) -> None:
    against: Any = request.getfixturevalue(command.against)
    if command.against == "vendor":
        against.heard.clear()
    told = {marks.core(slug, key) for slug, key in SECRETS if slug in command.told}
    words = {"RELAY": command.relay(place, against)}
    one: Emulator | None = None
    if "SUBSCRIPTION" in command.lines[0]:
        one = request.getfixturevalue("emulator")
        place.environment.update(one.environment)
        events, letters = one.make(), one.make()
        one.publish(events.topic, (place.folder / EVENTS).read_bytes().splitlines())
        words |= {"SUBSCRIPTION": events.subscription, "TOPIC": letters.topic, "LETTERS": letters.subscription}
        words["PORT"] = str(hostile.closed_port())
    for line, expected in zip(command.lines, command.exits, strict=True):
        stop = (lambda: against.heard >= told) if "SUBSCRIPTION" in line else None
        page = f"http://127.0.0.1:{words['PORT']}/metrics" if "PORT" in line else ""
        code, leaks = watched([words.get(argument, argument) for argument in line], place, stop, page)
        output = (place.folder / "stdout").read_text() + (place.folder / "stderr").read_text()
        assert leaks == {}
        assert code == expected, output
        if one is not None and "TOPIC" in line:
            published = [letter.SerializeToString() for letter in one.left(letters.subscription)]
            assert published
            assert not any(map(found_in, published))
    if told:
        assert against.heard >= told
    for pattern in command.writes:
        assert list(place.folder.glob(pattern)), f"nothing written as {pattern}:\n{output}"


def watched(
    arguments: list[str], place: Place, stop: Callable[[], bool] | None = None, page: str = ""
) -> tuple[int, dict[str, set[bytes]]]:
    """Runs Python with these arguments: its exit code, and path or command line -> marks found at any time.

    stop: for what runs until it is stopped, when that may be; it then gets some seconds more. page: URL of what it
    serves meanwhile; written to a file, so that it is searched too.
    """
    leaks: dict[str, set[bytes]] = {}
    seen: dict[str, tuple[float, int]] = {}
    with open(place.folder / "stdout", "wb") as out, open(place.folder / "stderr", "wb") as err:
        running = subprocess.Popen(
            [sys.executable, *arguments], cwd=place.folder, env=place.environment, stdout=out, stderr=err
        )
        try:
            until = time.monotonic() + LONGEST_S
            while running.poll() is None:
                assert time.monotonic() < until, f"not done within {LONGEST_S} s"
                with contextlib.suppress(OSError):  # it is not served yet, or no more
                    if page:
                        (place.folder / "metrics").write_bytes(urllib.request.urlopen(page, timeout=5).read())
                leaks |= search(place.folder, seen) | marks.in_processes()
                time.sleep(0.5)
                if stop is not None and stop():
                    stop, until = None, time.monotonic() + LONGEST_S
                    threading.Timer(STOP_AFTER_S, running.terminate).start()
        finally:
            running.kill()
            running.wait()
    return running.returncode, leaks | search(place.folder)


# The search itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", range(4))
def test_the_search_finds_marks_as_they_may_be_written(before: int, tmp_path: Path) -> None:
    import base64
    import bz2
    import gzip
    import json
    import urllib.parse
    import zlib

    text = "x" * before + f"key={secret('teak', 'secret_key')} "
    data = text.encode()
    for written in (
        data,
        repr(text).encode(),
        json.dumps(text).encode(),
        urllib.parse.quote(text).encode(),
        base64.b64encode(data),
        base64.urlsafe_b64encode(data),
        data.hex().encode(),
        gzip.compress(data),
        base64.b64encode(zlib.compress(data)),
        b"proto\x12\x00" + base64.b64encode(bz2.compress(data)) + b"\x00",
    ):
        assert found_in(written), written
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (?)", (text,))
        database.commit()
        assert search(tmp_path)
    database.close()
    assert not found_in(b"".join(core[:-6].encode() for core in CORES))


def test_the_search_finds_a_literal_in_a_job_graph(place: Place) -> None:
    """Which is why literals must be allowed by name."""
    one = place.destination("teak", "http://127.0.0.1:1")
    one["credentials"] = {"game_id": "g", "secret_key": secret("teak", "secret_key")}
    relay = place.secrets / "relay.yaml"
    place.relay(str(relay), {"teak": one}, allow_literal_secrets=True)
    code, leaks = watched(["-c", GRAPH, str(relay)], place)
    assert code == 0
    assert [Path(path).name for path in leaks] == ["graph.pb"]
