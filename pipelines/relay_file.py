"""The relay file: the YAML file that says where records come from and which vendors get them. See docs/relay-file.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import quantities, relay_keys
from pipelines.relay_keys import Wrong
from transforms import credentials, located, vendors
from transforms.dedupe import Dedupe
from transforms.destination import PARK_BYTES, BatchRule, Destination
from transforms.located import Node, Problem, Problems, suggestion
from transforms.vendors.base import Model, Option, Vendor

MAX_RECORD = 10_000_000
SHARDS = 16
RETRY_S = 300.0
CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 60.0
AGE_MS = 1_000
DEDUPE = Dedupe("id", 600.0)


@dataclass(frozen=True)
class Source:
    """`source:` of a relay file."""

    preset: str | None
    """A known source, or None when `event` says everything."""
    schema: str | None
    """Path of the record's Avro schema, the relay file's folder included; None: the preset's."""
    format: str | None
    """`json`, `csv` or `avro`; None: guessed from each file's name."""
    event: Node | None
    """Hop one: the record's mapping to the canonical event, or what differs from the preset's."""
    max_record: int
    """Bytes of a record at the most."""
    delimiter: str | None
    """Between CSV columns; None: guessed from each file's name."""
    dedupe: Dedupe | None = None
    """Which events count as the same; None: each is one of its own."""
    dedupe_node: Node | None = None
    """Where the file says so."""


@dataclass(frozen=True)
class Relay:
    """A relay file that holds no error. `warnings` are worth showing before anything runs."""

    path: str
    source: Source
    destinations: dict[str, Destination]
    """By name, in the file's order."""
    allow_literal_secrets: bool = False
    warnings: tuple[Problem, ...] = ()


class Faulty(Problems):
    """Everything that is wrong in a relay file, its mappings left out. `relay`: what could be made of the file, only fit
    for having its mappings checked too."""

    def __init__(self, problems: Iterable[Problem], relay: Relay) -> None:
        super().__init__(problems)
        self.relay = relay


def load(path: str | os.PathLike[str]) -> Relay:
    """The relay file at a local path. Raises Problems with everything that is wrong in it; mappings are not looked into."""
    return _relay(located.read(path), os.fspath(path), os.path.dirname(os.fspath(path)) or ".")


def loads(data: bytes, file: str, folder: str = ".") -> Relay:
    """A relay file's bytes. `file` stands for it in messages; relative paths in it start from `folder`.

    Raises Problems with everything that is wrong in it.
    """
    return _relay(located.parse_bytes(data, file), file, folder)


def _relay(top: Node, file: str, folder: str) -> Relay:
    if top.value is None:
        raise Problems([Problem(file, 0, 0, "", "empty; expected source: and destinations:")])
    if not isinstance(top.value, dict):
        raise Problems([top.problem(f"expected a map with source: and destinations:, found {top.kind}")])
    problems: list[Problem] = []
    warnings: list[Problem] = []
    values = relay_keys.read_table(top, relay_keys.TOP, problems)
    for name, node in top.value.items():
        if not name.startswith(relay_keys.OWN_PREFIX) and all(name != key.name for key in relay_keys.TOP):
            problems.append(_unknown_top(name, node))
    for name in ("source", "destinations"):
        if name not in top.value:
            problems.append(top.problem(f"{name}: is missing"))
    literals = values.get("allow_literal_secrets", False)
    before = len(problems)
    source = _source(values["source"], folder, problems) if "source" in values else None
    if source is None or len(problems) > before:
        source = Source("canonical", None, None, None, MAX_RECORD, None)
    destinations: dict[str, Destination] = {}
    if "destinations" in values:
        for name, node in values["destinations"].value.items():
            destination = _destination(name, node, folder, literals, problems, warnings)
            if destination is not None:
                destinations[name] = destination
        if not values["destinations"].value:
            problems.append(values["destinations"].problem("expected at least one destination"))
    relay = Relay(file, source, destinations, literals, tuple(warnings))
    if problems:
        raise Faulty(problems[: located.MAX_PROBLEMS], relay)
    return relay


