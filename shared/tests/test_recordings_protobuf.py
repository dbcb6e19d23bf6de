"""`.traj` and `.state`: there and back, cut short, damaged; and the same recording in either format."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.opening import open_recording
from narupa_shared.recordings.protobuf_records import MAGIC, ProtobufRecording, ProtobufRecordWriter
from narupa_shared.recordings.recording import Moment, OpenRecording, StateChange


def random_moments(seed: int, count: int = 30) -> list[Moment]:
    """Moments such as sessions have: runs, partial frames, nested state, several at one time."""
    chance = np.random.default_rng(seed)
    moments, time_us, index, particles = [], 0, 0, 3
    for number in range(count):
        frame = state = None
        if chance.random() < 0.7 or number == 0:
            index = 0 if chance.random() < 0.15 else index + 1
            items: dict[str, Any] = {"system.simulation.time": float(chance.normal())}
            if index == 0 or number == 0:
                index, particles = 0, int(chance.integers(1, 6))
                items |= {
                    "particle.elements": chance.integers(0, 118, particles).astype(np.uint32),
                    "particle.names": [f"A{each}" for each in range(particles)],
                    "bond.pairs": chance.integers(0, particles, (particles, 2)).astype(np.uint32),
                    "system.simulation.name": "ünïcode",
                    "my.flag": bool(chance.random() < 0.5),
                }
            items["particle.positions"] = chance.normal(size=(particles, 3)).astype(np.float32)
            frame = Frame.of(index, items)
        if chance.random() < 0.5 or frame is None:
            updates = {
                f"key.{each}": {"list": [1.0, "two", None, True], "deep": {"x": float(chance.normal())}}
                for each in range(2)
            }
            state = StateChange(updates, tuple(f"key.{each}" for each in range(2, 2 + int(chance.integers(0, 3)))))
        moments.append(Moment(time_us * 1e-6, frame, state))
        time_us += int(chance.integers(1, 100_000))
    return moments


def same(one: Moment, two: Moment) -> None:
    assert one.time_s == pytest.approx(two.time_s, abs=1e-9)
    assert (one.frame is None) == (two.frame is None)
    if one.frame is not None and two.frame is not None:
        assert (one.frame.index, one.frame.values) == (two.frame.index, two.frame.values)
        assert one.frame.arrays.keys() == two.frame.arrays.keys()
        for key, array in one.frame.arrays.items():
            np.testing.assert_array_equal(array, two.frame.arrays[key])
    if one.state is None:
        assert two.state is None
        return
    assert two.state is not None
    assert one.state.updates == two.state.updates
    assert set(one.state.removals) == set(two.state.removals)


def put(moments: list[Moment] | OpenRecording, writer: Any) -> None:
    with writer:
        for moment in moments:
            writer.write(moment.time_s, moment.frame, moment.state)


@pytest.mark.parametrize("seed", range(8))
def test_a_recording_is_the_same_in_either_format(tmp_path: Path, seed: int) -> None:
    moments = random_moments(seed)
    put(moments, NanoverZipWriter.create(tmp_path / "a.nanover.zip"))
    with open_recording(tmp_path / "a.nanover.zip") as archive:
        put(archive, ProtobufRecordWriter(tmp_path / "b.traj", tmp_path / "b.state"))
    with open_recording(tmp_path / "b.traj") as records:
        assert isinstance(records, ProtobufRecording)
        put(records, NanoverZipWriter.create(tmp_path / "c.nanover.zip"))
        with open_recording(tmp_path / "c.nanover.zip") as archive:
            assert len(moments) == len(records) == len(archive)
            assert records.contents.indices.tolist() == archive.contents.indices.tolist()
            for one, two, three in zip(moments, records, archive, strict=True):
                same(one, two)
                same(two, three)


def test_frames_or_states_alone(tmp_path: Path) -> None:
    put(random_moments(1), ProtobufRecordWriter(tmp_path / "b.traj", None))
    with open_recording(tmp_path / "b.traj") as frames:
        assert frames.contents.frames.all()
        assert not frames.contents.states.any()
    put(random_moments(1), ProtobufRecordWriter(None, tmp_path / "s.state"))
    with open_recording(tmp_path / "s.state") as states:
        assert states.contents.states.all()
        assert all(moment.frame is None for moment in states)
    with open_recording(tmp_path / "b.traj", tmp_path / "s.state") as both:
        assert both.contents.frames.any()
        assert both.contents.states.any()


def test_a_file_that_was_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    put(random_moments(2), ProtobufRecordWriter(tmp_path / "b.traj", None))
    whole = (tmp_path / "b.traj").read_bytes()
    with open_recording(tmp_path / "b.traj") as recording:
        count = len(recording)
    counts = []
    for size in range(16, len(whole), 7):
        cut = tmp_path / "cut.traj"
        cut.write_bytes(whole[:size])
        with open_recording(cut) as recording:
            counts.append(len(list(recording)))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == count - 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (struct.pack("<QQ", MAGIC, 1), "only version 2"),
        (struct.pack("<QQ", MAGIC, 2**63), "only version 2"),
        (struct.pack("<Q", MAGIC), "the head"),
        (struct.pack("<QQQQQ", MAGIC, 2, 0, 1, 0), "must be microseconds"),
        (b"- of UlmASE-Trajectory", "no recording"),
        (b"", "no recording"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.traj"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"bad\.traj") as caught:
        open_recording(path)
    assert problem in str(caught.value)


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, message in (("a.traj", b"\xff\xff\xff"), ("a.state", b"\x0a\x03\x0a\x01")):
        (tmp_path / name).write_bytes(struct.pack("<QQQQQ", MAGIC, 2, 5, 0, len(message)) + message)
    for name in ("a.traj", "a.state"):
        with (
            open_recording(tmp_path / name) as recording,
            pytest.raises(InvalidArgumentError, match=rf"{name}.*record 0"),
        ):
            recording.read(0)


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"gone\.traj"):
        open_recording(tmp_path / "gone.traj")
