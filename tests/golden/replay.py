"""Runs the golden cases through `playrelay run` against a server that writes down what it is sent. See README.md.

python -m tests.golden.replay [--accept] [CASE]...
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import yaml
from click.testing import CliRunner

from pipelines.cli import main

CASES = Path(__file__).parent
PLACEHOLDER = "http://127.0.0.1:9000"
"""Base URL in the cases' relay files: that of a sandbox, so that they can be tried as they are."""

EXPECTED = ("requests.http", "dead_letters.json", "report.json")
"""Files of a case that say what must come out."""

UNTOLD = {"host", "user-agent", "accept", "accept-encoding", "content-length"}
"""Headers that every client sends. Any other stands in requests.http."""

TOKEN = re.compile(r'"session_token":"([^"=]+)=([^"]+)=([0-9]+)=([0-9a-f]{32})"')


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    """Without its content encoding."""


class Recorder:
    """A server that writes down each request and answers as the vendor in the first part of the path would.

    answers: [{body: part of a request's body, status: N, answer: {…}}]; the first that fits is given.
    """

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.requests: list[Request] = []
        self.answers = answers
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                told = [(name, value) for name, value in self.headers.items() if name.lower() not in UNTOLD]
                request = Request(self.command, self.path, told, body)
                recorder.requests.append(request)
                status, answer = recorder.answer(request)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request) -> tuple[int, bytes]:
        for given in self.answers:
            if given["body"].encode() in request.body:
                answer = given.get("answer", "")
                return given["status"], (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        status, answer = _ANSWERS[request.path.split("/")[1]](request)
        return status, b"" if answer is None else json.dumps(answer).encode()


def _twelve_traits(request: Request) -> tuple[int, Any]:
    return 201, {"code": 201, "message": "all have been successfully ingested", "data": None}


def _traitly(request: Request) -> tuple[int, Any]:
    sent = json.loads(request.body)
    kind = request.path.rpartition("/")[2]
    data = {**sent, "success": 1} if kind == "event" else sent
    return 200, {"data": [data], "metadata": {}, "created": "1500019594", "object": kind}


def _parcelvoy(request: Request) -> tuple[int, Any]:
    return 204, None


def _swrve(request: Request) -> tuple[int, Any]:
    if not request.path.endswith("/multi_user_batch"):
        return 200, None
    users = [event.get("external_user_id", "") for event in json.loads(request.body)["data"]]
    return 200, {"nonexistent_external_user_ids": [user for user in users if user.startswith("unknown")]}


def _teak(request: Request) -> tuple[int, Any]:
    sent = json.loads(request.body)
    results = [_teak_result(event["user_id"]) for event in sent.get("events", [sent])]
    if "events" not in sent:
        status = 200 if results[0]["status"] == "ok" else 404
        return status, {key: value for key, value in results[0].items() if key != "user_id"}
    failed = sum(result["status"] != "ok" for result in results)
    summary = {"total_events": len(results), "successful_events": len(results) - failed, "failed_events": failed}
    return 200, {"status": "ok", "results": results, "summary": summary}


def _teak_result(user: str) -> dict[str, Any]:
    if user.startswith("unknown"):
        return {"status": "error", "user_id": user, "errors": {"user_id": ["could not be found"]}}
    return {"status": "ok", "user_id": user}


_ANSWERS = {
    "12traits": _twelve_traits,
    "traitly": _traitly,
    "parcelvoy": _parcelvoy,
    "swrve": _swrve,
    "teak": _teak,
}


def cases() -> list[str]:
    """Names of the cases: VENDOR/CASE."""
    return sorted(str(found.parent.relative_to(CASES)) for found in CASES.glob("*/*/relay.yaml"))


class Outcome(NamedTuple):
    """What a case gives."""

    code: int
    output: str
    files: dict[str, str]
    """By the names of EXPECTED."""
    requests: list[Request]


def play(case: str) -> Outcome:
    """Runs a case as `playrelay run relay.yaml --input input.ndjson --dead-letters … --report …`."""
    folder = CASES / case
    relay = (folder / "relay.yaml").read_text(encoding="utf-8")
    answers = folder / "answers.yaml"
    given = yaml.safe_load(answers.read_text(encoding="utf-8")) if answers.exists() else []
    with Recorder(given) as recorder, tempfile.TemporaryDirectory() as place:
        file, letters, report = Path(place, "relay.yaml"), Path(place, "dead"), Path(place, "report.json")
        file.write_text(relay.replace(PLACEHOLDER, recorder.url), encoding="utf-8")
        (source,) = folder.glob("input.*")
        arguments = ["run", file, "--input", source, "--dead-letters", letters, "--report", report]
        result = CliRunner().invoke(main, list(map(str, arguments)), prog_name="playrelay", catch_exceptions=False)
        if not report.exists():
            raise AssertionError(f"{case}: no report; exit code {result.exit_code}\n{result.output}")
        files = {
            "requests.http": "".join(map(shown, recorder.requests)),
            "dead_letters.json": _indented(_letters(letters, folder)),
            "report.json": _indented(_report(json.loads(report.read_text(encoding="utf-8")))),
        }
    return Outcome(result.exit_code, result.output, files, recorder.requests)


def shown(request: Request) -> str:
    """A request as requests.http has it, the body as one line."""
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers)
    body = TOKEN.sub(r'"session_token":"\1=\2=NOW=MD5"', request.body.decode())
    return f"### {request.method} {request.path}\n{headers}\n{body}\n\n"