def _unknown_top(name: str, node: Node) -> Problem:
    if any(name == key.name for key in relay_keys.SOURCE):
        return node.key_problem(f"unknown key; {name} belongs under source:")
    if name in vendors.slugs():
        return node.key_problem(f"unknown key; {name} belongs under destinations:")
    if any(name == key.name for key in relay_keys.DESTINATION):
        return node.key_problem(f"unknown key; {name} belongs under destinations:, in a destination")
    return relay_keys.unknown_key(name, node, relay_keys.TOP)


def _source(node: Node, folder: str, problems: list[Problem]) -> Source:
    values = relay_keys.read_table(node, relay_keys.SOURCE, problems)
    for name, child in _children(node).items():
        if all(name != key.name for key in relay_keys.SOURCE):
            problems.append(relay_keys.unknown_key(name, child, relay_keys.SOURCE))
    given = _children(node)
    if "preset" not in given and "event" not in given:
        presets = ", ".join(relay_keys.PRESETS)
        problems.append(node.problem(f"expected preset: ({presets}) or event: (your own mapping)"))
    if "event" in given and "preset" not in given and "schema" not in given:
        message = "expected schema: beside it, the Avro schema of one of your records (or preset: when they are known)"
        problems.append(given["event"].key_problem(message))
    schema = values.get("schema")
    if schema is not None:
        schema = relay_keys.absolute(schema, folder)
        if "\0" in schema or not os.path.isfile(schema):
            problems.append(
                given["schema"].problem(f"no such file: {relay_keys.clip(schema)}; expected an Avro schema")
            )
    if "delimiter" in values and values.get("format", "csv") != "csv":
        problems.append(given["delimiter"].key_problem(f"only CSV has a delimiter; format is {values['format']}"))
    return Source(
        values.get("preset"),
        schema,
        values.get("format"),
        values.get("event"),
        values.get("max_record", MAX_RECORD),
        values.get("delimiter"),
        _dedupe(values["dedupe"]) if "dedupe" in values else None,
        given.get("dedupe"),
    )


def _dedupe(values: Mapping[str, Any]) -> Dedupe:
    return Dedupe(values.get("by", DEDUPE.by), values.get("within", DEDUPE.within_s))


def _destination(
    name: str, node: Node, folder: str, literals: bool, problems: list[Problem], warnings: list[Problem]
) -> Destination | None:
    if not re.fullmatch(relay_keys.NAME_PATTERN, name):
        problems.append(node.key_problem("a destination's name is letters, digits, - and _, at most 64 of them"))
    if not isinstance(node.value, dict):
        problems.append(node.problem(f"expected a map with credentials:, found {node.kind}"))
        return None
    vendor = _vendor(name, node, problems)
    options = vendor.options if vendor else ()
    values = relay_keys.read_table(node, relay_keys.DESTINATION, problems)
    _unknown_keys(node, vendor, problems)
    if vendor is None:
        return None
    own = {option.name: _option(option, node.value.get(option.name), problems) for option in options}
    url = values.get("url")
    # What opens nothing but something on this machine, such as the sandbox, is no secret worth a warning.
    local = url is not None and relay_keys.loopback(url)
    references = _credentials(node, vendor, literals, problems, [] if local else warnings)
    models = _models(node.value.get("models"), values.get("models"), vendor, own, problems)
    batch = _batch(node, values.get("batch", {}), vendor, models, problems, warnings)
    timeout = values.get("timeout", {})
    connect_s, total_s = timeout.get("connect"), timeout.get("total", TIMEOUT_S)
    if connect_s is not None and connect_s > total_s:
        problems.append(node.value["timeout"].problem(f"connect ({connect_s:g}s) is longer than total ({total_s:g}s)"))
    insecure = values.get("allow_insecure", False)
    if url is not None and relay_keys.plain_http(url) and not insecure:
        message = "plain HTTP would show credentials on the network; write https://, or set allow_insecure: true"
        problems.append(node.value["url"].problem(message))
    if values.get("gzip") and not vendor.gzip:
        problems.append(
            node.value["gzip"].problem(f"{vendor.title} is not known to take compressed bodies; leave it out")
        )
    for key, message in vendor.check(references, own) if vendor.check else ():
        problems.append(node.value.get(key, node).problem(message))
    return Destination(
        name=name,
        vendor=vendor.slug,
        credentials=references,
        url=url,
        batch=batch,
        shards=values.get("shards", SHARDS),
        rate=_rate(node, values, vendor, warnings),
        retry_s=values.get("retry", {}).get("for", RETRY_S),
        park_bytes=values.get("park", {}).get("max", PARK_BYTES),
        connect_timeout_s=min(CONNECT_TIMEOUT_S, total_s) if connect_s is None else connect_s,
        timeout_s=total_s,
        gzip=values.get("gzip", vendor.gzip),
        models=tuple(models) if "models" in values else None,
        map=values.get("map"),
        options=own,
        allow_insecure=insecure,
        base_dir=folder,
    )


