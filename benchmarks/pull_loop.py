"""The yardstick of streaming: pull and acknowledge, and nothing else.

python -m benchmarks.pull_loop SUBSCRIPTION COUNT
"""

from __future__ import annotations

import sys

from google.cloud import pubsub_v1
from google.pubsub_v1 import types


def main(subscription: str, count: int) -> None:
    """Until so many messages are acknowledged."""
    with pubsub_v1.SubscriberClient() as client:
        done = 0
        while done < count:
            answer = types.PullResponse.pb(client.pull(subscription=subscription, max_messages=1000))
            ids = [received.ack_id for received in answer.received_messages]
            if ids:
                client.acknowledge(subscription=subscription, ack_ids=ids)
                done += len(ids)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
