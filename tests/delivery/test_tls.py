"""TLS is verified: against the environment's authorities, or the known ones."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from deliveries import destination, send, some_items

from transforms.dead_letter import UNDELIVERED


class _Takes(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Certificate and key of a server at 127.0.0.1 that nobody knows."""
    return certificates.write(tmp_path / "server.pem")


@pytest.fixture
def url(authority: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Takes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_nobody_vouches_for_gets_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    sent = send(destination("parcelvoy", url, retry_s=0.3), some_items("parcelvoy", 5))
    assert sent.tally.undelivered == 5
    assert {failed.outcome for failed in sent.failed} == {UNDELIVERED}
    assert all("TLS certificate is not trusted" in failed.reason for failed in sent.failed)


def test_the_environments_authorities_are_taken(url: str, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert send(destination("parcelvoy", url), some_items("parcelvoy", 5)).tally.delivered == 5
