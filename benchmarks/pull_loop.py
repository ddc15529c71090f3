"""The yardstick of streaming: pull and acknowledge, and nothing else.

python -m benchmarks.pull_loop SUBSCRIPTION COUNT [HOLD]

HOLD: seconds for which messages are held before they are acknowledged, as whatever relays them has to. Prints how many are
acknowledged, a line for each time that some are.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from google.cloud import pubsub_v1
from google.pubsub_v1 import types

from transforms.subscriber import IDS_A_REQUEST


def main(subscription: str, count: int, hold_s: float = 0.0) -> None:
    """Until so many messages are acknowledged."""
    with pubsub_v1.SubscriberClient() as client:
        pulled = done = 0
        held: deque[tuple[float, list[str]]] = deque()
        while done < count:
            if pulled < count:
                answer = types.PullResponse.pb(client.pull(subscription=subscription, max_messages=1000))
                ids = [received.ack_id for received in answer.received_messages]
                pulled += len(ids)
                held.append((time.monotonic(), ids))
            ripe: list[str] = []
            while held and (pulled >= count or time.monotonic() >= held[0][0] + hold_s):
                ripe += held.popleft()[1]
            for at in range(0, len(ripe), IDS_A_REQUEST):
                client.acknowledge(subscription=subscription, ack_ids=ripe[at : at + IDS_A_REQUEST])
            if ripe:
                done += len(ripe)
                print(done, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))
