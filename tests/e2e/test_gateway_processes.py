"""A gateway in two processes on one port: who is served where, what they see of each other, and what dies with what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import msgpack
import numpy as np
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as state
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory
from tests.e2e.sessions import LIMIT_S, Running, RunningSession, session

pytestmark = pytest.mark.e2e

WORKER: Final = "narupa_gateway.worker"
VIEWERS: Final = 20
STATE: Final = "/narupa.protocol.state.State/"
FRAMES: Final = "/narupa.protocol.trajectory.TrajectoryService/SubscribeLatestFrames"
ENDED_WITHIN_S: Final = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    with session(tmp_path_factory.mktemp("processes"), "demo:peptide", "--gateway-processes=2") as started:
        # The session is ready with the first of them, to whom all come before the second listens too.
        started.wait_until(lambda: listening(started) == 2, "two processes that listen on the same ports")
        yield started


def listening(program: Running) -> int:
    """How many workers listen on all ports that any of them listens on."""
    ports: list[set[int]] = []
    for process in workers(program).values():
        with contextlib.suppress(psutil.Error):
            found = process.net_connections("tcp")
            ports.append({each.laddr.port for each in found if each.status == psutil.CONN_LISTEN})
    return sum(bool(each) and each == set().union(*ports) for each in ports)


def workers(program: Running) -> dict[int, psutil.Process]:
    """The processes that serve, by their ids."""
    return {each.pid: each for each in program.processes() if WORKER in command(each)}


def command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def serving(program: Running, client_port: int) -> int:
    """The id of the worker that has the connection from this port of ours; 0 while none has."""
    for pid, process in workers(program).items():
        with contextlib.suppress(psutil.Error):
            if any(each.raddr and each.raddr.port == client_port for each in process.net_connections("tcp")):
                return pid
    return 0


async def eventually(look: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not look():
            await asyncio.sleep(0.05)


class Viewer:
    """A WebSocket client that reads all it gets.

    Attributes:
        positions: Of the frames that it has had, by their index.
        state: As it has been told of it.
        closed: Why its connection has ended; empty while it has not.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.port = int(socket.local_address[1])
        self.positions: dict[int, bytes] = {}
        self.state: dict[str, Any] = {}
        self.closed = ""

    async def read(self) -> None:
        try:
            async for packed in self.socket:
                message = msgpack.unpackb(packed)
                frame, change = message.get("frame", {}), message.get("state", {})
                if "particle.positions" in frame:
                    self.positions[frame["frame.index"]] = frame["particle.positions"]
                self.state.update(change.get("updates", {}))
        except ConnectionClosed:
            pass
        self.closed = f"{self.socket.close_code}: {self.socket.close_reason}"

    async def write(self, **updates: object) -> None:
        await self.socket.send(msgpack.packb({"state": {"updates": updates}}))


@contextlib.asynccontextmanager
async def viewing(url: str, count: int) -> AsyncIterator[list[Viewer]]:
    """So many viewers, each of which has had a frame."""
    async with contextlib.AsyncExitStack() as stack:
        found = [
            Viewer(await stack.enter_async_context(connect(url, max_size=None, open_timeout=LIMIT_S)))
            for _ in range(count)
        ]
        reading = [asyncio.create_task(viewer.read()) for viewer in found]
        try:
            await eventually(lambda: all(viewer.positions for viewer in found))
            yield found
        finally:
            for viewer in found:
                await viewer.socket.close()
            await asyncio.gather(*reading)


def apart(program: Running, viewers: list[Viewer]) -> dict[int, list[Viewer]]:
    """The viewers by the worker that serves them."""
    found: dict[int, list[Viewer]] = {}
    for viewer in viewers:
        found.setdefault(serving(program, viewer.port), []).append(viewer)
    return found


@contextlib.asynccontextmanager
async def on_each_worker(program: Running, address: str) -> AsyncIterator[dict[int, grpc.aio.Channel]]:
    """A gRPC connection to each worker."""
    found: dict[int, grpc.aio.Channel] = {}
    ours = psutil.Process()
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(LIMIT_S):
        while len(found) < 2:
            before = {each.laddr.port for each in ours.net_connections("tcp")}
            channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            (port,) = {
                each.laddr.port
                for each in ours.net_connections("tcp")
                if each.raddr and str(each.raddr.port) == address.rpartition(":")[2] and each.laddr.port not in before
            }
            found.setdefault(serving(program, port), channel)
        yield found


async def call(channel: grpc.aio.Channel, name: str, request: Any, reply: Any) -> bool:
    """Whether the call of the state service says that it was done."""
    method: Callable[..., Awaitable[Any]] = channel.unary_unary(
        STATE + name, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
    )
    return bool((await method(request, timeout=LIMIT_S)).success)


async def grpc_frames(channel: grpc.aio.Channel, count: int) -> dict[int, bytes]:
    """Positions of so many frames, by their index."""
    found: dict[int, bytes] = {}
    stream: Any = channel.unary_stream(
        FRAMES,
        request_serializer=trajectory.GetFrameRequest.SerializeToString,
        response_deserializer=trajectory.GetFrameResponse.FromString,
    )(trajectory.GetFrameRequest(), timeout=LIMIT_S)
    try:
        while len(found) < count:
            response = await stream.read()
            if "particle.positions" in response.frame.arrays:
                values = response.frame.arrays["particle.positions"].float_values.values
                found[response.frame_index] = np.asarray(values, np.float32).tobytes()
    finally:
        stream.cancel()
    return found


