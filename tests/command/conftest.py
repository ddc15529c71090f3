from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import EVENT, relay_file

from sandbox.server import Running


@pytest.fixture
def relay(sandbox: Running, tmp_path: Path) -> Callable[..., Path]:
    """Writes a relay file for the sandbox: relay("teak", "shards: 1")."""

    def write(*destinations: str, url: str = sandbox.url) -> Path:
        path = tmp_path / "relay.yaml"
        path.write_text(relay_file(destinations, url), encoding="utf-8")
        return path

    return write


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Three records: one that is delivered, one that is filtered (Teak knows no kpi), one that is no event."""
    path = tmp_path / "events.ndjson"
    path.write_text(
        EVENT + '{"event_type":"kpi","event_timestamp":1,"user_id":"u1"}\n{"event_type":7}\n', encoding="utf-8"
    )
    return path
