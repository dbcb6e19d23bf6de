"""The frames of this service for existing Narupa and NanoVer gRPC clients, under the names they call.

The two families' messages are byte for byte the same, so one set of handlers is registered under both names.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc.aio

from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as nanover_pb
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as pb
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import whole_number
from narupa_shared.subscriptions import Mode
from narupa_trajectory.playback import Playback

SERVICES: Final = tuple(module.DESCRIPTOR.services_by_name["TrajectoryService"] for module in (pb, nanover_pb))
Context = grpc.aio.ServicerContext[Any, Any]


class CompatTrajectoryServicer:
    """Answers `TrajectoryService` of both families."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(service, self) for service in SERVICES])

    # No generators of their own: frames pass through one layer less.

    def SubscribeFrames(self, request: pb.GetFrameRequest, context: Context) -> AsyncGenerator[bytes, None]:
        return self._stream(request, "all")

    def SubscribeLatestFrames(self, request: pb.GetFrameRequest, context: Context) -> AsyncGenerator[bytes, None]:
        return self._stream(request, "latest")

    async def _stream(self, request: pb.GetFrameRequest, mode: Mode) -> AsyncGenerator[bytes, None]:
        subscription = self._playback.subscribe("compat", mode, request.frame_interval, "frame_interval")
        try:
            async for response in subscription:
                yield response
        finally:
            self._playback.broadcaster.unsubscribe(subscription)

    async def GetFrame(self, request: pb.GetFrameRequest, context: Context) -> bytes:
        index = whole_number(request.data, "index")
        if index is None:
            return (await self._playback.newest()).whole_response("compat", restart=False)
        return await self._playback.frame_at(index, "compat")

    async def GetFrames(self, request: pb.GetFrameRequest, context: Context) -> AsyncIterator[bytes]:
        start, stop, stride = (whole_number(request.data, name) for name in ("start", "stop", "stride"))
        for index in self._playback.frame_range(start or 0, stop, 1 if stride is None else stride):
            yield await self._playback.frame_at(index, "compat")
