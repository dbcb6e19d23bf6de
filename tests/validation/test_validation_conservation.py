"""Energy is conserved while an atom is held.

The same liquid (64 argon atoms, periodic box, switched Lennard-Jones) runs at constant energy for 100 ps, 10 fs a step, from
the same start with and without an atom held by a static spring. The drift is the root mean square deviation of the total
energy, bias included, from its mean over the 100 ps, sampled every 5 steps; it holds fluctuations and trend alike. The slope
of a straight line through the same energies is given beside it. Several pairs of runs are pooled, and the error of the ratio
is their jackknife's.
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray

from narupa_trajectory.sources.source import Source
from tests.validation.conftest import Recorder
from tests.validation.systems import CUBE, argon, argon_start, argon_system, on_openmm, pull

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

TIMESTEP_PS = 0.01
STEPS, EVERY = 10_000, 5
PAIRS = 4
BOUND = 1.1
ENGINES = {
    "openmm": "triclinic box, OpenMM Reference, leap-frog, bias in Python",
    "openmm-native": "rectangular box, OpenMM Reference, leap-frog, bias in OpenMM",
    "ase": "triclinic box, ASE, velocity Verlet",
}


def energies(engine: str, seed: int, held: bool) -> NDArray[np.float64]:
    """The total energy, bias included, over 100 ps."""
    if engine == "openmm-native":
        start = argon_start(seed, box=CUBE)
        source: Source = on_openmm(argon_system(CUBE), openmm.VerletIntegrator(TIMESTEP_PS), *start)
    else:
        start = argon_start(seed)
        source = argon(engine, start, TIMESTEP_PS)
    if held:
        atom = seed % len(start[0])
        handle = start[0][atom] + [0.03, 0.02, -0.01]
        source.set_interactions([pull("held", "spring", [atom], handle, scale=1000.0)])
    found = []
    for _ in range(STEPS // EVERY):
        source.advance(EVERY)
        now = source.snapshot()
        assert now.potential_energy is not None and now.kinetic_energy is not None
        found.append(now.potential_energy + now.kinetic_energy + now.user_energy)
    source.close()
    return np.array(found)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_static_spring_adds_no_drift(engine: str, record: Recorder) -> None:
    """A static spring adds no drift."""
    free, held = (np.array([energies(engine, seed, hold) for seed in range(1, PAIRS + 1)]) for hold in (False, True))
    squares = np.array([free.var(axis=1), held.var(axis=1)])
    ratio = float(np.sqrt(squares[1].mean() / squares[0].mean()))
    others = squares.sum(axis=1)[:, None] - squares
    left_out = np.sqrt(others[1] / others[0])
    error = float(np.sqrt((PAIRS - 1) * left_out.var()))
    drifts = np.sqrt(squares.mean(axis=1))
    times = np.linspace(0, STEPS * TIMESTEP_PS, free.shape[1])
    slopes = [float(np.abs(np.polyfit(times, some.T, 1)[0]).mean() * times[-1]) for some in (free, held)]
    record(
        "Drift of total + bias energy with an atom held by a static spring (1000 r²), against without",
        system=f"argon, {ENGINES[engine]}, {PAIRS} pairs of 100 ps",
        bound=f"ratio ≤ {BOUND:g}",
        result=f"{ratio:.3f} ± {error:.3f}; {drifts[1]:.4f} against {drifts[0]:.4f} (mean size of the slope over 100 ps: "
        f"{slopes[1]:.4f} against {slopes[0]:.4f})",
        passed=ratio <= BOUND,
    )
