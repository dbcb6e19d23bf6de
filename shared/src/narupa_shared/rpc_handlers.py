"""Wrapping of gRPC method handlers, for interceptors that must see the call and not only its headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Unary = Callable[..., Awaitable[Any]]
Stream = Callable[..., AsyncGenerator[Any, None]]
Decode = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a request that is no message of its type, until a wrapper refuses it as it refuses others.

    Attributes:
        size: In bytes.
        reason: What the decoder says.
    """

    size: int
    reason: str


def tolerant(decode: Decode) -> Decode:
    """`decode`, with an `Undecodable` in place of an error, which gRPC would answer and log as a fault of the server."""

    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return Undecodable(len(data), str(error))

    return decoded


def rewrapped(
    handler: Any,
    unary: Callable[[Unary], Unary],
    stream: Callable[[Stream], Stream],
    decoding: Callable[[Decode], Decode] = lambda decode: decode,
) -> Any:
    """`handler` with its behaviour wrapped: by `unary` where it returns one response, by `stream` where it yields; and its
    decoding of requests by `decoding`.

    Streaming behaviours must be async generators, so that a wrapper sees their errors. None (unknown method) stays None.
    """
    if handler is None:
        return None
    serializers: dict[str, Any] = {
        "request_deserializer": handler.request_deserializer and decoding(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **serializers)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **serializers)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **serializers)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **serializers)
