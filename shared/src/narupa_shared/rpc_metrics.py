"""What Prometheus is told of the calls that a service answers."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio
from prometheus_client import Counter, Gauge, Histogram

HANDLED: Final = Counter("narupa_rpc_handled_total", "Calls that have ended.", ["method", "code"])
SECONDS: Final = Histogram(
    "narupa_rpc_seconds",
    "How long calls with a single response took, s.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OPEN_STREAMS: Final = Gauge("narupa_rpc_open_streams", "Streams of responses that are open.", ["method"])
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class CountedCall:
    """One call of a method that the service has, counted under its name and the code it ends with.

    While it is open a stream counts as such; any other call is timed.
    """

    __slots__ = ("_began", "_context", "_method", "_stream")

    def __init__(self, method: str, context: grpc.aio.ServicerContext[Any, Any], stream: bool) -> None:
        """`method` is its full path, /PACKAGE.SERVICE/NAME."""
        self._method = method.removeprefix("/")
        self._context = context
        self._stream = stream
        self._began = 0.0

    def __enter__(self) -> Self:
        if self._stream:
            OPEN_STREAMS.labels(self._method).inc()
        else:
            self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._stream:
            OPEN_STREAMS.labels(self._method).dec()
        else:
            SECONDS.labels(self._method).observe(time.perf_counter() - self._began)
        HANDLED.labels(self._method, _code_of(self._context, kind)).inc()


def _code_of(context: grpc.aio.ServicerContext[Any, Any], kind: type[BaseException] | None) -> str:
    """The name of the code that a call ends with, whose handler has raised `kind`."""
    code: Any = context.code()
    if number := code.value[0] if isinstance(code, grpc.StatusCode) else code:
        return _CODES.get(number, "UNKNOWN")
    if kind is None:
        return "OK"
    return "CANCELLED" if issubclass(kind, (asyncio.CancelledError, GeneratorExit)) else "UNKNOWN"
