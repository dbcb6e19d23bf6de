"""A context that is rebuilt while it runs, because somebody grabs other atoms, is where it was, and costs no memory."""

import gc
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest

from narupa_trajectory.sources.openmm_state import OpenMMState

N = 60
SEED = 7


def started(integrator: openmm.Integrator, platform: str = "CPU") -> tuple[openmm.Context, openmm.System, OpenMMState]:
    """A chain of atoms in a context, some steps after it was put at its start."""
    system = openmm.System()
    bonds = openmm.CustomBondForce("0.5*k*(r-0.15)^2")
    bonds.addGlobalParameter("k", 1000.0)
    for index in range(N):
        system.addParticle(12.0)
        if index:
            bonds.addBond(index - 1, index, [])
    system.addForce(bonds)
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(SEED)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform))
    state = OpenMMState(context, system, np.full(N, 12.0))
    places = np.cumsum(np.full((N, 3), 0.15 / np.sqrt(3)), axis=0)
    state.put(state.first(places, None, None, 300.0, False))
    context.setParameter("k", 900.0)
    integrator.step(10)
    return context, system, state


def langevin() -> openmm.Integrator:
    return openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)


def grab(system: openmm.System) -> None:
    force = openmm.CustomExternalForce("strength*x")
    force.addGlobalParameter("strength", 0.0)
    force.addParticle(0, [])
    system.addForce(force)


def where(context: openmm.Context) -> tuple[np.ndarray, np.ndarray, float, int]:
    state = context.getState(getPositions=True, getVelocities=True)
    places, speeds = (np.asarray(value._value) for value in (state.getPositions(True), state.getVelocities(True)))
    return places, speeds, float(state.getTime()._value), int(state.getStepCount())


@pytest.mark.parametrize("platform", ["CPU", "Reference"])
@pytest.mark.parametrize(
    "integrator",
    [langevin, lambda: openmm.LangevinIntegrator(300.0, 1.0, 0.001), lambda: openmm.VerletIntegrator(0.001)],
)
def test_it_is_where_it_was(integrator, platform) -> None:  # type: ignore[no-untyped-def]
    context, system, state = started(integrator(), platform)
    before = where(context)
    grab(system)
    state.rebuild()
    for here, there in zip(where(context), before, strict=True):
        np.testing.assert_array_equal(here, there)
    assert dict(context.getParameters()) == {"k": 900.0, "strength": 0.0}
    system.removeForce(1)
    state.rebuild()
    assert dict(context.getParameters())["k"] == 900.0
    if hasattr(context.getIntegrator(), "getRandomNumberSeed"):
        assert context.getIntegrator().getRandomNumberSeed() == SEED
    context.getIntegrator().step(5)
    assert where(context)[3] == before[3] + 5


def test_chance_does_not_repeat_itself_after_each_rebuild() -> None:
    context, _, state = started(langevin())
    places, speeds, *_ = where(context)
    went = []
    for _ in range(3):
        context.setPositions(places)
        context.setVelocities(speeds)
        state.rebuild()
        context.getIntegrator().step(5)
        went.append(where(context)[1])
    assert not np.allclose(went[0], went[1]) and not np.allclose(went[1], went[2])


def test_what_has_just_been_restored_goes_the_way_it_went() -> None:
    context, system, state = started(langevin())
    saved = state.portable(context.getState(getPositions=True, getVelocities=True))
    inner = context.createCheckpoint()
    context.getIntegrator().step(5)
    went = where(context)
    state.put(saved)
    context.loadCheckpoint(inner)
    grab(system)
    state.rebuild()
    context.getIntegrator().step(5)
    np.testing.assert_array_equal(where(context)[1], went[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rebuilds_cost_no_memory() -> None:
    def private_kb() -> int:
        gc.collect()
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Private_Dirty")))

    context, _, state = started(langevin())
    for _ in range(200):
        state.rebuild()
    before = private_kb()
    for _ in range(1000):
        state.rebuild()
    # What was lost before was 2.5 kB for each of the threads, each time.
    assert private_kb() - before < 1000
    del context
