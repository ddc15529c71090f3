"""One vendor's endpoint as an ASGI application: reads a request, counts it, lets the vendor answer, adds faults."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import zlib
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from sandbox.exchange import Reply, Request
from sandbox.faults import Fault, Faults
from sandbox.journal import Journal, Traffic
from sandbox.vendors.base import JSON, Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Nobody sends more on purpose; the server must not grow with a client's mistake.
MAX_BODY_BYTES = 32 * 1024 * 1024
#: Where the server puts the connection's transport, so that a fault can cut it.
TRANSPORT = "sandbox.transport"


class Gate:
    """Everything behind one vendor's path prefix."""

    def __init__(self, vendor: Vendor, journal: Journal, faults: Faults) -> None:
        self._vendor = vendor
        self._journal = journal
        self._faults = faults
        self._prefix = len(vendor.slug) + 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        traffic = self._journal.traffic[self._vendor.slug]
        clock = time.monotonic()
        transport = scope.get(TRANSPORT)
        ticket = traffic.enter(clock, transport.is_closing if transport else _never)
        number = traffic.requests
        try:
            body = await _read(receive)
            if body is None:
                traffic.incomplete += 1
                return
            request = Request(
                scope["method"],
                scope["path"][self._prefix :],
                scope["query_string"],
                dict(scope["headers"]),
                body,
                time.time(),
                number,
            )
            traffic.bytes += len(body)
            early = self._vendor.over_rate(request, clock)
            fault = None if early else self._faults.take(self._vendor.slug, request.path, partial(_content, body))
            if fault is not None:
                request.item_errors, request.reorder = fault.item_errors, fault.reorder
                traffic.faulted += 1
            reply = early or _answer(self._vendor, request)
            self._record(traffic, ticket, request, reply, fault)
            if fault is None:
                traffic.answered(str(reply.status))
                await _send(send, reply.status, reply.body, JSON, {})
            else:
                await _misbehave(fault, reply, self._vendor, request.path, traffic, ticket, scope, receive, send)
        finally:
            traffic.leave(ticket)

    def _record(self, traffic: Traffic, ticket: int, request: Request, reply: Reply, fault: Fault | None) -> None:
        """Count the request; unless a fault refuses it, its items too."""
        traffic.hold(ticket, request.users)
        if request.model:
            traffic.model(request.model).requests += 1
        for reason in reply.violations:
            self._journal.violation(self._vendor.slug, request.path, reason)
        if fault is None or not fault.refuses:
            self._journal.commit(self._vendor.slug, request, reply)
            self._vendor.accepted(reply.items)


def _answer(vendor: Vendor, request: Request) -> Reply:
    """The vendor's answer, once the body is decompressed; refuses what the vendor cannot decompress."""
    if len(request.body) > MAX_BODY_BYTES:
        return _bad_body(vendor, 413, f"body is above {MAX_BODY_BYTES} bytes")
    encoding = request.header(b"content-encoding").strip().lower()
    if encoding in ("", "identity"):
        return vendor.answer(request)
    if encoding != "gzip" or not vendor.gzip:
        return _bad_body(vendor, 400, f"content-encoding {encoding[:20]} is not taken")
    unpacked = _unpack(request.body)
    if unpacked is None:
        return _bad_body(vendor, 400, "body is not valid gzip")
    request.body, whole = unpacked
    if not whole:
        return _bad_body(vendor, 400, "body is not one whole gzip stream")
    return vendor.answer(request)


def _content(body: bytes) -> bytes:
    """A body as it was before it was compressed; as it came when it is not gzip."""
    unpacked = _unpack(body)
    return body if unpacked is None else unpacked[0]


def _unpack(body: bytes) -> tuple[bytes, bool] | None:
    """What is in gzip data, and whether that is one whole stream; None for what is no gzip."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return None
    return data, unpacker.eof and not unpacker.unused_data


def _bad_body(vendor: Vendor, status: int, reason: str) -> Reply:
    return Reply(status, vendor.error_body(status, "", reason), violations=[reason])


async def _misbehave(
    fault: Fault,
    reply: Reply,
    vendor: Vendor,
    path: str,
    traffic: Traffic,
    ticket: int,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer as the fault says: late, something else, a part, or not at all."""
    if fault.drop:
        traffic.answered("dropped")
        await _disconnected(receive, None)
        return
    if fault.delay_s and await _disconnected(receive, fault.delay_s):
        traffic.answered("abandoned")
        return
    if fault.reset:
        traffic.answered("reset")
        traffic.leave(ticket)
        _abort(scope)
        await _disconnected(receive, 1.0)
        return
    status = fault.status or reply.status
    if fault.body is not None:
        body, content_type = fault.body, fault.content_type
    elif fault.status is not None and fault.status >= 300:
        body, content_type = vendor.error_body(status, "", vendor.usual_text(status, path)), fault.content_type
    else:
        body, content_type = reply.body, fault.content_type
    retry_after = fault.retry_after_value()
    extra = {} if retry_after is None else {b"retry-after": retry_after.encode("ascii")}
    if fault.truncate is None:
        traffic.answered(str(status))
        await _send(send, status, body, content_type, extra)
        return
    traffic.answered("truncated")
    if body:
        await _send(send, status, body, content_type, extra, cut=fault.truncate)
    else:
        scope[TRANSPORT].write(b"HTTP/1.1 2")  # without a body, the status line is what can be cut
    traffic.leave(ticket)
    scope[TRANSPORT].close()
    await _disconnected(receive, 1.0)


def _never() -> bool:
    return False


async def _read(receive: Receive) -> bytes | None:
    """The whole body, cut short above MAX_BODY_BYTES; None when the client goes away before its end."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    size = len(body)
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        if size <= MAX_BODY_BYTES:
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(
    send: Send, status: int, body: bytes, content_type: str, extra: Mapping[bytes, bytes], *, cut: int | None = None
) -> None:
    """Send an answer; with `cut`, all headers but only so many bytes of the body, at least one too few."""
    headers = list(extra.items())
    if status >= 200 and status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
        if body:
            headers.append((b"content-type", content_type.encode("latin-1")))
    else:
        body = b""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if cut is None:
        await send({"type": "http.response.body", "body": body})
    else:
        await send({"type": "http.response.body", "body": body[: min(cut, len(body) - 1)], "more_body": True})


async def _disconnected(receive: Receive, seconds: float | None) -> bool:
    """Wait until the client is gone, at most so long; whether it went."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waiting = asyncio.ensure_future(gone())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
    return bool(done)


def _abort(scope: Scope) -> None:
    """Cut the connection with a TCP reset: without lingering, closing discards what is unsent."""
    transport = scope[TRANSPORT]
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
