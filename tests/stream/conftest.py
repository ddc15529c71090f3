from __future__ import annotations

from collections.abc import Iterator

import pytest
from streams import Elsewhere


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(elsewhere: Elsewhere) -> Elsewhere:
    """A sandbox, in a process of its own, to which nothing has been sent."""
    elsewhere.freeze(False)
    elsewhere.reset()
    return elsewhere
