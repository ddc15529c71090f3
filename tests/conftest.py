"""Fixtures that tests of any folder may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulator import emulator as emulator

from sandbox.server import Running


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """The sandbox of a session: ask for `sandbox` instead."""
    with Running() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Running) -> Running:
    """A sandbox to which nothing has been sent."""
    running.reset()
    return running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that one worker runs one after the other begin first, so that the others do not wait for them in the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
