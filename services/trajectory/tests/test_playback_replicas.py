"""What viewers read at a replica that leads and has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.errors import UnavailableError
from narupa_shared.frames import decode_frame_response_v1
from narupa_shared.published import PublishedFrame
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.connection import EngineSettings
from narupa_trajectory.playback import Playback
from narupa_trajectory.sources.source import Snapshot, SourceInfo
from narupa_trajectory.succession import UNSURE, Succession


class Engine:
    """Remembers what it was told, and does it unless it is down."""

    def __init__(self) -> None:
        self.info = SourceInfo("fake", 2, True)
        self.settings = EngineSettings("", True, 0.0, None, False, 1.0)
        self.told: list[str] = []
        self.down = False

    async def command(self, do: str, on_done: Callable[[], None] | None = None, **arguments: Any) -> bytes:
        if self.down:
            raise UnavailableError("the engine is down")
        self.told.append(do)
        return b""

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


class Scene:
    """A leader in epoch 1 that has shown one frame, at x = 1 nm, and a viewer of it.

    Attributes:
        leads: Whether it may show what its engine does.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.leads = True
        self.engine = Engine()
        self.playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
        self.succession = Succession(self.playback, clock)
        engine: Any = self.engine
        self.playback.engine = engine
        self.playback.may_show = lambda: self.leads
        self.playback.epoch = 1
        self.playback.engine_loaded(engine.info, {}, fresh=True)
        self.moves(1.0)

    def moves(self, x: float) -> None:
        """The engine has made a frame."""
        self.playback.engine_frame(Snapshot(np.full((2, 3), x, np.float32), x, int(x)), urgent=False)

    @property
    def newest(self) -> PublishedFrame:
        assert self.playback.broadcaster.current is not None
        return self.playback.broadcaster.current

    def shows(self, x: float, epoch: int, exception: str | None) -> None:
        """Of the newest frame this is x, nm, the epoch, and what it says of an exception, to whoever has had others."""
        frame = decode_frame_response_v1(self.newest.response("v1"))
        assert np.all(np.asarray(frame.arrays[keys.POSITIONS]) == x)
        assert (frame.values[keys.EPOCH], frame.values.get(keys.EXCEPTION)) == (epoch, exception)


@pytest.fixture
async def scene(clock: FakeClock) -> AsyncIterator[Scene]:
    yield Scene(clock)
    await asyncio.sleep(0)


async def test_a_leader_that_has_to_wait_says_why_and_shows_nothing_new(scene: Scene) -> None:
    scene.shows(1.0, 1, None)
    index = scene.newest.frame.index
    scene.leads = False
    await scene.succession.halt()
    assert scene.engine.told == ["pause"]
    scene.shows(1.0, 1, UNSURE)
    assert scene.newest.frame.index == index + 1
    scene.moves(2.0)  # it was on its way
    scene.shows(1.0, 1, UNSURE)


async def test_it_says_that_it_goes_on(scene: Scene) -> None:
    scene.leads = False
    await scene.succession.halt()
    scene.leads = True
    await scene.succession.go_on()
    assert scene.engine.told == ["pause", "play"]
    scene.moves(2.0)
    scene.shows(2.0, 1, "")


async def test_what_kept_it_from_running_before_is_said_again(scene: Scene) -> None:
    scene.engine.down = True
    scene.playback.engine_failed("no GPU", retrying=False)
    scene.leads = False
    await scene.succession.halt()
    scene.shows(1.0, 1, UNSURE)
    scene.leads = True
    await scene.succession.go_on()
    scene.shows(1.0, 1, "no GPU")


async def test_nothing_is_said_over_a_frame_of_another_system(scene: Scene) -> None:
    scene.playback.engine_loaded(SourceInfo("other", 3, True), {}, fresh=True)
    scene.leads = False
    await scene.succession.halt()
    scene.shows(1.0, 1, None)
