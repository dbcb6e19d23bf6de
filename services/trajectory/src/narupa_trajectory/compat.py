"""The frames of this service for existing Narupa and NanoVer gRPC clients, under the names they call.

The two families' messages are byte for byte the same, so one set of handlers is registered under both names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.fanout import Mode
from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as _nanover  # noqa: F401  (reflection)
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as pb
from narupa_shared.structs import from_struct
from narupa_trajectory.playback import Playback

NAMES: Final = (
    "narupa.protocol.trajectory.TrajectoryService",
    "nanover.protocol.trajectory.TrajectoryService",
)
Context = grpc.aio.ServicerContext[Any, Any]


def whole_number(request: pb.GetFrameRequest, name: str) -> int | None:
    """The argument `name` of the request's data as an index, or None when it is not there.

    Raises:
        InvalidArgumentError: not a whole number of 0 or more.
    """
    value = from_struct(request.data, "data").get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, float) or not 0 <= value < 2**53 or value != int(value):
        raise InvalidArgumentError(f"data.{name}", value, "must be a whole number of 0 or more")
    return int(value)


class CompatTrajectoryServicer:
    """Answers `TrajectoryService` of both families."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def add_to(self, server: grpc.aio.Server) -> None:
        def handler(make: Any, behaviour: Any) -> Any:
            return make(behaviour, request_deserializer=pb.GetFrameRequest.FromString, response_serializer=bytes)

        handlers = {
            "SubscribeFrames": handler(grpc.unary_stream_rpc_method_handler, self.subscribe_frames),
            "SubscribeLatestFrames": handler(grpc.unary_stream_rpc_method_handler, self.subscribe_latest_frames),
            "GetFrames": handler(grpc.unary_stream_rpc_method_handler, self.get_frames),
            "GetFrame": handler(grpc.unary_unary_rpc_method_handler, self.get_frame),
        }
        for name in NAMES:
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    async def subscribe_frames(self, request: pb.GetFrameRequest, context: Context) -> AsyncIterator[bytes]:
        async for response in self._stream(request, "all"):
            yield response

    async def subscribe_latest_frames(self, request: pb.GetFrameRequest, context: Context) -> AsyncIterator[bytes]:
        async for response in self._stream(request, "latest"):
            yield response

    async def _stream(self, request: pb.GetFrameRequest, mode: Mode) -> AsyncIterator[bytes]:
        subscription = self._playback.subscribe("compat", mode, request.frame_interval, "frame_interval")
        try:
            async for response in subscription.responses():
                yield response
        finally:
            self._playback.broadcaster.unsubscribe(subscription)

    async def get_frame(self, request: pb.GetFrameRequest, context: Context) -> bytes:
        index = whole_number(request, "index")
        if index is None:
            return (await self._playback.newest()).whole_response("compat", restart=False)
        return await self._playback.frame_at(index, "compat")

    async def get_frames(self, request: pb.GetFrameRequest, context: Context) -> AsyncIterator[bytes]:
        start, stop, stride = (whole_number(request, name) for name in ("start", "stop", "stride"))
        for index in self._playback.frame_range(start or 0, stop, 1 if stride is None else stride):
            yield await self._playback.frame_at(index, "compat")
