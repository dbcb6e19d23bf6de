"""A session in which somebody pulls so hard that the simulation blows up: everyone learns who, and goes on without them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame, Session
from narupa_shared.errors import NotFoundError
from tests.e2e.sessions import LIMIT_S, RunningSession, first, real_input, session

pytestmark = pytest.mark.e2e

PRESENT = "energy.potential", "energy.kinetic", "energy.user.total", "forces.user.work_done"


class Watcher:
    """Reads every frame that is sent to one user, and checks that each is sound."""

    def __init__(self, client: Session) -> None:
        self.client = client
        self.seen: list[CurrentFrame] = []
        self.bad: list[str] = []
        self._news = asyncio.Event()

    async def read(self) -> None:
        async with self.client.frames(mode="all") as frames:
            async for frame in frames:
                self.bad += unsound(frame)
                self.seen.append(frame)
                self._news.set()

    async def until(self, condition: Callable[[CurrentFrame], object], after: int = 0) -> int:
        """The place among those seen, from `after` on, of the first that meets the condition."""
        place = after
        async with asyncio.timeout(LIMIT_S):
            while True:
                for place in range(place, len(self.seen)):  # noqa: B020
                    if condition(self.seen[place]):
                        return place
                place = len(self.seen)
                self._news.clear()
                await self._news.wait()


def unsound(frame: CurrentFrame) -> list[str]:
    """The keys of `frame` that hold what is not finite."""
    numbers = [key for key, value in frame.values.items() if isinstance(value, float) and not math.isfinite(value)]
    arrays = {key: array for key, array in frame.arrays.items() if isinstance(array, np.ndarray)}
    return numbers + [key for key, array in arrays.items() if not np.isfinite(array).all()]


@contextlib.asynccontextmanager
async def watching(running: RunningSession, name: str) -> AsyncIterator[Watcher]:
    async with narupa_client.join(running.lobby, name) as client:
        watcher = Watcher(client)
        task = asyncio.create_task(watcher.read())
        try:
            await watcher.until(lambda frame: frame.time_ps)
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("mode", ["stop", "resume"])
async def test_who_pulls_the_simulation_apart_is_taken_out_of_it(tmp_path: Path, mode: str) -> None:
    with session(tmp_path, real_input("17-ala.xml"), NARUPA_TRAJECTORY_ON_BLOW_UP=mode) as running:
        async with watching(running, "Ada") as ada, watching(running, "Bob") as bob:
            start = ada.seen[-1].positions[0]
            async with ada.client.pull([0], start + 0.1, scale=10.0, id="sane") as sane:
                await ada.until(lambda frame: "sane" in frame.interactions)
                await asyncio.sleep(1.2)  # a checkpoint is taken each second
                begun = len(ada.seen)
                wild = bob.client.pull([40], [50.0, 0.0, 0.0], scale=1e9, max_force=math.inf, id="wild")
                with pytest.raises(NotFoundError, match="blow up"):  # its owner is told
                    async with wild as pull:
                        await pull.hold(LIMIT_S)
                for watcher in (ada, bob):
                    place = await watcher.until(lambda frame: frame.exception)
                    told = watcher.seen[place]
                    assert f"interaction wild of {bob.client.user_id} made the simulation blow up" in str(
                        told.exception
                    )
                    assert np.array_equal(told.positions, watcher.seen[place - 1].positions)  # the last good frame
                if mode == "stop":
                    stands = len(ada.seen)
                    await asyncio.sleep(0.3)
                    assert len(ada.seen) == stands
                    assert "playback/play goes on without it" in str(ada.seen[-1].exception)
                    await ada.client.run_command("playback/play")
                place = await ada.until(lambda frame: not frame.exception and frame.interactions, after=begun + 1)
                place = await ada.until(lambda frame: not frame.exception, after=len(ada.seen))
                after = ada.seen[place]
                assert set(after.interactions) == {"sane"}
                assert sane.active
                assert len(after.user_forces.indices) == 1
                assert after.temperature is not None
                assert after.temperature < 1000
                later = await ada.until(lambda frame: (frame.time_ps or 0) > (after.time_ps or 0), after=place)
                assert ada.seen[later].values["system.simulation.counter"] == told.values["system.simulation.counter"]
            accounts = {}
            async with ada.client.finished_interactions() as finished, asyncio.timeout(LIMIT_S):
                async for item in finished:
                    assert item.id not in accounts
                    accounts[item.id] = item
                    if len(accounts) == 2:
                        break
            assert accounts["wild"].owner == bob.client.user_id
            assert "blow up" in accounts["wild"].reason
            assert accounts["sane"].reason == ""
            assert accounts["sane"].owner == ada.client.user_id
            assert ada.bad == bob.bad == []
            assert await first(ada.client.frames(), lambda frame: not frame.interactions)
        running.interrupt()
        running.gone(within_s=LIMIT_S)
