"""For comparison: events to Teak with asyncio, aiohttp and orjson, as one would write it without playrelay.

No checks, no retries, no accounting; a batch that fails ends it. Order of a user's events is not kept.

    python -m benchmarks.compare_asyncio EVENTS URL
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
import orjson

BATCH = 100
WORKERS = 32


def teak_event(event: dict[str, Any]) -> dict[str, Any]:
    """The mapping."""
    mapped: dict[str, Any] = {"user_id": event["user_id"], "action_type": event["event_type"]}
    data = event.get("event_data") or {}
    if data.get("item_id") is not None:
        mapped["object_type"] = "item"
        mapped["object_instance_id"] = data["item_id"]
    if data.get("amount") is not None:
        mapped["value"] = data["amount"]
        mapped["sum_of_squares"] = data["amount"] ** 2
    if event.get("country") is not None:
        mapped["country_code"] = event["country"]
    return mapped


async def work(url: str, session: aiohttp.ClientSession, batches: asyncio.Queue[list[dict[str, Any]]]) -> None:
    """Sends batches as they come."""
    while True:
        body = {"game_id": "teak-app", "secret_key": "k-teak", "events": await batches.get()}
        headers = {"Content-Type": "application/json"}
        async with session.post(url, data=orjson.dumps(body), headers=headers) as answer:
            answer.raise_for_status()
            results = orjson.loads(await answer.read())["results"]
            assert all(result["status"] == "ok" for result in results)
        batches.task_done()


async def relay(path: str, url: str) -> None:
    """Reads the file and hands batches to the workers."""
    batches: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue(maxsize=2 * WORKERS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WORKERS)) as session:
        workers = [asyncio.create_task(work(url, session, batches)) for _ in range(WORKERS)]
        held: list[dict[str, Any]] = []
        with open(path, "rb") as file:
            for line in file:
                held.append(teak_event(orjson.loads(line)))
                if len(held) == BATCH:
                    await batches.put(held)
                    held = []
        if held:
            await batches.put(held)
        ended = asyncio.create_task(batches.join())
        await asyncio.wait([ended, *workers], return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            if worker.done():
                worker.result()
            worker.cancel()
        await ended


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], sys.argv[2]))
