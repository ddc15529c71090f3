"""`playrelay init`: a commented relay file to start from, made from what the vendors say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from transforms import presets, vendors
from transforms.located import Problem, Problems, suggestion
from transforms.vendors.base import Option, Vendor


def relay_file(slugs: Sequence[str], preset: str, sandbox: str | None = None) -> str:
    """The text of a relay file for these vendors (all when none is named). Problems for a name that is none.

    sandbox: base URL of a sandbox to send to, with its well-known credentials, instead of the vendors.
    """
    wrong = [
        Problem("init", 0, 0, slug, f"no such vendor{suggestion(slug, vendors.slugs())}")
        for slug in slugs
        if slug not in vendors.slugs()
    ]
    if preset not in presets.names():
        wrong.append(Problem("init", 0, 0, preset, f"no such preset{suggestion(preset, presets.names())}"))
    if wrong:
        raise Problems(wrong)
    lines = [
        "# A relay file of playrelay. All keys: docs/relay-file.md. Check it with: playrelay check FILE",
        "source:",
        f"  preset: {preset}  # one of {', '.join(presets.names())}",
        "  # Where your records differ from the preset, say so field by field:",
        "  # event:",
        "  #   user_id: $player.id",
    ]
    if sandbox is not None:
        lines.append("allow_literal_secrets: true  # the sandbox's credentials are no secrets")
    lines.append("destinations:")
    for slug in slugs or vendors.slugs():
        lines += _destination(vendors.get(slug), sandbox)
    return "\n".join(lines) + "\n"


def _destination(vendor: Vendor, sandbox: str | None) -> Iterator[str]:
    yield f"  {vendor.slug}:"
    yield "    credentials:"
    if sandbox is None:
        needed = min(vendor.credential_sets, key=len)
        for one in vendor.credentials:
            name = f"{vendor.slug}_{one.name}".upper().removeprefix("12")
            value = f"env:{name}" if one.secret else _own(one.name)
            off = "" if one.name in needed else "# "
            yield f'      {off}{one.name}: "{value}"  # {one.doc}'
    else:
        from sandbox.credentials import RELAY_FILE

        for key, value in RELAY_FILE[vendor.slug].items():
            yield f'      {key}: "{value}"'
        yield f"    url: {sandbox.rstrip('/')}/{vendor.slug}"
    for option in vendor.options:
        choices = f" ({' | '.join(option.choices)})" if option.choices else ""
        yield f"    # {option.name}: {_example(option)}  # {option.doc}{choices}"
    models = ", ".join(name for name, model in vendor.models.items() if model.by_default)
    yield f"    # models: [{models}]"


def _own(name: str) -> str:
    """What stands for a text of the user's own."""
    return f"my-{name.replace('_', '-')}"


def _example(option: Option) -> str:
    """A value that the option may have: its default, where it has one, as YAML writes it."""
    if option.default is None:
        return option.choices[0] if option.choices else _own(option.name)
    return json.dumps(option.default) if isinstance(option.default, bool) else str(option.default)
