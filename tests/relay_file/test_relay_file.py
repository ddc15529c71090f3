"""The relay file: defaults, every key, every error with its place, and nothing but Problems for whatever is thrown at it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines import relay_file, relay_keys
from pipelines.relay_file import Relay
from transforms import vendors
from transforms.destination import BatchRule
from transforms.located import Problems

CREDENTIALS = {
    "12traits": "{api_key: env:TRAITS_KEY}",
    "traitly": "{token: env:TRAITLY_TOKEN}",
    "parcelvoy": "{api_key: env:PARCELVOY_KEY}",
    "swrve": "{app_id: 1234, api_key: env:SWRVE_KEY}",
    "teak": "{game_id: my-app, secret_key: env:TEAK_SECRET_KEY}",
}


def load(text: str, folder: str = ".") -> Relay:
    return relay_file.loads(text.encode(), "relay.yaml", folder)


def problems(text: str, folder: str = ".") -> list[str]:
    with pytest.raises(Problems) as caught:
        load(text, folder)
    return [str(problem) for problem in caught.value.problems]


def teak(*lines: str) -> str:
    """A good relay file of one destination, teak, with further lines in it (from line 6 on)."""
    head = "source:\n  preset: canonical\ndestinations:\n  teak:\n    credentials: " + CREDENTIALS["teak"] + "\n"
    return head + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize("slug", vendors.slugs())
def test_the_shortest_useful_file_is_a_preset_and_credentials(slug: str, tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(f"source: {{preset: canonical}}\ndestinations: {{{slug}: {{credentials: {CREDENTIALS[slug]}}}}}\n")
    relay = relay_file.load(path)
    vendor = vendors.get(slug)
    destination = relay.destinations[slug]
    assert (relay.path, relay.source.preset, relay.source.max_record, relay.warnings) == (
        str(path),
        "canonical",
        10_000_000,
        (),
    )
    assert (destination.name, destination.vendor, destination.url, destination.models) == (slug, slug, None, None)
    assert (destination.rate, destination.gzip, destination.batch.by) == (vendor.rate, vendor.gzip, vendor.by)
    limits = [model.route.limits for model in vendor.models_under(destination.options).values()]
    assert destination.batch.items == max(limit.items for limit in limits)
    assert destination.batch.bytes == max(limit.bytes for limit in limits)
    assert (destination.shards, destination.retry_s, destination.connect_timeout_s, destination.timeout_s) == (
        16,
        300,
        10,
        60,
    )
    assert (destination.batch.window_ms, destination.batch.age_ms, destination.allow_insecure) == (None, 1000, False)
    assert destination.options == {option.name: option.default for option in vendor.options}
    assert destination.base_dir == str(tmp_path)


def test_every_key(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "event.avsc").write_text("{}")
    relay = load(
        """
x-defaults: &defaults {retry: {for: 1h30m}, timeout: {connect: 2s, total: 2.5s}}
allow_literal_secrets: false
source:
  schema: schemas/event.avsc
  format: csv
  delimiter: tab
  max_record: 1MiB
  event: {user_id: $player}
destinations:
  eu-launch:
    <<: *defaults
    vendor: swrve
    credentials: {app_id: 0123, identity_secret_key: "secret:projects/p/secrets/s/versions/3"}
    url: http://127.0.0.1:9000/swrve/
    send: batch
    region: eu
    app_version: 1.10
    batch: {by: user, items: 50, bytes: 500KB, window: 1m, age: 250ms}
    shards: 4
    rate: 90/m
    models: [event, iap]
    map: {event: {fields: {name: $event_type}}}
    gzip: false
