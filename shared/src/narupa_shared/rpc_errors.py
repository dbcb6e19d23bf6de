"""The one table from domain errors to gRPC status codes, and the one interceptor that applies it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final, Self

import grpc
import grpc.aio
import structlog

from narupa_shared import errors
from narupa_shared.rpc_handlers import Stream, Undecodable, rewrapped, tolerant

log = structlog.get_logger(__name__)

STATUS: Final[dict[type[errors.NarupaError], grpc.StatusCode]] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.CommandFailedError: grpc.StatusCode.ABORTED,
    errors.NoAnswerError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NoLongerKeptError: grpc.StatusCode.OUT_OF_RANGE,
    errors.QuotaError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
# gRPC sends a status message in a header; a longer one would be refused by the peer.
MAX_MESSAGE: Final = 1000
# What handlers raise, of which callers are told.
_TOLD: Final = (errors.NarupaError, ArithmeticError, LookupError, TypeError, ValueError, OSError)


def status_of(error: errors.NarupaError) -> grpc.StatusCode:
    """The status code of `error`: its own class's, or that of the nearest base class in the table."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return grpc.StatusCode.INTERNAL


def error_of(code: grpc.StatusCode | int, message: str) -> errors.NarupaError:
    """The domain error that a status with this code stands for: `status_of`, backwards, for clients."""
    for kind, status in STATUS.items():
        if code is status or code == status.value[0]:
            # Some classes build their text from parts; here the text is already whole.
            error = kind.__new__(kind)
            Exception.__init__(error, message)
            return error
    return errors.NarupaError(message)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> None:
    """Ends the call with the status that `error` stands for; anything not foreseen is INTERNAL with an id to look up."""
    if isinstance(error, errors.NarupaError) and (code := status_of(error)) is not grpc.StatusCode.INTERNAL:
        log.info("call_refused", method=method, peer=context.peer(), code=code.name, reason=str(error))
        await context.abort(code, str(error)[:MAX_MESSAGE])
    incident = uuid.uuid4().hex[:12]
    log.error("call_failed", method=method, peer=context.peer(), incident=incident, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, f"internal error {incident}; the service's log says more under this id"
    )


def readable(request: Any) -> Any:
    """The request, or stream of requests, when it is a message of its type.

    Raises:
        InvalidArgumentError: it is not; in a stream when its turn comes.
    """
    if isinstance(request, Undecodable):
        raise errors.InvalidArgumentError("request", f"{request.size} bytes", f"no message: {request.reason}")
    return ReadableStream(request) if hasattr(request, "__aiter__") else request


class ReadableStream:
    """A stream of requests, each `readable`."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = requests
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:  # not sooner: gRPC's would complain when nobody reads it
            self._iterator = aiter(self._requests)
        return readable(await anext(self._iterator))


# Of a call's method and context, and whether its responses are a stream.
Counted = Callable[[str, grpc.aio.ServicerContext[Any, Any], bool], contextlib.AbstractContextManager[object]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Turns what handlers raise, unary and streaming, into statuses by the table.

    Attributes:
        open_streams: How many streaming calls are being answered.
    """

    def __init__(self, counted: Counted = lambda method, context, stream: contextlib.nullcontext()) -> None:
        """`counted` gives what is to be open for as long as a call is answered."""
        self.open_streams = 0
        self._counted = counted

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method

        def unary(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                with self._counted(method, context, False):
                    try:
                        return await behaviour(readable(request), context)
                    except _TOLD as error:
                        await abort(context, error, method)

            return call

        def stream(behaviour: Stream) -> Stream:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncGenerator[Any, None]:
                self.open_streams += 1
                with self._counted(method, context, True):
                    try:
                        # Closed at once when the call is cancelled while a response is on its way out.
                        async with contextlib.aclosing(behaviour(readable(request), context)) as responses:
                            async for response in responses:
                                yield response
                    except _TOLD as error:
                        await abort(context, error, method)
                    finally:
                        self.open_streams -= 1

            return call

        return rewrapped(handler, unary, stream, tolerant)
