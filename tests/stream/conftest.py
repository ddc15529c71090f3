from __future__ import annotations

import os
import random
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


@pytest.fixture
def moments() -> random.Random:
    """For moments at which something is killed. A failure names the seed, with which it can be repeated."""
    seed = os.environ.get("PLAYRELAY_SEED") or str(random.randrange(10**6))
    print(f"the moments can be repeated with PLAYRELAY_SEED={seed}")
    return random.Random(int(seed))
