"""The vendors' documents: the table of mappings is up to date, and the walk through adding a vendor works as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from transforms.vendors import get, slugs, table

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_table_of_mappings_is_up_to_date() -> None:
    assert (ROOT / "docs/mapping.md").read_text("utf-8") == table.page(), (
        "docs/mapping.md is old: run `python -m transforms.vendors.table > docs/mapping.md`"
    )


def test_the_table_names_every_model() -> None:
    page = table.page()
    for slug in slugs():
        vendor = get(slug)
        assert all(f"### {vendor.title}: {name}" in page for name in vendor.models)


def test_a_condition_is_true_false_or_open_for_an_event_type() -> None:
    purchase = {"event_type": "purchase"}
    open_ = {"event_data.amount": {"exists": True}}
    assert table.takes({}, "login") is True
    assert table.takes(purchase, "purchase") is True
    assert table.takes(purchase, "login") is False
    assert table.takes({**purchase, **open_}, "purchase") is None
    assert table.takes({**purchase, **open_}, "login") is False
    assert table.takes({"not": purchase}, "login") is True
    assert table.takes({"not": open_}, "login") is None
    assert table.takes({"any": [purchase, open_]}, "purchase") is True
    assert table.takes({"any": [purchase, open_]}, "login") is None
    assert table.takes({"all": [{"event_type": {"in": ["login"]}}, {"not": purchase}]}, "login") is True


def test_adding_a_vendor_works_as_written(tmp_path: Path) -> None:
    blocks = dict(BLOCK.findall((ROOT / "docs/adding-a-vendor.md").read_text("utf-8")))
    additions = {
        "transforms/vendors/__init__.py": "_MODULES = {\n",
        "tests/vendors/test_mappings.py": "GOLDEN: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [\n",
    }
    assert set(blocks) == {
        "schemas/nimbus/event.avsc",
        "transforms/vendors/nimbus.py",
        "transforms/vendors/nimbus.yaml",
        "tests/vendors/test_nimbus.py",
        *additions,
    }
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("schemas", "transforms", "sandbox", "tests/vendors"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in blocks.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if name in additions:
            before = file.read_text("utf-8")
            assert before.count(additions[name]) == 1
            text = before.replace(additions[name], additions[name] + text)
        file.write_text(text, "utf-8")

    def run(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    tested = run("-m", "pytest", "tests/vendors", "-k", "nimbus")
    passed = re.search(r"(\d+) passed", tested)
    assert passed
    assert int(passed[1]) >= 20
    assert "### Nimbus: event" in run("-m", "transforms.vendors.table")
