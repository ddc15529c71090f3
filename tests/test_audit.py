"""The audit of dependencies: finds what a database knows, and says when it could not be done."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tools import audit
from tools.audit import Found, NotDone

PACKAGES = {"chess-board": "1.5", "other": "2.0"}


def advisory(events: list[Mapping[str, str]], *, name: str = "Chess_Board", **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges}
    return {"id": "PYSEC-1", "affected": [affected | more.pop("affected", {})], **more}


@pytest.fixture
def database(tmp_path: Path) -> Callable[..., str]:
    def write(*records: Mapping[str, Any]) -> str:
        path = tmp_path / "all.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number, record in enumerate(records):
                archive.writestr(f"{number}.json", json.dumps(record))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("events", "hit"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "1.5"}], False),
        ([{"introduced": "0"}, {"fixed": "1.5.1"}], True),
        ([{"introduced": "1.5"}, {"fixed": "1.10"}], True),
        ([{"introduced": "1.6"}], False),
        ([{"introduced": "0"}, {"last_affected": "1.5"}], True),
        ([{"introduced": "0"}, {"last_affected": "1.4"}], False),
        ([{"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "1.4"}, {"fixed": "1.6"}], True),
        ([{"introduced": "not a version"}], False),
    ],
)
def test_ranges_are_read(database: Callable[..., str], events: list[Mapping[str, str]], hit: bool) -> None:
    fixed = tuple(event["fixed"] for event in events if "fixed" in event)
    expected = [Found("chess-board", "1.5", "PYSEC-1", fixed)] if hit else []
    assert audit.look_up(PACKAGES, database(advisory(events))) == expected


def test_listed_versions_count_and_withdrawn_and_other_advisories_do_not(database: Callable[..., str]) -> None:
    always: list[Mapping[str, str]] = [{"introduced": "0"}]
    path = database(
        advisory([{"introduced": "9"}], affected={"versions": ["1.5"]}),
        advisory(always, withdrawn="2026-01-01T00:00:00Z"),
        advisory(always, name="elsewhere"),
        advisory(always, affected={"package": {"ecosystem": "npm", "name": "chess-board"}}),
    )
    assert audit.look_up(PACKAGES, path) == [Found("chess-board", "1.5", "PYSEC-1", ())]


def test_what_is_no_database_is_no_audit(tmp_path: Path, database: Callable[..., str]) -> None:
    (tmp_path / "page.html").write_text("<html>")
    for path in (str(tmp_path / "page.html"), str(tmp_path / "none.zip"), database({"id": "x"})):
        with pytest.raises(NotDone):
            audit.look_up(PACKAGES, path)


def test_a_finding_fails_and_is_told(database: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    version = audit.installed()["apache-beam"]
    path = database(advisory([{"introduced": "0"}, {"fixed": "999"}], name="apache_beam"))
    assert audit.main(["--advisories", path]) == 1
    assert f"apache-beam {version}: PYSEC-1, fixed in 999\n" in capsys.readouterr().out
    assert audit.main(["--advisories", database(advisory([{"introduced": "999"}], name="apache_beam"))]) == 0
    assert "dependencies audited, 0 known vulnerabilities" in capsys.readouterr().out


def test_a_finding_fails_even_if_not_all_was_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Found("chess-board", "1.5", "PYSEC-1", ())]

    def asked(_: Mapping[str, str]) -> list[Found]:
        raise NotDone("OSV gave no answer for one", found)

    monkeypatch.setattr(audit, "ask_osv", asked)
    assert audit.main([]) == 1
    said = capsys.readouterr().out
    assert "chess-board 1.5: PYSEC-1, no version without it yet\n" in said
    assert "NOT AUDITED for vulnerabilities: OSV gave no answer for one" in said


def test_without_a_network_it_says_so_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert audit.main([]) == 0
    assert "NOT AUDITED for vulnerabilities: OSV does not answer" in capsys.readouterr().out
    assert audit.main(["--required"]) == 1
