"""Records in, exact requests and dead letters out, through the command; README.md tells how to look at differences."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from golden.replay import CASES, cases, check_tokens, difference, play

from pipelines.cli import main
from sandbox.credentials import SWRVE_API_KEY
from transforms import vendors

# A case that no request is expected of tells nothing of a model, so the paths below are those that were seen to be sent.
SENT = {
    line.removeprefix("### POST ").split("?")[0].strip()
    for case in cases()
    for line in (CASES / case / "requests.http").read_text(encoding="utf-8").splitlines()
    if line.startswith("### POST ")
}
BODIES = "".join((CASES / case / "requests.http").read_text(encoding="utf-8") for case in cases())


@pytest.mark.parametrize("case", cases())
def test_case(case: str) -> None:
    before = time.time()
    outcome = play(case)
    found = difference(case, outcome)
    assert not found, f"look at it with: python -m tests.golden.replay {case}\n{found}"
    assert outcome.code == 0, outcome.output
    assert json.loads(outcome.files["report.json"])["balanced"]
    tokens = check_tokens(outcome.requests, SWRVE_API_KEY, before)
    assert tokens == sum('"session_token"' in request.body.decode() for request in outcome.requests)


@pytest.mark.parametrize("case", cases())
def test_what_was_delivered_was_sent(case: str) -> None:
    """The files agree with each other: no body holds fewer items than the report says were delivered."""
    report = json.loads((CASES / case / "report.json").read_text(encoding="utf-8"))
    letters = json.loads((CASES / case / "dead_letters.json").read_text(encoding="utf-8"))
    (total,) = report["destinations"].values()
    assert total["rejected"] == len(letters)
    assert total["requests"] == (CASES / case / "requests.http").read_text(encoding="utf-8").count("### POST ")


def test_every_model_of_every_vendor_has_a_case() -> None:
    for slug in vendors.slugs():
        vendor = vendors.get(slug)
        sends = next((option.choices for option in vendor.options if option.name == "send"), ("",))
        for send in sends:
            for name, model in vendor.models_under({"send": send}).items():
                path = f"/{slug}{model.route.path}"
                assert path in SENT, f"{slug} {send} {name}"
    for name in vendors.get("swrve").models:
        assert f'"type":"{name}"' in BODIES


def test_every_vendor_has_dead_letters_of_its_own_and_of_the_mapping() -> None:
    for slug in vendors.slugs():
        files = [CASES / case / "dead_letters.json" for case in cases() if case.startswith(f"{slug}/")]
        letters = [letter for file in files for letter in json.loads(file.read_text(encoding="utf-8"))]
        assert {bool(letter["status"]) for letter in letters} == {True, False}
        assert all(letter["original"] for letter in letters)


HOSTS = {
    ("12traits", ""): "https://api.12traits.com/v1/games/actions",
    ("traitly", ""): "https://api.traitly.com/api/v1/event",
    ("parcelvoy", ""): "https://app.parcelvoy.com/api/client/events",
    ("swrve", ""): "https://1000.api.swrve.com/1/batch",
    ("swrve", "region: us"): "https://1000.api.swrve.com/1/batch",
    ("swrve", "region: eu"): "https://1000.eu-api.swrve.com/1/batch",
    ("swrve", "{region: eu, send: single}"): "https://1000.eu-api.swrve.com/1/event",
    ("swrve", "{region: eu, send: multi_user_batch}"): "https://1000.eu-api.swrve.com/1/multi_user_batch",
    ("teak", ""): "https://api.gocarrot.com/v2/analytics_events/batch",
    ("teak", "send: single"): "https://api.gocarrot.com/v2/analytics_events",
    ("teak", "url: https://proxy.example/teak/"): "https://proxy.example/teak/v2/analytics_events/batch",
}


@pytest.mark.parametrize(("slug", "options"), HOSTS, ids=lambda value: value or "plain")
def test_the_vendors_own_hosts(slug: str, options: str, tmp_path: Path) -> None:
    vendor = vendors.get(slug)
    needed = vendor.credential_sets[0]
    credentials = {one.name: "env:NONE" if one.secret else "1000" for one in vendor.credentials if one.name in needed}
    destination = {"credentials": credentials, **(yaml.safe_load(options) or {})}
    relay, record = tmp_path / "relay.yaml", tmp_path / "events.ndjson"
    relay.write_text(yaml.safe_dump({"source": {"preset": "canonical"}, "destinations": {slug: destination}}))
    record.write_text('{"event_type":"spin","event_timestamp":1700000000000,"user_id":"u1"}\n')
    result = CliRunner().invoke(main, ["preview", str(relay), "--input", str(record)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert re.findall(r"POST (\S+)", result.stdout) == [HOSTS[slug, options]]
