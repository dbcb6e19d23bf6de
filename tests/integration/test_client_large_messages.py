"""Large messages over the client's connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from grpclib.protocol import EventsProcessor
from h2.events import DataReceived
from hyperframe.frame import DataFrame

from narupa_client.connection import Connection, Endpoint
from narupa_client.http2 import LARGE_PART_BYTES, MAX_PART_BYTES
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb

SIZE = 5 * MAX_PART_BYTES // 2
PATH = "/test.Echo/Blow"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where the method answers each request with `SIZE` bytes."""

    async def blow(request: bytes, context: Any) -> bytes:
        return pb.GetStatusResponse(exception="x" * SIZE).SerializeToString()

    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handler = grpc.unary_unary_rpc_method_handler(blow)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Blow": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_they_come_in_few_parts(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    process = EventsProcessor.process_data_received

    def counted(self: EventsProcessor, event: DataReceived) -> None:
        assert isinstance(event.data, bytes | memoryview)
        parts.append(len(event.data))
        process(self, event)

    monkeypatch.setattr(EventsProcessor, "process_data_received", counted)
    connection = Connection("test", lambda: (Endpoint.parse(address),), lambda: None)
    try:
        for _ in range(2):  # the first may come before the server has heard of it
            parts.clear()
            reply = await connection.call(PATH, pb.GetStatusRequest(), pb.GetStatusResponse)
            assert reply.exception == "x" * SIZE
        assert sum(parts) > SIZE
        assert max(parts) > LARGE_PART_BYTES
    finally:
        connection.close()


def test_a_part_is_described_in_few_words() -> None:
    assert len(repr(DataFrame(1, bytes(MAX_PART_BYTES)))) < 200
