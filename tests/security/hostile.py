"""A vendor that repeats to its client everything the client told it, with every kind of fault."""

from __future__ import annotations

import gzip
import http.server
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from marks import CORES

ECHOED = ("401", "403", "404", "410", "422", "429", "500", "200", "302")
"""Kinds that answer with this status and, as plain text, the request."""

REPEATING = (*ECHOED, "422json", "200json")
"""Kinds whose answer repeats the request."""

SILENT = ("reset", "cut", "empty", "tls", "plain", "refused")
"""Kinds that repeat nothing; `tls`: a certificate nobody vouches for; `plain`: no TLS where it is asked for."""

KINDS = (*REPEATING, *SILENT)
"""What may stand first in a URL's path."""


class Addresses(NamedTuple):
    """Where the vendor listens."""

    http: str
    https: str
    heard: set[str]
    """The marks of secrets that it was told."""

    def url(self, kind: str, slug: str) -> str:
        """The base URL that misbehaves in this way."""
        if kind == "tls":
            return f"{self.https}/{kind}/{slug}"
        if kind == "plain":
            return f"{self.http.replace('http:', 'https:')}/{kind}/{slug}"
        if kind == "refused":
            return f"http://127.0.0.1:{closed_port()}/{kind}/{slug}"
        return f"{self.http}/{kind}/{slug}"


def closed_port() -> int:
    """One where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        told = f"{self.requestline}\n{self.headers}\n".encode() + body
        self.heard.update(mark for mark in CORES if mark.encode() in told)
        kind = self.path.split("/")[1]
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if kind in ("422json", "200json"):
            text = told.decode()
            errors = {"user_id": [text], text: [text]}
            answer = json.dumps(
                {"error": text, "message": text, "errors": errors, "results": [{"status": text}]}
            ).encode()
        else:
            answer = b"" if kind == "empty" else told
        self.send_response(int(kind[:3]) if kind[:3].isdigit() else 200, "No " + self.headers.get("Authorization", ""))
        if kind == "302":
            self.send_header(
                "Location", f"http://localhost:1{self.path}?" + self.headers.get("Authorization", "").replace(" ", "+")
            )
        if kind in ("429", "500"):
            self.send_header("Retry-After", "0")
        self.send_header("Set-Cookie", "key=" + self.headers.get("Authorization", ""))
        self.send_header("Content-Length", str(len(answer) + (kind == "cut")))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = kind == "cut"

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def listening(certificate: Path) -> Iterator[Addresses]:
    """The vendor, on two free ports. certificate: PEM file with the key, for 127.0.0.1."""
    heard: set[str] = set()
    handler = type("Handler", (_Handler,), {"heard": heard})
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True, do_handshake_on_connect=False)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are what is tested
        thread.start()
    first, second = (server.server_address[1] for server in servers)
    yield Addresses(f"http://127.0.0.1:{first}", f"https://127.0.0.1:{second}", heard)
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
