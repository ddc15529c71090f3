"""The sandbox over HTTP: `serve` until stopped, or `Running` for the time of a test."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.app import DEFAULT_KEEP, create_app
from sandbox.credentials import Credentials
from sandbox.gate import TRANSPORT

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_PORT = 9000


def _carry_transport(protocol: Any, transport: asyncio.BaseTransport) -> None:
    """Put the connection's transport into each request's scope, so that a fault can cut the connection."""
    app = protocol.app

    def with_transport(scope: Any, receive: Any, send: Any) -> Any:
        scope[TRANSPORT] = transport
        return app(scope, receive, send)

    protocol.app = with_transport


class PlainProtocol(H11Protocol):
    """HTTP in pure Python, where httptools is not installed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        _carry_transport(self, transport)


#: The HTTP implementations by name, the fastest first.
PROTOCOLS: dict[str, type[asyncio.Protocol]] = {"h11": PlainProtocol}

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is optional
    pass
else:

    class FastProtocol(HttpToolsProtocol):
        """HTTP by httptools: twice the requests a second."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            _carry_transport(self, transport)

    PROTOCOLS = {"httptools": FastProtocol, **PROTOCOLS}


class _Server(uvicorn.Server):
    """A server that stops at once: a request that a fault leaves without an answer would hold it up."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            cycle: Any = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                cycle.transport.abort()
        await super().shutdown(sockets)


def _server(*, credentials: Credentials | None, keep: int, protocol: str | None) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(credentials=credentials, keep=keep),
        http=PROTOCOLS[protocol or next(iter(PROTOCOLS))],
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    return _Server(config)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio does it for sockets that name their protocol only; without, each answer waits 40 ms for the client's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    *,
    credentials: Credentials | None = None,
    keep: int = DEFAULT_KEEP,
) -> None:
    """Serve until interrupted. Raises OSError when the port is taken."""
    listener = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"sandbox on http://{shown}:{listener.getsockname()[1]}/ (stop with Ctrl-C)", flush=True)
    _server(credentials=credentials, keep=keep, protocol=None).run(sockets=[listener])


class Running:
    """A sandbox in a thread of this process, on a free port unless one is given.

    with Running() as sandbox:
        sandbox.fault(vendor="teak", status=503)
        ...  # talk to sandbox.url + "/teak"
        assert sandbox.received()["violations"] == []
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        credentials: Credentials | None = None,
        keep: int = DEFAULT_KEEP,
        protocol: str | None = None,
    ) -> None:
        self._listener = _bind(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}"
        self._server = _server(credentials=credentials, keep=keep, protocol=protocol)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="sandbox", daemon=True
        )

    def __enter__(self) -> Self:
        # The listener is bound, so requests made before the loop runs wait in its backlog.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving; open requests are cut."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def received(self, **params: object) -> dict[str, Any]:
        """The view, e.g. `received(vendor="teak", items=1, limit=10)`."""
        return self._call("GET", "received?" + urllib.parse.urlencode(params))

    def items(self, vendor: str, **params: object) -> list[dict[str, Any]]:
        """All held items of a vendor in order of arrival; `model` and `user` narrow them."""
        return cast("list[dict[str, Any]]", self.received(vendor=vendor, items=1, limit=0, **params)["items"])

    def violations(self) -> list[dict[str, Any]]:
        """What no correct client would have sent."""
        return cast("list[dict[str, Any]]", self._call("GET", "violations")["violations"])

    def fault(self, **fault: object) -> dict[str, Any]:
        """Set a fault; raises ValueError when it makes no sense."""
        return self._call("POST", "faults", fault)

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are set."""
        return cast("list[dict[str, Any]]", self._call("GET", "faults")["faults"])

    def clear_faults(self) -> None:
        """Take back all faults."""
        self._call("DELETE", "faults")

    def configure(self, vendor: str, **settings: object) -> dict[str, Any]:
        """Change a vendor's settings, e.g. `configure("teak", unknown_users=["u1"])`."""
        return self._call("POST", "settings", {vendor: settings})

    def reset(self) -> None:
        """Forget everything that arrived, and every fault and setting."""
        self._call("POST", "reset")

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sandbox/{path}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return cast("dict[str, Any]", json.load(answer))
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None
