"""A simulation that nobody watches pauses itself, and goes on for the next who does, unless a user paused it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from narupa_shared.errors import UnavailableError
from narupa_shared.subscriptions import Subscription
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.connection import EngineSettings
from narupa_trajectory.idle import IdlePause
from narupa_trajectory.playback import Playback


class FakeEngine:
    """Remembers what it was told.

    Attributes:
        asked: Its commands, in order.
        down: Whether commands fail.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False
        self.info = None
        self.settings = EngineSettings("", True, 0.0, None, False, 1.0)

    async def command(self, do: str, on_done: Callable[[], None] | None = None, **arguments: Any) -> bytes:
        if self.down:
            raise UnavailableError("the engine is not running")
        self.asked.append(do)
        if on_done:
            on_done()
        await asyncio.sleep(0)
        return b""

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def playback(clock: FakeClock, engine: FakeEngine) -> Playback:
    playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
    playback.engine = engine  # type: ignore[assignment]
    return playback


@pytest.fixture
def idle(playback: Playback, clock: FakeClock) -> IdlePause:
    return IdlePause(playback, 60.0, clock)


def watch(playback: Playback) -> Subscription:
    return playback.subscribe("v1", "latest", 0.0, "frame_interval_s")


async def gone_idle(idle: IdlePause, playback: Playback, clock: FakeClock) -> None:
    """Nobody has watched for long enough."""
    await idle.look()
    clock.advance(60)
    await idle.look()
    assert playback.idle


async def test_it_pauses_after_a_while_and_goes_on_for_the_next(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    told: list[bool] = []
    playback.on_status = lambda: told.append(playback.idle)
    assert await idle.look() == 60
    clock.advance(59)
    assert await idle.look() == 1
    assert engine.asked == [] and playback.advancing
    clock.advance(1)
    await idle.look()
    assert engine.asked == ["pause"] and playback.idle and playback.playing and not playback.advancing
    assert engine.settings.playing is False  # an engine that is restarted meanwhile pauses, too
    watch(playback)
    assert await idle.look() is None
    assert engine.asked == ["pause", "play"] and playback.advancing and engine.settings.playing is True
    assert told == [True, False]


async def test_it_goes_on_while_somebody_watches(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    first = watch(playback)
    for _ in range(10):
        clock.advance(60)
        assert await idle.look() is None
    playback.broadcaster.unsubscribe(first)
    assert await idle.look() == 60
    clock.advance(59)
    second = watch(playback)  # the time starts over
    await idle.look()
    playback.broadcaster.unsubscribe(second)
    assert await idle.look() == 60
    assert engine.asked == []


async def test_what_a_user_paused_stays_paused(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    await playback.pause()
    for _ in range(3):
        clock.advance(60)
        await idle.look()
    watch(playback)
    await idle.look()
    assert engine.asked == ["pause"] and not playback.idle and not playback.advancing


@pytest.mark.parametrize("command", ["pause", "step"])
async def test_what_a_user_pauses_while_it_pauses_itself_stays_paused(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock, command: str
) -> None:
    await gone_idle(idle, playback, clock)
    await getattr(playback, command)()
    watch(playback)
    await idle.look()
    assert engine.asked == ["pause", command] and not playback.advancing


async def test_a_user_may_let_it_run_unwatched_for_another_while(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    await gone_idle(idle, playback, clock)
    await playback.play()
    assert playback.advancing
    assert await idle.look() == 60
    clock.advance(60)
    await idle.look()
    assert playback.idle and engine.asked == ["pause", "play", "pause"]


async def test_a_pause_at_the_moment_of_the_next_subscriber_holds(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    await gone_idle(idle, playback, clock)
    watch(playback)
    await asyncio.gather(playback.pause(), idle.look())
    assert engine.asked[-1] == "pause" and not playback.advancing and engine.settings.playing is False


async def test_an_engine_that_is_down_is_asked_again(
    idle: IdlePause, playback: Playback, engine: FakeEngine, clock: FakeClock
) -> None:
    await idle.look()
    clock.advance(60)
    engine.down = True
    with pytest.raises(UnavailableError):
        await idle.look()
    assert not playback.idle
    engine.down = False
    await gone_idle(idle, playback, clock)


async def test_the_next_subscriber_is_noticed_at_once(playback: Playback, engine: FakeEngine) -> None:
    idle = IdlePause(playback, 0.05)
    running = asyncio.create_task(idle.run())
    try:
        async with asyncio.timeout(5):
            while not playback.idle:
                await asyncio.sleep(0.01)
            watch(playback)
            while playback.idle:
                await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert engine.asked == ["pause", "play"]


async def test_by_default_it_never_pauses_itself(playback: Playback) -> None:
    assert TrajectoryConfig(port=0).pause_when_idle_s == 0
    await IdlePause(playback, 0.0).run()
