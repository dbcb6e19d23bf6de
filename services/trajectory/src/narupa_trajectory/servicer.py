"""The native gRPC edge of the trajectory service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc.aio

from narupa_shared.access import check_command
from narupa_shared.auth import caller
from narupa_shared.commands import CommandTable
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame, frame_from_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct, to_struct
from narupa_shared.subscriptions import Mode
from narupa_shared.views import View
from narupa_trajectory.playback import Place, Playback
from narupa_trajectory.relay import UNWATCHED_KEY
from narupa_trajectory.reports import FinishedReport

SERVICE: Final = pb.DESCRIPTOR.services_by_name["TrajectoryService"]
Context = grpc.aio.ServicerContext[Any, Any]


class TrajectoryServicer:
    """Answers `narupa.trajectory.v1.TrajectoryService`. Frames leave as the bytes that the fan-out made once for all."""

    def __init__(self, playback: Playback, commands: CommandTable) -> None:
        self._playback = playback
        self._commands = commands

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(SERVICE, self)])

    def _view(self, message: pb.View, context: Context) -> View:
        """The view in a request. Raises: InvalidArgumentError for none that can be, QuotaError after too many selections."""
        view = View.from_message(message)
        self._playback.selections.admit(caller(context).owner, view.selection)
        return view

    async def SubscribeFrames(self, request: pb.SubscribeFramesRequest, context: Context) -> AsyncIterator[bytes]:
        mode: Mode = "all" if request.mode == pb.FRAME_MODE_ALL else "latest"
        view = self._view(request.view, context)
        if request.HasField("place"):
            given = request.place
            interval_s = given.dynamics_interval_s if given.HasField("dynamics_interval_s") else None
            place = Place(given.run_id, given.frame, given.paused, interval_s)
            subscription = await self._playback.subscribe_after(place, mode, request.frame_interval_s, view)
        else:
            watched = all(key != UNWATCHED_KEY for key, _ in context.invocation_metadata() or ())
            subscription = self._playback.subscribe(
                "v1", mode, request.frame_interval_s, "frame_interval_s", view, watched=watched
            )
        try:
            async for response in subscription:
                yield response
        finally:
            self._playback.broadcaster.unsubscribe(subscription)

    async def GetFrame(self, request: pb.GetFrameRequest, context: Context) -> bytes:
        view = self._view(request.view, context)
        if request.HasField("index"):
            return await self._playback.frame_at(request.index, "v1", view)
        return await self._playback.broadcaster.whole_response(await self._playback.newest(), "v1", view)

    async def GetFrames(self, request: pb.GetFramesRequest, context: Context) -> AsyncIterator[bytes]:
        stop = request.stop if request.HasField("stop") else None
        view = self._view(request.view, context)
        for index in self._playback.frame_range(request.start, stop, request.stride or 1):
            yield await self._playback.frame_at(index, "v1", view)

    async def WatchFinishedInteractions(
        self, request: pb.WatchFinishedInteractionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchFinishedInteractionsResponse]:
        reports = self._playback.reports
        async with aclosing(reports.watch(request.epoch, request.after_sequence)) as batches:
            async for batch in batches:
                yield pb.WatchFinishedInteractionsResponse(epoch=reports.epoch, finished=map(finished_message, batch))

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        playback = self._playback
        info, broadcaster, engine = playback.info, playback.broadcaster, playback.engine
        if playback.failed:
            state = pb.ENGINE_STATE_FAILED
        elif engine.info is None:
            state = pb.ENGINE_STATE_STARTING
        else:
            state = pb.ENGINE_STATE_RUNNING if playback.advancing else pb.ENGINE_STATE_PAUSED
        return pb.GetStatusResponse(
            state=state,
            sources=playback.names,
            source_index=playback.source_index,
            live=bool(info and info.live),
            frame_count=(info.frame_count or 0) if info else 0,
            frame_index=broadcaster.current.frame.index if broadcaster.current else 0,
            particle_count=playback.particle_count,
            steps_per_second=engine.steps_per_second,
            dynamics_interval_s=playback.frame_interval_s,
            frame_interval_steps=playback.steps,
            subscribers=len(broadcaster.subscriptions),
            restarts=engine.restarts,
            exception=playback.exception,
            frames_encoded=broadcaster.encoded,
            frames_sent=broadcaster.sent,
            run_id=playback.shown_run_id,
        )

    async def PublishFrame(self, request: pb.PublishFrameRequest, context: Context) -> pb.PublishFrameResponse:
        owner = caller(context).owner
        return pb.PublishFrameResponse(index=await self._playback.publish_frame(given_frame(request.frame), owner))

    async def ListCommands(self, request: pb.ListCommandsRequest, context: Context) -> pb.ListCommandsResponse:
        return pb.ListCommandsResponse(
            commands=[
                pb.Command(name=name, arguments=to_struct(defaults))
                for name, defaults in self._commands.listing().items()
            ]
        )

    async def RunCommand(self, request: pb.RunCommandRequest, context: Context) -> pb.RunCommandResponse:
        check_command(caller(context), request.name)
        result = await self._commands.run(request.name, from_struct(request.arguments, "arguments"))
        return pb.RunCommandResponse(result=to_struct(result, "result"))


def given_frame(message: pb.Frame) -> Frame:
    """The frame in a message from outside.

    Raises:
        InvalidArgumentError: a value of a kind that frames do not have, or an array that its data does not fill.
    """
    for key, value in message.values.items():
        if value.WhichOneof("kind") not in ("number_value", "string_value", "bool_value"):
            kind = value.WhichOneof("kind") or "nothing"
            raise InvalidArgumentError(f"frame key {key[:128]}", kind, "must be a number, a text or a truth value")
    for key, array in message.arrays.items():
        if array.dtype not in (pb.DTYPE_FLOAT32, pb.DTYPE_UINT32, pb.DTYPE_STRING):
            raise InvalidArgumentError(
                f"frame key {key[:128]}", array.dtype, "must have a dtype: floats, indices, texts"
            )
    return frame_from_v1(message)


def finished_message(report: FinishedReport) -> pb.FinishedInteraction:
    """`report` as it goes to who watches."""
    account = report.account
    return pb.FinishedInteraction(
        sequence=report.sequence,
        id=account.id,
        owner=account.owner,
        potential=account.potential,
        particles=account.particles,
        started_at=account.started_at,
        duration_s=account.duration_s,
        start_time_ps=account.start_time_ps,
        end_time_ps=account.end_time_ps,
        work=account.work,
        run_id=report.run_id,
        reason=account.reason,
    )
