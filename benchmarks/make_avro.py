"""JSON lines of canonical events to an Avro container file of the canonical schema.

python -m benchmarks.make_avro EVENTS FILE [CODEC]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import fastavro

import schemas


def _events(path: str) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        for line in file:
            yield json.loads(line)


def main(events: str, path: str, codec: str = "null") -> None:
    """The command."""
    schema = fastavro.parse_schema(schemas.load("telemetry/event").avro)
    with open(path, "wb") as file:
        fastavro.writer(file, schema, _events(events), codec=codec)


if __name__ == "__main__":
    main(*sys.argv[1:])
