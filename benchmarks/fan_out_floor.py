"""What our fan-out adds to the libraries that it sends with: delivery per CPU-second as a share of the least that they allow.

`python -m benchmarks.fan_out_floor [--viewers N] [--atoms N] [--rounds N]`

In one process, by the CPU time of its one thread: frames that are published to so many viewers, and the same bytes given to
the same library by a loop that does nothing else, in turns. The viewers are another process. For WebSockets the least is a
write to each transport of uvloop; for gRPC a stream of grpc.aio for each viewer that yields the bytes. Both sides of a ratio
are made of the same things, so it is about the same on any machine; a test holds it to what it was. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc.aio
import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.figures import Figure, note
from narupa_gateway.websocket_outlet import FrameConnection, header
from narupa_shared import frame_keys as keys
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2
from narupa_shared.published import Form, Topology
from narupa_shared.rpc_errors import ErrorInterceptor
from narupa_shared.rpc_services import generic_handler

FRAMES: Final = 40  # in a slice
GAP_S: Final = 0.004  # for the viewers to read a frame in
SERVICE: Final = trajectory_pb2.DESCRIPTOR.services_by_name["TrajectoryService"]
Slice = Callable[[], Awaitable[float]]


class Frames:
    """Frames that are published, and as many bytes."""

    def __init__(self, form: Form, atoms: int) -> None:
        self.form = form
        self.broadcaster = Broadcaster(lambda: None)
        self._topology = Topology({keys.PARTICLE_COUNT: float(atoms)})
        self._positions = np.random.default_rng(1).uniform(0, 5, (atoms, 3)).astype(np.float32)
        self._index = 0
        self.publish()
        assert self.broadcaster.current is not None
        self.bytes = self.broadcaster.current.response(form)

    def publish(self) -> None:
        self._index += 1
        frame = Frame(self._index, {keys.TIME: 0.01 * self._index}, {keys.POSITIONS: self._positions})
        self.broadcaster.publish(frame, self._topology, time.monotonic(), urgent=True)


async def slice_of(send: Callable[[], None]) -> float:
    """CPU time of this thread for so many frames, s."""
    used = time.thread_time()
    for _ in range(FRAMES):
        send()
        await asyncio.sleep(GAP_S)
    return time.thread_time() - used


@contextlib.asynccontextmanager
async def viewers(kind: str, port: int, count: int) -> AsyncIterator[None]:
    """They are connected."""
    command = [sys.executable, "-m", "benchmarks.viewers", kind, f"127.0.0.1:{port}", str(count)]
    # Not asyncio's way, which forks: gRPC's threads would not survive that.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        assert process.stdout
        try:
            if await asyncio.to_thread(process.stdout.readline) != b"ready\n":
                raise RuntimeError("the viewers ended")
            yield
        finally:
            process.kill()


async def compared(ours: Callable[[], None], least: Callable[[], None], rounds: int) -> float:
    """The least over ours, median of neighbouring slices."""
    await slice_of(ours), await slice_of(least)
    return statistics.median([await slice_of(least) / await slice_of(ours) for _ in range(rounds)])


async def websocket(atoms: int, count: int, rounds: int) -> float:
    frames = Frames("nanover", atoms)
    connections: list[FrameConnection] = []

    async def handle(connection: ServerConnection) -> None:
        assert isinstance(connection, FrameConnection)
        connections.append(connection)
        subscription = frames.broadcaster.subscribe("nanover", "latest", 1 / 30)
        try:
            await connection.follow(subscription)
        finally:
            frames.broadcaster.unsubscribe(subscription)

    def least() -> None:
        for connection in connections:
            connection.transport.writelines((header(len(frames.bytes)), frames.bytes))

    async with (
        serve(handle, "127.0.0.1", 0, create_connection=FrameConnection, compression=None) as server,
        viewers("websocket", next(iter(server.sockets)).getsockname()[1], count),
    ):
        return await compared(frames.publish, least, rounds)


class Servicer:
    """Streams of frames as the trajectory service has them, or of bytes that somebody has."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self.next: asyncio.Future[bytes] | None = None

    async def SubscribeFrames(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        subscription = self._frames.broadcaster.subscribe("v1", "latest", 1 / 30)
        try:
            async for response in subscription:
                yield response
        finally:
            self._frames.broadcaster.unsubscribe(subscription)


class BareServicer:
    """The least that a stream can be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def send(self) -> None:
        sent, self._next = self._next, asyncio.get_running_loop().create_future()
        sent.set_result(self._data)

    async def SubscribeFrames(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield self._data
        while True:
            yield await asyncio.shield(self._next)


async def native(atoms: int, count: int, rounds: int) -> float:
    frames = Frames("v1", atoms)
    bare = BareServicer(frames.bytes)
    async with contextlib.AsyncExitStack() as stack:
        for servicer, interceptors in ((Servicer(frames), [ErrorInterceptor()]), (bare, [])):
            server = grpc.aio.server(interceptors=interceptors)
            server.add_generic_rpc_handlers([generic_handler(SERVICE, servicer)])
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            await stack.enter_async_context(viewers("native", port, count))
        return await compared(frames.publish, bare.send, rounds)


async def main(atoms: int, count: int, rounds: int) -> None:
    shares = {"websocket": await websocket(atoms, count, rounds), "native": await native(atoms, count, rounds)}
    for kind, share in shares.items():
        note(Figure("fan_out_floor", f"{kind}, share of the least its library allows, {count} viewers", share))
    print(json.dumps({kind: round(share, 3) for kind, share in shares.items()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--atoms", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    uvloop.run(main(options.atoms, options.viewers, options.rounds))
