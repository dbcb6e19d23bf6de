"""Recordings to the files of other programs and back, each number within what the format keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narupa_client.conversion.converting import Converted, Wanted, convert
from narupa_shared import frame_keys as keys
from narupa_shared.errors import AlreadyExistsError, InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.opening import open_recording
from narupa_shared.recordings.recording import Moment, StateChange

COUNT = 12
TOPOLOGY: dict[str, Any] = {
    keys.PARTICLE_COUNT: float(COUNT),
    keys.ELEMENTS: np.array([6, 8, 1] * 4, np.uint32),
    keys.NAMES: ["CA", "O", "H"] * 4,
    keys.RESIDUES: np.repeat([0, 1], 6).astype(np.uint32),
    keys.RESIDUE_COUNT: 2.0,
    keys.RESIDUE_NAMES: ["ALA", "GLY"],
    keys.RESIDUE_IDS: ["5", "6"],
    keys.RESIDUE_CHAINS: np.array([0, 0], np.uint32),
    keys.CHAIN_COUNT: 1.0,
    keys.CHAIN_NAMES: ["B"],
    keys.BOND_PAIRS: np.array([[0, 1], [0, 2], [6, 7]], np.uint32),
}
BOX = np.array([[3.0, 0, 0], [0.5, 3.2, 0], [0.3, -0.4, 3.5]], np.float32)


def moving(number: int) -> dict[str, Any]:
    chance = np.random.default_rng(number)
    return {
        keys.POSITIONS: chance.normal(size=(COUNT, 3)).astype(np.float32),
        keys.VELOCITIES: chance.normal(size=(COUNT, 3)).astype(np.float32),
        keys.FORCES: (chance.normal(size=(COUNT, 3)) * 100).astype(np.float32),
        keys.BOX: BOX * np.float32(1 + 0.01 * number),
        keys.TIME: 2.0 + 0.5 * number,
        keys.POTENTIAL: -100.0 + number,
    }


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "run.nanover.zip"
    with NanoverZipWriter.create(path) as writer:
        for number in range(10):
            items = {**TOPOLOGY, **moving(number)} if number == 0 else moving(number)
            writer.write(number * 0.25, Frame.of(number, items), StateChange({"count": float(number)}))
        writer.write(2.5, state=StateChange({"late": 1.0}, ("count",)))
    return path


def read(path: Path) -> list[Moment]:
    with open_recording(path) as recording:
        return list(recording)


def frames(path: Path) -> list[Frame]:
    """Whole frames."""
    whole, found = Frame(), []
    for moment in read(path):
        if moment.frame is not None:
            whole = moment.frame if moment.frame.index == 0 else whole.overlaid(moment.frame)
            found.append(whole)
    return found


def close(found: Frame, number: int, which: dict[str, float], select: Any = slice(None)) -> None:
    """The frame has these arrays, each within its tolerance."""
    for key, tolerance in which.items():
        wanted = moving(number)[key]
        wanted = wanted[select] if key != keys.BOX else wanted
        np.testing.assert_allclose(found.arrays[key], wanted, atol=tolerance, rtol=2e-6, err_msg=key)


# What each format keeps, nm, nm/ps, kJ/(mol nm); XTC has thousandths of a nm, PDB of an Å.
FORMATS: dict[str, dict[str, float]] = {
    "out.xtc": {keys.POSITIONS: 5.1e-4, keys.BOX: 1e-5},
    "out.dcd": {keys.POSITIONS: 1e-6, keys.BOX: 1e-5},
    "out.trr": {keys.POSITIONS: 1e-6, keys.BOX: 1e-5, keys.VELOCITIES: 1e-6, keys.FORCES: 1e-4},
    "out.h5md": {keys.POSITIONS: 1e-6, keys.BOX: 1e-5, keys.VELOCITIES: 1e-6, keys.FORCES: 1e-4},
    "out.pdb": {keys.POSITIONS: 5.1e-5},
    "out.extxyz": {keys.POSITIONS: 1e-6, keys.BOX: 1e-6, keys.VELOCITIES: 1e-6, keys.FORCES: 1e-4},
    "out.xyz": {keys.POSITIONS: 1e-6, keys.BOX: 1e-6, keys.VELOCITIES: 1e-6, keys.FORCES: 1e-4},
}


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(tmp_path: Path, recorded: Path, name: str) -> None:
    out, back = tmp_path / name, tmp_path / "back.nanover.zip"
    done = convert(recorded, out)
    assert done.frames == 10
    assert done.files[0] == out
    assert any("shared state" in notice for notice in done.notices)
    assert convert(out, back).frames == 10
    found = frames(back)
    assert len(found) == 10
    for number, frame in enumerate(found):
        assert frame.index == number
        close(frame, number, FORMATS[name])
        np.testing.assert_array_equal(frame.arrays[keys.ELEMENTS], TOPOLOGY[keys.ELEMENTS])
        if name != "out.pdb":
            assert frame.values[keys.TIME] == pytest.approx(2.0 + 0.5 * number, abs=1e-4) or name == "out.dcd"
        if not name.endswith("xyz"):
            assert frame.arrays[keys.NAMES] == TOPOLOGY[keys.NAMES]
            assert frame.arrays[keys.RESIDUE_NAMES] == ["ALA", "GLY"]
            assert frame.arrays[keys.RESIDUE_IDS] == ["5", "6"]
            np.testing.assert_array_equal(frame.arrays[keys.BOND_PAIRS], TOPOLOGY[keys.BOND_PAIRS])
        else:
            assert frame.values[keys.POTENTIAL] == pytest.approx(-100.0 + number)
    assert [moment.time_s for moment in read(back)] == pytest.approx([number / 30 for number in range(10)], abs=1e-6)
    later = read(back)[1].frame
    assert later is not None
    assert keys.NAMES not in later.arrays  # the topology is there once


def test_times_of_a_dcd_are_as_far_apart_as_they_were(tmp_path: Path, recorded: Path) -> None:
    convert(recorded, tmp_path / "out.dcd")
    convert(tmp_path / "out.dcd", tmp_path / "back.nanover.zip")
    times = [float(frame.values[keys.TIME]) for frame in frames(tmp_path / "back.nanover.zip")]
    np.testing.assert_allclose(np.diff(times), 0.5, atol=1e-4)


def test_between_recordings_nothing_is_lost(tmp_path: Path, recorded: Path) -> None:
    done = convert(recorded, tmp_path / "out.traj")
    assert done.files == [tmp_path / "out.traj", tmp_path / "out.state"]
    convert(tmp_path / "out.traj", tmp_path / "back.nanover.zip")
    before, after = read(recorded), read(tmp_path / "back.nanover.zip")
    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        assert one.time_s == two.time_s
        assert one.state == two.state
        assert (one.frame is None) == (two.frame is None)
        if one.frame is not None and two.frame is not None:
            assert one.frame.values == two.frame.values
            assert one.frame.arrays.keys() == two.frame.arrays.keys()
    convert(recorded, tmp_path / "only.state")
    assert not (tmp_path / "only.traj").exists()
    assert sum(moment.state is not None for moment in read(tmp_path / "only.state")) == 11


def test_some_of_the_frames(tmp_path: Path, recorded: Path) -> None:
    out = tmp_path / "some.nanover.zip"
    convert(recorded, out, Wanted(start=2, stop=9, stride=3))
    moments = read(out)
    assert [moment.frame.index for moment in moments if moment.frame] == [0, 5, 8]
    first = moments[0]
    assert first.time_s == 0.0
    assert first.state == StateChange({"count": 2.0})
    assert first.frame is not None
    assert first.frame.arrays[keys.NAMES] == TOPOLOGY[keys.NAMES]
    for frame, number in zip(frames(out), (2, 5, 8), strict=True):
        close(frame, number, {keys.POSITIONS: 0.0})
    times = [moment.time_s for moment in moments if moment.frame]
    assert times == pytest.approx([0.0, 0.75, 1.5])


def test_some_of_the_particles(tmp_path: Path, recorded: Path) -> None:
    for name in ("some.nanover.zip", "some.xtc"):
        convert(recorded, tmp_path / name, Wanted(select="resname GLY and not name H"))
    convert(tmp_path / "some.xtc", tmp_path / "back.nanover.zip")
    kept = [6, 7, 9, 10]
    for name in ("some.nanover.zip", "back.nanover.zip"):
        for number, frame in enumerate(frames(tmp_path / name)):
            close(frame, number, {keys.POSITIONS: 5.1e-4}, kept)
            assert frame.values[keys.PARTICLE_COUNT] == 4.0
            assert frame.arrays[keys.NAMES] == ["CA", "O", "CA", "O"]
            np.testing.assert_array_equal(frame.arrays[keys.BOND_PAIRS], [[0, 1]])
    for text, problem in (("no such thing", "is no selection"), ("resname XYZ", "selects no particle")):
        with pytest.raises(InvalidArgumentError, match=problem):
            convert(recorded, tmp_path / "none.nanover.zip", Wanted(select=text, overwrite=True))


def test_another_system_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "two.nanover.zip"
    with NanoverZipWriter.create(path) as writer:
        for number, particles in enumerate((2, 2, 3)):
            positions = np.zeros((particles, 3), np.float32)
            writer.write(number, Frame.of(0 if number != 1 else 1, {keys.POSITIONS: positions}))
    with pytest.raises(InvalidArgumentError, match="has 3 particles"):
        convert(path, tmp_path / "out.xtc")
    assert convert(path, tmp_path / "out.xtc", Wanted(stop=2, overwrite=True)).frames == 2
    assert convert(path, tmp_path / "rest.xtc", Wanted(start=2)).frames == 1
    convert(path, tmp_path / "copy.traj")
    assert [moment.frame.index for moment in read(tmp_path / "copy.traj") if moment.frame] == [0, 1, 0]


def test_a_turned_box_is_told(tmp_path: Path) -> None:
    path = tmp_path / "turned.nanover.zip"
    turned = np.array([[0, 3, 0], [3, 0, 0], [0, 0, -3]], np.float32)
    with NanoverZipWriter.create(path) as writer:
        writer.write(0.0, Frame.of(0, {keys.POSITIONS: np.zeros((1, 3), np.float32), keys.BOX: turned}))
    assert "turned" in convert(path, tmp_path / "out.xtc").notices[0]
    assert convert(path, tmp_path / "out.extxyz").notices == []


@pytest.mark.parametrize(
    ("source", "target", "wanted", "problem"),
    [
        ("gone.xtc", "out.pdb", {}, "no such file"),
        ("run.nanover.zip", "run.nanover.zip", {}, "is the input"),
        ("run.nanover.zip", "out.png", {}, "ending tells the format"),
        ("bare.xtc", "out.pdb", {}, "--topology"),
        ("text.pdb", "out.xtc", {}, "text.pdb"),
        ("text.xyz", "out.xtc", {}, "ASE cannot read it"),
        ("run.nanover.zip", "out.xtc", {"topology": Path("a.pdb")}, "says what its particles are"),
        ("text.xyz", "out.xtc", {"state": Path("a.state")}, "--state"),
        ("run.nanover.zip", "out.xtc", {"start": 100}, "none of the frames"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, recorded: Path, source: str, target: str, wanted: dict[str, Any], problem: str
) -> None:
    convert(recorded, tmp_path / "bare.xtc")
    (tmp_path / "bare.pdb").unlink()
    for name in ("text.pdb", "text.xyz"):
        (tmp_path / name).write_text("nothing of the kind\n")
    with pytest.raises(InvalidArgumentError) as caught:
        convert(tmp_path / source, tmp_path / target, Wanted(**wanted))
    assert problem in str(caught.value)


def test_no_file_is_overwritten_by_accident(tmp_path: Path, recorded: Path) -> None:
    for name in ("out.xtc", "out.traj", "out.nanover.zip"):
        out = tmp_path / name
        out.write_text("precious")
        with pytest.raises(AlreadyExistsError, match="exists"):
            convert(recorded, out)
        assert out.read_text() == "precious"
        assert isinstance(convert(recorded, out, Wanted(overwrite=True)), Converted)
    (tmp_path / "other.pdb").write_text("precious")
    with pytest.raises(AlreadyExistsError, match=r"other\.pdb exists"):
        convert(recorded, tmp_path / "other.xtc")
