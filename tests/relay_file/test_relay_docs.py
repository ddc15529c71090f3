"""docs/relay-file.md: every relay file in it loads, its errors are the real ones, and it leaves no key out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from pipelines import relay_file, relay_keys, relay_schema
from pipelines.relay_keys import Key
from transforms import located, vendors
from transforms.located import Problems

PAGE = Path(__file__).parents[2] / "docs" / "relay-file.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = [
    (TEXT.count("\n", 0, match.start()) + 1, match[1])
    for match in re.finditer(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]
WRONG = next(block for _, block in BLOCKS if "batchh" in block)
RELAY_FILES = [
    (line, block) for line, block in BLOCKS if re.search("^destinations:", block, re.MULTILINE) and block != WRONG
]
PIECES = [(line, block) for line, block in BLOCKS if not re.search("^destinations:", block, re.MULTILINE)]


def test_the_page_has_examples() -> None:
    assert len(RELAY_FILES) >= 9 and len(PIECES) >= 3


@pytest.mark.parametrize(("line", "block"), RELAY_FILES, ids=[f"line {line}" for line, _ in RELAY_FILES])
def test_relay_files_load_and_please_the_editor(line: int, block: str, tmp_path: Path) -> None:
    (tmp_path / "telemetry.avsc").write_text("{}")
    relay = relay_file.loads(block.encode(), f"{PAGE.name} from line {line}", str(tmp_path))
    assert not relay.warnings
    schema = json.loads(Path(relay_schema.PATH).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(located.parse(block, PAGE.name).plain())


@pytest.mark.parametrize(("line", "block"), PIECES, ids=[f"line {line}" for line, _ in PIECES])
def test_pieces_are_yaml(line: int, block: str) -> None:
    located.parse(block, f"{PAGE.name} from line {line}")


def test_the_errors_shown_are_those_of_the_file_shown() -> None:
    shown = re.search(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    with pytest.raises(Problems) as caught:
        relay_file.loads(WRONG.encode(), "relay.yaml")
    assert shown is not None and shown[1] == f"{caught.value}\n"


def every_key(keys: tuple[Key, ...]) -> list[Key]:
    return [each for key in keys for each in (key, *every_key(key.keys))]


@pytest.mark.parametrize("table", [relay_keys.SOURCE, relay_keys.DEDUPE, relay_keys.DESTINATION, relay_keys.BATCH])
def test_every_key_has_its_row(table: tuple[Key, ...]) -> None:
    for key in table:
        assert f"\n| `{key.name}` |" in TEXT


def test_every_other_key_vendor_option_and_credential_is_named() -> None:
    for key in every_key((*relay_keys.TOP, *relay_keys.DESTINATION)):
        assert f"`{key.name}`" in TEXT or f"{key.name}:" in TEXT
    for slug in vendors.slugs():
        vendor = vendors.get(slug)
        for option in vendor.options:
            row = re.search(rf"^\| {vendor.title} \| `{option.name}` \|(.*)$", TEXT, re.MULTILINE)
            assert row is not None, f"{vendor.title} {option.name} has no row"
            assert all(f"`{choice}`" in row[1] for choice in option.choices)
        row = re.search(rf"^\| {vendor.title} \| (`.*)$", TEXT, re.MULTILINE)
        assert row is not None and slug in TEXT
    credentials = TEXT[TEXT.index("## Credentials") : TEXT.index("## Each vendor's keys")]
    for slug in vendors.slugs():
        for credential in vendors.get(slug).credentials:
            assert re.search(rf"^\| {vendors.get(slug).title} \|.*`{credential.name}`", credentials, re.MULTILINE)
