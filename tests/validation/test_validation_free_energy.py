"""Free energies from pulls have their known values.

A particle in a harmonic well of stiffness k0 is pulled by the `steered` potential, a spring of stiffness k whose end moves
by L at constant velocity. The two springs are in series, so the free energy changes by k k0 / (k + k0) L² / 2 whatever the
temperature. The work of the protocol is W = (work on the particle) + (bias energy at the end) - (bias energy at the start).

Reversible work: at 0 K, with friction, W tends to that value as the pull gets slower; two velocities are extrapolated to none.
Jarzynski (Phys. Rev. Lett. 78, 2690 (1997)): at 300 K, with Langevin dynamics, a pull that dissipates about kT, from equilibrium,
gives it as -kT ln <exp(-W / kT)>; forth and back. A hundred particles, each in a well of its own and with an interaction of its
own, are pulled at once, several times, starting from positions and velocities drawn from the exact distribution. The standard
error is that of the bootstrap. For this system W is normally distributed, so mean(W) - var(W) / 2kT must give it as well.
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.source import Source
from tests.validation.conftest import Recorder
from tests.validation.systems import Vectors, Wells, on_ase, on_openmm, pull, thermal, wells_system

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

WELL, SPRING, LENGTH = 1000.0, 2000.0, 0.3  # kJ/(mol nm^2), nm
EXACT = WELL * SPRING / (WELL + SPRING) * LENGTH**2 / 2
MASS, TIMESTEP_PS = 39.948, 0.004
TEMPERATURE_K = 300.0
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE_K
COUNT, ROUNDS = 100, 5
SPEED = 0.06  # nm/ps
ENGINES = {"openmm": "OpenMM Reference", "ase": "ASE"}


def wells(
    engine: str, positions: Vectors, velocities: Vectors, temperature: float, friction: float, seed: int
) -> Source:
    """Particles in wells one nanometre apart, with Langevin dynamics."""
    masses, centres = np.full(len(positions), MASS), well_centres(len(positions))
    if engine == "openmm":
        integrator = openmm.LangevinMiddleIntegrator(temperature, friction, TIMESTEP_PS)
        integrator.setRandomNumberSeed(seed)
        return on_openmm(wells_system(centres, WELL, masses), integrator, positions, velocities)
    options = {"dynamics": "langevin", "temperature_k": temperature, "friction_per_ps": friction}
    return on_ase(masses, Wells(centres, WELL), positions, velocities, TIMESTEP_PS, **options)


def well_centres(count: int) -> Vectors:
    return np.array([[i % 10, i // 10, 0.0] for i in range(count)], dtype=float)


def pulled(source: Source, starts: Vectors, speed: float) -> Vectors:
    """The work of the protocol on each particle, (N,): spring ends move along x by `LENGTH`, from `starts` (N, 3) nm."""
    parameters = {"stiffness": SPRING, "velocity": [speed, 0.0, 0.0]}
    items = [pull(str(i), "steered", [i], place, parameters=parameters) for i, place in enumerate(starts)]
    source.set_interactions(items)
    before = source.snapshot()
    steps = round(LENGTH / abs(speed) / TIMESTEP_PS)
    source.advance(steps)
    after = source.snapshot()
    assert before.interaction_ids == after.interaction_ids == tuple(item.id for item in items)
    work: Vectors = after.interaction_work + after.interaction_energies - before.interaction_energies
    return work


@pytest.mark.parametrize("engine", ENGINES)
def test_a_slow_pull_does_the_reversible_work(engine: str, record: Recorder) -> None:
    """Reversible work of stretching two springs in series."""
    works = []
    for speed in (0.02, 0.01):
        rest = well_centres(1)
        source = wells(engine, rest, np.zeros((1, 3)), 0.0, 5.0, seed=1)
        works.append(float(pulled(source, rest, speed)[0]))
        source.close()
    found = 2 * works[1] - works[0]
    record(
        "Reversible work of stretching two springs in series, at 0 K",
        system=f"particle in a well, {ENGINES[engine]}",
        bound="within 0.1 %",
        result=f"{found:.4f}, exactly {EXACT:.4f} ({100 * (found / EXACT - 1):+.4f} %); "
        f"{works[0]:.4f} and {works[1]:.4f} at 0.02 and 0.01 nm/ps",
        passed=abs(found / EXACT - 1) <= 1e-3,
    )


def drawn(rng: np.random.Generator, forth: bool) -> tuple[Vectors, Vectors, Vectors]:
    """Positions, velocities and spring ends of `COUNT` particles in equilibrium with the resting springs."""
    centres = well_centres(COUNT)
    ends = centres + np.array([0.0 if forth else LENGTH, 0.0, 0.0])
    # Along x the two springs act together; across it, the well alone.
    spread = np.sqrt(KT / np.array([WELL + SPRING, WELL, WELL]))
    middle = centres + np.array([0.0 if forth else LENGTH * SPRING / (WELL + SPRING), 0.0, 0.0])
    return middle + rng.normal(size=(COUNT, 3)) * spread, thermal(np.full(COUNT, MASS), TEMPERATURE_K, rng), ends


def jarzynski(works: Vectors) -> Vectors:
    """-kT ln <exp(-W / kT)> over the last axis."""
    least = works.min(axis=-1, keepdims=True)
    mean: Vectors = np.exp(-(works - least) / KT).mean(axis=-1)
    return np.asarray(least[..., 0] - KT * np.log(mean))


@pytest.mark.parametrize("forth", [True, False], ids=["forth", "back"])
@pytest.mark.parametrize("engine", ENGINES)
def test_fast_pulls_give_the_free_energy_by_jarzynskis_equality(engine: str, forth: bool, record: Recorder) -> None:
    """Free energy by Jarzynski's equality."""
    rng = np.random.default_rng(31 + forth)
    works = []
    for turn in range(ROUNDS):
        positions, velocities, ends = drawn(rng, forth)
        source = wells(engine, positions, velocities, TEMPERATURE_K, 5.0, seed=100 * turn + forth + 1)
        works.append(pulled(source, ends, SPEED if forth else -SPEED))
        source.close()
    work = np.concatenate(works)
    exact = EXACT if forth else -EXACT
    resampled = work[rng.integers(0, len(work), (2000, len(work)))]
    system = f"{len(work)} pulls of {LENGTH} nm at {SPEED} nm/ps, {ENGINES[engine]}"
    normal = work.mean(axis=-1) - work.var(axis=-1, ddof=1) / (2 * KT)
    others = resampled.mean(axis=-1) - resampled.var(axis=-1, ddof=1) / (2 * KT)
    for name, value, error in (
        ("Free energy by Jarzynski's equality", float(jarzynski(work)), float(jarzynski(resampled).std())),
        ("Free energy by mean and variance of the work", float(normal), float(others.std())),
    ):
        record(
            f"{name}, {'forth' if forth else 'back'}",
            system=system,
            bound="within 4 standard errors, these ≤ 0.5 kJ/mol",
            result=f"{value:.3f} ± {error:.3f}, exactly {exact:.3f}; mean work {work.mean():.3f}, dissipated "
            f"{(work.mean() - exact) / KT:.2f} kT",
            passed=abs(value - exact) <= 4 * error <= 2.0,
        )
