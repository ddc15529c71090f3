"""Made-up game telemetry: canonical events of about 350 bytes, the same lines for the same seed.

python -m benchmarks.make_events COUNT FILE [--users N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

USERS = 20_000
EVENT_TYPES = ("level_up", "level_start", "purchase", "login", "spend_virtual_currency", "earn_virtual_currency")
START_MS = 1_764_000_000_000
STEP_MS = 7


def events(count: int, users: int = USERS, seed: int = 1) -> Iterator[dict[str, Any]]:
    """`count` events in time order. The order in which random numbers are drawn is part of what a seed means."""
    draw = random.Random(seed)
    for number in range(count):
        event_id = str(uuid.UUID(int=draw.getrandbits(128)))
        event_type = draw.choice(EVENT_TYPES)
        user = draw.randrange(users)
        session = draw.randrange(10 * users)
        platform = draw.choice(("ios", "android"))
        country = draw.choice(("US", "DE", "FR"))
        level = draw.randrange(1, 99)
        score = draw.randrange(1_000_000)
        duration = round(draw.random() * 100, 2)
        amount = draw.randrange(1, 500)
        item = draw.randrange(50)
        yield {
            "event_id": event_id,
            "event_type": event_type,
            "event_timestamp": START_MS + number * STEP_MS,
            "user_id": f"u{user}",
            "session_id": f"s{session}",
            "app_version": "1.2.3",
            "platform": platform,
            "country": country,
            "event_data": {
                "level": level,
                "score": score,
                "duration_s": duration,
                "currency": "gold",
                "amount": amount,
                "item_id": f"sword_{item}",
            },
        }


def write(path: str, count: int, users: int = USERS, seed: int = 1) -> None:
    """The events as JSON lines."""
    with open(path, "w", encoding="utf-8") as file:
        for event in events(count, users, seed):
            file.write(json.dumps(event) + "\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("file")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    write(given.file, given.count, given.users, given.seed)


if __name__ == "__main__":
    main()
