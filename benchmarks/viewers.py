"""Many viewers in one process, which read and count frames and do nothing else.

`python -m benchmarks.viewers websocket|deflate|grpc ADDRESS COUNT` connects them, the first two kinds to `ws://ADDRESS`, those
that ask for compression being `deflate`. Prints `ready` once each has had a frame, and answers each line on standard input
with the frames that each has had, in a line.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import grpc.aio
import msgpack
import uvloop
from websockets.asyncio.client import connect

from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory

LATEST: Final = "/narupa.protocol.trajectory.TrajectoryService/SubscribeLatestFrames"
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

    async def watch_grpc(self, number: int, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            request = trajectory.GetFrameRequest(frame_interval=1 / 30).SerializeToString()
            async for _ in channel.unary_stream(LATEST)(request):
                self.had(number)


async def main(kind: str, address: str, count: int) -> None:
    viewers = Viewers(count)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            watching = (
                viewers.watch_grpc(number, address)
                if kind == "grpc"
                else viewers.watch_websocket(number, address, kind == "deflate")
            )
            group.create_task(watching)
        await viewers.all_have_some.wait()
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(*viewers.frames, flush=True)
        sys.exit()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
