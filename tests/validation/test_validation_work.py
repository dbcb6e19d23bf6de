"""The work that is accounted for is the energy that the system gains.

An atom of liquid argon (64 atoms, triclinic box, constant energy, 4 fs a step) is dragged through it by the `steered`
potential at constant velocity, across the box several times. The change of the system's own energy, potential and kinetic
without the bias, is compared with `forces.user.work_done` a hundred times on the way; the error is the largest difference over
the work at the end. The pull is along the normal of two box vectors: in other directions the atom's closest image changes when
it strays sideways by half a box, and with it its place along the pull. The same with several users at once, who grab, move and
let go of atoms in harmonic wells: there the accounts of the interactions, those that have ended included, must add up to the
total. (With velocity Verlet. Leap-frog has no velocity at the instant of a grab, so that the force that sets in leaves an error
of the order of one step in its kinetic energy, not in the account.)
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from narupa_trajectory.sources.source import Source
from tests.validation.conftest import Recorder
from tests.validation.systems import (
    ARGON_MASS,
    Wells,
    argon,
    argon_start,
    argon_system,
    internal_energy,
    on_ase,
    on_openmm,
    pull,
    thermal,
    velocity_verlet,
    wells_system,
)

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

TIMESTEP_PS = 0.004
CHECKS, EVERY = 100, 50
BOUND = 1e-3
ENGINES = {
    "openmm": "OpenMM Reference, leap-frog",
    "openmm-verlet": "OpenMM Reference, velocity Verlet (custom integrator)",
    "openmm-cpu": "OpenMM CPU (single precision), leap-frog",
    "ase": "ASE, velocity Verlet",
}

VERLET = {"openmm": ENGINES["openmm-verlet"], "ase": ENGINES["ase"]}


def liquid(engine: str) -> Source:
    start = argon_start(seed=21)
    if engine in ("openmm", "ase"):
        return argon(engine, start, TIMESTEP_PS)
    if engine == "openmm-cpu":
        return on_openmm(argon_system(), openmm.VerletIntegrator(TIMESTEP_PS), *start, platform="CPU")
    return on_openmm(argon_system(), velocity_verlet(TIMESTEP_PS), *start)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_steered_pull_gives_the_energy_it_accounts_for(engine: str, record: Recorder) -> None:
    """Energy gained in a steered pull against accumulated work."""
    source = liquid(engine)
    here = source.snapshot().positions[10]
    velocity = [0.0, 0.0, 0.3]
    source.set_interactions([pull("s", "steered", [10], here, parameters={"stiffness": 2000.0, "velocity": velocity})])
    start = internal_energy(source)
    gained, work = [], []
    for _ in range(CHECKS):
        source.advance(EVERY)
        gained.append(internal_energy(source) - start)
        work.append(source.snapshot().user_work)
    path = np.linalg.norm(velocity) * CHECKS * EVERY * TIMESTEP_PS
    worst = float(np.abs(np.subtract(gained, work)).max() / abs(work[-1]))
    source.close()
    record(
        "Energy gained in a steered pull at constant velocity, against the accumulated work",
        system=f"argon, {ENGINES[engine]}, {path:.1f} nm in {CHECKS * EVERY * TIMESTEP_PS:g} ps",
        bound="within 0.1 % of the work",
        result=f"{gained[-1]:.3f} against {work[-1]:.3f}; at most {100 * worst:.4f} % apart on the way",
        passed=worst <= BOUND,
    )


def crystal(engine: str) -> Source:
    """64 atoms in wells of their own on a lattice, at constant energy and 120 K, without a box."""
    rng = np.random.default_rng(6)
    grid = 0.35 * np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)])
    masses = np.where(np.arange(len(grid)) % 3 == 1, 20.18, ARGON_MASS)
    positions = grid + rng.normal(scale=0.03, size=grid.shape)
    velocities = thermal(masses, 120.0, rng)
    if engine == "ase":
        return on_ase(masses, Wells(grid, 1000.0), positions, velocities, TIMESTEP_PS / 2)
    return on_openmm(wells_system(grid, 1000.0, masses), velocity_verlet(TIMESTEP_PS / 2), positions, velocities)


@pytest.mark.parametrize("engine", ["openmm", "ase"])
def test_the_accounts_of_users_who_come_and_go_add_up(engine: str, record: Recorder) -> None:
    """Accounts of interactions add up to the total work, and that to the energy gained."""
    source = crystal(engine)
    rng = np.random.default_rng(5)
    kinds = ("spring", "gaussian", "steered", "wall", "rotation", "distance", "angle", "dihedral", "force")
    fields: dict[str, dict[str, object]] = {
        "spring": {"scale": 300.0},
        "gaussian": {"scale": 80.0, "parameters": {"width": 0.3}},
        "steered": {"parameters": {"stiffness": 500.0, "velocity": [0.2, 0.2, 0.1]}},
        "wall": {"parameters": {"stiffness": 400.0, "normal": [1.0, 0.2, 0.3]}},
        "rotation": {"parameters": {"stiffness": 200.0, "rotation": [0.0, 0.1, 0.3, 0.9]}},
        "distance": {"parameters": {"stiffness": 400.0, "target": 0.45}},
        "angle": {"parameters": {"stiffness": 60.0, "target": 1.5}},
        "dihedral": {"parameters": {"stiffness": 30.0, "target": 0.5}},
        "force": {"parameters": {"force": [60.0, -20.0, 30.0]}},
    }
    numbers = {"distance": 2, "angle": 3, "dihedral": 4}
    start, told, gained = internal_energy(source), 0.0, 0.0
    worst_sum = worst_energy = 0.0
    ended = 0
    for turn in range(60):
        places = source.snapshot().positions.astype(float)
        items = []
        for number, kind in enumerate(kinds):
            if (turn + number) % 4 == 3:
                continue
            atom = 2 * (number % 2) + 8 * (number // 2 % 2) + 32 * (number // 4 % 2)
            atoms = [atom + 1, atom, atom + 4, atom + 20]
            if kind in numbers:
                given = {"groups": [[i] for i in atoms[: numbers[kind]]], "max_force": 5000.0, **fields[kind]}
                items.append(pull(kind, kind, [], places[atom], **given))
            else:
                by = rng.normal(scale=0.1, size=3)
                items.append(pull(kind, kind, atoms[:3], places[atom] + by, **fields[kind]))
        source.set_interactions(items)
        for item in source.take_finished():
            told += item.work
            ended += 1
        source.advance(30)
        now = source.snapshot()
        worst_sum = max(worst_sum, abs(told + float(now.interaction_work.sum()) - now.user_work))
        gained = internal_energy(source) - start
        worst_energy = max(worst_energy, abs(gained - now.user_work))
    total = source.snapshot().user_work
    source.close()
    record(
        "Accounts of all interactions, those that ended included, against the total",
        system=f"atoms in wells, {VERLET[engine]}; 9 kinds, handles on the move, {ended} ended",
        bound="≤ 1e-6 kJ/mol",
        result=f"at most {worst_sum:.0e} apart",
        passed=worst_sum <= 1e-6,
    )
    record(
        "Energy gained while users come and go, against the total work",
        system=f"atoms in wells, {VERLET[engine]}; 9 kinds, handles on the move, {ended} ended",
        bound="within 0.1 % of the work",
        result=f"{gained:.3f} against {total:.3f}; at most {100 * worst_energy / abs(total):.4f} % apart on the way",
        passed=worst_energy <= BOUND * abs(total),
    )
