"""What the sink takes when nothing but libcurl is in the way: the same bodies, made before, sent again and again.

    python -m benchmarks.blast URL ITEMS REQUESTS

Bodies of ITEMS Teak events each (0: one Traitly event). Prints requests a second of wall time.
"""

from __future__ import annotations

import sys
import time

import pycurl

CONNECTIONS = 32


def blast(url: str, body: bytes, count: int) -> float:
    """Sends a body `count` times over as many connections as the floor has; the seconds it took."""
    multi = pycurl.CurlMulti()
    idle = []
    for _ in range(CONNECTIONS):
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.POSTFIELDS, body)
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
        handle.setopt(pycurl.WRITEFUNCTION, len)
        idle.append(handle)
    start = time.perf_counter()
    left = count
    while left or len(idle) < CONNECTIONS:
        while left and idle:
            multi.add_handle(idle.pop())
            left -= 1
        multi.perform()
        queued = 1
        done: list[pycurl.Curl] = []
        while queued:
            queued, ended, failed = multi.info_read()
            if failed:
                raise RuntimeError(failed)
            done += ended
        for handle in done:
            multi.remove_handle(handle)
        idle += done
        if not done:
            multi.select(0.1)
    return time.perf_counter() - start


def main() -> None:
    """The command."""
    url, items, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if items:
        event = b'{"user_id":"u12345","action_type":"level_up","object_type":"level","object_instance_id":"17"}'
        body = b'{"game_id":"teak-app","secret_key":"k-teak","events":[' + b",".join([event] * items) + b"]}"
    else:
        body = b'{"customer_id":"u12345","name":"level_up","created_at":1764000000}'
    print(count / blast(url, body, count))


if __name__ == "__main__":
    main()
