"""Kinetic energy is that of the instant, also while somebody pulls, and a reset clears everything.

Leap-frog integrators keep velocities half a step behind the positions. From the same start (velocities shifted back by half a
step of all forces, the bias included) leap-frog and velocity Verlet make the same positions, and velocity Verlet has the
velocities of the same instant: its kinetic energy is the right one for both. Liquid argon, two atoms pulled hard, 5 fs steps.
OpenMM's LangevinMiddle integrator reports the kinetic energy of its half-step velocities by design, as these are the ones that
have the Maxwell-Boltzmann distribution; without friction it makes the same positions too, so that the difference can be seen.
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from narupa_trajectory.sources.source import Source
from tests.validation.conftest import Recorder
from tests.validation.systems import (
    ARGON_MASS,
    ARGON_TEMPERATURE_K,
    Vectors,
    argon,
    argon_start,
    argon_system,
    internal_energy,
    on_openmm,
    pull,
    velocity_verlet,
)

TIMESTEP_PS = 0.005
STEPS = 200


def pull_hard(source: Source) -> None:
    places = source.snapshot().positions
    # The second is not evaluated by the engine itself, but in Python.
    spring = pull("spring", "spring", [3], places[3] + np.float32(0.1), scale=3000.0)
    wall = pull("wall", "wall", [40], places[40] + np.float32(0.1), parameters={"stiffness": 6000.0})
    source.set_interactions([spring, wall])


def kinetic(source: Source) -> Vectors:
    """The kinetic energy at each step."""
    found = []
    for _ in range(STEPS):
        source.advance(1)
        found.append(source.snapshot().kinetic_energy)
    return np.array(found, dtype=float)


def runs(integrator: openmm.Integrator) -> tuple[Vectors, Vectors, Vectors, float]:
    """Kinetic energies of a leap-frog and of velocity Verlet, of the leap-frog's velocities as they are, and how far the
    positions are apart at the end, nm."""
    positions, velocities = argon_start(seed=8, equilibration_steps=500)
    right = on_openmm(argon_system(), velocity_verlet(TIMESTEP_PS), positions, velocities)
    pull_hard(right)
    snapshot = right.snapshot()
    context = openmm.Context(argon_system(), openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    forces = np.array(context.getState(getForces=True).getForces(asNumpy=True)._value)
    forces[snapshot.user_index] += snapshot.user_forces
    shifted = velocities - forces * (TIMESTEP_PS / 2 / ARGON_MASS)
    leap = on_openmm(argon_system(), integrator, positions, shifted)
    pull_hard(leap)
    ours, half = [], []
    for _ in range(STEPS):
        leap.advance(1)
        now = leap.snapshot(velocities=True)
        assert now.velocities is not None
        ours.append(now.kinetic_energy)
        half.append(0.5 * ARGON_MASS * float((now.velocities.astype(float) ** 2).sum()))
    theirs = kinetic(right)
    apart = float(np.abs(leap.snapshot().positions - right.snapshot().positions).max())
    return np.array(ours, dtype=float), theirs, np.array(half), apart


def test_leap_frog_reports_the_kinetic_energy_of_the_instant(record: Recorder) -> None:
    """Kinetic energy of leap-frog while pulling."""
    ours, right, half, apart = runs(openmm.VerletIntegrator(TIMESTEP_PS))
    error = float(np.abs(ours / right - 1).max())
    naive = float(np.abs(half / right - 1).max())
    record(
        "Kinetic energy of leap-frog while two atoms are pulled, against velocity Verlet from the same start",
        system=f"argon, OpenMM Reference, {STEPS} steps",
        bound="relative error ≤ 1e-6",
        result=f"at most {error:.1e}, positions {apart:.0e} nm apart (half-step velocities would be off by {100 * naive:.2g} %)",
        passed=error <= 1e-6 and naive > 100 * error,
    )


def test_langevin_middle_reports_half_a_step_behind(record: Recorder) -> None:
    """Kinetic energy of LangevinMiddle while pulling."""
    ours, right, half, apart = runs(openmm.LangevinMiddleIntegrator(ARGON_TEMPERATURE_K, 0.0, TIMESTEP_PS))
    record(
        "Kinetic energy of LangevinMiddle, friction 0, while two atoms are pulled, against velocity Verlet",
        system=f"argon, OpenMM Reference, {STEPS} steps",
        bound="that of its half-step velocities (1e-6); the mean within 0.5 % of that of the instant",
        result=f"{float(np.abs(ours / half - 1).max()):.0e} from the half-step one; from that of the instant at most "
        f"{100 * float(np.abs(ours / right - 1).max()):.2g} %, in the mean {100 * (ours.mean() / right.mean() - 1):+.2g} %; "
        f"positions {apart:.0e} nm apart",
        passed=bool(np.abs(ours / half - 1).max() <= 1e-6 and abs(ours.mean() / right.mean() - 1) <= 5e-3),
    )


@pytest.mark.parametrize("engine", ["openmm", "ase"])
def test_reset_clears_work_and_forces(engine: str, record: Recorder) -> None:
    """A reset clears work, forces and accounts."""
    start = argon_start(seed=9, equilibration_steps=500)
    fresh, source = argon(engine, start, TIMESTEP_PS), argon(engine, start, TIMESTEP_PS)
    pull_hard(source)
    source.advance(40)
    done = source.snapshot().user_work
    source.reset()
    after = source.snapshot()
    left = [after.user_work, after.user_energy, float(after.user_index.size), float(len(after.interaction_ids))]
    told = len(source.take_finished())
    gap = abs(internal_energy(source) - internal_energy(fresh))
    for each in (source, fresh):
        each.advance(40)
    apart = float(np.abs(source.snapshot().positions - fresh.snapshot().positions).max())
    record(
        "After a reset: work, bias energy, particles pulled, interactions, accounts told; and the run from there",
        system=f"argon, {'OpenMM Reference' if engine == 'openmm' else 'ASE'}, 40 steps",
        bound="all 0; energies and positions the same",
        result=f"{', '.join(f'{value:g}' for value in left)}, {told} (work before: {done:.1f}); energies {gap:.0e} kJ/mol and "
        f"positions {apart:.0e} nm apart",
        passed=not any(left) and told == 0 and gap <= 1e-9 and apart == 0 and abs(done) > 1,
    )
