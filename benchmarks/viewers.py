"""Many viewers in one process, which count frames, note how old they are, and do nothing else.

`python -m benchmarks.viewers KIND ADDRESS COUNT [BYTES]` connects them: to a WebSocket as `websocket`, `writing`, which show an
avatar there, and `deflate`, which ask for compression; as gRPC clients `grpc`, `native`, the trajectory service's own protocol,
and `packed`, the same with positions to 0.001 nm; `plain` to a socket on which a frame is that many bytes. Prints `ready` once
each has had a frame, and answers each line on standard input with one line of JSON: the frames that each has had, and the ages of
those that have come since, ms. The line `stall` has the first one stop reading.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import msgpack
import uvloop
from websockets.asyncio.client import connect

from benchmarks.light_clients import Client, GrpcClient, PlainClient, WebSocketClient, WritingClient

MAX_BYTES: Final = 128 * 1024 * 1024
WEBSOCKETS: Final = {"websocket": WebSocketClient, "writing": WritingClient}
FRAME: Final = msgpack.packb("frame")


class Viewers:
    """Their counts, and how old their frames were."""

    def __init__(self, count: int) -> None:
        self.frames = [0] * count
        self.ages_ms: list[float] = []
        self.all_have_some = asyncio.Event()
        self.first: Client | None = None

    def had(self, number: int, age_s: float | None) -> None:
        self.frames[number] += 1
        if age_s is not None:
            self.ages_ms.append(1000 * age_s)
        if self.frames[number] == 1 and all(self.frames):
            self.all_have_some.set()

    async def watch_compressed(self, number: int, address: str) -> None:
        async with connect(f"ws://{address}", max_size=MAX_BYTES, compression="deflate") as socket:
            async for data in socket:
                if isinstance(data, bytes) and data[1:7] == FRAME:
                    self.had(number, None)

    async def watch(self, number: int, kind: str, address: str, size: int) -> None:
        had = partial(self.had, number)

        def client() -> Client:
            if kind == "plain":
                return PlainClient(had, size)
            if kind in WEBSOCKETS:
                return WEBSOCKETS[kind](had)
            return GrpcClient(had, kind)

        host, _, port = address.rpartition(":")
        _, made = await asyncio.get_running_loop().create_connection(client, host, int(port))
        if number == 0:
            self.first = made
        await asyncio.get_running_loop().create_future()


def watching(viewers: Viewers, kind: str, number: int, address: str, size: int) -> Coroutine[Any, Any, None]:
    if kind == "deflate":
        return viewers.watch_compressed(number, address)
    return viewers.watch(number, kind, address, size)


async def main(kind: str, address: str, count: int, size: int) -> None:
    viewers = Viewers(count)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(watching(viewers, kind, number, address, size))
        await viewers.all_have_some.wait()
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "stall" and viewers.first is not None:
                viewers.first.stall(True)
            ages, viewers.ages_ms = viewers.ages_ms, []
            print(json.dumps({"frames": viewers.frames, "ages_ms": [round(age, 3) for age in ages]}), flush=True)
        sys.exit()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int((sys.argv[4:] or ["0"])[0])))
