"""Frames, one and many, as numpy arrays, pandas tables, ASE atoms and MDAnalysis universes, in the units of each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from ase import units

from narupa_client import CurrentFrame, FrameSeries
from narupa_client.series import SeriesBuilder
from narupa_shared import frame_keys as keys
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError
from narupa_shared.frames import Frame

COUNT = 6
KJ_MOL = units.kJ / units.mol
TOPOLOGY: dict[str, Any] = {
    keys.PARTICLE_COUNT: float(COUNT),
    keys.ELEMENTS: np.array([6, 8, 1, 17, 0, 6], np.uint32),
    keys.NAMES: ["CA", "O", "H", "CL", "M", "CA"],
    keys.RESIDUES: np.array([0, 0, 0, 1, 2, 2], np.uint32),
    keys.RESIDUE_NAMES: ["ALA", "CL", "GLY"],
    keys.RESIDUE_IDS: ["5", "6A", "12"],
    keys.RESIDUE_CHAINS: np.array([0, 1, 0], np.uint32),
    keys.CHAIN_NAMES: ["A", "ions"],
    keys.BOND_PAIRS: np.array([[0, 1], [0, 2], [4, 5]], np.uint32),
    keys.RUN: "first",
}
BOX = np.array([[3.0, 0, 0], [0.5, 3.2, 0], [0.3, -0.4, 3.5]], np.float32)


def moving(number: int) -> dict[str, Any]:
    chance = np.random.default_rng(number)
    return {
        keys.POSITIONS: chance.normal(size=(COUNT, 3)).astype(np.float32),
        keys.VELOCITIES: chance.normal(size=(COUNT, 3)).astype(np.float32),
        keys.FORCES: (chance.normal(size=(COUNT, 3)) * 100).astype(np.float32),
        keys.BOX: BOX * np.float32(1 + 0.01 * number),
        keys.TIME: 2.0 + 0.5 * number**2,  # not even, as where frames are skipped
        keys.STEP: 250.0 * number,
        keys.POTENTIAL: -100.0 + number,
        keys.KINETIC: 40.0,
        keys.TEMPERATURE: 300.0 + number,
        keys.USER_ENERGY: 0.5 * number,
        keys.USER_WORK: 0.25 * number,
        keys.USER_INDEX: np.array([2], np.uint32),
        keys.USER_SPARSE: np.array([[0, 0, 5.0 * number]], np.float32),
    }


def run(count: int, topology: dict[str, Any] = TOPOLOGY, without: tuple[str, ...] = ()) -> list[CurrentFrame]:
    """Frames as a subscription brings them: the topology once, then what moves."""
    frames: list[CurrentFrame] = []
    for number in range(count):
        items = {key: item for key, item in moving(number).items() if key not in without}
        new = Frame.of(number, items if number else {**topology, **items})
        frames.append(CurrentFrame.after(frames[-1] if frames else None, new))
    return frames


def test_a_series_is_numpy_arrays() -> None:
    frames = run(4)
    series = FrameSeries.of(frames)
    assert (len(series), series.particle_count) == (4, COUNT)
    assert (series.positions.shape, series.positions.dtype) == ((4, COUNT, 3), np.float32)
    for number, frame in enumerate(series):
        np.testing.assert_array_equal(frame.positions, moving(number)[keys.POSITIONS])
        assert np.shares_memory(frame.positions, series.positions)
        assert frame.user_forces.forces.tolist() == [[0, 0, 5.0 * number]]
    assert series.velocities is not None and series.forces is not None and series.boxes is not None
    np.testing.assert_array_equal(series.velocities[2], moving(2)[keys.VELOCITIES])
    np.testing.assert_array_equal(series.forces[3], moving(3)[keys.FORCES])
    np.testing.assert_array_equal(series.boxes[3], moving(3)[keys.BOX])
    assert series.times_ps.tolist() == [2.0, 2.5, 4.0, 6.5]
    assert series.potential_energies.tolist() == [-100, -99, -98, -97]
    assert series.kinetic_energies.tolist() == [40.0] * 4
    assert series.user_energies.tolist() == [0, 0.5, 1.0, 1.5]
    assert repr(series) == "<FrameSeries of 4 frames of 6 particles, 2 to 6.5 ps>"
    with pytest.raises(ValueError, match="read-only"):
        series.positions[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        series[0].positions[0] = 0


def test_a_slice_is_a_series() -> None:
    series = FrameSeries.of(run(10))[2:9:3]
    assert isinstance(series, FrameSeries)
    assert [frame.index for frame in series] == [2, 5, 8]
    np.testing.assert_array_equal(series.positions[1], moving(5)[keys.POSITIONS])
    assert series.to_universe().trajectory[2].time == 2.0 + 0.5 * 64
    assert series[-1].index == 8


def test_the_table_of_frames() -> None:
    table = FrameSeries.of(run(3)).to_dataframe()
    assert table.index.name == "index"
    assert table.index.tolist() == [0, 1, 2]
    assert table.columns.tolist() == [
        "step", "time_ps", "potential_energy", "kinetic_energy", "total_energy", "temperature", "user_energy", "user_work",
    ]  # fmt: skip
    assert table.loc[2].tolist() == [500, 4.0, -98, 40, -58, 302, 1.0, 0.5]
    assert set(table.dtypes) == {np.dtype(np.float64)}


def test_what_a_source_has_not_is_nan_in_the_table() -> None:
    table = FrameSeries.of(run(2, without=(keys.TIME, keys.KINETIC))).to_dataframe()
    assert table[["time_ps", "kinetic_energy", "total_energy"]].isna().all(axis=None)
    assert table["potential_energy"].tolist() == [-100, -99]


def test_the_table_of_particles() -> None:
    table = run(2)[1].to_dataframe()
    assert table.index.name == "particle"
    assert table["name"].tolist() == TOPOLOGY[keys.NAMES]
    assert table["element"].tolist() == ["C", "O", "H", "Cl", "X", "C"]
    assert table["residue"].tolist() == ["ALA", "ALA", "ALA", "CL", "GLY", "GLY"]
    assert table["residue_id"].tolist() == ["5", "5", "5", "6A", "12", "12"]
    assert table["chain"].tolist() == ["A", "A", "A", "ions", "A", "A"]
    np.testing.assert_array_equal(table[["x", "y", "z"]], moving(1)[keys.POSITIONS])
    np.testing.assert_array_equal(table[["vx", "vy", "vz"]], moving(1)[keys.VELOCITIES])
    assert table["user_force_z"].tolist() == [0, 0, 5, 0, 0, 0]
    assert not table[["user_force_x", "user_force_y"]].any(axis=None)


def test_some_of_the_particles_keep_their_indices_in_the_table() -> None:
    (frame,) = run(1, {**TOPOLOGY, keys.INDICES: np.arange(10, 70, 10, dtype=np.uint32)})
    assert frame.to_dataframe().index.tolist() == [10, 20, 30, 40, 50, 60]
    (frame,) = run(1, {**TOPOLOGY, keys.INDICES: np.arange(2, dtype=np.uint32)})
    with pytest.raises(InvalidArgumentError, match=r"particle\.indices"):
        frame.to_dataframe()


BARE = {keys.PARTICLE_COUNT: float(COUNT)}


def test_particles_that_are_only_places() -> None:
    (frame,) = run(1, BARE, without=(keys.VELOCITIES, keys.FORCES, keys.BOX, keys.POTENTIAL, keys.TIME))
    table = frame.to_dataframe()
    assert table[["name", "element", "residue", "residue_id", "chain"]].isna().all(axis=None)
    assert "vx" not in table
    atoms = frame.to_atoms()
    assert atoms.get_chemical_symbols() == ["X"] * COUNT
    assert not atoms.pbc.any() and not atoms.has("momenta") and atoms.calc is None and "time_ps" not in atoms.info
    universe = frame.to_universe()
    assert (len(universe.residues), universe.residues.resnames.tolist()) == (1, ["UNK"])
    assert universe.atoms.elements.tolist() == ["X"] * COUNT
    assert universe.atoms.masses.tolist() == [0.0] * COUNT
    assert universe.dimensions is None
    assert not hasattr(universe.atoms, "bonds")
    assert not universe.trajectory.ts.has_velocities and not universe.trajectory.ts.has_forces


def test_atoms_have_ases_units() -> None:
    series = FrameSeries.of(run(3))
    for number, atoms in enumerate(series.to_atoms()):
        wanted = moving(number)
        np.testing.assert_allclose(atoms.positions, wanted[keys.POSITIONS] * 10, rtol=1e-6)
        assert atoms.get_atomic_numbers().tolist() == TOPOLOGY[keys.ELEMENTS].tolist()
        np.testing.assert_allclose(atoms.cell[:], wanted[keys.BOX] * 10, rtol=1e-6)
        assert atoms.pbc.all()
        velocities = wanted[keys.VELOCITIES] * (10 * units.Ang) / (1000 * units.fs)
        np.testing.assert_allclose(atoms.get_velocities(), velocities, rtol=1e-5)
        assert atoms.get_potential_energy() == pytest.approx((-100.0 + number) * KJ_MOL, rel=1e-5)
        np.testing.assert_allclose(atoms.get_forces(), wanted[keys.FORCES] * KJ_MOL / units.nm, rtol=1e-5)
        assert atoms.info["time_ps"] == wanted[keys.TIME]
        masses = atoms.get_masses()  # amu; half of amu nm²/ps² is kJ/mol
        kinetic = 0.5 * float((masses[:, None] * wanted[keys.VELOCITIES] ** 2).sum())
        assert atoms.get_kinetic_energy() == pytest.approx(kinetic * KJ_MOL, rel=1e-5)


def test_the_universe_has_mdanalysis_units() -> None:
    universe = FrameSeries.of(run(4)).to_universe()
    assert len(universe.trajectory) == 4
    for number, step in enumerate(universe.trajectory):
        wanted = moving(number)
        np.testing.assert_allclose(universe.atoms.positions, wanted[keys.POSITIONS] * 10, rtol=1e-6)
        np.testing.assert_allclose(universe.atoms.velocities, wanted[keys.VELOCITIES] * 10, rtol=1e-6)
        np.testing.assert_allclose(universe.atoms.forces, wanted[keys.FORCES] / 10, rtol=1e-6)
        assert step.time == wanted[keys.TIME]
        np.testing.assert_allclose(step.triclinic_dimensions, wanted[keys.BOX] * 10, atol=1e-4)
        lengths = np.linalg.norm(wanted[keys.BOX] * 10, axis=1)
        np.testing.assert_allclose(step.dimensions[:3], lengths, rtol=1e-6)
        cosine = BOX[0] @ BOX[1] / np.linalg.norm(BOX[0]) / np.linalg.norm(BOX[1])
        assert step.dimensions[5] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-4)
    # MDAnalysis's distance across the boundary is that of the triclinic box.
    from MDAnalysis.lib.distances import calc_bonds

    step = universe.trajectory[0]
    a, b = step.positions[0], step.positions[0] + step.triclinic_dimensions[1] + [0, 0, 1.5]
    found = calc_bonds(a[None], b[None].astype(np.float32), box=step.dimensions)
    assert found[0] == pytest.approx(1.5, abs=1e-4)


def test_the_universe_knows_its_particles() -> None:
    universe = FrameSeries.of(run(2)).to_universe()
    atoms = universe.atoms
    assert atoms.names.tolist() == TOPOLOGY[keys.NAMES]
    assert atoms.elements.tolist() == ["C", "O", "H", "Cl", "X", "C"]
    assert atoms.masses == pytest.approx([12.011, 15.999, 1.008, 35.45, 0, 12.011], abs=2e-3)
    assert atoms.resnames.tolist() == ["ALA", "ALA", "ALA", "CL", "GLY", "GLY"]
    assert atoms.resids.tolist() == [5, 5, 5, 6, 12, 12]
    assert atoms.segids.tolist() == ["A", "A", "A", "ions", "A", "A"]
    assert atoms.chainIDs.tolist() == ["A", "A", "A", "i", "A", "A"]
    assert universe.bonds.indices.tolist() == [[0, 1], [0, 2], [4, 5]]
    assert universe.select_atoms("resname GLY and name CA").indices.tolist() == [5]


def test_a_universe_can_be_copied_with_its_times() -> None:
    copy = FrameSeries.of(run(4)).to_universe().copy()
    assert [step.time for step in copy.trajectory] == [2.0, 2.5, 4.0, 6.5]
    assert FrameSeries.of(run(4)).to_universe().trajectory.dt == 1.5


def test_frames_without_time_are_numbered_in_a_universe() -> None:
    universe = FrameSeries.of(run(3, without=(keys.TIME,))).to_universe()
    assert [step.time for step in universe.trajectory] == [0, 1, 2]


def test_a_turned_box_is_said() -> None:
    turned = {**TOPOLOGY, keys.BOX: BOX[[2, 0, 1]]}
    frame = CurrentFrame.after(None, Frame.of(0, {**moving(0), **turned}))
    with pytest.warns(UserWarning, match="turned"):
        frame.to_universe()
    np.testing.assert_allclose(frame.to_atoms().cell[:], BOX[[2, 0, 1]] * 10, rtol=1e-6)


def test_an_empty_series() -> None:
    empty = FrameSeries()
    assert (len(empty), empty.positions.shape, empty.particle_count, empty.boxes) == (0, (0, 0, 3), 0, None)
    assert (empty.to_atoms(), empty.times_ps.shape) == ([], (0,))
    assert empty.to_dataframe().shape == (0, 8)
    assert repr(empty) == "<FrameSeries of no frames>"
    with pytest.raises(FailedPreconditionError, match="none in <FrameSeries of no frames>"):
        empty.to_universe()


def test_a_series_of_numbers_alone() -> None:
    only = (keys.POSITIONS, keys.VELOCITIES, keys.FORCES, keys.BOX)
    series = FrameSeries.of(run(3, {keys.RUN: "first"}, without=only))
    assert series.positions.shape == (3, 0, 3)
    assert series.to_dataframe()["potential_energy"].tolist() == [-100, -99, -98]
    with pytest.raises(FailedPreconditionError, match="needs positions"):
        series.to_universe()


def after(frames: list[CurrentFrame], index: int, **items: Any) -> CurrentFrame:
    """The next frame, with other items (by the name of their constant)."""
    return CurrentFrame.after(frames[-1], Frame.of(index, {getattr(keys, key): item for key, item in items.items()}))


CHANGED: dict[str, dict[str, Any]] = {
    "another run began after 3 frames": {"RUN": "second"},
    "particle.names changed after 3 frames": {"NAMES": ["C"] * COUNT},
    "bond.pairs changed after 3 frames": {"BOND_PAIRS": np.array([[0, 1]], np.uint32)},
    "there are 2 particles instead of 6": {"PARTICLE_COUNT": 2.0, "POSITIONS": np.zeros((2, 3), np.float32)},
    "has 2 positions, and 6 particles": {"POSITIONS": np.zeros((2, 3), np.float32)},
}


@pytest.mark.parametrize("reason", CHANGED)
def test_a_series_is_of_one_run_of_the_same_particles(reason: str) -> None:
    frames = run(3)
    with pytest.raises(FailedPreconditionError, match=reason):
        FrameSeries.of([*frames, after(frames, 3, **CHANGED[reason])])


def test_without_a_run_index_zero_begins_another() -> None:
    frames = run(3, {**TOPOLOGY, keys.RUN: ""})
    with pytest.raises(FailedPreconditionError, match="another run"):
        FrameSeries.of([*frames, *run(1, {**TOPOLOGY, keys.RUN: ""})])


def test_a_recording_that_starts_over_goes_on_in_the_same_series() -> None:
    again = {key: item.copy() if isinstance(item, np.ndarray) else item for key, item in TOPOLOGY.items()}
    series = FrameSeries.of([*run(3), *run(2, again)])
    assert [frame.index for frame in series] == [0, 1, 2, 0, 1]
    assert series[3].elements is series[0].elements  # it is in memory once


def test_what_not_every_frame_has_is_not_in_the_arrays() -> None:
    frames = [run(1)[0], run(1, without=(keys.VELOCITIES, keys.BOX))[0]]
    series = FrameSeries.of(frames)
    assert series.velocities is None and series.boxes is None
    assert [atoms.has("momenta") for atoms in series.to_atoms()] == [True, False]
    dimensions = [step.dimensions for step in series.to_universe().trajectory]
    assert dimensions[0] is not None and dimensions[1] is None


def test_memory_is_bounded() -> None:
    frames = run(40)
    builder = SeriesBuilder(limit_bytes=64 * 1024)
    with pytest.raises(QuotaError, match=r"6 particles need .* MiB of memory, and the limit is 0\.0625; collect fewer"):
        for frame in frames:
            builder.add(frame)
    assert 5 < len(builder) < 16  # of four to five KiB each
    assert len(builder.built()) > 5
    assert len(builder) == 0


def test_that_there_is_no_room_is_told_with_the_first_frame() -> None:
    builder = SeriesBuilder(limit_bytes=2**20, expected=10_000)
    with pytest.raises(QuotaError, match="10000 frames of 6 particles need 41"):
        builder.add(run(1)[0])
    SeriesBuilder(limit_bytes=2**20, expected=100).add(run(1)[0])


HOSTILE: dict[str, Any] = {
    keys.ELEMENTS: np.array([6], np.uint32),
    keys.RESIDUES: np.array([0, 0, 0, 0, 0, 2**32 - 1], np.uint32),
    keys.RESIDUE_CHAINS: np.array([0, 0, 2**32 - 1], np.uint32),
    keys.BOND_PAIRS: np.array([[0, 6]], np.uint32),
}


@pytest.mark.parametrize("key", HOSTILE)
def test_a_topology_that_does_not_fit_is_named(key: str) -> None:
    (frame,) = run(1, {**TOPOLOGY, key: HOSTILE[key]})
    with pytest.raises(InvalidArgumentError, match=key):
        frame.to_universe()


def test_forces_on_particles_that_are_not_there_are_named() -> None:
    frame = after(run(1), 1, USER_INDEX=np.array([6], np.uint32), USER_SPARSE=np.zeros((1, 3), np.float32))
    with pytest.raises(InvalidArgumentError, match=r"forces\.user\.index"):
        frame.to_dataframe()


@pytest.mark.parametrize(
    ("package", "convert"), [("pandas", "to_dataframe"), ("ase", "to_atoms"), ("MDAnalysis", "to_universe")]
)
def test_a_missing_package_is_said_with_what_to_install(
    package: str, convert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = run(1)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for source in (frames[0], FrameSeries.of(frames)):
        with pytest.raises(FailedPreconditionError, match=rf"needs {package}.*pip install 'narupa-client\[analysis\]'"):
            getattr(source, convert)()


def test_the_client_loads_none_of_them() -> None:
    loaded = "import sys, narupa_client; print({'ase', 'MDAnalysis', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
