"""Which requests go through the environment's proxy."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pycurl
import pytest

from transforms.deliver.connection import open_handle


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked with the target as it came: whole when this server is taken for a proxy."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of a server that is the environment's proxy and, for the tests, every other host too."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def asked(host: str, port: int) -> str:
    """The target that the server saw of a POST to a host."""
    seen: list[bytes] = []
    curl = open_handle(2.0, 5.0, seen.append)
    curl.setopt(pycurl.RESOLVE, [f"{host}:{port}:127.0.0.1"])
    curl.setopt(pycurl.URL, f"http://{host}:{port}/take")
    curl.setopt(pycurl.POSTFIELDS, b"{}")
    curl.perform()
    curl.close()
    return b"".join(seen).decode()


@pytest.mark.parametrize(
    ("name", "hosts", "direct"),
    [
        ("", "", False),
        ("no_proxy", "internal.example", True),
        ("NO_PROXY", "other.example, internal.example", True),
        ("no_proxy", ".example", True),
        ("no_proxy", " * ", True),
        ("no_proxy", "other.example", False),
    ],
)
def test_the_environments_exceptions_hold(
    port: int, monkeypatch: pytest.MonkeyPatch, name: str, hosts: str, direct: bool
) -> None:
    if name:
        monkeypatch.setenv(name, hosts)
    assert asked("internal.example", port) == ("/take" if direct else f"http://internal.example:{port}/take")


@pytest.mark.parametrize("hosts", ["", "internal.example"])
def test_this_machine_is_asked_without_a_proxy(port: int, monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("no_proxy", hosts)
    assert asked("localhost", port) == asked("127.0.0.1", port) == "/take"
