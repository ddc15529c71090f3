"""The calls of a subscription: one message's id that Pub/Sub no longer takes keeps no other from being acknowledged.

The server here is one of gRPC's that refuses as Pub/Sub does: the emulator takes any id that is well-formed.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from transforms.subscriber import EMULATOR, IDS_A_REQUEST, Subscriber

SUBSCRIPTION = "projects/p/subscriptions/s"


class Server:
    """Takes acknowledgements and leases; the whole request is refused when one id of it is."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.down = False
        self.acknowledged: list[str] = []
        self.leased: list[tuple[str, int]] = []
        self.requests = 0
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        handlers = {
            "Acknowledge": self._handler(types.AcknowledgeRequest.pb(), self._acknowledge),
            "ModifyAckDeadline": self._handler(types.ModifyAckDeadlineRequest.pb(), self._modify),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", handlers),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    @staticmethod
    def _handler(request: Any, answer: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=lambda one: one.SerializeToString()
        )

    def _check(self, ids: list[str], context: Any) -> None:
        self.requests += 1
        if self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        if self.refused.intersection(ids):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Some acknowledgement ids in the request were invalid.")

    def _acknowledge(self, request: Any, context: Any) -> Any:
        self._check(list(request.ack_ids), context)
        self.acknowledged += request.ack_ids
        return Empty()

    def _modify(self, request: Any, context: Any) -> Any:
        self._check(list(request.ack_ids), context)
        self.leased += [(one, request.ack_deadline_seconds) for one in request.ack_ids]
        return Empty()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    one = Server()
    monkeypatch.setenv(EMULATOR, f"127.0.0.1:{one.port}")
    yield one
    one.stop()


def test_ids_that_are_refused_keep_no_other_from_being_acknowledged(server: Server) -> None:
    ids = [f"id{number}" for number in range(2 * IDS_A_REQUEST + 500)]
    server.refused = {"id7", "id8", f"id{IDS_A_REQUEST}"}
    with closing(Subscriber(SUBSCRIPTION)) as calls:
        calls.acknowledge(ids)
        calls.lease(ids, 20)
    taken = [one for one in ids if one not in server.refused]
    assert sorted(server.acknowledged) == sorted(taken)
    assert sorted(server.leased) == sorted((one, 20) for one in taken)
    assert server.requests < 120, "halving finds one of two thousand in a few dozen requests"


def test_what_cannot_be_said_is_an_error(server: Server) -> None:
    server.down = True
    with closing(Subscriber(SUBSCRIPTION)) as calls, pytest.raises(ServiceUnavailable):
        calls.acknowledge(["id1"])
    assert server.requests == 1
