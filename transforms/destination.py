"""A destination as the relay file sets it up. Travels in the job graph, so it holds references, never secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.located import Node

PARK_BYTES = 10_000_000_000
"""What may wait for a destination unless the relay file says otherwise."""


@dataclass(frozen=True)
class BatchRule:
    """`batch:` of a destination: how items travel together."""

    by: str
    """`vendor`: users share a request; `user`: one user a request."""
    items: int
    """Items a request at the most."""
    bytes: int
    """Bytes of a request body at the most."""
    window_ms: int | None = None
    """Event-time window that a batch never crosses; None: no windows."""
    age_ms: int | None = None
    """How long an item may wait for others, in processing time (streaming)."""


@dataclass(frozen=True)
class Destination:
    """A vendor as set up in the relay file."""

    name: str
    vendor: str
    """The vendor's slug."""
    credentials: Mapping[str, str] = field(repr=False)
    """Key -> reference as written (`env:`, `file:`, `secret:`), or a literal that is not secret."""
    url: str | None
    """Base URL without a trailing slash; None: the vendor's own."""
    batch: BatchRule
    shards: int
    rate: float | None
    """Requests a second over all workers; None: unlimited."""
    retry_s: float
    connect_timeout_s: float
    timeout_s: float
    gzip: bool
    models: tuple[str, ...] | None = None
    """The models to send; None: all that have a mapping."""
    map: Node | None = None
    """Overrides of the shipped mapping."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The vendor's own keys."""
    allow_insecure: bool = False
    park_bytes: int = PARK_BYTES
    """Most bytes that may wait on disk while the vendor is down (a stream): items, and the messages they came in."""
    base_dir: str = "."
    """Folder that `file:` references start from."""
