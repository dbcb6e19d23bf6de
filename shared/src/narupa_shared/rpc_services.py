"""gRPC handlers made from a proto service and an object with its methods, for services whose messages are encoded once.

Generated `add_..._to_server` functions serialise every response of every stream anew. Here a behaviour may give either a
message or its serialised bytes, and one object can serve several packages whose messages are the same on the wire.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message


def generic_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler[Any, Any]:
    """Handlers for every method of `service` that `servicer` has, under the service's full name.

    Unary-response methods are coroutine functions, streaming ones give async generators; both take (request, context). Methods
    that `servicer` lacks are UNIMPLEMENTED.
    """
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        behaviour = getattr(servicer, method.name, None)
        if behaviour is None:
            continue
        shape = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        make = getattr(grpc, f"{shape[0]}_{shape[1]}_rpc_method_handler")
        handlers[method.name] = make(
            behaviour,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=serialized,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def serialized(response: Message | bytes) -> bytes:
    """The response's bytes, which may have been made already."""
    return response if isinstance(response, bytes) else response.SerializeToString()
