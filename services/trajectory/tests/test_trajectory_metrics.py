"""What Prometheus reads of the trajectory service."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.supervisor import BlowUp
from narupa_trajectory.metrics import published_metrics
from narupa_trajectory.playback import Playback
from narupa_trajectory.sources.source import Snapshot, SourceInfo


class Engine:
    """One that runs, or does not."""

    def __init__(self) -> None:
        self.info: SourceInfo | None = None
        self.settings = None
        self.pid: int | None = None
        self.steps_per_second = 250.0
        self.restarts = 2
        self.interactions_acting = 3

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def playback(clock: FakeClock, engine: Engine) -> Playback:
    playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
    replaced: Any = engine
    playback.engine = replaced
    return playback


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"narupa_trajectory_{name}", labels)


def state() -> str:
    states = ("starting", "running", "paused", "idle", "failed", "elsewhere")
    (found,) = [each for each in states if value("engine_state", state=each)]
    return found


async def test_the_engine_is_in_one_state(playback: Playback, engine: Engine) -> None:
    with published_metrics(playback):
        assert state() == "starting"
        engine.info = SourceInfo("fake", 2, True)
        assert state() == "running"
        playback.idle = True
        assert state() == "idle"
        playback.playing = playback.idle = False
        assert state() == "paused"
        playback.failed = True
        assert state() == "failed"
    assert value("engine_state", state="failed") is None


async def test_what_has_not_been_has_no_age(playback: Playback, engine: Engine, clock: FakeClock) -> None:
    engine.info = info = SourceInfo("fake", 2, True)
    with published_metrics(playback):
        assert value("frame_age_seconds") is None and value("checkpoint_age_seconds") is None
        playback.engine_loaded(info, {"particle.count": 2.0}, fresh=True)
        playback.engine_frame(Snapshot(np.zeros((2, 3), np.float32), 1.0, 10), urgent=False)
        clock.advance(5)
        playback.checkpoint_made(b"block", 1.0)
        clock.advance(2)
        assert (value("frame_age_seconds"), value("checkpoint_age_seconds")) == (7, 2)
        playback.info, loaded = None, playback.info
        assert value("checkpoint_age_seconds") is None, "no engine runs"
        playback.info = loaded
        playback.engine_reset()
        assert value("checkpoint_age_seconds") is None, "it was of a run that is over"


async def test_the_engine_s_own_figures(playback: Playback, engine: Engine) -> None:
    engine.info = info = SourceInfo("fake", 2, True)
    with published_metrics(playback):
        playback.engine_loaded(info, {"particle.count": 2.0}, fresh=True)
        playback.engine_blew_up(BlowUp("a", "ada", "nan", None, None, restored=True, playing=True))
        assert (value("steps_per_second"), value("engine_restarts_total")) == (250, 2)
        assert value("waiting_for_recorders") == 0
        playback.recorders.waiting = True
        assert value("waiting_for_recorders") == 1
        assert (value("interactions"), value("particles"), value("blow_ups_total")) == (3, 2, 1)


async def test_how_late_a_frame_is_counts_once_whoever_reads_it(playback: Playback, engine: Engine) -> None:
    engine.info = info = SourceInfo("fake", 2, True)
    before = value("frame_lag_seconds_count") or 0.0
    with published_metrics(playback):
        playback.engine_loaded(info, {"particle.count": 2.0}, fresh=True)
        readers = [playback.subscribe("v1", mode, 0.1, "interval") for mode in ("latest", "latest", "all")]
        snapshot = Snapshot(np.zeros((2, 3), np.float32), 1.0, 10)
        snapshot.taken_at = 0.0
        playback.engine_frame(snapshot, urgent=False)
        for reader in readers:
            assert await anext(reader)
        assert value("frame_lag_seconds_count") == before + 1
        assert value("frames_sent_total") == 3 and value("frames_encoded_total") == 1
        assert value("subscribers", mode="latest", form="v1") == 2
        assert value("subscribers", mode="all", form="v1") == 1
