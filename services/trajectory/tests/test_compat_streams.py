"""Streams of existing clients: what they begin with, and that nothing is left of one that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import decode_compat_response
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as pb
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.compat import CompatTrajectoryServicer
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.playback import Playback
from narupa_trajectory.sources.source import Snapshot, SourceInfo


class RunningEngine:
    """Runs, and is asked for frames in vain."""

    info = SourceInfo("fake", 2, True)
    settings = None

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


@pytest.fixture
async def playback() -> AsyncIterator[Playback]:
    """With one frame, of two particles."""
    playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), FakeClock())
    engine: Any = RunningEngine()
    playback.engine = engine
    playback.engine_loaded(engine.info, {}, fresh=True)
    playback.engine_frame(Snapshot(np.ones((2, 3), np.float32), 1.0, 1), urgent=False)
    yield playback
    await asyncio.sleep(0)  # what it has yet to ask the engine


@pytest.mark.parametrize("method", ["SubscribeFrames", "SubscribeLatestFrames"])
async def test_a_stream_begins_with_the_frame_there_is_and_leaves_nothing_when_it_is_closed(
    playback: Playback, method: str
) -> None:
    context: Any = None
    stream = getattr(CompatTrajectoryServicer(playback), method)(pb.GetFrameRequest(), context)
    assert not playback.watched, "nothing happens before it is read"
    frame = decode_compat_response(await anext(stream))
    np.testing.assert_array_equal(frame.arrays[keys.POSITIONS], np.ones((2, 3)))
    (subscription,) = playback.broadcaster.subscriptions
    assert subscription.mode == ("all" if method == "SubscribeFrames" else "latest")
    await stream.aclose()
    assert not playback.watched


async def test_a_bad_interval_is_refused_when_the_stream_is_read(playback: Playback) -> None:
    context: Any = None
    stream = CompatTrajectoryServicer(playback).SubscribeLatestFrames(pb.GetFrameRequest(frame_interval=-1), context)
    with pytest.raises(InvalidArgumentError, match="frame_interval"):
        await anext(stream)
