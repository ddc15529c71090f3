"""More of what goes wrong on the way to a vendor, at every vendor: afterwards the sums are exact."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from deliveries import VENDORS, Sent, at, check_arrived, destination, send, some_items, traffic
from test_faults import at_every_vendor

from pipelines import relay_file
from sandbox.server import Running
from transforms.dead_letter import REJECTED, UNDELIVERED
from transforms.vendors import get

EACH = pytest.mark.parametrize("slug", VENDORS)
BATCHES = [slug for slug in VENDORS if slug != "traitly"]


class Counting(http.server.BaseHTTPRequestHandler):
    """Counts the requests that come."""

    asked = 0

    def handle_one_request(self) -> None:
        if self.rfile.peek(1)[:1] == b"\x16":  # TLS, in which a line may never end
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.close_connection = True
        else:
            super().handle_one_request()

    def do_POST(self) -> None:
        Counting.asked += 1
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def listening(certificate: Path | None) -> Iterator[int]:
    """A server with this certificate, or without TLS; its port."""
    Counting.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # Each connection's handshake is made in its own thread, so that a slow one holds up no other.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def gave_up(sent: Sent, reason: str) -> None:
    """All is undelivered for one reason, and the destination stopped."""
    assert sent.numbers(UNDELIVERED) == list(range(len(sent.items)))
    assert sent.gate.halt is not None
    assert reason in sent.gate.halt.reason


def test_a_server_that_nobody_vouches_for_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with listening(certificates.write(tmp_path / "server.pem")) as port:
        url = f"https://127.0.0.1:{port}"
        for _, sent in at_every_vendor(
            lambda slug: send(destination(slug, f"{url}/{slug}", retry_s=1.5), some_items(slug, 20))
        ):
            gave_up(sent, "the server's TLS certificate is not trusted")
        assert Counting.asked == 0


def test_a_server_that_speaks_no_tls(tmp_path: Path) -> None:
    with listening(None) as port:
        url = f"https://127.0.0.1:{port}"
        for _, sent in at_every_vendor(
            lambda slug: send(destination(slug, f"{url}/{slug}", retry_s=1.5), some_items(slug, 20))
        ):
            gave_up(sent, "TLS handshake failed")
        assert Counting.asked == 0


def test_a_name_that_nobody_knows() -> None:
    # Longer than a label may be, so that no resolver has to be asked.
    for _, sent in at_every_vendor(
        lambda slug: send(destination(slug, f"https://{'x' * 64}.example", retry_s=0.4), some_items(slug, 20))
    ):
        gave_up(sent, "the host's name is not known")


def test_nobody_listens_and_then_somebody_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    back = Running.__new__(Running)

    def come_back() -> None:
        time.sleep(0.5)
        back.__init__(port=port)  # type: ignore[misc]  # it binds when it is made
        back.__enter__()

    thread = threading.Thread(target=come_back)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    found = list(
        at_every_vendor(
            lambda slug: send(destination(slug, f"{url}/{slug}", batch={"items": 10}), some_items(slug, 60))
        )
    )
    thread.join()
    for _, sent in found:
        assert sent.tally.delivered == 60
        assert sent.tally.retries > 0
        check_arrived(back, sent)
    back.stop()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 504])
def test_a_status_for_longer_than_the_budget(sandbox: Running, status: int) -> None:
    for slug in VENDORS:
        sandbox.fault(vendor=slug, status=status, next=None)
    for _, sent in at_every_vendor(lambda slug: send(at(sandbox, slug, retry_s=0.4), some_items(slug, 40))):
        gave_up(sent, f"HTTP {status}")
        assert 0.4 <= sent.seconds < 3
        check_arrived(sandbox, sent)


def test_an_answer_that_comes_when_nobody_waits_any_more(sandbox: Running) -> None:
    """The vendor took the request, and it is sent again: nobody can know."""
    for slug in VENDORS:
        sandbox.fault(vendor=slug, delay_s=1.5, after=1)
    for slug, sent in at_every_vendor(
        lambda slug: send(at(sandbox, slug, batch={"items": 10}, timeout_s=0.6), some_items(slug, 80))
    ):
        assert sent.tally.delivered == 80
        assert sent.tally.retries == 1
        accepted = traffic(sandbox, slug)["accepted"]
        assert 80 < accepted <= 90 if slug != "swrve" else 80 < accepted <= 80 + 12
        check_arrived(sandbox, sent, duplicates=12)


@EACH
def test_an_answer_after_30_s_is_waited_for_by_default(slug: str) -> None:
    """To give it up would send again what the vendor has taken, and each time: it answers as late the next time.

    Half a minute is what load balancers and busy vendors take. That a late answer is waited for, whatever the timeout is, is
    in test_faults.py, with shorter times.
    """
    names = ", ".join(f"{name}: env:{name.upper()}" for name in sorted(get(slug).credential_sets[0]))
    text = f"{{source: {{preset: canonical}}, destinations: {{{slug}: {{credentials: {{{names}}}}}}}}}"
    to = relay_file.loads(text.encode(), "relay.yaml", ".").destinations[slug]
    assert to.timeout_s > to.connect_timeout_s + 30, "the timeout begins with connecting"


@EACH
def test_a_body_that_is_too_large_for_the_vendor_is_halved(sandbox: Running, slug: str) -> None:
    sandbox.fault(vendor=slug, status=413)
    sent = send(at(sandbox, slug, shards=1), some_items(slug, 64, users=1))
    if slug == "traitly":  # one item a request: there is nothing to halve
        assert len(sent.numbers(REJECTED)) == 1
        assert sent.tally.requests == 64
    else:
        assert sent.tally.delivered == 64
        assert sent.tally.requests == 3
    check_arrived(sandbox, sent)


@EACH
def test_one_item_that_is_too_large_for_the_vendor_is_found(sandbox: Running, slug: str) -> None:
    """Every request that holds it is answered with 413."""
    sandbox.fault(vendor=slug, status=413, next=7)
    sent = send(at(sandbox, slug, shards=1), some_items(slug, 64, users=1))
    lost = 7 if slug == "traitly" else 1
    assert len(sent.numbers(REJECTED)) == lost
    assert all("413" in failed.reason for failed in sent.failed)
    assert sent.tally.delivered == 64 - lost
    assert sent.gate.halt is None
    check_arrived(sandbox, sent)
