"""The requests of one destination that are on their way: libcurl's handles, and what goes into and comes out of them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pycurl

from transforms.deliver.connection import network_error, open_handle
from transforms.vendors.base import Answer, Batch, Route, Settings, Vendor

CLOSE_S = 0.5
"""Seconds in which connections end, unless a name is being looked up."""

GZIP_FROM = 1400
"""Bodies below a network packet's size gain nothing from gzip."""


class Returned(NamedTuple):
    """A request that is over."""

    shard: int
    answer: Answer
    """Of status 0 when there was none."""
    error: str | None
    """Why there was no answer, in words."""
    seconds: float
    """How long the answer took."""


class _Handle:
    """A libcurl handle with the route it is set up for and the answer it is receiving."""

    __slots__ = ("answer", "curl", "left", "route", "shard", "zipped")

    def __init__(self, connect_timeout: float, timeout: float) -> None:
        self.answer: list[bytes] = []
        self.curl = open_handle(connect_timeout, timeout, self.answer.append)
        # When a kept connection ends without an answer, libcurl would send the request once more by itself: uncounted,
        # past the rate and the pauses, and perhaps a second time to a vendor that had taken it.
        self.curl.setopt(pycurl.PREREQFUNCTION, self._leaves)
        self.left = False
        """Whether the request has left."""
        self.route: Route | None = None
        self.zipped = False
        self.shard: int | None = None
        """Whose request is on its way; None while the handle is idle."""

    def _leaves(self, *_: object) -> int:
        again, self.left = self.left, True
        return int(pycurl.PREREQFUNC_ABORT if again else pycurl.PREREQFUNC_OK)


class Requests:
    """Requests over libcurl's multi interface, one a shard, for one thread.

    connections: requests on their way at the most. Times in seconds. zipped: large bodies go out as gzip.
    """

    def __init__(
        self,
        vendor: Vendor,
        settings: Settings,
        *,
        connections: int,
        connect_timeout: float,
        timeout: float,
        zipped: bool,
    ) -> None:
        self._vendor = vendor
        self._settings = settings
        self._zipped = zipped
        self._multi = pycurl.CurlMulti()
        self._idle = [_Handle(connect_timeout, timeout) for _ in range(connections)]
        self._handles = {handle.curl: handle for handle in self._idle}
        self._headers: dict[Route, list[str]] = {}
        self._urls: dict[Route, str] = {}

    @property
    def free(self) -> int:
        """How many requests may start."""
        return len(self._idle)

    def start(self, shard: int, batch: Batch) -> int:
        """Sends a batch off. Returns the bytes of its body. Only while some are free."""
        handle = self._idle.pop()
        route = batch.route
        prefix, suffix = self._vendor.frame(self._settings, route, batch.user, time.time())
        body = b"%b%b%b" % (prefix, b",".join(batch.parts), suffix)
        zipped = self._zipped and len(body) >= GZIP_FROM
        if zipped:
            body = gzip.compress(body, 1, mtime=0)
        curl = handle.curl
        if handle.route is not route or handle.zipped != zipped:
            curl.setopt(pycurl.URL, self._url(route))
            curl.setopt(pycurl.HTTPHEADER, self._header(route) + (["Content-Encoding: gzip"] if zipped else []))
            handle.route, handle.zipped = route, zipped
        curl.setopt(pycurl.POSTFIELDS, body)
        handle.shard, handle.left = shard, False
        self._multi.add_handle(curl)
        return len(body)

    def _url(self, route: Route) -> str:
        if route not in self._urls:
            query = self._vendor.query(self._settings, route) if self._vendor.query else ""
            self._urls[route] = self._settings.url + route.path + query
        return self._urls[route]

    def _header(self, route: Route) -> list[str]:
        if route not in self._headers:
            own = self._vendor.headers(self._settings, route)
            self._headers[route] = [f"Content-Type: {route.content_type}", "Expect:", "User-Agent: playrelay", *own]
        return self._headers[route]

    def returned(self) -> Iterator[Returned]:
        """Moves bytes, without waiting, and gives the requests that are over since."""
        multi = self._multi
        multi.perform()
        left = 1
        while left:
            left, done, failed = multi.info_read()
            for curl in done:
                status = curl.getinfo(pycurl.RESPONSE_CODE)
                retry_after = float(curl.getinfo(pycurl.RETRY_AFTER)) if status == 429 or status >= 500 else 0.0
                location = (curl.getinfo(pycurl.REDIRECT_URL) or "") if 300 <= status < 400 else ""
                seconds = curl.getinfo(pycurl.TOTAL_TIME)
                shard, body = self._release(curl)
                yield Returned(shard, Answer(status, body, retry_after, location), None, seconds)
            for curl, code, message in failed:
                shard, _ = self._release(curl)
                yield Returned(shard, Answer(0, b""), f"network: {network_error(code, message)}", 0.0)

    def wait(self, seconds: float) -> None:
        """Waits until something came in, or the time is over, or that of a request."""
        due = self._multi.timeout()
        self._multi.select(seconds if due < 0 else min(seconds, due / 1000))

    def abandon(self) -> None:
        """Waits no longer for answers to what is on its way."""
        for curl, handle in self._handles.items():
            if handle.shard is not None:
                self._release(curl)

    def close(self) -> None:
        """Ends all connections. libcurl waits for a name that is still being looked up, which nobody else should."""
        ending = threading.Thread(target=self._end, name="end connections", daemon=True)
        ending.start()
        ending.join(CLOSE_S)

    def _end(self) -> None:
        self.abandon()
        for curl in self._handles:
            curl.close()
        self._multi.close()

    def _release(self, curl: pycurl.Curl) -> tuple[int, bytes]:
        self._multi.remove_handle(curl)
        handle = self._handles[curl]
        shard, handle.shard = handle.shard, None
        assert shard is not None
        body = b"".join(handle.answer)
        handle.answer.clear()
        self._idle.append(handle)
        return shard, body
