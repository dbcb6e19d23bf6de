"""A recorded session as a source: whole frames wherever one goes, other systems on the way, its times, and its state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.opening import open_recording
from narupa_shared.recordings.protobuf_records import ProtobufRecordWriter
from narupa_shared.recordings.recording import StateChange
from narupa_trajectory.sources import replay_source
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.recorded import Recorded
from narupa_trajectory.sources.replay_source import ReplaySource, StateTrack

NAMES = {2: ["C", "O"], 3: ["N", "N", "N"]}


def first(particles: int, **values: Any) -> Frame:
    items = {
        "particle.names": NAMES[particles],
        "particle.count": float(particles),
        "bond.pairs": np.array([[0, 1]], np.uint32),
    }
    return Frame.of(0, {**items, "energy.user.total": 0.0, **moving(0, particles, **values).arrays, **values})


def moving(index: int, particles: int, **values: Any) -> Frame:
    return Frame.of(index, {"particle.positions": np.full((particles, 3), index, np.float32), **values})


def session_at(path: Path) -> Path:
    """Two runs: 40 frames of two particles, then 5 of three; times and states of their own."""
    with NanoverZipWriter.create(path) as writer:
        writer.write(0.0, first(2), StateChange({"scene": 0.0}))
        for index in range(1, 40):
            writer.write(index * 0.1, moving(index, 2, **{"system.simulation.time": float(index)}))
            if index % 4 == 0:
                writer.write(index * 0.1 + 0.05, state=StateChange({"avatar.a": float(index)}))
        writer.write(4.5, state=StateChange({}, ("scene",)))
        writer.write(5.0, first(3))
        for index in range(1, 5):
            writer.write(5.0 + index, moving(index, 3))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return session_at(tmp_path / "two.nanover.zip")


Opened = Callable[..., ReplaySource]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens sources, which are closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_one(path: Path, query: str = "") -> ReplaySource:
            source = open_source(SourceSpec.parse(f"{path}{query}"))
            assert isinstance(source, ReplaySource)
            assert isinstance(source, Recorded)
            stack.callback(source.close)
            return source

        yield open_one


def positions(source: ReplaySource) -> Any:
    recorded = source.snapshot().recorded
    assert recorded is not None
    return recorded.arrays["particle.positions"]


def test_it_is_known_by_its_content(path: Path, opened: Opened) -> None:
    source = opened(path)
    assert source.info.name == "two"
    assert source.info.frame_count == 45
    assert source.info.particle_count == 2
    assert not source.info.live
    assert source.info.frame_interval_s == pytest.approx(0.1)
    assert source.topology()["particle.names"] == ["C", "O"]
    assert "particle.positions" not in source.topology()
    copy = path.with_name("copy.nanover.zip")
    copy.write_bytes(path.read_bytes())
    assert opened(copy).info.content_id == source.info.content_id


def test_frames_carry_what_changes_and_not_the_topology(path: Path, opened: Opened) -> None:
    source = opened(path)
    for index in range(40):
        recorded = source.snapshot().recorded
        assert recorded is not None
        assert (positions(source) == index).all()
        assert set(recorded.arrays) == {"particle.positions"}
        assert recorded.values["energy.user.total"] == 0.0
        source.advance(1)


def test_another_system_on_the_way_is_told_once(path: Path, opened: Opened) -> None:
    source = opened(path)
    source.topology()
    counts = []
    while source.advance(1):
        topology = source.take_topology()
        assert source.take_topology() is None
        counts.append(None if topology is None else int(topology["particle.count"]))  # type: ignore[arg-type]
    assert [number for number, count in enumerate(counts, start=1) if count] == [40]
    assert counts[39] == 3
    source.seek(3)
    assert (source.take_topology() or {})["particle.names"] == ["C", "O"]
    assert len(positions(source)) == 2


def test_wherever_one_goes_the_frame_is_the_one_that_was_played(path: Path, opened: Opened) -> None:
    played = opened(path)
    seen = []
    while True:
        seen.append(played.snapshot())
        if not played.advance(1):
            break
    source = opened(path)
    for index in (44, 0, 39, 40, 17, 18, 41, 3):
        source.seek(index)
        for snapshot in (source.snapshot(),):
            assert snapshot.step == index
            one, two = snapshot.recorded, seen[index].recorded
            assert one is not None
            assert two is not None
            assert one.values == two.values
            assert one.arrays.keys() == two.arrays.keys()
            np.testing.assert_array_equal(one.arrays["particle.positions"], two.arrays["particle.positions"])
    peeked = source.peek(42, False).recorded
    assert peeked is not None
    assert peeked.arrays["particle.names"] == ["N", "N", "N"]
    assert source.snapshot().step == 3
    with pytest.raises(NoLongerKeptError):
        source.seek(45)


def test_it_goes_on_at_the_times_at_which_it_was_recorded(path: Path, opened: Opened) -> None:
    source = opened(path)
    elapsed = 0.0
    times = {}
    while True:
        wait_s = source.pace_s(1.0)
        moved = source.move()
        if moved == "end":
            break
        elapsed += wait_s
        if moved == "frame":
            times[source.snapshot().step] = elapsed
    assert times[1] == pytest.approx(0.1)
    assert times[39] == pytest.approx(3.9)
    assert times[44] == pytest.approx(9.0)
    assert wait_s == 1.0  # of its end nothing is known
    assert opened(path, "?speed=4").pace_s(1.0) == pytest.approx(0.025)
    assert opened(path, "?dt=0.5&speed=2").pace_s(1.0) == pytest.approx(0.25)
    assert opened(path, "?loop=false").loops is False


def test_one_seeks_by_time(path: Path, opened: Opened) -> None:
    source = opened(path)
    for time_s, index in ((0.0, 0), (0.25, 2), (3.95, 39), (4.9, 39), (5.0, 40), (1e9, 44)):
        source.seek_time(time_s)
        assert source.snapshot().step == index


def test_the_state_is_that_of_the_time(path: Path, opened: Opened) -> None:
    source = opened(path)
    change = source.take_state()
    assert change == StateChange({"scene": 0.0}, whole=True)
    assert source.take_state() is None
    changes = []
    while source.move() != "end":
        if change := source.take_state():
            changes.append(change)
    assert len(changes) == 10
    assert changes[0] == StateChange({"avatar.a": 4.0})
    assert changes[-1] == StateChange({}, ("scene",))
    source.seek(40)
    assert source.take_state() == StateChange({"avatar.a": 36.0}, whole=True)
    source.seek(10)
    assert source.take_state() == StateChange({"scene": 0.0, "avatar.a": 8.0}, whole=True)
    source.advance(1)
    source.advance(1)
    source.advance(1)
    source.advance(1)
    source.advance(1)
    source.advance(1)
    source.advance(1)
    assert source.take_state() == StateChange({"avatar.a": 16.0})
    source.reset()
    assert source.take_state() == StateChange({"scene": 0.0}, whole=True)


def test_the_state_is_found_fast_and_right_wherever_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_source, "STATE_STRIDE", 7)
    path = tmp_path / "states.nanover.zip"
    chance = np.random.default_rng(5)
    state: dict[str, Any] = {}
    expected = []
    with NanoverZipWriter.create(path) as writer:
        for number in range(100):
            removals = tuple(key for key in list(state) if chance.random() < 0.2)
            change = StateChange({f"k{chance.integers(9)}": float(number)}, removals)
            state = change.applied(state)
            writer.write(number * 0.1, state=change)
            expected.append(state)
    with open_recording(path) as recording:
        track = StateTrack(recording)
        for moment in [*chance.integers(0, 100, 200).tolist(), 0, 99]:
            assert track.at(moment) == expected[moment]


def test_a_checkpoint_is_a_place(path: Path, opened: Opened) -> None:
    source = opened(path)
    source.seek(41)
    other = opened(path)
    other.restore(source.checkpoint())
    assert other.snapshot().step == 41
    with pytest.raises(InvalidArgumentError):
        other.restore(b"frame 45")


def test_what_cannot_be_read_is_left_out(path: Path, opened: Opened) -> None:
    content = bytearray(path.read_bytes())
    with open_recording(path) as recording:
        at = 0
        for number in range(10):
            at = int(recording._start + recording._offsets[number])  # type: ignore[attr-defined]
    content[at] = 0xC1
    path.write_bytes(content)
    source = opened(path)
    steps = []
    while source.advance(1):
        steps.append(positions(source)[0, 0])
    assert len(steps) == 44


def test_records_of_protobuf_with_their_state(tmp_path: Path, path: Path, opened: Opened) -> None:
    with open_recording(path) as recording, ProtobufRecordWriter(tmp_path / "b.traj", tmp_path / "b.state") as writer:
        for moment in recording:
            writer.write(moment.time_s, moment.frame, moment.state)
    (tmp_path / "b.state").rename(tmp_path / "other.state")
    assert opened(tmp_path / "b.traj").take_state() == StateChange(whole=True)
    source = opened(tmp_path / "b.traj", f"?state={tmp_path / 'other.state'}")
    assert source.take_state() == StateChange({"scene": 0.0}, whole=True)
    assert source.info.frame_count == 45
    with pytest.raises(InvalidArgumentError, match="no frames"):
        open_source(SourceSpec.parse(str(tmp_path / "other.state")))
