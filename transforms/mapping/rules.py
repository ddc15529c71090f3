"""A field's rules as checks: of constants while the mapping is checked, of values in generated code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from transforms.mapping.emitter import Module, Want

INT_MIN, INT_MAX = -(2**31), 2**31 - 1


class Check(NamedTuple):
    """One rule."""

    kinds: frozenset[str]
    """Kinds of value that the rule is about."""
    reason: str
    """What is wrong with a value that breaks it."""
    broken: Callable[[Any], bool]
    code: str
    """The same as code, with `{}` for the value."""


_TEXT = frozenset({"string"})
_NUMBER = frozenset({"long", "double"})
_MAP = frozenset({"map"})


def checks(want: Want, module: Module) -> Iterator[Check]:
    """The checks of a field's rules and of its type's narrower limits."""
    type_, rules = want.type, want.rules
    if type_.symbols is not None:
        yield _one_of(tuple(sorted(type_.symbols)), _TEXT, module)
    if type_.short:
        yield Check(_NUMBER, "a whole number beyond 32 bits", lambda v: not INT_MIN <= v <= INT_MAX,
                    f"not {INT_MIN} <= {{}} <= {INT_MAX}")  # fmt: skip
    if rules is None:
        return
    if rules.one_of is not None:
        yield _one_of(rules.one_of, _TEXT | _NUMBER | {"boolean"}, module)
    least, most = rules.min_length, rules.max_length
    if least is not None:
        reason = "empty" if least == 1 else f"shorter than {least} characters"
        yield Check(_TEXT, reason, lambda v: len(v) < least, "not {}" if least == 1 else f"len({{}}) < {least}")
    if most is not None:
        yield Check(_TEXT, f"longer than {most} characters", lambda v: len(v) > most, f"len({{}}) > {most}")
    if rules.pattern is not None:
        matches = re.compile(rules.pattern).fullmatch
        name = module.constant("pattern", f"Matches({rules.pattern!r})")
        yield Check(_TEXT, f"not of the form {rules.pattern}", lambda v: not matches(v), f"not {name}[{{}}]")
    low, above, high, pairs = rules.minimum, rules.exclusive_minimum, rules.maximum, rules.max_pairs
    if low is not None:
        yield Check(_NUMBER, f"below {low}", lambda v: v < low, f"{{}} < {low!r}")
    if above is not None:
        yield Check(_NUMBER, f"not above {above}", lambda v: v <= above, f"{{}} <= {above!r}")
    if high is not None:
        yield Check(_NUMBER, f"above {high}", lambda v: v > high, f"{{}} > {high!r}")
    if pairs is not None:
        yield Check(_MAP, f"more than {pairs} pairs", lambda v: len(v) > pairs, f"len({{}}) > {pairs}")


def _one_of(words: tuple[Any, ...], kinds: frozenset[str], module: Module) -> Check:
    name = module.constant("words", "frozenset({" + ", ".join(map(repr, words)) + "})")
    shown = ", ".join(map(str, words))
    return Check(kinds, f"not one of {shown}", lambda v: v not in words, f"{{}} not in {name}")
