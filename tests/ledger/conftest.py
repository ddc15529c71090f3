from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.server import Running


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with Running() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Running) -> Running:
    """A sandbox to which nothing has been sent."""
    running.reset()
    return running
