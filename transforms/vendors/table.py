"""The shipped mappings as a page of documentation: `python -m transforms.vendors.table > docs/mapping.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from transforms.located import parse
from transforms.vendors import get, mapping_file, slugs
from transforms.vendors.base import Vendor

EVENT_TYPES = {
    "Sessions and accounts": ("login", "logout", "session_start", "session_end", "sign_up"),
    "Progress": (
        "level_start", "level_end", "level_up", "post_score", "tutorial_begin", "tutorial_complete", "unlock_achievement",
    ),
    "Money and currency": ("purchase", "refund", "spend_virtual_currency", "earn_virtual_currency"),
    "Content and people": ("select_content", "view_item", "join_group", "social"),
    "Profiles and the rest": ("identify", "alias", "device", "kpi", "item"),
    "Anything else": ("any other type",),
}  # fmt: skip
"""The canonical event types that the shipped mappings know; the names are Google Analytics 4's where it has one."""

INTRO = """\
# What goes where

<!-- Made by `python -m transforms.vendors.table > docs/mapping.md`; a test holds it to the mappings. -->

The shipped mappings: which canonical event becomes which of a vendor's models, under which condition, with which
fields. A relay file overrides them piece by piece (`when`, `drop`, `reject`, each field) under `destinations.NAME.map`.

A purchase whose `currency` is there and is not three capital letters is bought for the game's own currency: it is
never sent as real money.

- **when**: other events are not for the model. An event that no model of a destination takes is counted as filtered.
- **drop**: the event is for the model but lacks what the vendor requires, which is no fault: counted as filtered, by reason.
- **reject**: the event breaks a rule of the vendor: a dead letter with the reason. So is a field that breaks its schema.

In the table, *if* means that a condition on other fields decides too.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([INTRO, *_overview(), *(line for slug in slugs() for line in _vendor(slug))])


def _overview() -> Iterator[str]:
    vendors = [get(slug) for slug in slugs()]
    yield "## By event\n"
    yield "| event type | " + " | ".join(vendor.title for vendor in vendors) + " |"
    yield "|---" * (len(vendors) + 1) + "|"
    for heading, types in EVENT_TYPES.items():
        yield f"| **{heading}** |" + " |" * len(vendors)
        for event_type in types:
            cells = [", ".join(_models_of(vendor, event_type)) or "-" for vendor in vendors]
            name = f"`{event_type}`" if " " not in event_type else event_type
            yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _models_of(vendor: Vendor, event_type: str) -> Iterator[str]:
    mapping = _read(vendor, _variants(vendor)[0][1])
    for name, model in vendor.models.items():
        if not model.by_default:
            continue
        taken = takes(mapping[name].get("when", {}), event_type)
        if taken is not False:
            yield f"{name}" if taken else f"{name} *if*"


def takes(condition: Any, event_type: str) -> bool | None:
    """Whether a `when` is true of an event of this type; None when other fields decide."""
    results: list[bool | None] = []
    for key, test in condition.items():
        if key == "all":
            results.append(_all([takes(one, event_type) for one in test]))
        elif key == "any":
            results.append(_not(_all([_not(takes(one, event_type)) for one in test])))
        elif key == "not":
            results.append(_not(takes(test, event_type)))
        elif key == "event_type":
            results.append(event_type in test["in"] if isinstance(test, dict) else event_type == test)
        else:
            results.append(None)
    return _all(results)


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _all(values: list[bool | None]) -> bool | None:
    if False in values:
        return False
    return None if None in values else True


def _variants(vendor: Vendor) -> list[tuple[str, Mapping[str, Any]]]:
    """(what to call it, options) of each mapping file: most vendors have one, whatever the options."""
    defaults = {option.name: option.default for option in vendor.options}
    found: dict[str, tuple[str, Mapping[str, Any]]] = {mapping_file(vendor.slug, defaults).name: ("", defaults)}
    for option in vendor.options:
        for choice in option.choices:
            options = {**defaults, option.name: choice}
            found.setdefault(mapping_file(vendor.slug, options).name, (f" with `{option.name}: {choice}`", options))
    return list(found.values())


def _read(vendor: Vendor, options: Mapping[str, Any]) -> dict[str, Any]:
    file = mapping_file(vendor.slug, options)
    mapping: dict[str, Any] = parse(file.read_text("utf-8"), file.name).plain()
    return mapping


def _vendor(slug: str) -> Iterator[str]:
    vendor = get(slug)
    yield f"## {vendor.title}\n"
    yield f"{vendor.doc}\n"
    for called, options in _variants(vendor):
        mapping = _read(vendor, options)
        for name, model in vendor.models_under(options).items():
            yield f"### {vendor.title}: {name}{called}\n"
            yield f"{model.doc} `POST {model.route.path}`{'' if model.by_default else ' Off unless `models:` names it.'}\n"
            rule = mapping[name]
            if "when" in rule:
                yield f"- when {_text(rule['when'])}"
            for kind in ("drop", "reject"):
                for one in rule.get(kind, ()):
                    yield f'- {kind} "{one["reason"]}" when {_text(one["when"])}'
            yield ""
            if isinstance(rule["fields"], dict):
                yield "| field | from |"
                yield "|---|---|"
                for field, expression in rule["fields"].items():
                    yield f"| {field} | {_text(expression)} |"
            else:
                yield f"The payload is {_text(rule['fields'])}."
            yield ""


def _text(value: Any) -> str:
    return "`" + _flow(value).replace("|", "\\|") + "`"


def _flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and value and not set(value) & set("[]{},:#\"'%@*&!| ") and value.strip() == value:
        return value
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    print(page(), end="")
