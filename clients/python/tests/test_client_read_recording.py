"""Recordings as series, for the analysis that comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narupa_client import read_recording
from narupa_shared import frame_keys as keys
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.recording import StateChange


def items(number: int, count: int = 3) -> dict[str, Any]:
    topology = {keys.PARTICLE_COUNT: float(count), keys.ELEMENTS: np.full(count, 8, np.uint32)}
    moving = {keys.POSITIONS: np.full((count, 3), number, np.float32), keys.TIME: 0.25 * number}
    return {**topology, **moving} if number == 0 else moving


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Ten frames, changes of the state between them, and then four of another system."""
    path = tmp_path / "run.nanover.zip"
    with NanoverZipWriter.create(path) as writer:
        for number in range(10):
            writer.write(number * 0.1, Frame.of(number, items(number)))
            writer.write(number * 0.1 + 0.05, state=StateChange({"count": float(number)}))
        for number in range(4):
            writer.write(2 + number * 0.1, Frame.of(number, items(number, 5)))
    return path


def test_the_frames_that_are_wanted_are_whole(recorded: Path) -> None:
    series = read_recording(recorded, 2, 10, every=3)
    assert series.times_ps.tolist() == [0.5, 1.25, 2.0]
    assert series.positions[:, 0, 0].tolist() == [2, 5, 8]
    assert series[0].elements is not None and series[0].elements.tolist() == [8, 8, 8]
    assert series.to_universe().trajectory[1].positions[0, 0] == 50


def test_each_system_is_a_series(recorded: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"frame 10 of run\.nanover\.zip: another run .* start and stop"):
        read_recording(recorded)
    assert len(read_recording(str(recorded), stop=10)) == 10
    second = read_recording(recorded, 10)
    assert (len(second), second.particle_count) == (4, 5)
    assert len(read_recording(recorded, 99)) == 0


def test_what_cannot_be_read_is_said(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no recording")
    with pytest.raises(InvalidArgumentError, match=r"notes\.txt.*no recording"):
        read_recording(tmp_path / "notes.txt")
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        read_recording(tmp_path / "none.nanover.zip")
    for options in ({"start": -1}, {"every": 0}, {"stop": 0}, {"limit_bytes": 0}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            read_recording(recorded, **options)  # type: ignore[arg-type]
    with pytest.raises(QuotaError, match="limit"):
        read_recording(recorded, limit_bytes=10_000)
