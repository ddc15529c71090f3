"""Avro types compiled to msgspec structs: decoding into one validates a record, encoding one makes a payload."""

from __future__ import annotations

import copy
import functools
import keyword
import re
from collections.abc import Mapping
from types import GenericAlias
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta

from schemas.model import Field, Rules, Schema, Type

LONG = (-(2**63), 2**63 - 1)
INT = (-(2**31), 2**31 - 1)

_NO_RULES = Rules()


def struct_type(of: Type | Schema, *, forbid_unknown: bool = False) -> type[msgspec.Struct]:
    """A struct class for a record type; the same class for the same type.

    Attributes are the schema's field names in the schema's order (see `attribute_names` for names that Python does
    not take). A nullable field is None by default, and None is left out on encoding; a field with another default is
    always written. The constructor takes fields by position too, unless a required field follows an optional one; it
    does not validate. Decoding and msgspec.convert do: types (a boolean is no number, a number no text, 1.0 no long),
    32 and 64 bit ranges, and the fields' rules, but not `Schema.presence`. Fields that the schema does not know are
    passed over, or refused with `forbid_unknown`.
    """
    return _struct(of.type if isinstance(of, Schema) else of, forbid_unknown)


def attribute_names(fields: Mapping[str, Field]) -> dict[str, str]:
    """Field name -> the struct's attribute: the same, unless Python does not take it as a name."""
    found: dict[str, str] = {}
    taken = set(fields)
    for name in fields:
        attribute = name
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            attribute = "f_" + re.sub(r"\W", "_", name)
            while attribute in taken:
                attribute += "_"
            taken.add(attribute)
        found[name] = attribute
    return found


def fits(type: Type, value: Any, rules: Rules = _NO_RULES) -> str | None:
    """What is wrong with a value (of JSON's types) for a field of this type, in words; None when nothing is."""
    try:
        msgspec.convert(value, _python(type, rules, False))
    except msgspec.ValidationError as error:
        return str(error)
    return None


@functools.cache
def _struct(of: Type, forbid_unknown: bool) -> type[msgspec.Struct]:
    if of.fields is None:
        raise TypeError(f"{of} is not a record")
    attributes = attribute_names(of.fields)
    fields: list[Any] = []
    optional_seen = by_keyword = False
    for name, field in of.fields.items():
        kind = _python(field.type, field.rules, forbid_unknown)
        if field.required:
            by_keyword |= optional_seen
            fields.append((attributes[name], kind))
        else:
            optional_seen = True
            fields.append((attributes[name], kind, _default(field)))
    renamed = {attribute: name for name, attribute in attributes.items() if attribute != name}
    made: type[msgspec.Struct] = msgspec.defstruct(
        re.sub(r"\W", "_", of.name) or "Record",
        fields,
        rename=renamed or None,
        omit_defaults=True,
        forbid_unknown_fields=forbid_unknown,
        kw_only=by_keyword,
        gc=False,
        module=__name__,
    )
    return made


def _default(field: Field) -> Any:
    if field.default is None:
        return None
    # What a factory makes never counts as left out, so that the payload has it.
    kind = _python(field.type, _NO_RULES, False)
    value = msgspec.convert(field.default, kind)
    return msgspec.field(default_factory=lambda: copy.copy(value))


def _python(of: Type, rules: Rules, forbid_unknown: bool) -> Any:
    """The annotation that msgspec decodes and checks by."""
    kinds = of.kinds
    if "json" in kinds:
        return Any
    branches: list[Any] = [None] if "null" in kinds else []
    if "boolean" in kinds:
        branches.append(bool)
    if "string" in kinds:
        branches.append(_text(rules))
    if "bytes" in kinds:
        branches.append(bytes)
    if "enum" in kinds:
        branches.append(Literal[of.symbols])
    if "int" in kinds or "long" in kinds:
        branches.append(_whole(LONG if "long" in kinds else INT, rules))
    if "float" in kinds or "double" in kinds:
        branches.append(_number(float, rules, None, None))
    if "array" in kinds:
        assert of.items is not None
        branches.append(GenericAlias(list, _python(of.items, _NO_RULES, forbid_unknown)))
    if "map" in kinds:
        assert of.items is not None
        pairs = GenericAlias(dict, (str, _python(of.items, _NO_RULES, forbid_unknown)))
        branches.append(pairs if rules.max_pairs is None else Annotated[pairs, Meta(max_length=rules.max_pairs)])
    if "record" in kinds:
        branches.append(_struct(of, forbid_unknown))
    return Union[tuple(branches)]  # noqa: UP007  # of a list made at run time


def _text(rules: Rules) -> Any:
    if rules.one_of is not None:
        words = tuple(one for one in rules.one_of if isinstance(one, str))
        return Literal[words] if words else str
    given: dict[str, Any] = {}
    if rules.min_length is not None:
        given["min_length"] = rules.min_length
    if rules.max_length is not None:
        given["max_length"] = rules.max_length
    if rules.pattern is not None:
        given["pattern"] = rf"\A(?:{rules.pattern})\Z"
    return Annotated[str, Meta(**given)] if given else str


def _whole(bounds: tuple[int, int], rules: Rules) -> Any:
    if rules.one_of is not None:
        numbers = tuple(one for one in rules.one_of if isinstance(one, int) and not isinstance(one, bool))
        if numbers:
            return Literal[numbers]
    return _number(int, rules, *bounds)


def _number(kind: type[int | float], rules: Rules, low: int | None, high: int | None) -> Any:
    given: dict[str, Any] = {}
    if rules.exclusive_minimum is not None:
        given["gt"] = rules.exclusive_minimum
    elif rules.minimum is not None or low is not None:
        given["ge"] = low if rules.minimum is None else rules.minimum
    if rules.maximum is not None or high is not None:
        given["le"] = high if rules.maximum is None else rules.maximum
    return Annotated[kind, Meta(**given)] if given else kind
