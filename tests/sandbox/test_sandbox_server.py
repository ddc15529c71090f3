"""The settings, the view, the page and the server, over real HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from sandbox_client import JSON, TEAK_BATCH, counts, parcelvoy, post, reasons, send, teak, view

from sandbox.credentials import (
    TEAK_GAME_ID,
    TEAK_SECRET_KEY,
    TRAITLY_TOKEN,
    Credentials,
)
from sandbox.journal import MAX_VIOLATIONS, Journal
from sandbox.server import PROTOCOLS, Running

# Settings


@pytest.mark.parametrize(
    ("vendor", "settings", "message"),
    [
        ("acme", {"unknown_users": []}, "acme: must be a vendor"),
        ("traitly", {"unknown_users": []}, r"traitly.unknown_users: unknown setting; there are: none"),
        ("teak", {"users": []}, r"teak.users: unknown setting; there are: unknown_users"),
        ("teak", {"unknown_users": "a"}, "teak: must be a list of strings"),
        ("swrve", {"currencies": [1]}, "swrve: must be a list of strings"),
    ],
)
def test_a_setting_that_makes_no_sense(sandbox: Running, vendor: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sandbox.configure(vendor, **settings)


def test_reset_forgets_everything(sandbox: Running) -> None:
    sandbox.configure("teak", unknown_users=["a"])
    sandbox.fault(vendor="teak", status=500)
    teak(sandbox, "a")
    sandbox.reset()
    assert teak(sandbox, "a").json["summary"]["successful_events"] == 1
    assert counts(sandbox, "teak") == (1, 1, 0)


# The view


def test_items_in_order_of_arrival(sandbox: Running) -> None:
    before = time.time()
    teak(sandbox, "a", "b")
    parcelvoy(sandbox, "a")
    teak(sandbox, "c")
    items = sandbox.received(items=1)["items"]
    assert [(each["order"], each["vendor"], each["user"], each["request"]) for each in items] == [
        (1, "teak", "a", 1),
        (2, "teak", "b", 1),
        (3, "parcelvoy", "a", 1),
        (4, "teak", "c", 2),
    ]
    assert before <= items[0]["at"] <= items[3]["at"] <= time.time()
    pages = sandbox.received(vendor="teak", items=1, limit=2, after=1)["items"]
    assert [each["user"] for each in pages] == ["b", "c"]
    assert [each["order"] for each in sandbox.received(items=1, user="a")["items"]] == [1, 3]


def test_the_view_refuses_nonsense(sandbox: Running) -> None:
    with pytest.raises(ValueError, match="vendor: must be one of"):
        sandbox.received(vendor="acme")
    with pytest.raises(ValueError, match="limit and after: must be integers"):
        sandbox.received(items=1, limit="all")


def test_held_items_are_bounded_and_counts_exact() -> None:
    with Running(keep=10) as sandbox:
        for index in range(5):
            teak(sandbox, *(str(user) for user in range(index * 5, index * 5 + 5)))
        assert [each["user"] for each in sandbox.items("teak")] == [str(user) for user in range(15, 25)]
        assert counts(sandbox, "teak") == (5, 25, 0)


def test_violations_are_counted_and_bounded() -> None:
    journal = Journal(["teak"], 10)
    for index in range(MAX_VIOLATIONS + 50):
        journal.violation("teak", "/", f"key {index}")
    journal.violation("teak", "/", "key 0")
    found = journal.violation_list()
    assert len(found) == MAX_VIOLATIONS + 1
    assert found[0] == {"vendor": "teak", "path": "", "reason": "(other violations)", "count": 50}
    assert found[1] == {"vendor": "teak", "path": "/", "reason": "key 0", "count": 2}
    assert journal.traffic["teak"].violations == MAX_VIOLATIONS + 51


def in_parallel(*calls: Any) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()


def test_two_requests_of_a_user_at_once(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", delay_s=0.5, next=2)
    in_parallel(lambda: teak(sandbox, "a", "b"), lambda: teak(sandbox, "b", "c"))
    found = view(sandbox)
    assert (found["max_in_flight"], found["overlaps"], found["overlapping_users"]) == (2, 1, ["b"])
    assert found["in_flight"] == 0
    assert sandbox.violations() == []


def test_requests_of_other_users_or_in_turn_do_not_overlap(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", delay_s=0.4, next=2)
    in_parallel(lambda: teak(sandbox, "a"), lambda: teak(sandbox, "b"))
    for _ in range(3):
        teak(sandbox, "a", "b")
    assert (view(sandbox)["max_in_flight"], view(sandbox)["overlaps"]) == (2, 0)


def test_a_request_begun_before_another_of_its_user_ended(sandbox: Running) -> None:
    """The second request's headers come while the first is under way, its body after the first's end."""
    body = {"game_id": TEAK_GAME_ID, "secret_key": TEAK_SECRET_KEY, "events": [{"user_id": "a", "action_type": "x"}]}
    encoded = json.dumps(body).encode()
    host, port = sandbox.url.removeprefix("http://").split(":")
    sandbox.fault(vendor="teak", delay_s=0.4)
    with socket.create_connection((host, int(port))) as late:
        head = (
            f"POST {TEAK_BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(encoded)}\r\n\r\n"
        )
        in_parallel(lambda: teak(sandbox, "a"), lambda: late.sendall(head.encode()))
        late.sendall(encoded)
        assert late.recv(100).startswith(b"HTTP/1.1 200")
    assert view(sandbox)["overlaps"] == 1


def test_a_retry_after_a_timeout_does_not_overlap(sandbox: Running) -> None:
    sandbox.fault(vendor="teak", drop=True)
    with pytest.raises(TimeoutError):
        teak(sandbox, "a", timeout=0.2)
    teak(sandbox, "a")
    assert view(sandbox)["overlaps"] == 0


def test_a_client_that_goes_away_while_sending(sandbox: Running) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST {TEAK_BATCH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.1)
    time.sleep(0.1)
    found = view(sandbox)
    assert (found["requests"], found["incomplete"], found["in_flight"], found["answers"]) == (1, 1, 0, {})


def test_a_body_without_end_is_refused(sandbox: Running) -> None:
    answer = post(sandbox, TEAK_BATCH, b" " * (33 * 2**20))
    assert (answer.status, reasons(sandbox)) == (413, [f"body is above {32 * 2**20} bytes"])


# The page


def test_the_page_escapes_what_arrived(sandbox: Running) -> None:
    teak(sandbox, "<script>alert(1)</script>")
    post(sandbox, TEAK_BATCH, {"game_id": "<b>"})
    post(sandbox, "/teak/<i>", {})
    answer = send(sandbox, "GET", "/")
    text = answer.body.decode()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "game_id: could not be found" in text
    assert '<span class="bad">2 violations</span>' in text
    assert TEAK_SECRET_KEY not in text


def test_the_page_of_a_quiet_sandbox(sandbox: Running) -> None:
    assert "what arrived, no violation" in send(sandbox, "GET", "/").body.decode()


# The server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cutting_connections_with_each_http_implementation(protocol: str) -> None:
    with Running(protocol=protocol) as sandbox:
        for fault in ({"reset": "before"}, {"reset": "after"}, {"truncate": 5}, {"drop": True}):
            sandbox.fault(vendor="teak", **fault)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                teak(sandbox, "a")
        with pytest.raises(http.client.IncompleteRead):
            teak(sandbox, "a")
        with pytest.raises(TimeoutError):
            teak(sandbox, "a", timeout=0.2)
        assert counts(sandbox, "teak") == (4, 2, 0)


def test_other_credentials() -> None:
    with Running(credentials=Credentials(traitly=frozenset({"mine"}))) as sandbox:
        for token, status in (("mine", 200), (TRAITLY_TOKEN, 401)):
            body = {"customer_id": "1", "name": "n"}
            assert post(sandbox, "/traitly/api/v1/event", body, {"Authorization": f"Token {token}"}).status == status


def test_it_stops_soon_whatever_is_open() -> None:
    sandbox = Running()
    with sandbox:
        sandbox.fault(vendor="teak", drop=True)
        failed: list[Exception] = []

        def wait_in_vain() -> None:
            try:
                teak(sandbox, "a")
            except (OSError, http.client.HTTPException) as error:
                failed.append(error)

        waiting = threading.Thread(target=wait_in_vain)
        waiting.start()
        time.sleep(0.1)
        begin = time.monotonic()
    assert time.monotonic() - begin < 1
    waiting.join()
    assert len(failed) == 1
    with pytest.raises(OSError, match="refused"):
        teak(sandbox, "a")


def test_the_command() -> None:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--keep", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            port = int(line.removeprefix("sandbox on http://127.0.0.1:").split("/")[0])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/_sandbox/violations")
            assert json.load(connection.getresponse()) == {"count": 0, "violations": []}
            connection.close()
            taken = subprocess.run([*command[:4], str(port)], capture_output=True, text=True, timeout=20, check=False)
            assert taken.returncode == 1
            assert f"cannot listen on 127.0.0.1 port {port}: " in taken.stderr
            assert taken.stderr.endswith("try --port 0\n")
        finally:
            process.terminate()
