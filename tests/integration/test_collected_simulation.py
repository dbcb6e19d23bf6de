"""Frames of real simulations and recordings, collected: what other programs compute from them is what the engine said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

import narupa_client
from narupa_client import CollectingStoppedError, Session
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import serving
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

LIMIT_S = 60.0
KJ_MOL = units.kJ / units.mol


@contextlib.asynccontextmanager
async def session_of(*sources: str, **settings: Any) -> AsyncIterator[Session]:
    """A trajectory service, and a client of it."""
    config = TrajectoryConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.2, sources=sources, **settings)
    async with (
        serving("trajectory", config, TrajectoryApp(config)) as trajectory,
        narupa_client.open(f"127.0.0.1:{trajectory.port}") as session,
        asyncio.timeout(LIMIT_S),
    ):
        yield session


def copper() -> Atoms:
    """Sixteen atoms in a triclinic cell, none of them where it wants to be."""
    atoms = bulk("Cu") * (4, 2, 2)
    cell, _ = atoms.cell.standard_form()
    atoms.set_cell(cell, scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return atoms


async def test_another_program_finds_the_same_energies_in_a_triclinic_crystal(tmp_path: Path) -> None:
    path = tmp_path / "copper.xyz"
    write(path, copper(), format="extxyz")
    async with session_of(f"{path}?calculator=emt", velocities=True) as session:
        series = await session.collect(10)
    table = series.to_dataframe()
    for row, atoms in zip(table.itertuples(), series.to_atoms(), strict=True):
        np.testing.assert_allclose(atoms.cell[:], copper().cell[:], atol=1e-5)
        assert atoms.get_potential_energy() / KJ_MOL == pytest.approx(row.potential_energy, rel=1e-6)
        assert atoms.get_kinetic_energy() / KJ_MOL == pytest.approx(row.kinetic_energy, rel=1e-4)
        said = atoms.get_potential_energy()
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(said, abs=2e-4)  # eV; positions are float32
    universe = series.to_universe()
    assert universe.dimensions == pytest.approx(copper().cell.cellpar(), abs=1e-3)
    assert set(universe.atoms.elements) == {"Cu"}
    assert [step.time for step in universe.trajectory] == table["time_ps"].tolist()
    from MDAnalysis.lib.distances import distance_array

    for step, atoms in zip(universe.trajectory, series.to_atoms(), strict=True):  # of nearest images, in each one's way
        found = distance_array(step.positions, step.positions, box=step.dimensions)
        np.testing.assert_allclose(found, atoms.get_all_distances(mic=True), atol=1e-4)


@pytest.fixture
def two_systems(tmp_path: Path) -> tuple[str, str]:
    sources = []
    for name in ("CH3CH2OH", "H2O"):
        write(tmp_path / f"{name}.xyz", molecule(name))
        sources.append(f"{tmp_path / name}.xyz?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01")
    return sources[0], sources[1]


@pytest.mark.parametrize(("command", "arguments"), [("playback/reset", {}), ("playback/load", {"index": 1})])
async def test_a_reset_and_a_load_end_a_series(
    two_systems: tuple[str, str], command: str, arguments: dict[str, Any]
) -> None:
    async with session_of(*two_systems) as session:
        before = await session.collect(5)
        collecting = asyncio.create_task(session.collect(1_000_000, limit_bytes=2**40))
        async for frame in session.frames():
            if frame.index > before[-1].index + 5:
                break
        await session.run_command(command, arguments)
        with pytest.raises(CollectingStoppedError, match="another run began") as stopped:
            await collecting
        collected = stopped.value.collected
        assert len(collected) > 1
        assert {frame.run_id for frame in collected} == {before[0].run_id}
        assert np.diff([frame.index for frame in collected]).tolist() == [1] * (len(collected) - 1)
        assert (np.diff(collected.times_ps) >= 0).all()
        after = await session.collect(3)
        assert after.particle_count == (3 if arguments else 9)


async def test_some_particles_keep_their_indices(two_systems: tuple[str, str]) -> None:
    heavy = [0, 1, 2]  # of ethanol: two carbons and an oxygen, then hydrogens
    async with session_of(two_systems[0]) as session:
        selected = await session.collect(3, selection="not element H", precision=1e-3)
        chosen = await session.collect(3, particles=[2, 8])
        whole = await session.collect(3)
        numbers = await session.collect(3, fields=["energy", "system"])
    assert (selected.particle_count, chosen.particle_count) == (3, 2)
    assert selected[0].to_dataframe().index.tolist() == heavy
    table = chosen[0].to_dataframe()
    assert table.index.tolist() == [2, 8]
    assert table["element"].tolist() == ["O", "H"]
    universe = selected.to_universe()
    assert universe.atoms.elements.tolist() == ["C", "C", "O"]
    bonds = [pair for pair in whole.to_universe().bonds.indices.tolist() if set(pair) <= set(heavy)]
    assert universe.bonds.indices.tolist() == bonds
    np.testing.assert_allclose(universe.atoms.positions, selected.positions[0] * 10, rtol=1e-6)
    assert numbers.particle_count == 0
    assert not numbers.to_dataframe()[["time_ps", "total_energy", "step"]].isna().any(axis=None)


async def test_a_recording_goes_round_in_one_series(tmp_path: Path) -> None:
    path = tmp_path / "run.nanover.zip"
    with NanoverZipWriter.create(path) as writer:
        for number in range(4):
            items: dict[str, Any] = {keys.POSITIONS: np.full((2, 3), number, np.float32), keys.TIME: 0.5 * number}
            topology = {keys.PARTICLE_COUNT: 2.0, keys.ELEMENTS: np.array([6, 8], np.uint32)} if number == 0 else {}
            writer.write(number * 0.02, Frame.of(number, {**topology, **items}))
    async with session_of(str(path)) as session:
        series = await session.collect(20)
    steps = series.to_dataframe()["step"].to_numpy()
    assert (np.diff(steps) < 0).any()  # played late, it may leave some out
    np.testing.assert_array_equal(series.positions[:, 0, 0], steps)
    np.testing.assert_array_equal(series.times_ps, 0.5 * steps)
