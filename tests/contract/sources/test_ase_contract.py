"""The contract of engines, kept by ASE with several calculators, dynamics, constraints and cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixBondLengths

from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.testing.engine_contract import EngineCase, EngineContract


def opened(folder: Path, atoms: ase.Atoms, options: str, **facts: Any) -> EngineCase:
    ase.io.write(folder / "input.traj", atoms)
    spec = SourceSpec.parse(f"{folder / 'input.traj'}?{options}")
    return EngineCase(make=lambda: open_source(spec), **facts)


def copper(folder: Path) -> EngineCase:
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    return opened(folder, atoms, "calculator=emt&timestep_fs=2&friction_per_ps=10")


def skewed_copper(folder: Path) -> EngineCase:
    atoms = ase.build.bulk("Cu").repeat(3)
    return opened(folder, atoms, "calculator=emt&timestep_fs=2")


def copper_under_pressure(folder: Path) -> EngineCase:
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.05, seed=3)
    options = "calculator=emt&timestep_fs=2&dynamics=npt&pressure_bar=20000"
    return opened(folder, atoms, options, box_moves=True)


def argon_cluster(folder: Path) -> EngineCase:
    positions = [[3.8 * i, 3.8 * j, 3.8 * k] for i in range(3) for j in range(3) for k in range(2)]
    options = "calculator=lj&temperature_k=30&timestep_fs=4&dynamics=nve"
    return opened(folder, ase.Atoms("Ar18", positions=positions), options, temperature_k=None, conserves_energy=True)


def argon_layer(folder: Path) -> EngineCase:
    """Periodic in two directions of three, on a layer that is held."""
    positions = [[3.8 * i, 3.8 * j, 3.8 * k] for k in (1, 0) for i in range(3) for j in range(3)]
    atoms = ase.Atoms("Ar18", positions=positions, cell=[11.4, 11.4, 30.0], pbc=[True, True, False])
    atoms.set_constraint(FixAtoms(range(9, 18)))
    return opened(
        folder,
        atoms,
        "calculator=lj&temperature_k=30&timestep_fs=4",
        temperature_k=30.0,
        box=lambda source, snapshot: np.diag([1.14, 1.14, 0.0]),
        keeps_momentum=False,
        equilibrated=False,
    )


def dimers(folder: Path) -> EngineCase:
    """Pairs of argon at fixed distances."""
    positions = [[3.8 * i, 3.8 * j, 3.8 * k] for i in range(3) for j in range(2) for k in range(2)]
    atoms = ase.Atoms("Ar12", positions=positions)
    atoms.set_constraint(FixBondLengths([[i, i + 1] for i in range(0, 12, 2)]))
    return opened(folder, atoms, "calculator=lj&temperature_k=30&timestep_fs=4", temperature_k=30.0)


CASES: dict[str, Callable[[Path], EngineCase]] = {
    "langevin": copper,
    "skewed": skewed_copper,
    "npt": copper_under_pressure,
    "nve": argon_cluster,
    "layer": argon_layer,
    "dimers": dimers,
}


class TestAse(EngineContract):
    @pytest.fixture(params=CASES)
    def case(self, request: pytest.FixtureRequest, tmp_path: Path) -> EngineCase:
        return CASES[request.param](tmp_path)
