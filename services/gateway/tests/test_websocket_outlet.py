"""Frames straight on a WebSocket: what arrives at a real client, and what a client that does not read costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from narupa_gateway.websocket_outlet import FrameConnection, header
from narupa_shared.errors import UnavailableError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame
from narupa_shared.nanover_messages import frame_of, unpacked
from narupa_shared.published import Topology

TOPOLOGY = Topology({"particle.count": 3.0})


@pytest.fixture
def broadcaster() -> Broadcaster:
    return Broadcaster(lambda: None)


@pytest.fixture
async def address(broadcaster: Broadcaster) -> AsyncIterator[str]:
    """A server that sends every connection the frames, and says `bye: REASON` when they end."""

    async def handle(connection: ServerConnection) -> None:
        assert isinstance(connection, FrameConnection)
        subscription = broadcaster.subscribe("nanover", "latest", 1 / 30)
        try:
            await connection.follow(subscription)
        except UnavailableError as error:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(f"bye: {error}")
        finally:
            broadcaster.unsubscribe(subscription)

    async with serve(handle, "127.0.0.1", 0, create_connection=FrameConnection, compression=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def publish(broadcaster: Broadcaster, index: int, particles: int) -> None:
    positions = np.full((particles, 3), index, np.float32)
    broadcaster.publish(Frame(index, {}, {"particle.positions": positions}), TOPOLOGY, 1.0 + index / 30)


async def subscribed(broadcaster: Broadcaster, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while len(broadcaster.subscriptions) != count:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("particles", [1, 9, 1_000, 6_000, 100_000])  # header of 2, 4 and 10 bytes; one write, and many
async def test_a_client_reads_the_messages_that_were_written(
    broadcaster: Broadcaster, address: str, particles: int
) -> None:
    async with connect(address, max_size=None, compression=None) as client:
        await subscribed(broadcaster)
        for index in range(1, 4):
            publish(broadcaster, index, particles)
            data = await client.recv()
            assert isinstance(data, bytes)
            read = frame_of(unpacked(data)["frame"])
            positions = read.arrays["particle.positions"]
            assert isinstance(positions, np.ndarray)
            assert read.index == index and np.all(positions == index) and positions.size == 3 * particles


async def test_who_does_not_read_keeps_one_frame_waiting_and_then_has_the_newest(
    broadcaster: Broadcaster, address: str
) -> None:
    async with connect(address, max_size=None, compression=None, max_queue=1) as slow, connect(address):
        await subscribed(broadcaster, 2)
        last = 0
        for last in range(1, 200):  # 240 MB, were they all kept
            publish(broadcaster, last, 100_000)
            await asyncio.sleep(0)
        waiting = [each.slot for each in broadcaster.subscriptions if each.slot is not None]
        assert len(waiting) <= 2 and all(each.frame.index == last for each in waiting)
        seen = []
        async with asyncio.timeout(30):
            while not seen or seen[-1] != last:
                data = await slow.recv()
                assert isinstance(data, bytes)
                seen.append(frame_of(unpacked(data)["frame"]).index)
        assert seen == sorted(seen) and len(seen) < 100


async def test_a_drain_reaches_the_client_behind_its_frames(broadcaster: Broadcaster, address: str) -> None:
    async with connect(address) as client:
        await subscribed(broadcaster)
        publish(broadcaster, 1, 10)
        broadcaster.drain(UnavailableError("stopping"))
        assert isinstance(await client.recv(), bytes)
        assert await client.recv() == "bye: stopping"


async def test_a_client_that_has_gone_is_written_nothing(broadcaster: Broadcaster, address: str) -> None:
    async with connect(address) as client:
        await subscribed(broadcaster)
        (subscription,) = broadcaster.subscriptions
    async with asyncio.timeout(10):
        outlet = subscription._outlet
        assert outlet is not None
        while outlet.ready:
            await asyncio.sleep(0.001)
    publish(broadcaster, 1, 10)
    assert subscription.slot is not None
    broadcaster.drain(UnavailableError("over"))
    await subscribed(broadcaster, 0)
    assert client.close_code == 1000


@pytest.mark.parametrize(
    ("size", "written"),
    [(0, "8200"), (125, "827d"), (126, "827e007e"), (65_535, "827effff"), (65_536, "827f0000000000010000")],
)
def test_headers_are_those_of_rfc_6455(size: int, written: str) -> None:
    assert header(size).hex() == written
