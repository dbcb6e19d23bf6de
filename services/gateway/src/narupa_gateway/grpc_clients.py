"""Trajectory, state and commands of the Narupa and NanoVer gRPC protocols, together on one port.

The two families' messages are byte for byte the same, so one set of handlers is registered under both names.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc.aio
import structlog

from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.grpc_guests import GrpcGuests
from narupa_gateway.shared_state import SharedStateCopy
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError
from narupa_shared.frames import Frame, encode_compat, response_compat
from narupa_shared.gen.nanover.protocol.command import command_service_pb2 as nanover_command
from narupa_shared.gen.nanover.protocol.state import state_service_pb2 as nanover_state
from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as nanover_trajectory
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as command
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as state
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct, to_struct, whole_number
from narupa_shared.subscriptions import Mode

log = structlog.get_logger(__name__)

_TRAJECTORIES: Final = tuple(
    module.DESCRIPTOR.services_by_name["TrajectoryService"] for module in (trajectory, nanover_trajectory)
)
_STATES: Final = tuple(module.DESCRIPTOR.services_by_name["State"] for module in (state, nanover_state))
_COMMANDS: Final = tuple(module.DESCRIPTOR.services_by_name["Command"] for module in (command, nanover_command))
SERVICE_NAMES: Final[tuple[str, ...]] = tuple(
    service.full_name for services in (_TRAJECTORIES, _STATES, _COMMANDS) for service in services
)
# Most frames that one request for a range of them may ask for.
MAX_RANGE: Final = 1_000_000
Context = grpc.aio.ServicerContext[Any, Any]


class TrajectoryServicer:
    """`TrajectoryService` of both families."""

    def __init__(self, feed: FrameFeed, guests: GrpcGuests) -> None:
        self._feed = feed
        self._guests = guests

    # No generators of their own: frames pass through one layer less.

    def SubscribeFrames(self, request: trajectory.GetFrameRequest, context: Context) -> AsyncGenerator[bytes, None]:
        return self._stream(request, "all", context)

    def SubscribeLatestFrames(
        self, request: trajectory.GetFrameRequest, context: Context
    ) -> AsyncGenerator[bytes, None]:
        return self._stream(request, "latest", context)

    async def _stream(
        self, request: trajectory.GetFrameRequest, mode: Mode, context: Context
    ) -> AsyncGenerator[bytes, None]:
        present = await self._guests.of(context)
        with self._guests.connections_held.stream(context.peer()) as hold:
            context.add_done_callback(hold.end)  # type: ignore[arg-type]
            subscription = self._feed.subscribe("compat", mode, request.frame_interval, "frame_interval")
            try:
                async with present.until_ended():
                    async for response in subscription:
                        yield response
            finally:
                self._feed.unsubscribe(subscription)

    async def GetFrame(self, request: trajectory.GetFrameRequest, context: Context) -> bytes:
        present = await self._guests.of(context, request.ByteSize())
        frame = await present.guest.session.get_frame(whole_number(request.data, "index"))
        return _response(Frame(frame.index, dict(frame.values), dict(frame.arrays)))

    async def GetFrames(self, request: trajectory.GetFrameRequest, context: Context) -> AsyncIterator[bytes]:
        present = await self._guests.of(context)
        start, stop, stride = (whole_number(request.data, name) for name in ("start", "stop", "stride"))
        if stride == 0:
            raise InvalidArgumentError("data.stride", 0, "must be 1 or more")
        status = await present.guest.session.status()
        end = status.frame_count if not status.live else status.frame_index + 1
        wanted = range(start or 0, end if stop is None else min(stop, end), stride or 1)
        if len(wanted) > MAX_RANGE:
            raise InvalidArgumentError("data.stop", stop, f"at most {MAX_RANGE} frames are given at once")
        with self._guests.connections_held.stream(context.peer()) as hold:
            context.add_done_callback(hold.end)  # type: ignore[arg-type]
            async with present.until_ended():
                for index in wanted:
                    frame = await present.guest.session.get_frame(index)
                    yield _response(Frame(frame.index, dict(frame.values), dict(frame.arrays)))


class StateServicer:
    """`State` of both families."""

    def __init__(self, copy: SharedStateCopy, guests: GrpcGuests, config: GatewayConfig) -> None:
        self._copy = copy
        self._guests = guests
        self._config = config

    async def SubscribeStateUpdates(
        self, request: state.SubscribeStateUpdatesRequest, context: Context
    ) -> AsyncIterator[bytes]:
        interval_s = request.update_interval
        if not math.isfinite(interval_s) or interval_s < 0:
            raise InvalidArgumentError("update_interval", interval_s, "must be a number of seconds, 0 or more")
        interval_s = max(interval_s or self._config.state_interval_s, self._config.minimum_state_interval_s)
        present = await self._guests.of(context)
        with self._guests.connections_held.stream(context.peer()) as hold:
            context.add_done_callback(hold.end)  # type: ignore[arg-type]
            async with (
                present.until_ended(),
                contextlib.aclosing(self._copy.stream("compat", interval_s)) as messages,
            ):
                async for message in messages:
                    yield message

    async def UpdateState(self, request: state.UpdateStateRequest, context: Context) -> state.UpdateStateResponse:
        present = await self._guests.of(context, request.ByteSize())
        changed = from_struct(request.update.changed_keys, "changed_keys")
        updates = {key: value for key, value in changed.items() if value is not None}
        try:
            await present.writes.write(updates, [key for key, value in changed.items() if value is None])
        except PermissionDeniedError as error:
            log.info("update_refused", guest=present.guest.number, reason=str(error))
            return state.UpdateStateResponse(success=False)
        return state.UpdateStateResponse(success=True)

    async def UpdateLocks(self, request: state.UpdateLocksRequest, context: Context) -> state.UpdateLocksResponse:
        present = await self._guests.of(context, request.ByteSize())
        wanted = from_struct(request.lock_keys, "lock_keys")
        acquire_s = {key: value for key, value in wanted.items() if value is not None}
        for key, seconds in acquire_s.items():
            if isinstance(seconds, bool) or not isinstance(seconds, float):
                raise InvalidArgumentError(f"lock_keys.{key}", seconds, "must be a number of seconds, or null")
        release = [key for key, value in wanted.items() if value is None]
        try:
            await present.guest.session.state.update_locks(acquire_s, release)
        except PermissionDeniedError as error:
            log.info("locks_refused", guest=present.guest.number, reason=str(error))
            return state.UpdateLocksResponse(success=False)
        return state.UpdateLocksResponse(success=True)


class CommandServicer:
    """`Command` of both families."""

    def __init__(self, guests: GrpcGuests) -> None:
        self._guests = guests

    async def GetCommands(self, request: command.GetCommandsRequest, context: Context) -> command.GetCommandsReply:
        present = await self._guests.of(context, request.ByteSize())
        listing = await present.guest.session.commands()
        return command.GetCommandsReply(
            commands=[
                command.CommandMessage(name=name, arguments=to_struct(defaults)) for name, defaults in listing.items()
            ]
        )

    async def RunCommand(self, request: command.CommandMessage, context: Context) -> command.CommandReply:
        present = await self._guests.of(context, request.ByteSize())
        arguments = from_struct(request.arguments, "arguments")
        try:
            result = await present.guest.session.run_command(request.name, arguments)
        except NarupaError:
            present.guest.commands[False] += 1
            raise
        present.guest.commands[True] += 1
        return command.CommandReply(result=to_struct(result, f"result of {request.name}"))


def add_to(
    server: grpc.aio.Server, feed: FrameFeed, copy: SharedStateCopy, guests: GrpcGuests, config: GatewayConfig
) -> None:
    """The services answer on `server`."""
    edges = (
        (_TRAJECTORIES, TrajectoryServicer(feed, guests)),
        (_STATES, StateServicer(copy, guests, config)),
        (_COMMANDS, CommandServicer(guests)),
    )
    for services, edge in edges:
        server.add_generic_rpc_handlers([generic_handler(service, edge) for service in services])


def _response(frame: Frame) -> bytes:
    return response_compat(frame.index, encode_compat(frame))
