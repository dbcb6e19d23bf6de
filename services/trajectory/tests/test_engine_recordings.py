"""The engine's loop with recordings: their pace, their end, and signs of life while nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from engine_service import Service

from narupa_trajectory.engine import loop
from narupa_trajectory.sources.recorded import Pace
from narupa_trajectory.sources.recording_source import RecordingSource
from narupa_trajectory.sources.source import Snapshot, TopologyValue


class FourFrames:
    """Of one particle, whose x is the frame's number."""

    particle_count = 1

    def __len__(self) -> int:
        return 4

    def topology(self) -> Mapping[str, TopologyValue]:
        return {"particle.count": 1.0}

    def read(self, index: int, velocities: bool) -> Snapshot:
        return Snapshot(np.full((1, 3), index, np.float32), None, index)

    def close(self) -> None:
        pass


Play = Callable[..., Service]


@pytest.fixture
def play() -> Iterator[Play]:
    """Plays the four frames; the loop ends with the test."""
    services: list[Service] = []

    def start(pace: Pace, **settings: Any) -> Service:
        services.append(Service(RecordingSource("four", FourFrames(), "", pace), **settings))  # type: ignore[arg-type]
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_one_that_does_not_loop_stops_at_its_end_and_begins_again(play: Play) -> None:
    service = play(Pace(loops=False, frame_interval_s=0.001))
    service.send(do="every", on=True)
    for _ in range(2):
        seen = []
        while not seen or seen[-1] < 3:
            seen.append(service.frame().step)
        service.next("ended")
        service.send(do="play", id=1)
        assert service.frame().step == 0


def test_one_that_loops_goes_on_for_ever(play: Play) -> None:
    service = play(Pace(frame_interval_s=0.001))
    service.send(do="every", on=True)
    seen = [service.frame().step for _ in range(9)]
    assert seen == [1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_it_stands_as_long_as_it_is_told_to(play: Play) -> None:
    service = play(Pace(speed=0.5, frame_interval_s=0.1))
    service.send(do="every", on=True)
    began = time.monotonic()
    for _ in range(3):
        service.frame()
    assert time.monotonic() - began > 0.39  # the first began to stand a little before


def test_one_in_which_nothing_happens_gives_signs_of_life(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ALIVE_INTERVAL_S", 0.05)
    service = play(Pace(frame_interval_s=3600.0))
    for _ in range(3):
        service.next("alive")


def test_one_steps_and_seeks_while_it_is_paused(play: Play) -> None:
    service = play(Pace(frame_interval_s=0.5), playing=False)
    service.send(do="step", id=1)
    assert service.frame().step == 1
    service.send(do="seek", id=2, index=-1, time_s=1.6)
    assert service.frame().step == 3
    service.send(do="seek", id=3, index=2, time_s=None)
    assert service.frame().step == 2
