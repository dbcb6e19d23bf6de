"""A small trajectory and a small imd service."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc
import grpc.aio

from narupa_client.testing.imd_commands import FakeCommands
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame, encode_v1
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc
from narupa_shared.interaction_messages import interaction_of
from narupa_shared.structs import from_struct, to_struct

Context = grpc.aio.ServicerContext[Any, Any]


class FakeServer:
    """One server that can go away and come back at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self.tokens: set[str] | None = None
        """Tokens accepted; None accepts any and none."""
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """It listens, at its earlier port if it had one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._add_to(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """It is gone, its streams with it, as if killed."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _add_to(self, server: grpc.aio.Server) -> None:
        raise NotImplementedError

    async def _admit(self, context: Context) -> str:
        token = token_of(context)
        if self.tokens is not None and token not in self.tokens:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is unknown here")
        return token


class FakeTrajectory(FakeServer, trajectory_pb2_grpc.TrajectoryServiceServicer):
    """A source whose frames the test publishes."""

    def __init__(self) -> None:
        super().__init__()
        self.current = Frame(0)
        self.subscriptions = 0
        self.subscribers = 0
        """How many streams are open."""
        self.live = True
        self.paused = False
        self.run_id = ""
        self.places: list[trajectory_pb2.Place] = []
        """Where subscribers came from."""
        self.views: list[trajectory_pb2.View] = []
        """What subscribers, and who asked for single frames, wanted of them; everything is sent all the same."""
        self.recording: dict[int, Frame] = {}
        """Frames that can be asked for by their index, besides the current one."""
        self.commands: dict[str, dict[str, Any]] = {"playback/pause": {}, "playback/load": {"index": 0.0}}
        self.ran: list[tuple[str, dict[str, Any]]] = []
        self.epoch = "1"
        """Of the reports of finished interactions; another one when they are numbered anew."""
        self.reports: list[trajectory_pb2.FinishedInteraction] = []
        self.first_kept = 1
        """Sequence of the first report that is still there for who resumes."""
        self.resumed: list[tuple[str, int]] = []
        """Where those that watch the reports wanted to go on from."""
        self._reported = asyncio.Condition()
        self._queues: set[asyncio.Queue[Frame | Exception]] = set()

    def _add_to(self, server: grpc.aio.Server) -> None:
        trajectory_pb2_grpc.add_TrajectoryServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def publish(self, frame: Frame) -> None:
        """`frame`, which may hold only what changed, goes to every subscriber."""
        self.current = Frame(frame.index, self.current.merged(frame).values, self.current.merged(frame).arrays)
        for queue in self._queues:
            queue.put_nowait(frame)

    async def finish(self, id: str, **facts: Any) -> None:
        """The interaction `id` has ended, and everybody is told."""
        async with self._reported:
            report = trajectory_pb2.FinishedInteraction(sequence=len(self.reports) + 1, id=id, **facts)
            self.reports.append(report)
            self._reported.notify_all()

    @contextlib.asynccontextmanager
    async def publishing(self, make: Callable[[int], Frame], interval_s: float = 0.01) -> AsyncIterator[None]:
        """Within, `make(1)`, `make(2)`, ... are published one after the other."""

        async def run() -> None:
            for index in itertools.count(1):
                self.publish(make(index))
                await asyncio.sleep(interval_s)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def SubscribeFrames(
        self, request: trajectory_pb2.SubscribeFramesRequest, context: Context
    ) -> AsyncIterator[trajectory_pb2.SubscribeFramesResponse]:
        await self._admit(context)
        self.subscriptions += 1
        self.views.append(request.view)
        if request.HasField("place"):
            self.places.append(request.place)
        queue: asyncio.Queue[Frame | Exception] = asyncio.Queue()
        self._queues.add(queue)
        self.subscribers = len(self._queues)
        try:
            frame: Frame | Exception = self.current
            while isinstance(frame, Frame):
                message = trajectory_pb2.Frame.FromString(encode_v1(frame))
                yield trajectory_pb2.SubscribeFramesResponse(frame=message)
                frame = await queue.get()
        finally:
            self._queues.discard(queue)
            self.subscribers = len(self._queues)

    async def GetFrame(
        self, request: trajectory_pb2.GetFrameRequest, context: Context
    ) -> trajectory_pb2.GetFrameResponse:
        await self._admit(context)
        self.views.append(request.view)
        frame = self.current
        if request.HasField("index") and request.index != frame.index:
            if request.index not in self.recording:
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"frame {request.index} is not kept")
            frame = self.recording[request.index]
        return trajectory_pb2.GetFrameResponse(frame=trajectory_pb2.Frame.FromString(encode_v1(frame)))

    async def WatchFinishedInteractions(
        self, request: trajectory_pb2.WatchFinishedInteractionsRequest, context: Context
    ) -> AsyncIterator[trajectory_pb2.WatchFinishedInteractionsResponse]:
        await self._admit(context)
        self.resumed.append((request.epoch, request.after_sequence))
        if request.epoch not in ("", self.epoch):
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"epoch {request.epoch!r} is over")
        sent = request.after_sequence
        if request.epoch and sent + 1 < self.first_kept:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"reports are kept from {self.first_kept} on")
        while True:
            news = self.reports[sent:]
            yield trajectory_pb2.WatchFinishedInteractionsResponse(epoch=self.epoch, finished=news)
            sent += len(news)
            async with self._reported:
                while len(self.reports) <= sent:
                    await self._reported.wait()

    async def GetStatus(
        self, request: trajectory_pb2.GetStatusRequest, context: Context
    ) -> trajectory_pb2.GetStatusResponse:
        await self._admit(context)
        return trajectory_pb2.GetStatusResponse(
            state=trajectory_pb2.ENGINE_STATE_PAUSED if self.paused else trajectory_pb2.ENGINE_STATE_RUNNING,
            live=self.live,
            frame_count=len(self.recording),
            run_id=self.run_id,
        )

    async def ListCommands(
        self, request: trajectory_pb2.ListCommandsRequest, context: Context
    ) -> trajectory_pb2.ListCommandsResponse:
        await self._admit(context)
        reply = trajectory_pb2.ListCommandsResponse()
        for name, arguments in self.commands.items():
            reply.commands.add(name=name, arguments=to_struct(arguments))
        return reply

    async def RunCommand(
        self, request: trajectory_pb2.RunCommandRequest, context: Context
    ) -> trajectory_pb2.RunCommandResponse:
        await self._admit(context)
        if request.name not in self.commands:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"name is {request.name!r}: no such command")
        arguments = from_struct(request.arguments)
        self.ran.append((request.name, arguments))
        return trajectory_pb2.RunCommandResponse(result=to_struct({"ran": request.name, "arguments": arguments}))


