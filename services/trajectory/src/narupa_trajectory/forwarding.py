"""Calls that only the leader can answer, passed on to it as they came by a replica that does not lead."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.rpc_errors import error_of
from narupa_shared.rpc_services import serialized
from narupa_trajectory.relay import REPLICA_KEY, SECOND_HAND_KEY, UpstreamChannel
from narupa_trajectory.replica import Replica

Context = grpc.aio.ServicerContext[Any, Any]
# Every replica serves streams of frames itself.
_OWN: Final = ("/SubscribeFrames", "/SubscribeLatestFrames")


class Forwarding(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The methods of another handler, answered by it while this service leads, and by the leader otherwise.

    The caller's own token goes with the call, and the leader decides what it may.
    """

    def __init__(self, handler: grpc.GenericRpcHandler[Any, Any], replica: Callable[[], Replica | None]) -> None:
        """
        Args:
            handler: Of this service.
            replica: Which part this service has; None while it starts.
        """
        self._handler = handler
        self._replica = replica

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        own = self._handler.service(handler_call_details)
        replica = self._replica()
        if own is None or (replica is not None and replica.leads):
            return own
        path = handler_call_details.method
        said = {key for key, _ in handler_call_details.invocation_metadata or ()}
        if REPLICA_KEY in said:
            feeds = replica is not None and replica.feeds and path.endswith(_OWN)
            return own if feeds and SECOND_HAND_KEY in said else _refusing(own)
        if path.endswith(_OWN):
            return own
        if replica is None:
            return _refusing(own)
        if own.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_stream(path, replica))
        return grpc.unary_unary_rpc_method_handler(_unary(path, own, replica))


def _unary(path: str, own: Any, replica: Replica) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def call(request: bytes, context: Context) -> bytes:
        await replica.until_led()
        if replica.leads:  # by now
            return serialized(await own.unary_unary(_decoded(own.request_deserializer, request), context))
        channel = await replica.channel.connected()
        try:
            reply: bytes = await channel.unary_unary(path, None, None)(
                request, metadata=_metadata(replica.channel, context), timeout=context.time_remaining()
            )
        except grpc.aio.AioRpcError as error:
            raise _as_domain_error(error) from None
        return reply

    return call


def _stream(path: str, replica: Replica) -> Callable[[bytes, Context], AsyncGenerator[bytes, None]]:
    async def call(request: bytes, context: Context) -> AsyncGenerator[bytes, None]:
        await replica.until_led()
        channel = await replica.channel.connected()
        answers: Any = channel.unary_stream(path, None, None)(
            request, metadata=_metadata(replica.channel, context), timeout=context.time_remaining()
        )
        try:
            async for response in answers:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _as_domain_error(error) from None
        finally:
            answers.cancel()

    return call


def _metadata(leader: UpstreamChannel, context: Context) -> list[tuple[str, str]]:
    """The caller's own token, or none."""
    given = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
    return leader.metadata(given[0] if given else "")


def _decoded(decode: Callable[[bytes], Any], request: bytes) -> Any:
    try:
        return decode(request)
    except DecodeError as error:
        raise InvalidArgumentError("request", f"{len(request)} bytes", f"no message: {error}") from None


def _as_domain_error(error: grpc.aio.AioRpcError) -> NarupaError:
    return error_of(error.code(), error.details() or "the leader gave no reason")


def _refusing(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same shape that has another replica look elsewhere."""

    async def unary(request: bytes, context: Context) -> bytes:
        raise UnavailableError("this replica does not lead")

    async def stream(request: bytes, context: Context) -> AsyncGenerator[bytes, None]:
        raise UnavailableError("this replica does not lead")
        yield b""  # a generator, as streams are

    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)
