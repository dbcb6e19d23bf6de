"""What everyone is told of a blow-up, and how long; what frames and logs say of each interaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame, decode_compat_response, decode_frame_response_v1
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.connection import EngineSettings
from narupa_trajectory.engine.supervisor import BlowUp
from narupa_trajectory.playback import BLOW_UP_TOLD_S, Playback
from narupa_trajectory.sources.source import Snapshot, SourceInfo

STOPPED = BlowUp("bomb", "bob", "the potential energy is nan kJ/mol", 12.3456, 11.5, restored=True, playing=False)
GOES_ON = BlowUp("bomb", "bob", "the potential energy is nan kJ/mol", 12.3456, 11.5, restored=True, playing=True)


class WillingEngine:
    """Does what it is told, at once."""

    def __init__(self) -> None:
        self.info = SourceInfo("fake", 2, True)
        self.settings = EngineSettings("", True, 0.0, None, False, 1.0)

    async def command(self, do: str, on_done: Callable[[], None] | None = None, **arguments: Any) -> bytes:
        if on_done:
            on_done()
        return b""

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


@pytest.fixture
async def playback(clock: FakeClock) -> AsyncIterator[Playback]:
    playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
    engine: Any = WillingEngine()
    playback.engine = engine
    playback.engine_loaded(engine.info, {}, fresh=True)
    playback.engine_frame(snapshot(1.0), urgent=False)
    yield playback
    await asyncio.sleep(0)


def snapshot(x: float, **more: Any) -> Snapshot:
    return Snapshot(np.full((2, 3), x, np.float32), 1.0, 1, **more)


def newest(playback: Playback) -> Frame:
    assert playback.broadcaster.current is not None
    return playback.broadcaster.current.frame


def exception(playback: Playback) -> str:
    return str(newest(playback).values[keys.EXCEPTION])


async def test_everyone_keeps_the_last_good_frame_and_is_told_who_when_and_what_to_do(playback: Playback) -> None:
    subscription = playback.subscribe("v1", "latest", 60.0, "frame_interval_s")  # not due anything for long
    responses = subscription
    await anext(responses)
    ended: list[tuple[str, str]] = []
    playback.on_ended = lambda id, reason: ended.append((id, reason))
    playback.engine_blew_up(STOPPED)
    frame = decode_frame_response_v1(await anext(responses))
    np.testing.assert_array_equal(frame.arrays[keys.POSITIONS], np.ones((2, 3)))
    assert frame.values[keys.EXCEPTION] == (
        "interaction bomb of bob made the simulation blow up at 12.346 ps and has been taken out of it (the potential "
        "energy is nan kJ/mol); playback/play goes on without it from the checkpoint at 11.500 ps, playback/reset starts over"
    )
    assert not playback.playing
    assert not playback.engine.settings.playing  # type: ignore[union-attr]
    assert ended == [("bomb", "it made the simulation blow up at 12.346 ps: the potential energy is nan kJ/mol")]
    assert playback.blow_ups == 1
    assert playback.exception
    playback.broadcaster.unsubscribe(subscription)


@pytest.mark.parametrize("command", ["play", "step"])
async def test_going_on_clears_the_exception_for_everyone(playback: Playback, command: str) -> None:
    playback.engine_blew_up(STOPPED)
    await playback.pause()
    assert playback.exception
    await getattr(playback, command)()
    assert playback.exception == ""
    assert playback.playing == (command == "play")
    playback.engine_frame(snapshot(2.0), urgent=False)
    assert exception(playback) == ""


async def test_a_reset_clears_the_exception_too(playback: Playback) -> None:
    playback.engine_blew_up(STOPPED)
    playback.engine_reset()
    assert playback.exception == ""
    assert not playback.playing


async def test_a_simulation_that_goes_on_by_itself_tells_of_it_for_a_while(
    playback: Playback, clock: FakeClock
) -> None:
    playback.engine_blew_up(GOES_ON)
    assert playback.playing
    assert exception(playback).endswith("the simulation goes on without it from the checkpoint at 11.500 ps")
    clock.advance(BLOW_UP_TOLD_S / 2)
    playback.engine_frame(snapshot(2.0), urgent=False)
    assert "bob" in exception(playback)
    clock.advance(BLOW_UP_TOLD_S)
    playback.engine_frame(snapshot(3.0), urgent=False)
    assert exception(playback) == playback.exception == ""


def test_an_engine_that_cannot_go_back_is_not_said_to_have() -> None:
    told = BlowUp("bomb", "", "it is hot", None, None, restored=False, playing=False).sentence()
    assert told == (
        "interaction bomb of somebody unknown made the simulation blow up and has been taken out of it (it is hot); "
        "playback/play goes on without it from where it is, since this engine cannot go back"
    )


async def test_only_a_blow_up_s_exception_is_cleared_by_playing(playback: Playback) -> None:
    playback.engine_failed("the engine was killed by SIGKILL; restarting", retrying=True)
    await playback.play()
    assert playback.exception


async def test_every_frame_has_each_interaction_s_numbers_in_both_forms(playback: Playback) -> None:
    assert newest(playback).arrays[keys.INTERACTION_IDS] == []
    assert newest(playback).arrays[keys.INTERACTION_FORCES].shape == (0, 3)  # type: ignore[union-attr]
    given = {
        "interaction_ids": ("a", "b"),
        "interaction_energies": np.array([1.5, 2.5]),
        "interaction_work": np.array([-1.0, 4.0]),
        "interaction_forces": np.arange(6.0).reshape(2, 3),
    }
    playback.engine_frame(snapshot(2.0, **given), urgent=False)
    published = playback.broadcaster.current
    assert published is not None
    native = decode_frame_response_v1(published.response("v1"))
    for frame in (native, decode_compat_response(published.response("compat"))):
        assert frame.arrays[keys.INTERACTION_IDS] == ["a", "b"]
        for key, name in (
            (keys.INTERACTION_ENERGIES, "interaction_energies"),
            (keys.INTERACTION_WORK, "interaction_work"),
            (keys.INTERACTION_FORCES, "interaction_forces"),
        ):
            np.testing.assert_array_equal(frame.arrays[key], given[name])
            assert frame.arrays[key].dtype == np.float32  # type: ignore[union-attr]
    playback.engine_frame(snapshot(3.0), urgent=False)
    assert newest(playback).arrays[keys.INTERACTION_WORK].shape == (0,)  # type: ignore[union-attr]


async def test_a_finished_interaction_is_reported_and_logged(playback: Playback) -> None:
    account = FinishedInteraction("pull", "ann", "spring", (3, 4), 100.0, 2.0, 1.0, 3.5, 42.5)
    with capture_logs() as lines:
        playback.engine_finished([account])
    assert [(report.account, report.run_id) for report in playback.reports.after()] == [(account, playback.run_id)]
    (line,) = lines
    assert line["event"] == "interaction_finished"
    told = ("id", "owner", "potential", "particles", "start_time_ps", "end_time_ps", "duration_s", "work", "reason")
    assert [line[key] for key in told] == ["pull", "ann", "spring", 2, 1.0, 3.5, 2.0, 42.5, ""]


async def test_an_interaction_that_the_engine_refuses_is_ended(playback: Playback) -> None:
    ended: list[tuple[str, str]] = []
    playback.on_ended = lambda id, reason: ended.append((id, reason))
    playback.engine_refused("pull", "unknown potential")
    assert ended == [("pull", "the simulation refuses it: unknown potential")]