def _vendor(name: str, node: Node, problems: list[Problem]) -> Vendor | None:
    slugs = vendors.slugs()
    given = _children(node).get("vendor")
    if given is None:
        if name in slugs:
            return vendors.get(name)
        near = located.nearest(name, slugs)
        hint = f"did you mean {near}? Otherwise add" if near else "add"
        problems.append(node.key_problem(f"{name} is no vendor; {hint} vendor: with one of {', '.join(slugs)}"))
    elif not isinstance(given.value, str) or given.value not in slugs:
        near = (
            suggestion(given.text, slugs) if isinstance(given.value, str) else f"; expected one of {', '.join(slugs)}"
        )
        problems.append(given.problem(f"no such vendor{near}"))
    elif name in slugs and name != given.value:
        problems.append(given.problem(f"the name {name} is another vendor's; give this destination a name of its own"))
    else:
        return vendors.get(given.value)
    return None


def _unknown_keys(node: Node, vendor: Vendor | None, problems: list[Problem]) -> None:
    """Keys that neither every destination nor this vendor has; of an unknown vendor any vendor's are let pass."""
    known = [vendor] if vendor else [vendors.get(slug) for slug in vendors.slugs()]
    options = tuple(dict.fromkeys(option.name for one in known for option in one.options))
    keys = {key.name for one in known for key in one.credentials}
    for name, child in _children(node).items():
        if name in options or any(name == key.name for key in relay_keys.DESTINATION):
            continue
        if name in keys:
            problems.append(child.key_problem(f"unknown key; {name} belongs under credentials:"))
        else:
            problems.append(relay_keys.unknown_key(name, child, relay_keys.DESTINATION, options))


def _option(option: Option, node: Node | None, problems: list[Problem]) -> Any:
    if node is None:
        return option.default
    try:
        return option_kind(option).read(node)
    except Wrong as wrong:
        problems.append(node.problem(str(wrong)))
        return option.default


def option_kind(option: Option) -> relay_keys.Kind:
    """What a vendor's own key takes: one of its choices, or a value of its default's type."""
    if option.choices:
        return relay_keys.choice(*option.choices)
    if isinstance(option.default, bool):
        return relay_keys.BOOLEAN
    if isinstance(option.default, int):
        return relay_keys.whole(0, 2**53)
    return relay_keys.NUMBER if isinstance(option.default, float) else relay_keys.ID


def _credentials(
    node: Node, vendor: Vendor, literals: bool, problems: list[Problem], warnings: list[Problem]
) -> dict[str, str]:
    """The references as written. No message here holds a value: it may be a secret in the wrong place."""
    given = _children(node).get("credentials")
    if given is None:
        problems.append(node.problem(f"credentials: is missing; {_needed(vendor)}"))
        return {}
    if not isinstance(given.value, dict):
        return {}  # the table's reader has said so
    known = {credential.name: credential for credential in vendor.credentials}
    references: dict[str, str] = {}
    faulty = False
    for name, child in given.value.items():
        before = len(problems)
        if name not in known:
            message = (
                f"{vendor.title} has no such credential{suggestion(name, known)}"  # nor the name: {sk_live_1} is a key
            )
            problems.append(Problem(child.file, child.key_line, child.key_column, given.key, message))
        elif isinstance(child.value, bool | float | list | dict | None):
            problems.append(child.problem(f"expected text: {credentials.FORMS}; quote an id that is all digits"))
        else:
            wrong = _reference_problem(child.text, known[name].secret, literals)
            if wrong is not None:
                problems.append(child.problem(wrong))
            elif known[name].secret and credentials.scheme(child.text) is None:
                warnings.append(
                    child.problem(f"a secret stands in the file; for more than trying write {credentials.FORMS}")
                )
            references[name] = child.text
        faulty = faulty or len(problems) > before
    if not faulty and not any(needed <= references.keys() for needed in vendor.credential_sets):
        problems.append(given.problem(_needed(vendor)))
    return references


