"""Streams end when their token is void, wherever their handler waits then, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from narupa_shared.access import Access
from narupa_shared.auth import AuthInterceptor, Identity, TokenSigner, TokenVerifier
from narupa_shared.rpc_errors import ErrorInterceptor
from narupa_shared.testing.clock import FakeClock

STREAMS = ("Waiting", "Busy", "Flooding", "Answering", "Tidying")


class Streams(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """One handler for each place where a stream may be when it is to end; counts those that began and did not end."""

    def __init__(self) -> None:
        self.running = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def waiting(_request: Any, _context: Any) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                self.running -= 1

        async def busy(_request: Any, _context: Any) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                while True:
                    yield b"again"
                    await asyncio.sleep(0)
            finally:
                self.running -= 1

        async def flooding(_request: Any, _context: Any) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                while True:
                    yield bytes(1024 * 1024)
            finally:
                self.running -= 1

        async def answering(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                async for request in requests:
                    yield request
            finally:
                self.running -= 1

        async def tidying(_request: Any, _context: Any) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                self.running -= 1

        match details.method.rpartition("/")[2]:
            case "Answering":
                return grpc.stream_stream_rpc_method_handler(answering)
            case "Waiting":
                return grpc.unary_stream_rpc_method_handler(waiting)
            case "Busy":
                return grpc.unary_stream_rpc_method_handler(busy)
            case "Flooding":
                return grpc.unary_stream_rpc_method_handler(flooding)
            case "Tidying":
                return grpc.unary_stream_rpc_method_handler(tidying)
        return None


class Service:
    """A closed server of `Streams`, and the means to call it as Ada and to void her tokens."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.signer = TokenSigner.generate(clock)
        self.verifier = TokenVerifier("default", clock)
        self.verifier.trust([self.signer.public_key])
        self.errors = ErrorInterceptor()
        self.auth = AuthInterceptor(
            False, self.verifier, {f"/test.Streams/{name}": Access("viewer") for name in STREAMS}
        )
        self.handlers = Streams()
        self.port = 0

    def open(self, channel: grpc.aio.Channel, method: str, user_id: str = "ada", generation: int = 0) -> Any:
        identity = Identity(user_id, user_id, "default", "viewer", self.clock() + 60, generation)
        metadata = [("authorization", f"Bearer {self.signer.sign(identity)}")]
        opener: Any = channel.stream_stream if method == "Answering" else channel.unary_stream
        path = f"/test.Streams/{method}"
        if method != "Answering":
            return opener(path)(b"", metadata=metadata)
        return opener(path)(metadata=metadata)

    async def quiet(self) -> None:
        """Returns once nothing of any stream is left."""
        async with asyncio.timeout(2):
            while self.handlers.running or self.errors.open_streams or self.auth.streams:
                await asyncio.sleep(0.01)


@pytest.fixture
async def service(clock: FakeClock) -> AsyncIterator[Service]:
    service = Service(clock)
    server = grpc.aio.server(interceptors=[service.errors, service.auth])
    server.add_generic_rpc_handlers([service.handlers])
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service
    await server.stop(None)


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield channel


async def begun(call: Any, method: str) -> Any:
    if method == "Answering":
        await call.write(b"hello")
    assert await call.read()
    return call


async def ended(call: Any, within_s: float = 1.0) -> grpc.aio.AioRpcError:
    """The error with which the call ended, having been read to its end."""
    with pytest.raises(grpc.aio.AioRpcError) as end:
        async with asyncio.timeout(within_s):
            while (await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
    return end.value


@pytest.mark.parametrize("method", [name for name in STREAMS if name != "Flooding"])
async def test_a_stream_ends_with_its_token(service: Service, channel: grpc.aio.Channel, method: str) -> None:
    call = await begun(service.open(channel, method), method)
    service.verifier.revoke("ada", 0)
    end = await ended(call)
    assert end.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "revoked" in str(end.details()) and "join again" in str(end.details())
    await service.quiet()


async def test_a_stream_to_a_client_that_does_not_read_ends_too(service: Service, channel: grpc.aio.Channel) -> None:
    call = await begun(service.open(channel, "Flooding"), "Flooding")
    await asyncio.sleep(0.1)  # the flow control's window is full by now
    service.verifier.revoke("ada", 0)
    await service.quiet()
    assert (await ended(call)).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_only_the_streams_of_void_tokens_end(service: Service, channel: grpc.aio.Channel) -> None:
    calls = [
        await begun(service.open(channel, "Waiting", user_id, generation), "Waiting")
        for user_id, generation in (("ada", 1), ("ada", 2), ("bob", 0))
    ]
    service.verifier.revoke("ada", 1)
    assert (await ended(calls[0])).code() is grpc.StatusCode.UNAUTHENTICATED
    assert service.auth.streams is not None and len(service.auth.streams) == 2
    service.verifier.revoke_session()
    for call in calls[1:]:
        assert "session has ended" in str((await ended(call)).details())
    await service.quiet()


async def test_an_expired_stream_goes_on_while_the_lobby_vouches(service: Service, channel: grpc.aio.Channel) -> None:
    ada = await begun(service.open(channel, "Answering"), "Answering")
    bob = await begun(service.open(channel, "Answering", "bob"), "Answering")
    service.verifier.vouch({"ada"})
    service.clock.advance(61)
    assert "expired" in str((await ended(bob)).details())
    await ada.write(b"still here")
    assert await ada.read() == b"still here"
    service.verifier.vouch(())
    assert (await ended(ada)).code() is grpc.StatusCode.UNAUTHENTICATED
    await service.quiet()


async def test_streams_that_end_by_themselves_are_forgotten(service: Service, channel: grpc.aio.Channel) -> None:
    calls = [await begun(service.open(channel, "Answering"), "Answering") for _ in range(3)]
    await calls[0].done_writing()
    assert await calls[0].read() is grpc.aio.EOF  # type: ignore[attr-defined]
    calls[1].cancel()
    async with asyncio.timeout(2):
        while service.auth.streams is None or len(service.auth.streams) > 1:
            await asyncio.sleep(0.01)
    calls[2].cancel()
    await service.quiet()


async def test_the_server_stops_while_a_stream_is_being_ended(clock: FakeClock) -> None:
    service = Service(clock)
    server = grpc.aio.server(interceptors=[service.errors, service.auth])
    server.add_generic_rpc_handlers([service.handlers])
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = await begun(service.open(channel, "Flooding"), "Flooding")
        await asyncio.sleep(0.1)
        service.verifier.revoke("ada", 0)
        assert service.auth.streams is not None
        service.auth.streams.look()
        await server.stop(None)
        call.cancel()
    await service.quiet()