""",
        str(tmp_path),
    )
    source = relay.source
    assert (source.preset, source.schema, source.format) == (None, str(tmp_path / "schemas/event.avsc"), "csv")
    assert (source.delimiter, source.max_record) == ("\t", 1_048_576)
    assert source.event is not None and source.event.plain() == {"user_id": "$player"}
    destination = relay.destinations["eu-launch"]
    assert (destination.name, destination.vendor) == ("eu-launch", "swrve")
    assert destination.credentials == {
        "app_id": "0123",
        "identity_secret_key": "secret:projects/p/secrets/s/versions/3",
    }
    assert destination.url == "http://127.0.0.1:9000/swrve"
    assert (destination.options["send"], destination.options["region"]) == ("batch", "eu")
    assert destination.options["app_version"] == "1.10"
    assert destination.batch == BatchRule("user", 50, 500_000, 60_000, 250)
    assert (destination.shards, destination.rate, destination.retry_s) == (4, 1.5, 5400)
    assert (destination.connect_timeout_s, destination.timeout_s, destination.gzip) == (2, 2.5, False)
    assert destination.models == ("event", "iap")
    assert destination.map is not None and destination.map.key == "destinations.eu-launch.map"
    assert pickle.loads(pickle.dumps(relay)).destinations["eu-launch"].batch == destination.batch


def test_all_errors_of_a_file_come_at_once_in_its_order() -> None:
    assert problems(
        """
source: {preset: aws-game-analytic, max_records: 1MB}
allow_literal_secret: true
destinations:
  teak:
    credentials: {game_id: my-app, secret: env:X}
    batchh: {items: 10}
    batch: {items: 500, bytes: 2MB, by: vendors}
    rate: 100
    items: 4
  teek: {credentials: {secret_key: env:X}}
  swrve: {credentials: {app_id: a, api_key: env:X}, models: [evnt, event, event], send: batches}
