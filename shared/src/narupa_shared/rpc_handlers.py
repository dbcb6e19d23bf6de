"""Wrapping of gRPC method handlers, for interceptors that must see the call and not only its headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc

Unary = Callable[..., Awaitable[Any]]
Stream = Callable[..., AsyncGenerator[Any, None]]


def rewrapped(
    handler: Any,
    unary: Callable[[Unary], Unary],
    stream: Callable[[Stream], Stream],
) -> Any:
    """`handler` with its behaviour wrapped: by `unary` where it returns one response, by `stream` where it yields.

    Streaming behaviours must be async generators, so that a wrapper sees their errors. None (unknown method) stays None.
    """
    if handler is None:
        return None
    serializers: dict[str, Any] = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **serializers)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **serializers)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **serializers)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **serializers)