def _reference_problem(text: str, secret: bool, literals: bool) -> str | None:
    wrong = credentials.fault(text)
    if secret and not literals and credentials.scheme(text) is None:
        return f"a secret must not stand in the file; write {credentials.FORMS} (or set allow_literal_secrets: true)"
    return wrong


def _needed(vendor: Vendor) -> str:
    order = [credential.name for credential in vendor.credentials]
    sets = [" and ".join(sorted(needed, key=order.index)) for needed in vendor.credential_sets]
    return f"{vendor.title} needs {', or '.join(dict.fromkeys(sets))}"


def _models(
    node: Node | None,
    names: tuple[str, ...] | None,
    vendor: Vendor,
    options: Mapping[str, Any],
    problems: list[Problem],
) -> dict[str, Model]:
    """The models whose limits count: the chosen ones, or those sent by default."""
    models = dict(vendor.models_under(options))
    if names is None or node is None or not isinstance(node.value, list):
        return {name: model for name, model in models.items() if model.by_default} or models
    for index, item in enumerate(node.value):
        if item.value not in models:
            problems.append(
                item.problem(f"{vendor.title} has no model {relay_keys.clip(item.text)}{suggestion(item.text, models)}")
            )
        elif item.value in names[:index]:
            problems.append(item.problem("named twice"))
    return {name: models[name] for name in names if name in models} or models


def _batch(
    node: Node,
    values: Mapping[str, Any],
    vendor: Vendor,
    models: Mapping[str, Model],
    problems: list[Problem],
    warnings: list[Problem],
) -> BatchRule:
    """Where models have different limits the largest bounds the key, and each route still keeps its own."""
    routes = [model.route for model in models.values()]
    most_items = max((route.limits for route in routes), key=lambda limits: limits.items)
    most_bytes = max((route.limits for route in routes), key=lambda limits: limits.bytes)
    children = _children(_children(node)["batch"]) if values else {}
    items, size = values.get("items", most_items.items), values.get("bytes", most_bytes.bytes)
    if items > most_items.items:
        message = (
            f"{vendor.title} takes at most {most_items.items:,} items a request ({most_items.source}), found {items:,}"
        )
        problems.append(children["items"].problem(message))
    if size > most_bytes.bytes:
        limit, found = quantities.show_size(most_bytes.bytes), quantities.show_size(size)
        message = f"{vendor.title} takes at most {limit} a request ({most_bytes.source}), found {found}"
        problems.append(children["bytes"].problem(message))
    if values.get("by") == "vendor" and all(route.by_user for route in routes):
        message = f"requests to {vendor.title} hold one user's items here, whatever batch.by says"
        warnings.append(children["by"].problem(message))
    window_s, age_s = values.get("window"), values.get("age")
    return BatchRule(
        by=values.get("by", vendor.by),
        items=items,
        bytes=size,
        window_ms=None if window_s is None else round(window_s * 1000),
        age_ms=AGE_MS if age_s is None else round(age_s * 1000),
    )


def _rate(node: Node, values: Mapping[str, Any], vendor: Vendor, warnings: list[Problem]) -> float | None:
    if "rate" not in values:
        return vendor.rate
    rate: float | None = values["rate"]
    if vendor.rate is not None and (rate is None or rate > vendor.rate):
        limit = quantities.show_rate(vendor.rate)
        message = f"{vendor.title} takes {limit} ({vendor.rate_source}); more will be answered with 429"
        warnings.append(_children(node)["rate"].problem(message))
    return rate


def _children(node: Node) -> dict[str, Node]:
    return node.value if isinstance(node.value, dict) else {}
