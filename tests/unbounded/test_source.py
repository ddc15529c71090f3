"""The subscription as a source: chunks, and acknowledgement only of what the runner has kept."""

from __future__ import annotations

import threading

import pytest
from emulator import Emulator, message
from streams import until
from surroundings import Pipe

from transforms.sources.messages import MESSAGES, unpack_messages
from transforms.sources.subscription import ReadSubscription
from transforms.sources.unbounded import AckMark, ReadUnbounded, SubscriptionSource
from transforms.subscriber import SubscriptionError

pytestmark = pytest.mark.xdist_group("pubsub")


@pytest.fixture(autouse=True)
def _of_the_emulator(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


def test_nothing_is_acknowledged_before_a_checkpoint_is_final(emulator: Emulator) -> None:
    topic, subscription = emulator.make()
    sent = [message(b'{"n":%d}' % n, attributes={"n": str(n)}) for n in range(230)]
    ids = emulator.publish(topic, sent)
    source = SubscriptionSource(subscription)
    reader = source.create_reader(None, None)
    chunks = []
    more = reader.start()
    while more:
        chunks.append(reader.get_current())
        more = reader.advance()
    assert all(chunk.source == subscription and chunk.format == MESSAGES for chunk in chunks)
    read = [one for chunk in chunks for one in unpack_messages(chunk.payload)]
    assert sorted(one.id for one in read) == sorted(ids)
    assert sorted(int(one.attributes["n"]) for one in read) == list(range(230))
    assert all(one.published_ms > 1_600_000_000_000 for one in read)

    coder = source.get_checkpoint_mark_coder()
    mark = coder.decode(coder.encode(reader.get_checkpoint_mark()))
    again = reader.get_checkpoint_mark()
    reader.close()
    again.finalize_checkpoint()
    assert isinstance(mark, AckMark)
    mark.finalize_checkpoint()
    assert emulator.left(subscription) == []


def test_what_was_read_and_never_became_final_comes_again(emulator: Emulator) -> None:
    topic, subscription = emulator.make()
    emulator.publish(topic, [b"{}"] * 20)
    reader = SubscriptionSource(subscription).create_reader(None, None)
    assert reader.start()
    reader.get_checkpoint_mark()
    reader.close()
    assert len(emulator.left(subscription)) == 20


def test_event_time_goes_on_by_when_messages_were_published(emulator: Emulator) -> None:
    topic, subscription = emulator.make()
    emulator.publish(topic, [b"{}"] * 3)
    reader = SubscriptionSource(subscription).create_reader(None, None)
    assert reader.start()
    published = reader.get_current_timestamp()
    assert reader.get_watermark() == published
    assert not reader.advance()
    assert reader.get_watermark() >= published
    reader.close()


def test_a_connection_that_is_lost_ends_nothing(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    topic, subscription = emulator.make()
    with Pipe(emulator.port) as pipe:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{pipe.port}")
        reader = SubscriptionSource(subscription).create_reader(None, None)
        assert not reader.start()

        def failed() -> bool:
            cut = threading.Timer(0.05, pipe.cut)
            cut.start()
            before = reader.get_watermark()
            assert not reader.advance()
            cut.join()
            # While nothing can be read, something may wait.
            return "pulling failed, tried again" in caplog.text and reader.get_watermark() == before

        until(failed)
        emulator.publish(topic, [b"{}"] * 3)
        until(reader.advance)
        reader.close()


@pytest.mark.parametrize("read", [ReadSubscription, ReadUnbounded])
def test_a_name_that_is_no_subscriptions_is_said(read: type[ReadSubscription | ReadUnbounded]) -> None:
    with pytest.raises(SubscriptionError, match=r"my-events: expected projects/PROJECT/subscriptions/NAME"):
        read("my-events")
