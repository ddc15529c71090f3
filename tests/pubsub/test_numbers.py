"""By what messages are known again: the same each time one comes, and another for each other message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms.pull import number_of

PUBLISHED = 1_795_000_000_000


def test_ids_that_start_anew_in_another_topic_are_other_messages() -> None:
    """Emulators count from 1 whenever they start; Pub/Sub's ids are unique in their topic only."""
    found = {number_of(str(number), PUBLISHED + ms) for number in range(500) for ms in range(500)}
    assert len(found) == 500 * 500


@given(st.text(max_size=30) | st.integers(0, 10**25).map(str), st.integers(0, 2**41))
def test_they_fit_the_ledger(message_id: str, published_ms: int) -> None:
    number = number_of(message_id, published_ms)
    assert 0 <= number < 1 << 64
    assert number == number_of(message_id, published_ms)


def test_ids_that_are_no_numbers() -> None:
    assert len({number_of(name, at) for name in ("a", "b", "-7", "٣", "9" * 25) for at in (0, 1, PUBLISHED)}) == 15