"""
    ) == [
        "relay.yaml:2:18: source.preset: no such choice: aws-game-analytic; did you mean aws-game-analytics?",
        "relay.yaml:2:37: source.max_records: unknown key; did you mean max_record?",
        "relay.yaml:3:1: allow_literal_secret: unknown key; did you mean allow_literal_secrets?",
        "relay.yaml:6:36: destinations.teak.credentials: Teak has no such credential; did you mean secret_key?",
        "relay.yaml:7:5: destinations.teak.batchh: unknown key; did you mean batch?",
        (
            "relay.yaml:8:20: destinations.teak.batch.items: Teak takes at most 100 items a request"
            " (Analytics Events, Batch Sending, Batch Size), found 500"
        ),
        (
            "relay.yaml:8:32: destinations.teak.batch.bytes: Teak takes at most 1MB a request"
            " (Analytics Events, Batch Sending, Batch Size), found 2MB"
        ),
        "relay.yaml:8:41: destinations.teak.batch.by: no such choice: vendors; did you mean vendor?",
        "relay.yaml:9:11: destinations.teak.rate: expected a rate such as 100/s or 6000/m, or unlimited; is 100/s meant?",
        "relay.yaml:10:5: destinations.teak.items: unknown key; items belongs under batch:",
        (
            "relay.yaml:11:3: destinations.teek: teek is no vendor; did you mean teak? Otherwise add vendor: with one of"
            " 12traits, traitly, parcelvoy, swrve, teak"
        ),
        "relay.yaml:12:62: destinations.swrve.models[0]: Swrve has no model evnt; did you mean event?",
        "relay.yaml:12:75: destinations.swrve.models[2]: named twice",
        "relay.yaml:12:89: destinations.swrve.send: no such choice: batches; did you mean batch?",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "relay.yaml: empty; expected source: and destinations:"),
        ("# nothing\n", "relay.yaml: empty"),
        ("just text", "relay.yaml:1:1: expected a map with source: and destinations:, found text"),
        ("[]", "found a list"),
        ("source: {preset: canonical}", "destinations: is missing"),
        ("destinations: {}", "source: is missing"),
        ("destinations: {}", "relay.yaml:1:15: destinations: expected at least one destination"),
        ("source:\ndestinations:\n", "source: expected a map (key: value), found nothing"),
        ("source: {format: json}", "source: expected preset: (canonical, aws-game-analytics, playfab) or event:"),
        ("preset: canonical", "preset: unknown key; preset belongs under source:"),
        ("teak: {}", "teak: unknown key; teak belongs under destinations:"),
        ("rate: 1/s", "rate: unknown key; rate belongs under destinations:, in a destination"),
        (
            "source: {preset: canonical, schema: none.avsc}",
            "source.schema: no such file: ./none.avsc; expected an Avro schema",
        ),
        ("source: {preset: canonical, format: json, delimiter: ;}", "only CSV has a delimiter; format is json"),
        ("source: {preset: canonical, delimiter: ab}", "expected one character such as"),
        ("source: {preset: canonical, delimiter: a}", "no letter or digit"),
        ("source: {preset: canonical, max_record: 2TB}", "expected a size such as 500KB, 1MB or 4MiB"),
        ("source: {preset: canonical, max_record: 0}", "expected a size from 1 bytes to 1GiB"),
        ("source: {preset: 3}", "source.preset: expected one of canonical, aws-game-analytics, playfab, found 3"),
        ("allow_literal_secrets: yes", "allow_literal_secrets: expected true or false, found yes"),
        ("destinations: {teak: }", "destinations.teak: expected a map with credentials:, found nothing"),
        ("destinations: {teak: {}}", "destinations.teak: credentials: is missing; Teak needs game_id and secret_key"),
        ("destinations: {a/b: {vendor: teak}}", "a destination's name is letters, digits, - and _"),
        ("destinations: {x: {vendor: teek}}", "destinations.x.vendor: no such vendor; did you mean teak?"),
        ("destinations: {x: {vendor: 3}}", "destinations.x.vendor: no such vendor; expected one of 12traits, traitly"),
        ("destinations: {twelve_traits: {}}", "did you mean 12traits?"),
        (
            "destinations: {teak: {vendor: swrve}}",
            "the name teak is another vendor's; give this destination a name of its own",
        ),
        (
            "destinations: {swrve: {credentials: {app_id: a}}}",
            "Swrve needs app_id and api_key, or app_id and identity_secret_key",
        ),
    ],
)
def test_what_is_wrong_with_the_outer_keys(text: str, said: str) -> None:
    found = problems(text)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch: 100", "6:12: destinations.teak.batch: expected a map (key: value), found a whole number"),
        ("batch: {items: many}", "6:20: destinations.teak.batch.items: expected a whole number, found many"),
        ("batch: {items: 1.5}", "expected a whole number, found 1.5"),
        ("batch: {items: true}", "expected a whole number, found true"),
        ("batch: {items: 0}", "expected a whole number from 1 to 1,000,000, found 0"),
        ("batch: {window: 60}", "destinations.teak.batch.window: expected a duration such as 30s, 5m or 1h30m (units ms, s, m, h, d); is 60s meant?"),
        ("batch: {window: 1 minute}", "expected a duration such as 30s, 5m or 1h30m (units ms, s, m, h, d), found 1 minute"),
        ("batch: {window: 0s}", "expected a duration from 0.001s to"),
        ("batch: {bytes: 10}", "expected a size from 1KB to 1GiB, found 10 bytes"),
        ("shards: 0", "expected a whole number from 1 to 4,096, found 0"),
        ("rate: fast", "expected a rate such as 100/s or 6000/m, or unlimited, found fast"),
        ("rate: 0/s", "a rate of 0 would send nothing"),
        ("retry: {fro: 5m}", "destinations.teak.retry.fro: unknown key; did you mean for?"),
        ("retry: 5m", "destinations.teak.retry: expected a map (key: value), found text"),
        ("timeout: {connect: 5s, total: 1s}", "connect (5s) is longer than total (1s)"),
        ("models: event", "destinations.teak.models: expected a list such as [one, two], found event"),
        ("models: []", "expected a list such as [one, two], found an empty one"),
        ("models: [[event]]", "expected a list of names, found a list in it"),
        ("models: [purchase]", "Teak has no model purchase; expected one of event"),
        ("map: [event]", "destinations.teak.map: expected a map (key: value), found a list"),
        ("gzip: true", "Teak is not known to take compressed bodies"),
        ("allow_insecure: 1", "expected true or false, found 1"),
        ("region: eu", "destinations.teak.region: unknown key"),
        ("game_id: x", "unknown key; game_id belongs under credentials:"),
        ("connect: 1s", "unknown key; connect belongs under timeout:"),
        ("url: ftp://example.com", "expected a URL that starts with https://"),
        ("url: example.com", "expected a URL that starts with https://"),
        ("url: 9000", "expected a URL such as"),
        ('url: "https://"', "expected a URL with a host"),
        ("url: https://example.com:99999", "its host or port is not valid"),
        ("url: 'https://[::1'", "its host or port is not valid"),
        ("url: https://example.com/a?b=c", "has no query (?)"),
        ("url: 'https://example.com/#'", "no fragment (#)"),
        ("url: https://me:hunter2@example.com", "a URL must hold no user name or password"),
        ("url: 'https://exa mple.com'", "without spaces"),
        ('url: "https://example.com/\\r\\nX: 1"', "printable ASCII characters"),
        ("url: https://exämple.com", "hosts in punycode"),
        ("url: http://example.com", "plain HTTP would show credentials on the network; write https://, or set allow_insecure: true"),
        ("url: http://127.0.0.1.example.com", "plain HTTP would show"),
        ("url: http://localhost.example.com", "plain HTTP would show"),
        ("url: http://10.0.0.1:80", "plain HTTP would show"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_destination(line: str, said: str) -> None:
    found = problems(teak(line))
    assert len(found) == 1 and said in found[0], found
    assert "hunter2" not in found[0]
    assert found[0].startswith("relay.yaml:6:")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:9000/teak", "http://127.0.0.1:9000/teak"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://localhost:80/", "http://localhost:80"),
        ("http://[::1]:9000/a/b//", "http://[::1]:9000/a/b"),
        ("https://api.example.com", "https://api.example.com"),
        ("https://10.1.2.3:8443/proxy/teak/", "https://10.1.2.3:8443/proxy/teak"),
    ],
)
def test_urls_keep_their_prefix_and_lose_their_last_slash(url: str, kept: str) -> None:
    assert load(teak(f"url: '{url}'")).destinations["teak"].url == kept


def test_plain_http_elsewhere_when_allowed() -> None:
    destination = load(teak("url: http://proxy.internal", "allow_insecure: true")).destinations["teak"]
    assert (destination.url, destination.allow_insecure) == ("http://proxy.internal", True)


def test_a_vendor_may_stand_twice_under_names_of_its_own() -> None:
    one = f"{{vendor: teak, credentials: {CREDENTIALS['teak']}}}"
    relay = load(f"source: {{preset: playfab}}\ndestinations: {{ios: {one}, android: {one}}}")
    assert [(name, each.vendor) for name, each in relay.destinations.items()] == [("ios", "teak"), ("android", "teak")]


def test_limits_are_those_of_the_chosen_models_and_options() -> None:
    head = f"source: {{preset: canonical}}\ndestinations: {{parcelvoy: {{credentials: {CREDENTIALS['parcelvoy']}, "
    assert load(head + "batch: {items: 5000}}}").destinations["parcelvoy"].batch.items == 5000
    assert load(head + "models: [identify]}}").destinations["parcelvoy"].batch.items == 1
    assert (
        "Parcelvoy takes at most 1 items a request" in problems(head + "models: [identify], batch: {items: 5000}}}")[0]
    )
    assert load(teak("send: single")).destinations["teak"].batch.items == 1


def test_a_literal_secret_is_an_error_and_never_repeated() -> None:
    text = teak().replace("env:TEAK_SECRET_KEY", "hunter2")
    assert problems(text) == [
        (
            "relay.yaml:5:48: destinations.teak.credentials.secret_key: a secret must not stand in the file; write env:NAME,"
            " file:PATH or secret:projects/PROJECT/secrets/NAME/versions/VERSION (or set allow_literal_secrets: true)"
        )
    ]
    relay = load("allow_literal_secrets: true\n" + text)
    assert relay.destinations["teak"].credentials["secret_key"] == "hunter2"
    assert [str(warning) for warning in relay.warnings] == [
        (
            "relay.yaml:6:48: destinations.teak.credentials.secret_key: a secret stands in the file; for more than trying write"
            " env:NAME, file:PATH or secret:projects/PROJECT/secrets/NAME/versions/VERSION"
        )
    ]
    assert "hunter2" not in str(relay.warnings) + str(relay.source)


def test_a_literal_secret_for_this_machine_is_not_warned_about() -> None:
    text = "allow_literal_secrets: true\n" + teak("url: http://127.0.0.1:9000/teak").replace("env:TEAK_SECRET_KEY", "x")
    assert load(text).warnings == ()
    assert len(load(text.replace("http://127.0.0.1:9000", "https://127.0.0.1.example")).warnings) == 1


@pytest.mark.parametrize(
    "credentials",
    ["hunter2", "[hunter2]", "{hunter2}", "{game_id: a, secret_key: [hunter2]}", "{game_id: a, secret_key: {hunter2: 1}}",
     "{game_id: a, hunter2: hunter2}", "{game_id: a, secret_key: env:sk-hunter2}", "{game_id: a, secret_key: secret:hunter2}",
     "{game_id: a, secret_key: *hunter2}", "{game_id: a, secret_key: !hunter2 x}", "{game_id: a, secret_key: '${hunter2}'}"],
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_not_repeated_either(credentials: str) -> None:
    text = f"source: {{preset: canonical}}\ndestinations:\n  teak:\n    credentials: {credentials}\n"
    assert "hunter2" not in "".join(problems(text))


def test_more_than_the_vendor_takes_and_useless_settings_are_warned_about() -> None:
    assert [str(warning) for warning in load(teak("rate: unlimited")).warnings] == [
        (
            "relay.yaml:6:11: destinations.teak.rate: Teak takes 100/s (Analytics Events, Rate Limiting);"
            " more will be answered with 429"
        )
    ]
    swrve = f"source: {{preset: canonical}}\ndestinations: {{swrve: {{credentials: {CREDENTIALS['swrve']}, batch: {{by: vendor}}}}}}"
    assert "hold one user's items here" in str(load(swrve).warnings[0])
    assert load(teak("rate: 100/s", "batch: {by: vendor}")).warnings == ()


def test_no_vendors_own_key_hides_a_key_that_all_have() -> None:
    for slug in vendors.slugs():
        names = [option.name for option in vendors.get(slug).options]
        assert not set(names) & {key.name for key in relay_keys.DESTINATION}
        assert len(names) == len(set(names))


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problems, match=r"none\.yaml: cannot be read: No such file or directory"):
        relay_file.load(tmp_path / "none.yaml")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["teak", "event", "100/s", "5m", "1MB", "http://x", "env:X", "file:\0", "off", "$a"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["teak", "batch", "items", "credentials", "game_id", "for", "<<"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SOURCE_KEYS = st.sampled_from([key.name for key in relay_keys.SOURCE])
DESTINATION_KEYS = st.sampled_from(
    [
        *(key.name for key in relay_keys.DESTINATION),
        *(o.name for slug in vendors.slugs() for o in vendors.get(slug).options),
    ]
)
BELOW = st.sampled_from([key.name for table in relay_keys.DESTINATION for key in table.keys])


@given(
    source=st.dictionaries(SOURCE_KEYS, ANY, max_size=3) | ANY,
    destination=st.dictionaries(DESTINATION_KEYS, ANY | st.dictionaries(BELOW, ANY, max_size=3), max_size=4) | ANY,
    slug=st.sampled_from(vendors.slugs()) | st.text(max_size=5),
)
def test_any_values_under_any_keys_give_a_relay_or_problems(source: Any, destination: Any, slug: str) -> None:
    text = yaml.safe_dump({"source": source, "destinations": {slug: destination}}, allow_unicode=True)
    try:
        load(text)
    except Problems as caught:
        assert all(problem.message for problem in caught.problems)


@given(st.binary(max_size=200))
def test_any_bytes_give_problems(data: bytes) -> None:
    with pytest.raises(Problems) as caught:
        relay_file.loads(data, "relay.yaml")
    assert str(caught.value)


@given(st.data())
def test_a_good_file_with_any_piece_replaced_gives_a_relay_or_problems(data: st.DataObject) -> None:
    text = teak("batch: {items: 10, window: 1m}", "models: [event]", "url: https://example.com/a", "rate: 5/s")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    piece = data.draw(st.text(st.sampled_from("a1:{}[],&*!|>-#'\"% \n\t"), max_size=4))
    try:
        load(text[:start] + piece + text[end:])
    except Problems as caught:
        assert str(caught)


def test_what_a_vendor_finds_not_to_go_together(tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(
        "source: {preset: canonical}\n"
        "destinations:\n"
        "  swrve:\n"
        "    credentials: {app_id: '1', api_key: 'env:KEY'}\n"
        "    user_ids: external\n"
    )
    with pytest.raises(Problems) as found:
        relay_file.load(path)
    (problem,) = found.value.problems
    assert problem.key == "destinations.swrve.user_ids"
    assert "identity_secret_key" in problem.message