class FakeImd(FakeServer, imd_pb2_grpc.InteractionServiceServicer, imd_pb2_grpc.StateServiceServicer):
    """Interactions that live as long as their streams, and a state without locks."""

    def __init__(self, particle_count: int = 10) -> None:
        super().__init__()
        self.particle_count = particle_count
        self.interactions: dict[str, imd_pb2.Interaction] = {}
        self.state: dict[str, Any] = {}
        self.commands = FakeCommands(self._admit)
        self.writers = 0
        """How many streams that write the state are open."""
        self._answers: dict[str, asyncio.Queue[imd_pb2.InteractResponse | None]] = {}
        self._history: list[tuple[dict[str, Any], list[str]]] = []
        self._epoch = 1
        self._news = asyncio.Condition()

    def _add_to(self, server: grpc.aio.Server) -> None:
        imd_pb2_grpc.add_InteractionServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        imd_pb2_grpc.add_StateServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        imd_pb2_grpc.add_CommandServiceServicer_to_server(self.commands, server)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """State, interactions and revisions are lost, as by a restart."""
        self.state.clear()
        self.interactions.clear()
        self._history.clear()
        self._epoch += 1

    def end(self, id: str, reason: str) -> None:
        """The interaction `id` is over, and whoever made it is told why."""
        del self.interactions[id]
        text = f"interaction {id!r} was ended: {reason}"
        code = grpc.StatusCode.NOT_FOUND.value[0]
        self._answers.pop(id).put_nowait(imd_pb2.InteractResponse(error=text, code=code, ended=id))

    async def Interact(
        self, request_iterator: AsyncIterator[imd_pb2.InteractRequest], context: Context
    ) -> AsyncIterator[imd_pb2.InteractResponse]:
        await self._admit(context)
        answers: asyncio.Queue[imd_pb2.InteractResponse | None] = asyncio.Queue()

        async def read() -> None:
            async for request in request_iterator:
                answers.put_nowait(self._answer(request, answers))
            answers.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            reading.cancel()
            for id in [id for id, mine in self._answers.items() if mine is answers]:
                self.interactions.pop(id, None)
                del self._answers[id]

    def _answer(
        self, request: imd_pb2.InteractRequest, answers: asyncio.Queue[imd_pb2.InteractResponse | None]
    ) -> imd_pb2.InteractResponse:
        reply = imd_pb2.InteractResponse(sequence=request.sequence)
        action = request.WhichOneof("action")
        wanted = request.change if action == "change" else request.set
        id = request.move.id if action == "move" else wanted.id
        if action in ("move", "change") and id not in self.interactions:
            reply.code = grpc.StatusCode.NOT_FOUND.value[0]
            reply.error = f"no interaction has the id {id}"
        elif action in ("set", "change"):
            try:
                interaction_of(wanted, self.particle_count)
            except InvalidArgumentError as error:
                reply.code, reply.error = grpc.StatusCode.INVALID_ARGUMENT.value[0], str(error)
            else:
                self.interactions[id] = wanted
                self._answers[id] = answers
        elif action == "move":
            self.interactions[id].position[:] = request.move.position
        else:
            self.interactions.pop(request.remove, None)
            self._answers.pop(request.remove, None)
        return reply

    async def ListInteractions(
        self, request: imd_pb2.ListInteractionsRequest, context: Context
    ) -> imd_pb2.ListInteractionsResponse:
        await self._admit(context)
        reply = imd_pb2.ListInteractionsResponse()
        for interaction in self.interactions.values():
            reply.interactions.add(interaction=interaction, owner="somebody")
        return reply

    async def GetState(self, request: imd_pb2.GetStateRequest, context: Context) -> imd_pb2.GetStateResponse:
        await self._admit(context)
        return imd_pb2.GetStateResponse(state=to_struct(_within(self.state, request.prefix)))

    async def UpdateState(self, request: imd_pb2.UpdateStateRequest, context: Context) -> imd_pb2.UpdateStateResponse:
        await self._admit(context)
        if (revision := await self._written(request)) is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "a key is locked by somebody else")
        return imd_pb2.UpdateStateResponse(revision=revision)

    async def WriteState(
        self, request_iterator: AsyncIterator[imd_pb2.WriteStateRequest], context: Context
    ) -> AsyncIterator[imd_pb2.WriteStateResponse]:
        await self._admit(context)
        await context.send_initial_metadata(())
        owned: set[str] = set()
        self.writers += 1
        try:
            async for request in request_iterator:
                answer = imd_pb2.WriteStateResponse(sequence=request.sequence)
                if (revision := await self._written(request)) is None:
                    answer.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
                    answer.error = "a key is locked by somebody else"
                else:
                    answer.revision = revision
                    owned |= {key for key in request.updates.fields if key.startswith("avatar.")}
                yield answer
        finally:
            self.writers -= 1
            await self._written(imd_pb2.WriteStateRequest(removals=owned))

    async def _written(self, request: imd_pb2.UpdateStateRequest | imd_pb2.WriteStateRequest) -> int | None:
        """The revision then; None where nothing was done, because a key is locked."""
        updates, removals = from_struct(request.updates), list(request.removals)
        if any(key.startswith("locked") for key in (*updates, *removals)):
            return None
        async with self._news:
            self.state.update(updates)
            for key in removals:
                self.state.pop(key, None)
            self._history.append((updates, removals))
            self._news.notify_all()
        return len(self._history)

    async def UpdateLocks(self, request: imd_pb2.UpdateLocksRequest, context: Context) -> imd_pb2.UpdateLocksResponse:
        await self._admit(context)
        return imd_pb2.UpdateLocksResponse()

    async def WatchState(
        self, request: imd_pb2.WatchStateRequest, context: Context
    ) -> AsyncIterator[imd_pb2.WatchStateResponse]:
        await self._admit(context)
        epoch, sent = str(self._epoch), request.after_revision
        if request.epoch and request.epoch != epoch:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "this epoch has passed")
        if not request.epoch:
            sent = len(self._history)
            whole = to_struct(_within(self.state, request.prefix))
            yield imd_pb2.WatchStateResponse(epoch=epoch, revision=sent, whole=True, updates=whole)
        while True:
            async with self._news:
                while len(self._history) <= sent:
                    await self._news.wait()
            updates, removals = self._history[sent]
            sent += 1
            changed = to_struct(_within(updates, request.prefix))
            yield imd_pb2.WatchStateResponse(epoch=epoch, revision=sent, updates=changed, removals=removals)


def _within(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key.startswith(prefix)}


def token_of(context: Context) -> str:
    """The token that came with a call; empty without one."""
    headers: dict[str, Any] = dict(context.invocation_metadata() or ())
    return str(headers.get("authorization", "")).removeprefix("Bearer ")
