"""YAML nodes to the mapping language's tree. Problems are collected, all of them, each at its node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from transforms.located import Node, Problem, nearest
from transforms.mapping import language as l
from transforms.mapping.times import OUTPUT_DIRECTIVES, PARSE_DIRECTIVES, UNITS, zone_named

OPERATORS: dict[str, tuple[str, ...]] = {
    "const": (), "path": (), "template": (), "first": (), "value": ("default",), "lookup": ("table", "default"),
    "number": (), "integer": ("round",), "text": (), "boolean": (), "json": (), "flat": (),
    "replace": ("pattern", "with"), "time": ("unit", "format", "zone", "to"), "multiply": (), "divide": (),
    "list": ("each",), "map": (), "merge": (), "if": ("then", "else"),
}  # fmt: skip
"""Operator -> the further keys that may stand beside it."""

_NEEDED = {"value": "default", "lookup": "table", "if": "then", "replace": "pattern"}
TESTS = ("is", "in", "exists", "empty", "matches", "gt", "gte", "lt", "lte")
_PART = re.compile(r"[^\s.{}$][^.{}]*\Z")
_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Parser:
    """Parses expressions and conditions; what is wrong goes to `problems` and stands in the tree as a null constant."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self._operators: dict[str, Callable[[Node, dict[str, Node]], l.Expression]] = {
            "const": self._const,
            "path": self._path,
            "template": self._template,
            "first": self._first,
            "value": self._value,
            "lookup": self._lookup,
            "replace": self._replace,
            "time": self._time,
            "multiply": self._arithmetic,
            "divide": self._arithmetic,
            "list": self._list,
            "map": self._map,
            "merge": self._merge,
            "if": self._if,
            **dict.fromkeys(("number", "integer", "text", "boolean", "json", "flat"), self._convert),
        }

    def wrong(self, node: Node, message: str, at_key: bool = False) -> l.Const:
        """Notes a problem; the null constant to go on with."""
        self.problems.append(node.key_problem(message) if at_key else node.problem(message))
        return l.Const(node, None)

    # Values -------------------------------------------------------------------------------------

    def expression(self, node: Node) -> l.Expression:
        """The expression that a node says."""
        value = node.value
        if isinstance(value, str):
            if value.startswith("$$"):
                return l.Const(node, value[1:])
            return self._path_text(node, value[1:]) if value.startswith("$") else l.Const(node, value)
        if isinstance(value, list):
            return self.wrong(node, "expected a value, got a list; write {list: […]}")
        if not isinstance(value, dict):
            return l.Const(node, value)
        operator = _operator(value)
        if operator is None:
            return self.wrong(node, self._no_operator(value))
        return self._operators[operator](node, value)

    def _no_operator(self, value: dict[str, Node]) -> str:
        found = [key for key in value if key in OPERATORS]
        if not value:
            return "expected a value, got an empty map; write {map: {}} for one"
        if len(found) > 1:
            return f"{found[0]} and {found[1]} in one value; nest one in the other"
        if found:
            allowed = OPERATORS[found[0]]
            odd = next(key for key in value if key != found[0] and key not in allowed)
            near = nearest(odd, allowed)
            hint = f"did you mean {near}?" if near else f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            return f"{found[0]} has no further key {odd}; {hint}"
        word = next(iter(value))
        near = nearest(word, OPERATORS)
        return f"unknown operator {word}; " + (
            f"did you mean {near}?" if near else f"expected one of {', '.join(OPERATORS)}; {{map: {{…}}}} makes a map"
        )

    def _path_text(self, node: Node, text: str) -> l.Expression:
        parts = tuple(text.split("."))
        if not all(_PART.match(part) for part in parts):
            return self.wrong(node, f"expected a path such as $event_data.level, got ${text}; $$ begins a literal $")
        return l.Path(node, parts)

    def _needs(self, node: Node, value: dict[str, Node], operator: str) -> bool:
        needed = _NEEDED[operator]
        if needed not in value:
            self.wrong(node, f"{operator} needs {needed}")
        return needed in value

    def _const(self, node: Node, value: dict[str, Node]) -> l.Expression:
        return l.Const(value["const"], value["const"].plain())

    def _path(self, node: Node, value: dict[str, Node]) -> l.Expression:
        inner = value["path"]
        if isinstance(inner.value, list):
            parts = [part.value for part in inner.value]
            if not parts or not all(isinstance(part, str) and part for part in parts):
                return self.wrong(inner, "expected a list of names, such as [params, some.key]")
            return l.Path(inner, tuple(str(part) for part in parts))
        if not isinstance(inner.value, str):
            return self.wrong(inner, f"expected a path such as event_data.level, got {inner.kind}")
        return self._path_text(inner, inner.value.removeprefix("$"))

    def _template(self, node: Node, value: dict[str, Node]) -> l.Expression:
        inner = value["template"]
        if not isinstance(inner.value, str):
            return self.wrong(inner, f"expected text with {{path}} in it, got {inner.kind}")
        parts: list[str | l.Path] = []
        end = 0
        for hole in _HOLE.finditer(inner.value):
            parts.append(inner.value[end : hole.start()])
            end = hole.end()
            if hole.group() in ("{{", "}}"):
                parts.append(hole.group()[0])
            elif hole.group(1) is None:
                return self.wrong(
                    inner, f"a {hole.group()} without its partner; write {hole.group() * 2} for a literal one"
                )
            else:
                path = self._path_text(inner, hole.group(1).removeprefix("$"))
                if not isinstance(path, l.Path):
                    return path
                parts.append(path)
        parts.append(inner.value[end:])
        return l.Template(inner, tuple(part for part in parts if part != ""))

    def _items(self, node: Node, least: int = 1) -> tuple[l.Expression, ...] | None:
        if not isinstance(node.value, list) or len(node.value) < least:
            self.wrong(
                node, f"expected a list of {'values' if least < 2 else f'{least} or more values'}, got {node.kind}"
            )
            return None
        return tuple(self.expression(item) for item in node.value)

    def _first(self, node: Node, value: dict[str, Node]) -> l.Expression:
        items = self._items(value["first"])
        return l.Const(node, None) if items is None else l.First(node, items)

    def _value(self, node: Node, value: dict[str, Node]) -> l.Expression:
        if not self._needs(node, value, "value"):
            return l.Const(node, None)
        return l.First(node, (self.expression(value["value"]), self.expression(value["default"])))

    def _lookup(self, node: Node, value: dict[str, Node]) -> l.Expression:
        key = self.expression(value["lookup"])
        default = self.expression(value["default"]) if "default" in value else None
        if not self._needs(node, value, "lookup"):
            return l.Const(node, None)
        table = value["table"]
        if not isinstance(table.value, dict) or not table.value:
            return self.wrong(
                table, f"expected a map of key: value, got {'an empty map' if table.value == {} else table.kind}"
            )
        entries: dict[str, l.Const] = {}
        for name, entry in table.value.items():
            text = entry.value
            if isinstance(text, dict | list):
                self.wrong(entry, f"expected a constant, got {entry.kind}")
            elif isinstance(text, str) and text.startswith("$") and not text.startswith("$$"):
                self.wrong(entry, f"a table holds constants, not paths; write ${text} for the literal text")
            else:
                entries[name] = l.Const(entry, text[1:] if isinstance(text, str) and text.startswith("$$") else text)
        return l.Lookup(node, key, entries, default)

    def _convert(self, node: Node, value: dict[str, Node]) -> l.Expression:
        operator = _operator(value)
        assert operator is not None
        rounds = value.get("round")
        if rounds is not None and not isinstance(rounds.value, bool):
            self.wrong(rounds, f"expected true or false, got {rounds.kind}")
        return l.Convert(node, operator, self.expression(value[operator]), rounds is not None and rounds.value is True)

    def _pattern(self, node: Node) -> str | None:
        if not isinstance(node.value, str):
            self.wrong(node, f"expected a regular expression, got {node.kind}")
            return None
        try:
            re.compile(node.value)
        except (re.error, RecursionError, OverflowError) as error:
            self.wrong(node, f"not a regular expression: {error}")
            return None
        return node.value

    def _replace(self, node: Node, value: dict[str, Node]) -> l.Expression:
        item = self.expression(value["replace"])
        if not self._needs(node, value, "replace"):
            return item
        pattern, by = self._pattern(value["pattern"]), value.get("with")
        if by is None:
            return self.wrong(node, "replace needs with")
        if not isinstance(by.value, str):
            return self.wrong(by, f"expected the text to put in place, got {by.kind}")
        return item if pattern is None else l.Replace(node, item, pattern, by.value)

    def _time(self, node: Node, value: dict[str, Node]) -> l.Expression:
        item = self.expression(value["time"])
        unit = self._word(value.get("unit"), UNITS)
        format_ = self._format(value.get("format"), PARSE_DIRECTIVES, ("iso",))
        to = self._format(value.get("to"), OUTPUT_DIRECTIVES, ("s", "ms", "iso"))
        if "format" in value and format_ is None:
            return l.Const(node, None)
        zone = value.get("zone")
        if "unit" in value and "format" in value:
            self.wrong(value["format"], "unit is for numbers and format for text; keep one", at_key=True)
        if zone is not None:
            if "format" not in value:
                self.wrong(zone, "zone goes with format; numbers count from 1970 UTC", at_key=True)
            elif not isinstance(zone.value, str) or not zone_named(zone.value):
                self.wrong(
                    zone, f"unknown time zone {zone.text or zone.kind}; expected a name such as Europe/Berlin or UTC"
                )
                zone = None
        return l.Time(node, item, unit, format_, str(zone.value) if zone else None, to or "ms")

    def _word(self, node: Node | None, words: Iterable[str]) -> str | None:
        if node is None or (isinstance(node.value, str) and node.value in words):
            return None if node is None else str(node.value)
        self.wrong(node, f"expected one of {', '.join(words)}, got {node.text or node.kind}")
        return None

    def _format(self, node: Node | None, directives: str, words: tuple[str, ...]) -> str | None:
        if node is None:
            return None
        text = node.value
        if isinstance(text, str) and text in words:
            return text
        if not isinstance(text, str) or "%" not in text:
            self.wrong(
                node, f'expected {", ".join(words)} or a format such as "%Y-%m-%d", got {node.text or node.kind}'
            )
            return None
        for odd in re.findall(r"%(.?)", text.replace("%%", "")):
            if odd not in directives or not odd:
                self.wrong(node, f"unknown time directive %{odd}; expected one of %{', %'.join(directives)}")
                return None
        return text

    def _arithmetic(self, node: Node, value: dict[str, Node]) -> l.Expression:
        operator = _operator(value)
        assert operator is not None
        inner = value[operator]
        if isinstance(inner.value, list) and operator == "divide" and len(inner.value) != 2:
            return self.wrong(inner, f"divide takes two values, got {len(inner.value)}")
        items = self._items(inner, 2)
        return l.Const(node, None) if items is None else l.Arithmetic(node, operator, items)

    def _list(self, node: Node, value: dict[str, Node]) -> l.Expression:
        inner = value["list"]
        if "each" not in value:
            items = self._items(inner, 0)
            return l.Const(node, None) if items is None else l.ListOf(node, items)
        over = l.ListOf(inner, self._items(inner, 0) or ()) if isinstance(inner.value, list) else self.expression(inner)
        return l.Each(node, over, self._each_body(value["each"]))

    def _each_body(self, node: Node) -> l.Expression:
        """A map that is no operator makes a map of its keys: `{key: $key, value: $value}`."""
        value = node.value
        if (
            isinstance(value, dict)
            and value
            and _operator(value) is None
            and not set(value) & (set(OPERATORS) - {"value"})
        ):
            return l.MapOf(node, {key: self.expression(item) for key, item in value.items()})
        return self.expression(node)

    def _map(self, node: Node, value: dict[str, Node]) -> l.Expression:
        inner = value["map"]
        if not isinstance(inner.value, dict):
            return self.wrong(inner, f"expected a map of key: value, got {inner.kind}")
        return l.MapOf(node, {key: self.expression(item) for key, item in inner.value.items()})

    def _merge(self, node: Node, value: dict[str, Node]) -> l.Expression:
        items = self._items(value["merge"])
        return l.Const(node, None) if items is None else l.Merge(node, items)

    def _if(self, node: Node, value: dict[str, Node]) -> l.Expression:
        condition = self.condition(value["if"])
        if not self._needs(node, value, "if"):
            return l.Const(node, None)
        other = self.expression(value["else"]) if "else" in value else l.Const(node, None)
        return l.If(node, condition, self.expression(value["then"]), other)

    # Conditions ---------------------------------------------------------------------------------

    def condition(self, node: Node) -> l.Condition:
        """The condition that a node says."""
        value = node.value
        if isinstance(value, bool):
            return l.Always(node, value)
        if not isinstance(value, dict) or not value:
            got = "an empty map" if value == {} else node.kind
            self.wrong(node, f"expected a condition such as {{event_type: login}}, got {got}")
            return l.Always(node, True)
        items = [found for name, item in value.items() for found in self._clause(name, item)]
        return items[0] if len(items) == 1 else l.All(node, tuple(items))

    def _clause(self, name: str, node: Node) -> list[l.Condition]:
        if name == "not":
            return [l.Not(node, self.condition(node))]
        if name in ("all", "any"):
            if not isinstance(node.value, list) or not node.value:
                self.wrong(node, f"expected a list of conditions, got {node.kind}")
                return []
            items = tuple(self.condition(item) for item in node.value)
            return [l.All(node, items) if name == "all" else l.AnyOf(node, items)]
        if name.startswith("$"):
            self.wrong(node, f"a condition names its field without $: {name[1:]}", at_key=True)
            return []
        path = self._path_text(node, name)
        if not isinstance(path, l.Path):
            return []
        if not isinstance(node.value, dict):
            return self._test(path, "is", node)
        if not node.value:
            self.wrong(node, f"expected a test: one of {', '.join(TESTS)}")
        tests: list[l.Condition] = []
        for op, argument in node.value.items():
            if op in TESTS:
                tests += self._test(path, op, argument)
            else:
                near = nearest(op, TESTS)
                hint = f"did you mean {near}?" if near else f"expected one of {', '.join(TESTS)}"
                self.wrong(argument, f"unknown test {op}; {hint}", at_key=True)
        return tests

    def _test(self, path: l.Path, op: str, node: Node) -> list[l.Condition]:
        value = node.value
        if op in ("exists", "empty") and not isinstance(value, bool):
            self.wrong(node, f"expected true or false, got {node.kind}")
        elif op == "matches":
            pattern = self._pattern(node)
            return [] if pattern is None else [l.Test(node, path, op, pattern)]
        elif op == "in":
            if not isinstance(value, list) or not value:
                self.wrong(node, f"expected a list of constants, got {node.kind}")
            elif any(isinstance(item.value, dict | list) or item.value is None for item in value):
                self.wrong(node, "expected constants only: texts, numbers, true, false")
            else:
                return [l.Test(node, path, op, tuple(item.value for item in value), tuple(item.text for item in value))]
        elif isinstance(value, list):
            self.wrong(node, "expected one constant, got a list; write {in: […]}")
        elif value is None:
            self.wrong(node, "a comparison with null; write {exists: false}")
        elif isinstance(value, dict) or (op in ("gt", "gte", "lt", "lte") and isinstance(value, bool)):
            self.wrong(node, f"expected a constant to compare with, got {node.kind}")
        else:
            return [l.Test(node, path, op, value, (node.text,))]
        return []


def _operator(value: dict[str, Node]) -> str | None:
    """The one operator of a map, when all its other keys go with it."""
    found = [key for key in value if key in OPERATORS]
    if len(found) == 1 and all(key == found[0] or key in OPERATORS[found[0]] for key in value):
        return found[0]
    return None


def plain_text(value: Any, text: str) -> str:
    """A constant as text: as YAML writes it where it is known, so that 007 stays 007."""
    if isinstance(value, str):
        return value
    return text or str(value)
