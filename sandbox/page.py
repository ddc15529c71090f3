"""The page at `/`: the view for people. No scripts and no outside assets; everything shown is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from sandbox.journal import Stored

#: How many of the latest items the page shows.
LATEST = 20
_REFRESH_SECONDS = 2
_MAX_ITEM_CHARACTERS = 300

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
}

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 1.8em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25em .8em .25em 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; overflow-wrap: anywhere; } .bad { color: #b00020; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } th, td { border-color: #444; }
.bad { color: #ff8a80; } }
"""

_COLUMNS = {
    "requests": "requests",
    "accepted": "accepted",
    "rejected": "rejected",
    "violations": "violations",
    "faulted": "faulted",
    "max_requests_per_second": "most requests in a second",
    "max_in_flight": "most in flight",
    "overlaps": "overlaps of a user",
}


def render(view: dict[str, Any], latest: list[Stored]) -> str:
    """The whole page; `latest` are items, the latest first."""
    vendors: dict[str, dict[str, Any]] = view["vendors"]
    totals = _table(
        ["vendor", *_COLUMNS.values()], ([name, *(each[key] for key in _COLUMNS)] for name, each in vendors.items())
    )
    models = _table(
        ["vendor", "model", "requests", "accepted", "rejected"],
        (
            [name, model, counts["requests"], counts["accepted"], counts["rejected"]]
            for name, each in vendors.items()
            for model, counts in each["models"].items()
        ),
    )
    violations = _table(
        ["vendor", "path", "reason", "count"],
        ([each["vendor"], each["path"], each["reason"], each["count"]] for each in view["violations"]),
    )
    faults = _table(["fault", "struck"], ([_plain(fault), fault["struck"]] for fault in view["faults"]))
    items = _table(
        ["order", "vendor", "model", "user", "item"],
        ([each.order, each.vendor, each.model, each.user, _cut(each.body)] for each in latest),
    )
    count = sum(each["count"] for each in view["violations"])
    verdict = f'<span class="bad">{count} violations</span>' if count else "no violation"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sandbox</title>'
        f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Sandbox: what arrived, {verdict}</h1>{totals}"
        f"<h2>Models</h2>{models}<h2>Violations</h2>"
        f"<p>What no correct client would have sent.</p>{violations}"
        f"<h2>Faults set</h2>{faults}<h2>Latest items</h2>{items}"
        '<p>The same as JSON: <a href="/_sandbox/received">/_sandbox/received</a></p></body></html>'
    )


def _table(titles: list[str], rows: Iterable[list[object]]) -> str:
    body = ["<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows]
    if not body:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def _plain(fault: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fault.items() if key not in ("seen", "struck"))


def _cut(body: bytes) -> str:
    text = body.decode()
    return text if len(text) <= _MAX_ITEM_CHARACTERS else text[:_MAX_ITEM_CHARACTERS] + "…"
