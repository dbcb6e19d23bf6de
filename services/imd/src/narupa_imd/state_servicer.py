"""The RPC edge of `narupa.imd.v1.StateService`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import grpc.aio
from google.protobuf.message import Message

from narupa_imd.keeping import Keeping
from narupa_imd.servicer import on_end
from narupa_imd.session import ImdSession
from narupa_imd.state import Writer
from narupa_imd.streams import Streams
from narupa_imd.watching import Watching
from narupa_imd.wire import get_state_response, watch_responses
from narupa_shared.auth import caller
from narupa_shared.connections import Connections
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.rpc_errors import status_of
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct

SERVICE: Final = pb.DESCRIPTOR.services_by_name["StateService"]
# Writes of one stream that may wait for the store at once; the next is read when the first of them is answered.
MAX_UNANSWERED: Final = 256

Context = grpc.aio.ServicerContext[Any, Any]


class Answers:
    """Answers to one stream's writes, in the order of the requests, each as soon as it and all before it can be given.

    `news` is set whenever the first one may be ready.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._waiting: deque[tuple[pb.WriteStateResponse, asyncio.Future[None] | None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, answer: pb.WriteStateResponse, kept: asyncio.Future[None] | None = None) -> None:
        """`answer` is to be given, once `kept` is done where there is one; an error of that is the answer instead."""
        self._waiting.append((answer, kept))
        if kept:
            kept.add_done_callback(lambda _: self.news.set())

    def ready(self) -> Iterator[pb.WriteStateResponse]:
        """Those that can be given now."""
        while self._waiting and ((kept := self._waiting[0][1]) is None or kept.done()):
            answer, _ = self._waiting.popleft()
            if kept and isinstance(error := kept.exception(), NarupaError):
                answer.MergeFrom(_refusal(error))
            yield answer

    async def first_ready(self) -> None:
        """The first of them, if there is any, can be given."""
        if self._waiting and (kept := self._waiting[0][1]):
            await asyncio.wait({kept})

    def forget(self) -> None:
        """Nobody hears of those that wait."""
        for _, kept in self._waiting:
            if kept and not kept.cancel() and not kept.cancelled():
                kept.exception()  # or the loop would complain that nobody asked
        self._waiting.clear()


class StateServicer:
    """`narupa.imd.v1.StateService`."""

    def __init__(
        self, session: ImdSession, keeping: Keeping, connections: Connections, streams: Streams, watching: Watching
    ) -> None:
        self._session = session
        self._keeping = keeping
        self._connections = connections
        self._streams = streams
        self._watching = watching
        self._encode = watch_responses(session.state.epoch)

    async def GetState(self, request: pb.GetStateRequest, context: Context) -> bytes:
        state = self._session.state
        return get_state_response(state.epoch, state.revision, state.entries(request.prefix))

    async def WatchState(self, request: pb.WatchStateRequest, context: Context) -> AsyncIterator[bytes]:
        interval_s = self._watching.interval("update_interval_s", request.update_interval_s)
        after: int | None = None
        if request.epoch:
            after = self._session.state.resume(request.epoch, request.after_revision)
        elif request.after_revision:
            raise InvalidArgumentError("after_revision", request.after_revision, "resuming needs the epoch as well")
        with self._connections.stream(context.peer()) as hold:
            on_end(context, hold.end)
            async for message in self._watching.messages(self._encode, interval_s, after, request.prefix):
                yield message

    async def UpdateState(self, request: pb.UpdateStateRequest, context: Context) -> pb.UpdateStateResponse:
        writer = self._writer(context, request)
        revision = await self._keeping.update(writer, from_struct(request.updates, "updates"), request.removals)
        return pb.UpdateStateResponse(revision=revision)

    async def WriteState(
        self, request_iterator: AsyncIterator[pb.WriteStateRequest], context: Context
    ) -> AsyncIterator[pb.WriteStateResponse]:
        who = caller(context)
        answers = Answers()
        with self._connections.lease(who.peer) as hold:
            on_end(context, hold.end)
            writer = Writer(who.owner, hold.connection)
            # The client knows that it is let in before it has anything to write.
            await context.send_initial_metadata(())
            try:
                async for request in self._streams.requests(request_iterator, answers.news):
                    if request is not None:
                        self._session.spend(hold.connection, request.ByteSize())
                        self._write(writer, request, answers)
                    for answer in answers.ready():
                        yield answer
                    while len(answers) >= MAX_UNANSWERED:
                        await answers.first_ready()
                        for answer in answers.ready():
                            yield answer
                while answers:
                    await answers.first_ready()
                    for answer in answers.ready():
                        yield answer
            finally:
                answers.forget()

    def _write(self, writer: Writer, request: pb.WriteStateRequest, answers: Answers) -> None:
        """The request is applied at once, whatever is still being kept of those before it; its answer waits its turn."""
        answer = pb.WriteStateResponse(sequence=request.sequence, revision=self._session.state.revision)
        kept = None
        try:
            updates = from_struct(request.updates, "updates")
            # Whose hand holds something writes it with every movement: what the service has ended is passed over.
            updates = self._session.without_ended(writer, updates)
            answer.revision, kept = self._keeping.apply(writer, updates, request.removals)
        except NarupaError as error:
            answer.MergeFrom(_refusal(error))
        answers.add(answer, kept)

    async def UpdateLocks(self, request: pb.UpdateLocksRequest, context: Context) -> pb.UpdateLocksResponse:
        self._session.state.update_locks(self._writer(context, request), request.acquire_s, request.release)
        return pb.UpdateLocksResponse()

    def _writer(self, context: Context, request: Message) -> Writer:
        who = caller(context)
        self._session.spend(who.peer, request.ByteSize())
        self._connections.wrote(who.peer)
        return Writer(who.owner, who.peer)

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(SERVICE, self)])


def _refusal(error: NarupaError) -> pb.WriteStateResponse:
    return pb.WriteStateResponse(error=str(error), code=status_of(error).value[0])
