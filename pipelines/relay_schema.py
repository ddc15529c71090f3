"""The relay file's JSON Schema, for editors. Made from the tables the loader reads, so that the two cannot differ.

`python -m pipelines.relay_schema` prints it; `relay_file.schema.json` beside this module is that text.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pipelines import relay_file, relay_keys
from pipelines.relay_keys import Key
from transforms import credentials, vendors
from transforms.vendors.base import Model, Vendor

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay_file.schema.json")
"""Where the schema lies in the installed package."""


def _reasons(doc: str) -> dict[str, Any]:
    """A list of conditions with reasons."""
    return {
        "type": "array",
        "description": doc,
        "items": {
            "type": "object",
            "required": ["when", "reason"],
            "properties": {"when": {}, "reason": {"type": "string", "minLength": 1}},
            "additionalProperties": False,
        },
    }


_MODEL_MAP = {
    "anyOf": [
        {"enum": ["off", False], "description": "Send nothing of this model."},
        {
            "type": "object",
            "properties": {
                "when": {"description": "Condition on the canonical event; others do not become items of this model."},
                "drop": _reasons("Events to leave out, counted by reason."),
                "reject": _reasons("Events that become dead letters, with the reason."),
                "fields": {
                    "anyOf": [{"type": "object"}, {"const": "$record"}],
                    "description": "Field of the model: value expression; null removes it.",
                },
            },
            "additionalProperties": False,
        },
    ]
}


def build() -> dict[str, Any]:
    """The schema as JSON values (draft 7, which all editors know)."""
    slugs = vendors.slugs()
    definitions = {f"vendor-{slug}": _destination(vendors.get(slug)) for slug in slugs}
    named: dict[str, Any] = {slug: {"$ref": f"#/definitions/vendor-{slug}"} for slug in slugs}
    by_vendor: list[dict[str, Any]] = [
        {
            "if": {"properties": {"vendor": {"const": slug}}, "required": ["vendor"]},
            "then": {"$ref": f"#/definitions/vendor-{slug}"},
        }
        for slug in slugs
    ]
    other = {
        "type": "object",
        "required": ["vendor"],
        "properties": {"vendor": {"enum": list(slugs)}},
        "allOf": by_vendor,
    }
    tables: dict[str, dict[str, Any]] = {
        "source": {**_table(relay_keys.SOURCE), "anyOf": [{"required": ["preset"]}, {"required": ["schema", "event"]}]},
        "destinations": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{relay_keys.NAME_PATTERN}$"},
            "properties": named,
            "additionalProperties": other,
        },
    }
    top = _table(relay_keys.TOP)
    for name, table in tables.items():
        top["properties"][name].update(table)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "playrelay relay file",
        **top,
        "required": ["source", "destinations"],
        "patternProperties": {f"^{relay_keys.OWN_PREFIX}": {}},
        "definitions": definitions,
    }


def text() -> str:
    """The schema as it is shipped."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


def _table(keys: tuple[Key, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": {key.name: _key(key) for key in keys}, "additionalProperties": False}


def _key(key: Key) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": f"{key.doc} Default: {key.default}." if key.default else key.doc}
    schema.update(_table(key.keys) if key.keys else key.kind.schema)
    if key.examples:
        schema["examples"] = list(key.examples)
    return schema


def _destination(vendor: Vendor) -> dict[str, Any]:
    table = _table(relay_keys.DESTINATION)
    properties = table["properties"]
    for option in vendor.options:
        default = {} if option.default is None else {"default": option.default}
        properties[option.name] = {"description": option.doc, **relay_file.option_kind(option).schema, **default}
    models = _every_model(vendor)
    properties["vendor"]["const"] = vendor.slug
    properties["models"]["items"] = {"enum": list(models)}
    properties["map"].update(
        properties={name: {"description": model.doc, **_MODEL_MAP} for name, model in models.items()},
        additionalProperties=False,
    )
    properties["batch"]["properties"]["items"]["maximum"] = max(model.route.limits.items for model in models.values())
    properties["batch"]["properties"]["by"]["default"] = vendor.by
    if not vendor.gzip:
        properties["gzip"]["enum"] = [False]
    properties["credentials"].update(
        properties={
            credential.name: {
                "type": "string" if credential.secret else ["string", "integer"],
                "minLength": 1,
                "description": f"{credential.doc} {_FORMS if credential.secret else _PUBLIC}",
                **({"examples": [f"env:{vendor.slug.upper()}_{credential.name.upper()}"]} if credential.secret else {}),
            }
            for credential in vendor.credentials
        },
        additionalProperties=False,
        anyOf=[{"required": sorted(needed)} for needed in vendor.credential_sets],
    )
    return {**table, "description": f"{vendor.title}. {vendor.doc}".strip(), "required": ["credentials"]}


_FORMS = f"Written as {credentials.FORMS}."
_PUBLIC = f"Not secret: written as it is, or as {credentials.FORMS}."


def _every_model(vendor: Vendor) -> dict[str, Model]:
    """The models under every setting of the vendor's options, as an option may bring models of its own."""
    models = dict(vendor.models)
    for option in vendor.options:
        for chosen in option.choices:
            defaults = {other.name: other.default for other in vendor.options}
            under = vendor.models_under({**defaults, option.name: chosen})
            for name, model in under.items():
                if name not in models or model.route.limits.items > models[name].route.limits.items:
                    models[name] = model
    return models


if __name__ == "__main__":
    print(text(), end="")