def check_tokens(requests: list[Request], api_key: str, now: float) -> int:
    """Each session token is what the document says, and fresh; returns how many there were."""
    found = 0
    for request in requests:
        for _, user, seconds, digest in TOKEN.findall(request.body.decode()):
            assert json.loads(request.body)["user"] == user
            assert digest == hashlib.md5(f"{user}{seconds}{api_key}".encode()).hexdigest()
            assert abs(int(seconds) - now) < 60
            found += 1
    return found


def _letters(written: Path, folder: Path) -> list[dict[str, Any]]:
    """Dead letters in the order of their records, without what differs from run to run."""
    found = [
        json.loads(line) for file in written.glob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()
    ]
    for letter in found:
        letter["source"]["name"] = str(Path(letter["source"]["name"]).relative_to(folder))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", letter["at"])
        assert re.fullmatch(r"[0-9a-f]{8,}", letter["mapping"])
        assert re.fullmatch(r"[0-9a-f]{32}", letter["id"])
        assert letter["first"] == {"reason": letter["reason"], "at": letter["at"]}
        letter["id"], letter["mapping"] = "ID", "VERSION"
        letter["at"] = letter["first"]["at"] = "NOW"
    return sorted(found, key=lambda one: (one["source"]["position"], one["source"]["index"], one["model"] or ""))


def _report(report: dict[str, Any]) -> dict[str, Any]:
    """The report without times."""
    assert report.pop("seconds") >= 0
    for destination in report["destinations"].values():
        destination.pop("latency_ms")
    return report


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def difference(case: str, outcome: Outcome) -> str:
    """What came out otherwise than the case says, as a unified diff: bodies also indented, to see where they differ."""
    lines: list[str] = []
    for name in EXPECTED:
        file = CASES / case / name
        wanted = file.read_text(encoding="utf-8") if file.exists() else ""
        if wanted != outcome.files[name]:
            before, after = _readable(wanted), _readable(outcome.files[name])
            lines += difflib.unified_diff(
                before, after, f"{case}/{name} expected", f"{case}/{name} came out", "", "", 4
            )
    return "\n".join(line.rstrip("\n") for line in lines)


def _readable(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line)
        if line.startswith(('{"', '[{"')) and len(line) > 60:
            try:
                lines += ["    " + each for each in json.dumps(json.loads(line), indent=2).splitlines()]
            except ValueError:
                continue
        elif line.count("&") > 1 and "=" in line:
            lines += [f"    {name} = {values}" for name, values in parse_qs(line).items()]
    return lines


def _main(arguments: list[str]) -> int:
    accept = "--accept" in arguments
    chosen = [one.strip("/") for one in arguments if one != "--accept"] or cases()
    changed = 0
    for case in chosen:
        outcome = play(case)
        found = difference(case, outcome)
        if not found:
            continue
        changed += 1
        print(found)
        if accept:
            for name in EXPECTED:
                (CASES / case / name).write_text(outcome.files[name], encoding="utf-8")
    print(f"{len(chosen)} cases, {changed} differ{', now as they came out' if accept and changed else ''}")
    return 1 if changed and not accept else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
