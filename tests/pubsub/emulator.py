"""Google's Pub/Sub emulator for tests: started, filled, asked what is left, and ended with all its processes.

    def test_it(emulator: Emulator) -> None:
        topic, subscription = emulator.make(ordered=True)
        emulator.publish(topic, [b'{"event_type":"spin"}', message(b"...", key="u1", attributes={"title": "chess"})])
        process("stream", relay, "--subscription", subscription, **emulator.environment)
        assert emulator.left(subscription) == []

What to know of this emulator (0.8.20): a pull gives 100 messages at the most, whatever is asked for, so unary pulls get
45,000 to 70,000 messages a second one after the other; a *streaming* pull gives 100 every 50 ms, so 2,000 a second and
stream. While any message is out, each pull takes as much longer as more messages wait. A pull that is cancelled may still
be given messages: they come again when their deadline is over. A message of an ordering key is not given while an
earlier one of its key is out. Closing a streaming pull does not give back what it was given: that comes again when its ack deadline is over.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from transforms.pull import PULLS

if TYPE_CHECKING:
    from typing_extensions import Self

PROJECT = "playrelay-test"
START_S = 60.0
"""Longest time the emulator may take to answer; it is 3 s on a quiet machine."""

REMEDY = (
    "the tests need Google's Pub/Sub emulator: install the Debian packages google-cloud-cli,"
    " google-cloud-cli-pubsub-emulator and default-jre-headless"
)

_PER_REQUEST = 1000
_REQUEST_BYTES = 4 << 20  # the emulator's gRPC server takes no larger message
_KEEPER = (
    # gcloud makes a process group of its own for itself and its java. They end with us however we end: `read` returns
    # when the other end of standard input is closed, be it by kill -9. (The second kill is for a gcloud that has only
    # just started and has no group yet.)
    'gcloud "$@" </dev/null & read -r _; kill -KILL -- -$! 2>/dev/null; kill -KILL $! 2>/dev/null'
)

_Message: Any = types.PubsubMessage.pb()


class Missing(Exception):
    """The emulator cannot run here. The message says what to install."""


class Subscribed(NamedTuple):
    """A topic and its one subscription, by their full names."""

    topic: str
    subscription: str


def message(data: bytes, *, key: str = "", attributes: Mapping[str, str] | None = None) -> Any:
    """A message to publish (google.pubsub.v1.PubsubMessage, the plain protobuf one)."""
    return _Message(data=data, ordering_key=key, attributes=dict(attributes or {}))


class Emulator:
    """A Pub/Sub emulator on a free port of 127.0.0.1. Raises Missing when it cannot be started."""

    def __init__(self, project: str = PROJECT) -> None:
        self.project = project
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    @property
    def host(self) -> str:
        """Address as PUBSUB_EMULATOR_HOST has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes Google's clients in another process use this emulator."""
        return {"PUBSUB_EMULATOR_HOST": self.host, "PUBSUB_PROJECT_ID": self.project}

    # Topics and subscriptions -------------------------------------------------------------------

    def topic(self, name: str = "") -> str:
        """Makes a topic, of a name of its own unless one is given; its full name."""
        full = f"projects/{self.project}/topics/{name or _unused('topic')}"
        self.publisher.create_topic(name=full)
        return full

    def subscribe(self, topic: str, name: str = "", *, ordered: bool = False, ack_deadline_s: int = 10) -> str:
        """Makes a subscription to a topic; its full name."""
        full = f"projects/{self.project}/subscriptions/{name or _unused('subscription')}"
        self.subscriber.create_subscription(
            request={
                "name": full,
                "topic": topic,
                "ack_deadline_seconds": ack_deadline_s,
                "enable_message_ordering": ordered,
            }
        )
        return full

    def make(self, name: str = "", *, ordered: bool = False, ack_deadline_s: int = 10) -> Subscribed:
        """Makes a topic and a subscription to it, both of this name."""
        topic = self.topic(name)
        return Subscribed(topic, self.subscribe(topic, name, ordered=ordered, ack_deadline_s=ack_deadline_s))

    # Messages -----------------------------------------------------------------------------------

    def publish(self, topic: str, messages: Iterable[Any], *, rate: float | None = None) -> list[str]:
        """Publishes bytes, or what `message` makes, in order; their ids. About 100,000 a second.

        With `rate` (messages a second) they leave evenly, a hundredth of a second's at a time.
        """
        ids: list[str] = []
        request = types.PublishRequest.pb()
        started = time.monotonic()
        for group in _groups(messages, _PER_REQUEST if rate is None else max(1, round(rate / 100))):
            ids += self._publish(request(topic=topic, messages=group)).message_ids
            if rate is not None:
                time.sleep(max(0.0, started + len(ids) / rate - time.monotonic()))
        return ids

    def pull(self, subscription: str, *, acknowledge: bool = True, quiet_s: float = 0.3) -> list[Any]:
        """Pulls until nothing has come for `quiet_s` seconds: what came, as received messages (`.message`, `.ack_id`)."""
        request = types.PullRequest.pb()(subscription=subscription, max_messages=1000, return_immediately=True)
        acknowledged = types.AcknowledgeRequest.pb()
        found: list[Any] = []
        last = time.monotonic()
        while time.monotonic() - last < quiet_s:
            received = self._pull(request).received_messages
            if not received:
                time.sleep(0.02)
                continue
            found += received
            if acknowledge:
                ids = [one.ack_id for one in received]
                self._acknowledge(acknowledged(subscription=subscription, ack_ids=ids))
            last = time.monotonic()
        return found

    def left(self, subscription: str) -> list[Any]:
        """Every message that is not acknowledged, also those some process was given and never acknowledged.

        The subscription is as before, except that what was out comes again. Nothing else may pull meanwhile. The emulator may
        give messages to a pull whose process is gone, once, so it is asked more often than a process has pulls.
        """
        snapshot = f"projects/{self.project}/snapshots/{_unused('snapshot')}"
        self.subscriber.create_snapshot(name=snapshot, subscription=subscription)
        # Going back to what is not acknowledged takes messages from those that were given them.
        back = {"subscription": subscription, "snapshot": snapshot}
        found: dict[str, Any] = {}
        for _ in range(PULLS + 1):
            self.subscriber.seek(request=back)
            found |= {one.message.message_id: one.message for one in self.pull(subscription)}
        self.subscriber.seek(request=back)
        self.subscriber.delete_snapshot(snapshot=snapshot)
        return list(found.values())

    # Its processes ------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and waits until it answers."""
        _check_installed()
        self._folder = tempfile.mkdtemp(prefix="pubsub-emulator-")
        for attempt in (1, 2, 3):  # a port that was free may be another's by the time java binds it
            self.port = _free_port()
            with open(os.path.join(self._folder, f"log{attempt}"), "w+b") as log:
                self._launch(log)
                wrong = self._wait(log)
            if not wrong:
                self._connect()
                return
            self._end()
            if "Address already in use" not in wrong:
                break
        shutil.rmtree(self._folder, ignore_errors=True)
        raise Missing(f"{REMEDY}\nit was started and did not answer on {self.host}; what it wrote:\n{wrong}")

    def stop(self) -> None:
        """Ends it: gcloud, its java and their keeper, and nothing else."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, log: IO[bytes]) -> None:
        command = ["beta", "emulators", "pubsub", "start", "--quiet"]
        command += [f"--host-port={self.host}", f"--project={self.project}", f"--data-dir={self._folder}"]
        self._process = subprocess.Popen(
            ["bash", "-c", _KEEPER, "emulator", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "CLOUDSDK_CONFIG": os.path.join(self._folder, "gcloud")},
        )

    def _wait(self, log: IO[bytes]) -> str:
        """Returns when it listens; else what it wrote."""
        assert self._process is not None
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            written = Path(log.name).read_text("utf-8", "replace")
            if "Server started" in written:
                return ""
            # gcloud says so and ends, or java does: the group's first process, which waits for us, would go on.
            if "ERROR:" in written or "Exception in" in written or self._process.poll() is not None:
                return written
            time.sleep(0.05)
        return f"{written}\n(nothing more for {START_S:g} s)"

    def _connect(self) -> None:
        self._channel = channel = grpc.insecure_channel(
            self.host, options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        )
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        # Plain protobuf for what is done a thousand times: Google's classes around it cost ten times as much.
        self._publish = _call(channel, "Publisher/Publish", types.PublishResponse.pb())
        self._pull = _call(channel, "Subscriber/Pull", types.PullResponse.pb())
        self._acknowledge = _call(channel, "Subscriber/Acknowledge", Empty)
        try:
            list(self.publisher.list_topics(project=f"projects/{self.project}", timeout=START_S))
        except GoogleAPICallError as error:
            self.stop()
            raise Missing(f"{REMEDY}\nit listens on {self.host} and answers: {error}") from error

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _call(channel: grpc.Channel, name: str, answer: Any) -> Any:
    return channel.unary_unary(
        f"/google.pubsub.v1.{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def _groups(messages: Iterable[Any], number: int) -> Iterator[Sequence[Any]]:
    group: list[Any] = []
    size = 0
    for given in messages:
        one = _Message(data=given) if isinstance(given, bytes) else given
        own = one.ByteSize()
        if group and (len(group) == number or size + own > _REQUEST_BYTES):
            yield group
            group, size = [], 0
        group.append(one)
        size += own
    if group:
        yield group


def _unused(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:12]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _check_installed() -> None:
    for program in ("bash", "gcloud", "java"):
        if shutil.which(program) is None:
            raise Missing(f"{REMEDY}\n{program} is not on the PATH")


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """A running emulator, one for all tests of a worker; make topics and subscriptions of your own in it."""
    one = Emulator()
    try:
        one.start()
    except Missing as error:
        pytest.fail(str(error), pytrace=False)
    yield one
    one.stop()
