"""The engine waits for the slowest subscriber of every frame, where that is wanted, and for nobody for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from engine_fakes import FakeSource
from engine_service import Service

from narupa_shared.errors import QuotaError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame, decode_frame_response_v1
from narupa_shared.published import Topology
from narupa_shared.subscriptions import MAX_QUEUED
from narupa_trajectory.recorders import Recorders

TOPOLOGY = Topology({"particle.count": 1.0})


class Scene:
    """A producer that makes frames while it may."""

    def __init__(self, wanted: bool = True, patience_s: float = 30.0) -> None:
        self.told: list[bool] = []
        self.broadcaster = Broadcaster(lambda: self.recorders.look())
        self.recorders = Recorders(self.broadcaster, self.hold, wanted, patience_s)
        self.made = 0
        self.goal = 0

    def hold(self, on: bool) -> None:
        self.told.append(on)
        if not on:
            asyncio.get_running_loop().call_soon(self.make, self.goal - self.made)

    def make(self, most: int) -> None:
        """So many frames, some of them later."""
        self.goal = self.made + most
        while self.made < self.goal:
            if self.recorders.waiting:
                return
            self.made += 1
            positions = np.zeros((1, 3), np.float32)
            self.broadcaster.publish(Frame(self.made, {}, {"particle.positions": positions}), TOPOLOGY, 1.0)
            self.recorders.look()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def service(source: FakeSource) -> Iterator[Service]:
    service = Service(source)
    yield service
    service.close()


async def read(stream: AsyncIterator[bytes], count: int) -> None:
    for _ in range(count):
        await asyncio.wait_for(anext(stream), 5)


async def test_the_producer_waits_for_the_slowest_and_no_frame_is_lost() -> None:
    scene = Scene()
    quick, slow = (scene.broadcaster.subscribe("v1", "all", 0.0) for _ in range(2))
    scene.make(1000)
    assert scene.recorders.waiting and scene.made < MAX_QUEUED
    had: list[int] = []

    async def read_all(stream: AsyncIterator[bytes], slowly: bool) -> None:
        for number in range(1, 1001):
            index = decode_frame_response_v1(await asyncio.wait_for(anext(stream), 60)).index
            assert index == number
            had.append(index)
            if slowly and number % 10 == 0:
                await asyncio.sleep(0.001)

    await asyncio.gather(read_all(quick, False), read_all(slow, True))
    assert scene.made == 1000 and len(had) == 2000
    assert scene.told[:3] == [True, False, True]


async def test_nobody_is_waited_for_where_that_is_not_wanted() -> None:
    scene = Scene(wanted=False)
    subscription = scene.broadcaster.subscribe("v1", "all", 0.0)
    scene.make(MAX_QUEUED + 1)
    assert scene.made == MAX_QUEUED + 1 and not scene.told
    with pytest.raises(QuotaError, match="behind"):
        await anext(subscription)


async def test_viewers_of_the_latest_frames_are_never_waited_for() -> None:
    scene = Scene()
    scene.broadcaster.subscribe("v1", "latest", 0.1)
    scene.make(1000)
    assert scene.made == 1000


async def test_who_reads_nothing_at_all_is_ended_and_the_others_go_on() -> None:
    scene = Scene(patience_s=0.05)
    dead, alive = (scene.broadcaster.subscribe("v1", "all", 0.0) for _ in range(2))
    stream = alive
    while not scene.recorders.waiting:
        scene.make(1)
        await read(stream, 1)
    scene.goal = scene.made + 5
    async with asyncio.timeout(10):
        while scene.recorders.waiting:
            await asyncio.sleep(0.005)
    with pytest.raises(QuotaError, match=r"read no frame for 0\.05 s"):
        await anext(dead)
    await read(stream, 5)
    assert alive in scene.broadcaster.subscriptions
    scene.recorders.close()


async def test_a_slow_reader_that_does_read_is_never_given_up() -> None:
    scene = Scene()
    subscription = scene.broadcaster.subscribe("v1", "all", 0.0)
    stream = subscription
    scene.make(1000)
    for _ in range(10):  # one frame in the whole time that it is given
        before = subscription.taken
        await read(stream, 1)
        scene.recorders._give_up({subscription: before})
    assert subscription in scene.broadcaster.subscriptions
    scene.recorders.close()


async def test_that_it_is_wanted_or_not_can_be_changed_while_it_waits() -> None:
    scene = Scene()
    scene.broadcaster.subscribe("v1", "all", 0.0)
    scene.make(1000)
    scene.recorders.wanted = False
    assert scene.told == [True, False] and not scene.recorders.waiting


def test_an_engine_that_waits_stands_and_goes_on_where_it_was(service: Service, source: FakeSource) -> None:
    service.next("statistics")
    service.send(do="wait", on=True)
    for _ in range(2):  # it says that it is alive, however long it waits
        service.next("statistics")
    stood = source.step
    service.next("statistics")
    assert source.step == stood
    service.send(do="wait", on=False)
    service.send(do="want", at=0.0)
    assert service.frame().step >= stood
    service.next("statistics")
    assert source.step > stood
