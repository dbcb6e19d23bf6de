"""What Prometheus is told of calls: each method and code, how long, and which streams are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import REGISTRY

from narupa_shared.errors import NotFoundError
from narupa_shared.rpc_errors import ErrorInterceptor
from narupa_shared.rpc_metrics import CountedCall


class Calls(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def works(_request: bytes, _context: Any) -> bytes:
            return b""

        async def fails(_request: bytes, _context: Any) -> bytes:
            raise NotFoundError("thing", "x", "there is none")

        async def breaks(_request: bytes, _context: Any) -> bytes:
            raise ValueError("not foreseen")

        async def sets(_request: bytes, context: Any) -> bytes:
            context.set_code(grpc.StatusCode.ALREADY_EXISTS)
            return b""

        async def streams(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
            yield b""
            await asyncio.Event().wait()

        async def ends(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
            yield b""

        unary = {"Works": works, "Fails": fails, "Breaks": breaks, "Sets": sets}
        name = details.method.rpartition("/")[2]
        if name in unary:
            return grpc.unary_unary_rpc_method_handler(unary[name])
        behaviours = {"Streams": streams, "Ends": ends}
        return grpc.unary_stream_rpc_method_handler(behaviours[name]) if name in behaviours else None


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor(CountedCall)])
    server.add_generic_rpc_handlers([Calls()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


def handled(name: str, code: str) -> float:
    labels = {"method": f"test.Calls/{name}", "code": code}
    return REGISTRY.get_sample_value("narupa_rpc_handled_total", labels) or 0.0


def of_method(metric: str, name: str) -> float | None:
    return REGISTRY.get_sample_value(metric, {"method": f"test.Calls/{name}"})


@pytest.mark.parametrize(
    ("name", "code"),
    [("Works", "OK"), ("Fails", "NOT_FOUND"), ("Breaks", "INTERNAL"), ("Sets", "ALREADY_EXISTS")],
)
async def test_each_call_counts_once_under_its_code_and_is_timed(
    channel: grpc.aio.Channel, name: str, code: str
) -> None:
    before, timed = handled(name, code), of_method("narupa_rpc_seconds_count", name) or 0
    method = channel.unary_unary(f"/test.Calls/{name}")
    for _ in range(3):
        try:
            await method(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            assert error.code().name == code
    assert handled(name, code) - before == 3
    assert of_method("narupa_rpc_seconds_count", name) == timed + 3


async def test_a_stream_is_open_until_its_client_leaves(channel: grpc.aio.Channel) -> None:
    before = handled("Streams", "CANCELLED")
    call: Any = channel.unary_stream("/test.Calls/Streams")(b"", timeout=30)
    await call.read()
    assert of_method("narupa_rpc_open_streams", "Streams") == 1
    assert handled("Streams", "CANCELLED") == before
    call.cancel()
    async with asyncio.timeout(10):
        while of_method("narupa_rpc_open_streams", "Streams"):
            await asyncio.sleep(0.01)
    assert handled("Streams", "CANCELLED") == before + 1
    assert of_method("narupa_rpc_seconds_count", "Streams") is None


async def test_a_stream_that_ends_by_itself_is_ok(channel: grpc.aio.Channel) -> None:
    before = handled("Ends", "OK")
    assert [each async for each in channel.unary_stream("/test.Calls/Ends")(b"", timeout=5)] == [b""]
    async with asyncio.timeout(10):
        while handled("Ends", "OK") == before:
            await asyncio.sleep(0.01)
    assert of_method("narupa_rpc_open_streams", "Ends") == 0


async def test_what_is_no_method_is_not_counted(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await channel.unary_unary("/test.Calls/MadeUp")(b"", timeout=5)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for metric in REGISTRY.collect():
        assert not [each for each in metric.samples if each.labels.get("method", "").endswith("MadeUp")]
