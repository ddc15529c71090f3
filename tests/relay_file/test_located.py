"""Located YAML: places, plain values, and a clear problem for everything that is not a YAML file."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms import located
from transforms.located import Node, Problem, Problems


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(Problems) as caught:
        located.parse_bytes(text if isinstance(text, bytes) else text.encode(), "relay.yaml")
    return [str(problem) for problem in caught.value.problems]


def at(node: Node, *keys: str) -> Node:
    for key in keys:
        assert isinstance(node.value, dict)
        node = node.value[key]
    return node


def test_every_value_knows_its_place() -> None:
    top = located.parse("# head\ndestinations:\n  teak:\n    batch: {items: 10}\n    models: [event, 7]\n", "r.yaml")
    items = at(top, "destinations", "teak", "batch", "items")
    assert (items.value, items.line, items.column, items.key) == (10, 4, 20, "destinations.teak.batch.items")
    assert (items.key_line, items.key_column, items.file, items.text) == (4, 13, "r.yaml", "10")
    models = at(top, "destinations", "teak", "models").value
    assert isinstance(models, list)
    assert [(node.key, node.line, node.column) for node in models] == [
        ("destinations.teak.models[0]", 5, 14),
        ("destinations.teak.models[1]", 5, 21),
    ]
    assert top.plain() == {"destinations": {"teak": {"batch": {"items": 10}, "models": ["event", 7]}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("NO", "NO"), ("yes", "yes"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'true'", "true"), ('"1"', "1"), ("1", 1), ("-7", -7), ("0x1F", 31), ("0o17", 15), ("007", 7), ("1.5", 1.5),
        ("1e3", 1000.0), (".5", 0.5), ("1:30", "1:30"), ("2024-01-31", "2024-01-31"), ("1_000", "1_000"), ("!!str 12", "12"),
        ("100/s", "100/s"), ("10MB", "10MB"), ("1.2.3", "1.2.3"), ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    plain = located.parse(f"a: {text}", "r.yaml").plain()["a"]
    assert plain == value and type(plain) is type(value)


def test_keys_are_the_text_as_written() -> None:
    assert located.parse("{off: 1, 1: 2, 007: 3, event_data.level: 4}", "r.yaml").plain() == {
        "off": 1, "1": 2, "007": 3, "event_data.level": 4,
    }  # fmt: skip


def test_anchors_aliases_and_merge_keys() -> None:
    top = located.parse(
        "x-base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: {<<: [{c: 4}, *base]}\nthree: *base\n", "r.yaml"
    )
    plain = top.plain()
    assert plain["one"] == {"a": 1, "b": 3}
    assert plain["two"] == {"c": 4, "a": 1, "b": 2}
    assert plain["three"] == {"a": 1, "b": 2}
    assert at(top, "one", "a").key == "one.a"


def test_every_duplicate_key_is_named_with_its_path() -> None:
    assert problems("a: {b: 1, b: 2}\nc: 1\nc: 2\n") == [
        "relay.yaml:1:11: a.b: given twice; the first is on line 1; keep one",
        "relay.yaml:3:1: c: given twice; the first is on line 2; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1\n", "relay.yaml:2:1: a tab where YAML allows only spaces"),
        ("a:\n  b: 1\n\tc: 2\n", "relay.yaml:3:1: a tab where YAML allows only spaces"),
        (
            "a: b: c",
            'relay.yaml:1:5: not YAML: mapping values are not allowed in this context; a value with ": " in it',
        ),
        ("a: {b: 1\nc: 2\n", "look for a missing"),
        ("a: @x", "relay.yaml:1:4: not YAML: found character that cannot start any token; quote the value"),
        ("a: 1\n---\nb: 2\n", "relay.yaml:2:1: a second YAML document starts here"),
        ("a: !!python/object/apply:os.system [ls]\n", "relay.yaml:1:4: a tag (!name) is not supported"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("a: *base\n", "relay.yaml:1:4: a: an alias (*name) without an anchor"),
        ("x: &base 1\na: *bass\n", "did you mean *base?"),
        ("a: &a [*a]\n", "relay.yaml:1:8: a[0]: an alias inside its own anchor"),
        ("a: {<<: 3}\n", "a.<<: expected a map"),
        ("a: " + "9" * 5000, "a number of more than 40 digits"),
        ("a: 1e999", "a number too large"),
        ("[" * 5000, "nested deeper than 64 levels"),
        ("- " * 5000, "nested deeper than 64 levels"),
        (b"a: 1\nb: \xe9t\xe9\n", "relay.yaml:2:4: not UTF-8: byte 0xe9 here"),
        (b"\xff\xfea\x00", "it looks like UTF-16"),
        (b"a: \x00\n", "relay.yaml:1:4: character U+0000 is not allowed"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        (b"a: \x1b[31m\n", "character U+001B is not allowed"),
        (b"x" * (located.MAX_BYTES + 1), "larger than 4,000,000 bytes"),
    ],
)
def test_what_is_no_good_yaml_is_told_with_its_place(text: str | bytes, said: str) -> None:
    found = problems(text)
    assert any(said in problem for problem in found), found


def test_an_unquoted_secret_that_looks_like_an_alias_or_tag_is_not_repeated() -> None:
    assert "hunter2" not in "".join(problems("api_key: *hunter2") + problems("api_key: !hunter2 x"))


def test_aliases_that_multiply_are_refused_quickly() -> None:
    levels = "".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    started = time.perf_counter()
    assert "more than 100,000 values" in problems("b0: &a0 [x, x, x, x]\n" + levels)[0]
    assert time.perf_counter() - started < 5


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert located.parse_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  - 2\r\n", "r.yaml").plain() == {"a": 1, "b": [2]}


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: object) -> None:
    for path in (f"{tmp_path}/none.yaml", f"{tmp_path}", "nul\0.yaml"):
        with pytest.raises(Problems, match="cannot be read"):
            located.read(path)


def test_problems_stay_on_one_line_each_and_can_be_pickled() -> None:
    problem = Problem("r.yaml", 1, 2, "a\nb\x1b[31m", "m")
    assert str(problem) == "r.yaml:1:2: a\\x0ab\\x1b[31m: m"
    again = pickle.loads(pickle.dumps(Problems([problem])))
    assert again.problems == (problem,)


def test_nodes_can_be_pickled_and_do_not_show_their_values() -> None:
    node = located.parse("api_key: hunter2", "r.yaml")
    assert pickle.loads(pickle.dumps(node)).plain() == node.plain()
    assert "hunter2" not in repr(node) + repr(node.value)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("batchh", "batch"),
        ("Max-Record", "max_record"),
        ("maxrecord", "max_record"),
        ("zzz", None),
        ("", None),
        ("x" * 10**6, None),
    ],
)
def test_nearest(word: str, near: str | None) -> None:
    assert located.nearest(word, ["batch", "max_record", "url"]) == near


@given(st.binary(max_size=300))
def test_any_bytes_give_a_node_or_problems(data: bytes) -> None:
    try:
        located.parse_bytes(data, "r.yaml").plain()
    except Problems as caught:
        assert caught.problems and str(caught)


@given(st.text(st.sampled_from("ab:{}[],&*!|>-?#'\"%@` \n\t\r~<1.e\u00e9\ufeff\x85\u2028"), max_size=120))
def test_any_yaml_like_text_gives_a_node_or_problems(text: str) -> None:
    try:
        located.parse(text, "r.yaml").plain()
    except Problems as caught:
        assert caught.problems and str(caught)
