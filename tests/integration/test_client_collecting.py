"""Frames of a session, collected: as many as are wanted, each once, of one run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import narupa_client
from narupa_client import CollectingStoppedError, CurrentFrame, Session, Subscription
from narupa_client.blocking import LoopThread
from narupa_client.collecting import DEFAULT_LIMIT_BYTES, collect
from narupa_client.testing import FakeTrajectory
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, QuotaError, UnavailableError
from narupa_shared.frames import Frame
from narupa_shared.testing.waiting import until

LIMIT_S = 30.0
COUNT = 4


def whole(run: str = "first", count: int = COUNT) -> Frame:
    topology: dict[str, Any] = {
        keys.PARTICLE_COUNT: float(count),
        keys.ELEMENTS: np.full(count, 18, np.uint32),
        keys.RUN: run,
    }
    return Frame.of(0, {**topology, **moving(0, count)})


def moving(number: int, count: int = COUNT) -> dict[str, Any]:
    return {
        keys.POSITIONS: np.full((count, 3), number, np.float32),
        keys.TIME: 0.5 * number,
        keys.POTENTIAL: -1.0 * number,
    }


def later(number: int) -> Frame:
    return Frame.of(number, moving(number))


@pytest.fixture
async def trajectory() -> AsyncIterator[FakeTrajectory]:
    async with FakeTrajectory() as trajectory:
        trajectory.publish(whole())
        yield trajectory


@pytest.fixture
async def session(trajectory: FakeTrajectory) -> AsyncIterator[Session]:
    async with narupa_client.open(trajectory.address, give_up_after_s=0.2) as session:
        yield session


async def test_every_frame_comes_once(trajectory: FakeTrajectory, session: Session) -> None:
    async with asyncio.timeout(LIMIT_S), trajectory.publishing(later):
        series = await session.collect(12)
    first = series[0].index
    assert [frame.index for frame in series] == list(range(first, first + 12))
    np.testing.assert_array_equal(series.positions[:, 0, 0], np.arange(first, first + 12))
    assert series.to_dataframe()["time_ps"].tolist() == [0.5 * frame.index for frame in series]
    assert series.to_universe().trajectory[3].positions[0, 0] == 10 * (first + 3)
    await until(lambda: not trajectory.subscribers)  # it has left


async def test_every_third_frame(trajectory: FakeTrajectory, session: Session) -> None:
    async with asyncio.timeout(LIMIT_S), trajectory.publishing(later):
        series = await session.collect(5, every=3)
    assert np.diff([frame.index for frame in series]).tolist() == [3] * 4


async def test_for_some_seconds(trajectory: FakeTrajectory, session: Session) -> None:
    async with asyncio.timeout(LIMIT_S):
        await anext(session.frames())  # connected
        series = await session.collect(seconds=2.0)  # nothing more comes, as while it is paused
        assert len(series) == 1
        async with trajectory.publishing(later):
            assert len(await session.collect(2, seconds=LIMIT_S)) == 2


async def test_a_service_with_nothing_to_show_gives_an_empty_series() -> None:
    async with FakeTrajectory() as trajectory, narupa_client.open(trajectory.address) as session:
        series = await session.collect(seconds=0.3)
        assert len(series) == 0
        assert series.to_atoms() == []


async def test_a_reset_ends_it_with_what_there_was(trajectory: FakeTrajectory, session: Session) -> None:
    collecting = asyncio.create_task(session.collect(100))
    await until(lambda: trajectory.subscribers)
    for number in range(1, 5):
        trajectory.publish(later(number))
    trajectory.publish(whole("second"))
    with pytest.raises(CollectingStoppedError, match="another run began after 5 frames") as stopped:
        await asyncio.wait_for(collecting, LIMIT_S)
    assert [frame.index for frame in stopped.value.collected] == [0, 1, 2, 3, 4]
    assert stopped.value.collected.times_ps.tolist() == [0, 0.5, 1, 1.5, 2]


async def test_another_system_ends_it(trajectory: FakeTrajectory, session: Session) -> None:
    collecting = asyncio.create_task(session.collect(100))
    await until(lambda: trajectory.subscribers)
    trajectory.publish(whole(count=7))  # of the same run, as in a recording of a session that loaded another
    with pytest.raises(CollectingStoppedError, match="7 particles instead of 4") as stopped:
        await asyncio.wait_for(collecting, LIMIT_S)
    assert len(stopped.value.collected) == 1


async def test_a_service_that_is_gone_leaves_what_there_was(trajectory: FakeTrajectory, session: Session) -> None:
    opened: list[Subscription[CurrentFrame]] = []

    def subscribe() -> Subscription[CurrentFrame]:
        opened.append(session.frames(mode="all"))
        return opened[0]

    options: Any = {"frames": 100, "seconds": None, "every": 1, "limit_bytes": DEFAULT_LIMIT_BYTES}
    collecting = asyncio.create_task(collect(subscribe, **options))
    await until(lambda: opened and opened[0].received)
    await trajectory.stop()
    with pytest.raises(CollectingStoppedError) as stopped:
        await asyncio.wait_for(collecting, LIMIT_S)
    assert isinstance(stopped.value.__cause__, UnavailableError)
    assert [frame.index for frame in stopped.value.collected] == [0]


async def test_closing_the_session_meanwhile_is_no_silent_end(trajectory: FakeTrajectory) -> None:
    async with narupa_client.open(trajectory.address) as session:
        collecting = asyncio.create_task(session.collect(100))
        await until(lambda: trajectory.subscribers)
    with pytest.raises((CollectingStoppedError, UnavailableError), match="session was closed"):
        await asyncio.wait_for(collecting, LIMIT_S)


async def test_too_many_frames_are_refused_before_they_come(session: Session) -> None:
    with pytest.raises(QuotaError, match=r"10000000 frames of 4 particles need .* and the limit is 1024"):
        await asyncio.wait_for(session.collect(10_000_000), LIMIT_S)


async def test_a_full_memory_leaves_what_there_was(trajectory: FakeTrajectory, session: Session) -> None:
    async with asyncio.timeout(LIMIT_S), trajectory.publishing(later):
        with pytest.raises(CollectingStoppedError, match="limit") as stopped:
            await session.collect(seconds=LIMIT_S, limit_bytes=20_000)
    assert 1 < len(stopped.value.collected) < 6


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("frames", {}),
        ("frames", {"frames": 0}),
        ("frames", {"frames": 2.5}),
        ("frames", {"frames": True}),
        ("seconds", {"seconds": 0}),
        ("seconds", {"seconds": float("nan")}),
        ("seconds", {"frames": 1, "seconds": float("inf")}),
        ("every", {"frames": 1, "every": 0}),
        ("limit_bytes", {"frames": 1, "limit_bytes": -1}),
    ],
)
async def test_what_makes_no_sense_is_named(session: Session, field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await session.collect(**options)
    assert refused.value.field == field


async def test_a_missing_service_is_the_error_itself() -> None:
    async with narupa_client.open("127.0.0.1:1", give_up_after_s=0.1) as session:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(session.collect(3), LIMIT_S)


def test_the_blocking_session_collects_too() -> None:
    thread = LoopThread()
    trajectory = FakeTrajectory()
    try:
        thread.call(trajectory.start())

        async def publish() -> None:
            trajectory.publish(whole())

        thread.call(publish())
        publishing = trajectory.publishing(later)
        thread.call(publishing.__aenter__())
        with narupa_client.connect(trajectory=trajectory.address) as session:
            series = session.collect(3, every=2)
            assert np.diff([frame.index for frame in series]).tolist() == [2, 2]
            assert len(session.collect(seconds=LIMIT_S, frames=1)) == 1
            with pytest.raises(InvalidArgumentError, match="how many"):
                session.collect()
            assert session.wait_frame(LIMIT_S).to_atoms().get_chemical_symbols() == ["Ar"] * COUNT
        thread.call(publishing.__aexit__(None, None, None))
    finally:
        thread.call(trajectory.stop())
        thread.close()
