"""`python -m sandbox`: serve until interrupted."""

from __future__ import annotations

import argparse

from sandbox.app import DEFAULT_KEEP
from sandbox.server import DEFAULT_PORT, serve


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Five vendors' endpoints on one port.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default %(default)s; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="default %(default)s, so only this machine")
    parser.add_argument(
        "--keep", type=int, default=DEFAULT_KEEP, help="how many items the view holds (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        serve(options.port, options.host, keep=options.keep)
    except OSError as error:
        parser.exit(1, f"cannot listen on {options.host} port {options.port}: {error.strerror}; try --port 0\n")


if __name__ == "__main__":
    main()
