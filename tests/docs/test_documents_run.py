"""Every code block of README.md and docs/ is executed or loaded, or stands in NOT_RUN with the reason."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt

from pipelines import relay_file
from pipelines.cli import main
from pipelines.plan import make_plan
from sandbox.credentials import RELAY_FILE
from sandbox.server import Running
from transforms.located import Problems

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced or indented block of code."""

    page: str
    line: int
    language: str
    """As the fence says; empty for an indented block."""
    text: str

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every code block of a page, in order."""
    name = str(page.relative_to(ROOT))
    return [
        Block(name, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        if token.type in ("fence", "code_block")
    ]


ALL = [block for page in PAGES for block in blocks(page)]


NOT_RUN = {
    ("README.md", "make demo "): "installs the product; tests/test_packaging.py installs and runs it",
    ("README.md", "make lint "): "the developers' own commands, which run these tests",
    ("README.md", "# until it is stopped"): "needs a subscription: tests/stream and tests/letters run these commands",
    ("docs/streaming.md", "# Until Ctrl-C"): "needs a subscription: tests/stream runs these commands",
    ("README.md", "files ─ read "): "a picture",
    ("docs/design.md", "files ─ read "): "a picture",
    ("docs/relay-file.md", "your record  --"): "a picture",
    ("docs/relay-file.md", "# yaml-language-server"): "a comment for editors",
    ("docs/unbounded.md", "messages ─ read "): "a picture",
    (
        "docs/unbounded.md",
        "python -m pipelines.stream",
    ): "it needs Google Cloud; tests/unbounded/test_job_graph.py makes the job",
    ("docs/unbounded.md", "image=europe-docker"): "it needs Google Cloud and Docker; tests/unbounded/test_templates.py",
    ("docs/relay-file.md", "relay.yaml:1:18"): "the errors of the block before it, which are compared with it",
}
"""(page, how the block begins) -> why it is not run."""

RUN_ELSEWHERE = {
    "docs/adding-a-vendor.md": [("tests/vendors/test_documents.py", "test_adding_a_vendor_works_as_written")],
    "docs/dead-letters.md": [
        ("tests/letters/test_documented_letter.py", "test_the_documented_letter_is_one"),
        ("tests/letters/test_replay.py", "test_the_documented_commands_work"),
    ],
}
"""Pages whose blocks tests of their own put together and run."""

SCHEMAS: dict[str, dict[str, object]] = {
    "README.md": {"name": "string", "at": "long", "player": {"id": "string"}, "level": "?long",
                  "price": {"amount": "?double", "currency": "?string"}, "details": "{}"},
    "docs/relay-file.md": {"id": "string", "kind": "string", "name": "string", "at": "long", "ts": "long", "event": "string",
                           "when": "string", "player": {"id": "?string", "is_bot": "?boolean"},
                           "payload": "{}"},
}  # fmt: skip
"""Page -> the records that its relay files with `schema: telemetry.avsc` speak of."""


def avro(fields: Mapping[str, object], name: str = "Record") -> dict[str, object]:
    """`?` for nullable, `{}` for a map of anything."""

    def kind(key: str, value: object) -> object:
        if isinstance(value, dict):
            return avro(value, key.title())
        if value == "{}":
            return {"type": "map", "values": ["null", "boolean", "long", "double", "string"], "json": True}
        text = str(value)
        return ["null", text[1:]] if text.startswith("?") else text

    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": key, "type": kind(key, value), **({"default": None} if str(value).startswith("?") else {})}
            for key, value in fields.items()
        ],
    }


def why_not_run(block: Block) -> str | None:
    return next(
        (why for (page, start), why in NOT_RUN.items() if block.page == page and block.text.startswith(start)), None
    )


def is_relay_file(block: Block) -> bool:
    return block.language == "yaml" and re.search("^destinations:", block.text, re.MULTILINE) is not None


RELAY_FILES = [block for block in ALL if is_relay_file(block)]
PIECES = [
    block
    for block in ALL
    if block.language == "yaml"
    and block not in RELAY_FILES
    and block.page not in RUN_ELSEWHERE
    and not why_not_run(block)
]
PLAYRELAY = [block for block in ALL if block.text.startswith("playrelay ") and block.page not in RUN_ELSEWHERE]
PROGRAMS = sorted({block.page for block in ALL if block.language == "python"} - set(RUN_ELSEWHERE))


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_every_block_has_a_test_or_a_reason(block: Block) -> None:
    run = (
        block in RELAY_FILES
        or block in PIECES
        or block in PLAYRELAY
        or (block.page in PROGRAMS and block.language == "python")
    )
    elsewhere = block.page in RUN_ELSEWHERE
    assert run + elsewhere + bool(why_not_run(block)) == 1, f"{block.name}: {block.text[:60]!r}"


def test_the_reasons_are_of_blocks_that_are_there() -> None:
    for page, start in NOT_RUN:
        assert any(block.page == page and block.text.startswith(start) for block in ALL), f"{page}: {start}"
    for file, test in (one for tests in RUN_ELSEWHERE.values() for one in tests):
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


def written(block: Block, folder: Path, text: str | None = None) -> Path:
    """The block as relay.yaml, with the schema beside it that it speaks of."""
    (folder / "telemetry.avsc").write_text(json.dumps(avro(SCHEMAS.get(block.page, {}))), encoding="utf-8")
    if ";" in block.text and "format: csv" in block.text:
        columns = {"event": "string", "when": "string", "player": "string"}
        (folder / "telemetry.avsc").write_text(json.dumps(avro(columns)), encoding="utf-8")
    path = folder / "relay.yaml"
    path.write_text(block.text if text is None else text, encoding="utf-8")
    return path


@pytest.mark.parametrize("block", RELAY_FILES, ids=lambda block: block.name)
def test_relay_files_check(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its mappings and schemas; the one that is meant to be wrong gives the errors that are shown after it."""
    path = written(block, tmp_path)
    after = ALL[ALL.index(block) + 1] if block is not ALL[-1] else None
    if after is not None and after.language == "text":
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, ["check", path.name], catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (2, after.text)
        return
    result = CliRunner().invoke(main, ["check", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    names = relay_file.load(path).destinations
    assert all(name in result.stdout for name in names)


@pytest.mark.parametrize("block", PIECES, ids=lambda block: block.name)
def test_pieces_fit_where_they_belong(block: Block, tmp_path: Path) -> None:
    """A piece of a relay file (`event:`, `map:`), put into one."""
    vendor = "12traits" if "kpi:" in block.text else "teak"
    credentials = {"12traits": "{api_key: env:X}", "teak": "{game_id: a, secret_key: env:X}"}[vendor]
    inset = "".join(f"    {line}\n" for line in block.text.splitlines())
    if block.text.startswith("event:"):
        text = (
            f"source:\n    schema: telemetry.avsc\n{inset}destinations:\n  {vendor}: {{credentials: {credentials}}}\n"
        )
    else:
        text = f"source: {{preset: canonical}}\ndestinations:\n  {vendor}:\n    credentials: {credentials}\n{inset}"
    plan, _ = make_plan(relay_file.load(written(block, tmp_path, text)))
    assert plan.destinations[0].vendor == vendor
    wrong = text.replace("event_type:", "event_typ:", 1).replace("kpi:", "kpii:")
    with pytest.raises(Problems):
        make_plan(relay_file.load(written(block, tmp_path, wrong)))


EVENTS = [
    {"event_type": "level_up", "event_timestamp": 1_700_000_000_000 + n, "user_id": f"u{n}", "event_data": {"level": n}}
    for n in range(20)
]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A sandbox, and a working folder with the files that the documents' commands name."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps(event) + "\n" for event in EVENTS)
    Path("events.ndjson").write_text(lines, encoding="utf-8")
    Path("events").mkdir()
    Path("events/day1.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    with Running() as running:
        yield running


def command(line: str) -> Result:
    program, *arguments = shlex.split(line, comments=True)
    assert program == "playrelay"
    return CliRunner().invoke(main, arguments, prog_name="playrelay", catch_exceptions=False)


@pytest.mark.parametrize("block", PLAYRELAY, ids=lambda block: block.name)
def test_commands(block: Block, sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, in one folder. What `init` wrote is pointed at the sandbox, with its credentials."""
    for line in block.text.splitlines():
        result = command(line)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if line.startswith("playrelay init"):
            text = Path("relay.yaml").read_text(encoding="utf-8")
            for slug, credentials in RELAY_FILE.items():
                for key, value in credentials.items():
                    monkeypatch.setenv(f"{slug}_{key}".upper().removeprefix("12"), value)
                    text = text.replace(f"my-{key.replace('_', '-')}", value)
                text = text.replace(f"  {slug}:\n", f"  {slug}:\n    url: {sandbox.url}/{slug}\n")
            Path("relay.yaml").write_text(text, encoding="utf-8")
        if " preview " in line:
            assert result.stdout.count("POST ") > 0
            assert sandbox.received()["vendors"]["teak"]["requests"] == 0
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert report["balanced"]
    assert {total["delivered"] for total in report["destinations"].values()} == {len(EVENTS)}
    assert not sandbox.violations()


@pytest.mark.parametrize("page", PROGRAMS)
def test_programs(page: str, sandbox: Running) -> None:
    """A page's Python blocks are one program; a relay file on the page is the one that it loads."""
    here = [block for block in ALL if block.page == page]
    for block in here:
        if is_relay_file(block):
            assert "http://127.0.0.1:9000" in block.text
            Path("relay.yaml").write_text(block.text.replace("http://127.0.0.1:9000", sandbox.url), encoding="utf-8")
    program = "\n".join(block.text for block in here if block.language == "python")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "balanced: True\n"
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert report["destinations"]["teak"]["delivered"] == len(EVENTS)
    assert [one["user"] for one in sandbox.items("teak")] != []
    assert not sandbox.violations()


def test_every_importable_transform_has_its_section() -> None:
    text = (ROOT / "docs/transforms.md").read_text(encoding="utf-8")
    for name in ("Read", "MapRecordsFn", "Deliver", "WriteDeadLettersFn", "WriteReport"):
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"import {name}" in section or f", {name}" in section, name
        assert f"{name}(" in section, name


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in {block.page for block in ALL} | {"docs/mapping.md"}:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
            assert not target or (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
        anchors = {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        for anchor in re.findall(r"\]\(#([^)]*)\)", text):
            assert anchor in anchors, f"{page}: #{anchor}"