def test_the_session_says_once_where_they_are(running: RunningSession) -> None:
    said = running.written()
    assert said.count("browser     http://") == said.count("NanoVer     ws://") == 1, said


async def test_both_processes_serve_and_what_one_hears_the_other_tells(running: RunningSession) -> None:
    await running.whole()
    gateway = str((await running.services())["gateway"].endpoints[0])
    async with (
        viewing(await running.websocket(), VIEWERS) as viewers,
        on_each_worker(running, gateway) as channels,
    ):
        served = apart(running, viewers)
        assert set(served) == set(channels) == set(workers(running))
        assert len(served) == 2  # 20 on one side has a chance of one in half a million
        here, there = served.values()

        one, two = await asyncio.gather(*(grpc_frames(channel, 20) for channel in channels.values()))
        await eventually(lambda: all(len(viewer.positions) > 20 for viewer in viewers))
        sets = [one, two, *(viewer.positions for viewer in viewers)]
        first = sets[2]
        for other in sets:
            common = first.keys() & other.keys()
            assert common
            assert all(first[index] == other[index] for index in common)

        await here[0].write(**{"note.here": 1.0})
        await there[0].write(**{"note.there": 2.0})
        wanted = {"note.here": 1.0, "note.there": 2.0}
        await eventually(lambda: all(wanted.items() <= viewer.state.items() for viewer in viewers))

        locks = state.UpdateLocksRequest()
        locks.lock_keys["note.locked"] = LIMIT_S
        update = state.UpdateStateRequest()
        update.update.changed_keys["note.locked"] = 3.0
        holder, other_channel = channels.values()
        assert await call(holder, "UpdateLocks", locks, state.UpdateLocksResponse)
        assert not await call(other_channel, "UpdateState", update, state.UpdateStateResponse)
        assert await call(holder, "UpdateState", update, state.UpdateStateResponse)
        await eventually(lambda: all(viewer.state.get("note.locked") == 3.0 for viewer in viewers))


async def test_a_killed_process_cuts_its_own_viewers_only_and_comes_back(running: RunningSession) -> None:
    await running.whole()
    url = await running.websocket()
    async with viewing(url, VIEWERS) as viewers:
        served = apart(running, viewers)
        killed, other = served
        workers(running)[killed].kill()
        await eventually(lambda: all(viewer.closed for viewer in served[killed]))
        async with viewing(url, 2) as again:  # at once, whether or not there is a second process already
            await eventually(lambda: all(len(viewer.positions) > 5 for viewer in again))
        before = [len(viewer.positions) for viewer in served[other]]
        await eventually(
            lambda: all(len(v.positions) > then + 5 for v, then in zip(served[other], before, strict=True))
        )
        assert not any(viewer.closed for viewer in served[other])
        await eventually(lambda: len(workers(running)) == 2)
        assert killed not in workers(running)
        assert other in workers(running)
    async with on_each_worker(running, str((await running.services())["gateway"].endpoints[0])) as channels:
        assert set(channels) == set(workers(running))  # the new one serves


@contextlib.contextmanager
def gateway_of(running: RunningSession, folder: Path) -> Iterator[tuple[Running, str]]:
    """Another gateway of two processes in the session, and its WebSocket address."""
    flags = ("--lobby", running.lobby, "--processes=2", "--port=0", "--websocket-port=0", "--log-format=json")
    program = Running((sys.executable, "-m", "narupa_gateway", *flags), folder / "gateway.log")
    try:
        ready = _logged(program, "websocket_ready", 2)
        port = ready[0]["port"]
        assert {entry["port"] for entry in ready} == {port}
        _logged(program, "registered", 2)
        yield program, f"ws://127.0.0.1:{port}"
    finally:
        program.end()


def _logged(program: Running, event: str, times: int) -> list[dict[str, Any]]:
    """The entries of this event, once there are so many."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = []
        for line in program.written().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry["event"] == event:
                    found.append(entry)
        return len(found) >= times

    program.wait_until(look, event)
    return found


async def test_sigterm_ends_all_in_order(running: RunningSession, tmp_path: Path) -> None:
    with gateway_of(running, tmp_path) as (program, url):
        async with viewing(url, 8) as viewers:
            program.kill(signal.SIGTERM)
            await eventually(lambda: all(viewer.closed for viewer in viewers))
            assert {viewer.closed for viewer in viewers} == {"1001: the gateway is stopping; connect again in a moment"}
        assert program.ended(ENDED_WITHIN_S) == 0
        assert not program.processes()
        assert program.written().count('"service_stopped"') == 2


async def test_no_process_outlives_a_killed_parent(running: RunningSession, tmp_path: Path) -> None:
    with gateway_of(running, tmp_path) as (program, url):
        async with viewing(url, 8) as viewers:
            assert len(workers(program)) == 2
            program.kill(signal.SIGKILL)
            await eventually(lambda: all(viewer.closed for viewer in viewers))
            assert {viewer.closed.partition(":")[0] for viewer in viewers} == {"1001"}  # they were told
        program.gone(ENDED_WITHIN_S)
