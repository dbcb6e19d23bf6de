"""How long joining takes while many join.

`python -m benchmarks.lobby_join [--store sqlite|memory|redis] [--rate N] [--seconds S]`: joins begin at fixed times, whether or
not earlier ones have been answered (so that a stall counts for all who come during it); each user watches the session for a
while and then leaves. Prints the median, p99 and longest time to the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

from benchmarks.lobbies import channels, lobbies
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

STAY_S = 1.0
CONNECTIONS = 8


async def visit(channel: grpc.aio.Channel, number: int, due: float, times: list[float]) -> None:
    """One user joins at `due` (on the event loop's clock), watches, and leaves."""
    stub = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due - loop.time())
    request = pb.JoinRequest(user_name=f"user {number}", request_id=f"join-{number}")
    reply = await stub.Join(request, timeout=30)
    times.append(loop.time() - due)
    metadata = (("authorization", f"Bearer {reply.token}"),)
    watch = stub.WatchSession(pb.WatchSessionRequest(session_id=reply.session_id), metadata=metadata)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STAY_S):
            while await watch.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
    watch.cancel()
    await stub.Leave(pb.LeaveRequest(), metadata=metadata, timeout=30)


async def measured(store: str, rate: float, seconds: float) -> list[float]:
    """The time to the answer of each join, s."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with lobbies(store, Path(folder)) as running, channels(running, CONNECTIONS) as connections:
            for warm, channel in enumerate(connections):
                await visit(channel, -1 - warm, asyncio.get_running_loop().time(), [])
            begin = asyncio.get_running_loop().time() + 0.2
            async with asyncio.TaskGroup() as group:
                for number in range(int(rate * seconds)):
                    channel = connections[number % len(connections)]
                    group.create_task(visit(channel, number, begin + number / rate, times))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("memory", "sqlite", "redis"), default="sqlite")
    parser.add_argument("--rate", type=float, default=100.0, help="joins per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    began = time.perf_counter()
    times = sorted(asyncio.run(measured(options.store, options.rate, options.seconds)))
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    print(
        f"lobby_join: {options.store}, {options.rate:g} joins/s for {options.seconds:g} s ({len(times)} joins in "
        f"{time.perf_counter() - began:.1f} s with start and stop): median {1000 * statistics.median(times):.1f} ms, "
        f"p99 {1000 * p99:.1f} ms, longest {1000 * times[-1]:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
