"""The sandbox as a Starlette application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.control import Sandbox, routes
from sandbox.credentials import Credentials

#: How many items the view can show; counts are exact whatever arrives.
DEFAULT_KEEP = 100_000


def create_app(*, credentials: Credentials | None = None, keep: int = DEFAULT_KEEP) -> Starlette:
    """The application. `credentials` are what the vendors accept, `keep` how many items the view holds.

    Cutting connections needs the server of `sandbox.server`; everything else runs on any ASGI server.
    """
    if keep < 1:
        raise ValueError("keep: must be at least 1")
    sandbox = Sandbox(credentials or Credentials(), keep)
    vendors = [Mount(f"/{slug}", app=_endpoint(sandbox, slug)) for slug in sandbox.vendors]
    app = Starlette(routes=[*vendors, *routes(sandbox)])
    app.router.redirect_slashes = False  # no vendor redirects
    return app


def _endpoint(sandbox: Sandbox, slug: str) -> ASGIApp:
    """The vendor's gate as it is now: a reset makes new ones."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await sandbox.gates[slug](scope, receive, send)

    return endpoint
