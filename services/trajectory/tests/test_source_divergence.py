"""Simulations that blow up say so, and can be reset; constraints of ASE are respected."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import openmm
import pytest
from ase.constraints import FixAtoms

from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.source import Source, SourceDivergedError


def exploding_openmm() -> Source:
    system = openmm.System()
    bond = openmm.HarmonicBondForce()
    for _ in range(2):
        system.addParticle(1.0)
    bond.addBond(0, 1, 0.1, 1e9)
    system.addForce(bond)
    # Next to nothing is wrong with it at first, and a step of 1 fs is far too long for this bond.
    return OpenMMSource("bomb", {}, system, openmm.VerletIntegrator(0.001), np.array([[0, 0, 0], [0.1 + 1e-6, 0, 0]]))


def exploding_ase(folder: Path) -> Source:
    ase.io.write(folder / "cu.xyz", ase.build.bulk("Cu", cubic=True))
    return open_source(SourceSpec.parse(f"{folder / 'cu.xyz'}?calculator=emt&timestep_fs=1000&temperature_k=300"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("engine", ["openmm", "ase"])
def test_divergence_is_an_error_and_reset_recovers(tmp_path: Path, engine: str) -> None:
    source = exploding_openmm() if engine == "openmm" else exploding_ase(tmp_path)
    with pytest.raises(SourceDivergedError):
        for _ in range(200):
            source.advance(5)
            source.snapshot()
    source.reset()
    assert np.isfinite(source.snapshot().positions).all()
    source.close()


def test_fixed_atoms_stay_where_they_are_however_hard_they_are_pulled(tmp_path: Path) -> None:
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    ase.io.write(tmp_path / "cu.traj", atoms)
    source = open_source(SourceSpec.parse(f"{tmp_path / 'cu.traj'}?calculator=emt"))
    before = source.snapshot().positions
    pull = Interaction.parse("a", particles=[1, 3], position=(0.1, 0.1, 0.1), scale=100.0, kind="spring")
    source.set_interactions([pull])
    source.advance(20)
    after = source.snapshot()
    np.testing.assert_array_equal(after.positions[:3], before[:3])
    assert not np.array_equal(after.positions[3], before[3])
    assert (after.temperature or 0) > 0
    source.close()


def test_the_minimum_image_follows_only_the_periodic_directions(tmp_path: Path) -> None:
    atoms = ase.Atoms("Ar2", positions=[[1, 1, 1], [5, 5, 5]], cell=[10, 10, 10], pbc=[True, False, False])
    ase.io.write(tmp_path / "ar.xyz", atoms)
    source = open_source(SourceSpec.parse(f"{tmp_path / 'ar.xyz'}?calculator=lj"))
    assert source.snapshot().box is None
    handle = (0.9, 0.9, 0.1)  # across the face in x, far away in y
    source.set_interactions(
        [Interaction.parse("a", particles=[0], position=handle, kind="spring", mass_weighted=False)]
    )
    np.testing.assert_allclose(source.snapshot().user_forces, [[-0.4, 1.6, 0]], atol=1e-5)
    source.close()
