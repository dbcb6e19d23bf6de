"""The RPC edge of `narupa.imd.v1.InteractionService`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from narupa_imd.config import ImdConfig
from narupa_imd.session import Follower, ImdSession
from narupa_imd.state import Writer
from narupa_imd.streams import Streams
from narupa_imd.wire import follow_response, shown_owner
from narupa_shared.auth import caller
from narupa_shared.connections import Connections
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.interaction_messages import interaction_message, state_value_of
from narupa_shared.interactions import KEY_PREFIX, Interaction
from narupa_shared.rpc_errors import status_of
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct

log = structlog.get_logger(__name__)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["InteractionService"]
MAX_GROUP: Final = 64
Context = grpc.aio.ServicerContext[Any, Any]


def on_end(context: Context, act: Callable[[object], None]) -> None:
    """`act` is called once the call is over, however it ends and wherever its handler waits then."""
    context.add_done_callback(act)  # type: ignore[arg-type]  # grpc-stubs wants a class of its own


class Ended:
    """Endings of one stream's interactions that its client has yet to hear of."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._endings: list[tuple[str, str]] = []

    def add(self, id: str, reason: str) -> None:
        self._endings.append((id, reason))
        self.news.set()

    def taken(self) -> list[tuple[str, str]]:
        """Those that have come since."""
        taken, self._endings = self._endings, []
        return taken


class InteractionServicer:
    """`narupa.imd.v1.InteractionService`."""

    def __init__(self, session: ImdSession, connections: Connections, streams: Streams, config: ImdConfig) -> None:
        self._session = session
        self._connections = connections
        self._streams = streams
        self._config = config

    async def Interact(
        self, request_iterator: AsyncIterator[pb.InteractRequest], context: Context
    ) -> AsyncIterator[pb.InteractResponse]:
        who = caller(context)
        with self._connections.lease(who.peer) as hold:
            on_end(context, hold.end)
            writer = Writer(who.owner, hold.connection)
            ended = Ended()
            with self._session.endings.told(hold.connection, ended.add):
                async for request in self._streams.requests(request_iterator, ended.news):
                    for id, reason in ended.taken():
                        yield self._ending(id, reason)
                    if request is not None:
                        self._session.spend(hold.connection, request.ByteSize())
                        yield self._answer(writer, request)

    def _ending(self, id: str, reason: str) -> pb.InteractResponse:
        return pb.InteractResponse(
            revision=self._session.state.revision,
            error=f"interaction {id!r} was ended: {reason}",
            code=grpc.StatusCode.NOT_FOUND.value[0],
            ended=id,
        )

    def _answer(self, writer: Writer, request: pb.InteractRequest) -> pb.InteractResponse:
        try:
            revision = self._act(writer, request)
        except NarupaError as error:
            return pb.InteractResponse(
                sequence=request.sequence,
                revision=self._session.state.revision,
                error=str(error),
                code=status_of(error).value[0],
            )
        return pb.InteractResponse(sequence=request.sequence, revision=revision)

    def _act(self, writer: Writer, request: pb.InteractRequest) -> int:
        match request.WhichOneof("action"):
            case "set":
                return self._session.set_interaction(writer, request.set.id, state_value_of(request.set))
            case "change":
                return self._session.change_interaction(writer, request.change.id, state_value_of(request.change))
            case "move":
                return self._session.move_interaction(writer, request.move.id, list(request.move.position))
            case "remove":
                return self._session.remove_interaction(writer, request.remove)
            case _:
                raise InvalidArgumentError("action", None, "give one of set, move, change and remove")

    async def ListInteractions(
        self, request: pb.ListInteractionsRequest, context: Context
    ) -> pb.ListInteractionsResponse:
        return pb.ListInteractionsResponse(
            interactions=[
                _owned(interaction, shown_owner(owner)) for interaction, owner in self._session.interactions()
            ],
            revision=self._session.state.revision,
        )

    async def FollowInteractions(
        self, request_iterator: AsyncIterator[pb.FollowInteractionsRequest], context: Context
    ) -> AsyncIterator[pb.FollowInteractionsResponse]:
        follower = self._session.add_follower()
        refused: list[NarupaError] = []
        hearing = asyncio.create_task(self._hear(request_iterator, follower, refused), name="follower-reports")

        def end(_call: object = None) -> None:
            self._session.remove_follower(follower)
            hearing.cancel()

        on_end(context, end)
        try:
            state, heartbeat_s = self._session.state, self._config.heartbeat_s
            changes = state.changes(None, KEY_PREFIX)
            with state.watching() as place:
                while True:
                    place.revision = changes.revision
                    yield follow_response(changes, KEY_PREFIX, heartbeat_s)
                    if state.revision == changes.revision:
                        await self._streams.change(heartbeat_s)
                    else:
                        await self._streams.pause(0)  # one response per turn of the loop, whatever happens in it
                    if refused or follower.superseded:
                        raise refused[0] if refused else FailedPreconditionError("another service leads the group now")
                    changes = state.changes(changes.revision, KEY_PREFIX)
        finally:
            end()

    async def _hear(
        self, requests: AsyncIterator[pb.FollowInteractionsRequest], follower: Follower, refused: list[NarupaError]
    ) -> None:
        with contextlib.suppress(grpc.aio.UsageError, grpc.aio.BaseError):  # the call is over
            async for request in requests:
                try:
                    self._session.lead(follower, request.group[:MAX_GROUP], request.epoch)
                except FailedPreconditionError as error:
                    refused.append(error)  # its stream says so within a heartbeat
                    return
                self._session.report(
                    follower,
                    request.particle_count,
                    request.velocity_reset_available,
                    request.simulation_counter,
                    request.simulation_name,
                    request.simulation_index,
                )
                self._session.end_interactions((item.id, item.reason) for item in request.ended)
                if request.HasField("replayed"):
                    self._replay(follower, request.replayed)

    def _replay(self, follower: Follower, replayed: pb.ReplayedState) -> None:
        try:
            updates = from_struct(replayed.updates, "replayed.updates")
        except InvalidArgumentError as error:
            log.warning("not_replayed", reason=str(error))
            return
        follower.replay.show(updates, replayed.removals, replayed.whole)

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(SERVICE, self)])


def _owned(interaction: Interaction, owner: str) -> pb.OwnedInteraction:
    return pb.OwnedInteraction(interaction=interaction_message(interaction, owner=owner), owner=owner)
