"""Many viewers in one process, which read and count frames and do nothing else.

`python -m benchmarks.viewers KIND ADDRESS COUNT [BYTES]` connects them: `websocket`, and `deflate`, which asks for compression,
to `ws://ADDRESS`; `grpc`, and `native`, the trajectory service's own protocol, as gRPC clients; `plain` to a socket on which a
frame is that many bytes. Prints `ready` once each has had a frame, and answers each line on standard input with the frames
that each has had, in a line.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final

import grpc.aio
import msgpack
import uvloop
from websockets.asyncio.client import connect

from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as native_trajectory

LATEST: Final = "/narupa.protocol.trajectory.TrajectoryService/SubscribeLatestFrames"
NATIVE: Final = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"
MAX_BYTES: Final = 128 * 1024 * 1024
# Messages start with their first key: a map of one or more items, and a text of five letters.
FRAME: Final = msgpack.packb("frame")


class Viewers:
    """Their counts."""

    def __init__(self, count: int) -> None:
        self.frames = [0] * count
        self.all_have_some = asyncio.Event()

    def had(self, number: int) -> None:
        self.frames[number] += 1
        if self.frames[number] == 1 and all(self.frames):
            self.all_have_some.set()

    async def watch_websocket(self, number: int, address: str, deflate: bool) -> None:
        compression = "deflate" if deflate else None
        async with connect(f"ws://{address}", max_size=MAX_BYTES, compression=compression) as socket:
            async for data in socket:
                if isinstance(data, bytes) and data[1:7] == FRAME:
                    self.had(number)

    async def watch_grpc(self, number: int, address: str, native: bool) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            if native:
                method, request = NATIVE, native_trajectory.SubscribeFramesRequest(frame_interval_s=1 / 30)
            else:
                method, request = LATEST, trajectory.GetFrameRequest(frame_interval=1 / 30)
            async for _ in channel.unary_stream(method)(request.SerializeToString()):
                self.had(number)

    async def watch_plain(self, number: int, address: str, size: int) -> None:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Plain(self, number, size), host, int(port))
        await loop.create_future()


class Plain(asyncio.Protocol):
    """A viewer that counts bytes."""

    def __init__(self, viewers: Viewers, number: int, size: int) -> None:
        self._viewers, self._number, self._size, self._bytes = viewers, number, size, 0

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        while self._bytes >= self._size:
            self._bytes -= self._size
            self._viewers.had(self._number)


def watching(viewers: Viewers, kind: str, number: int, address: str, size: int) -> Coroutine[Any, Any, None]:
    if kind == "plain":
        return viewers.watch_plain(number, address, size)
    if kind in ("grpc", "native"):
        return viewers.watch_grpc(number, address, kind == "native")
    return viewers.watch_websocket(number, address, kind == "deflate")


async def main(kind: str, address: str, count: int, size: int) -> None:
    viewers = Viewers(count)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(watching(viewers, kind, number, address, size))
        await viewers.all_have_some.wait()
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(*viewers.frames, flush=True)
        sys.exit()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int((sys.argv[4:] or ["0"])[0])))
