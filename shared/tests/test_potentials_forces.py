"""Every potential is the exact gradient of its energy, below its cap, continuous, periodic and never NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.registry import BUILT_IN
from narupa_shared.testing.bias_cases import (
    CAPS,
    PARTICLES,
    System,
    finite_difference_error,
    interactions,
    systems,
    translated,
)

SEEDS = st.integers(0, 2**32 - 1)


def begun(system: System, *pulls: Interaction) -> tuple[Bias, NDArray[np.float64]]:
    """A bias that began at these positions, and the positions of its particles."""
    bias = Bias(system.masses, clock=lambda: 0.0)
    bias.set(pulls, system.positions, system.box, 0.0)
    return bias, system.positions[bias.particles]


def disturbed(positions: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    return positions + np.random.default_rng(seed).normal(scale=0.04, size=positions.shape)


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), system=systems(), seed=SEEDS, time_ps=st.floats(-3, 9))
def test_force_is_the_negative_gradient_and_never_exceeds_the_cap(
    kind: str, data: st.DataObject, system: System, seed: int, time_ps: float
) -> None:
    pull = data.draw(interactions(kinds=[kind]))
    bias, positions = begun(system, pull)
    positions = disturbed(positions, seed)  # away from where it began

    energy, forces = bias.evaluate(positions, system.box, time_ps)

    assert math.isfinite(energy)
    assert np.linalg.norm(forces, axis=1).max() <= pull.max_force * (1 + 1e-12)
    assert finite_difference_error(bias, positions, system.box, time_ps) < 1e-6


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.parametrize("fraction", [0.2, 1 - 1e-9, 1.0, 1 + 1e-9])
@settings(max_examples=4, deadline=None)
@given(data=st.data(), system=systems(), seed=SEEDS)
def test_force_is_the_negative_gradient_at_the_cap_itself(
    kind: str, fraction: float, data: st.DataObject, system: System, seed: int
) -> None:
    pull = data.draw(interactions(kinds=[kind], max_forces=[math.inf]))
    bias, positions = begun(system, pull)
    positions = disturbed(positions, seed)
    free_energy, free = bias.evaluate(positions, system.box, 1.0)
    largest = float(np.linalg.norm(free, axis=1).max())

    capped = Interaction.from_json({**pull.to_json(), "max_force": largest * fraction})
    bias.set([capped], system.positions, system.box, 0.0)
    energy, forces = bias.evaluate(positions, system.box, 1.0)

    assert np.linalg.norm(forces, axis=1).max() <= largest * fraction * (1 + 1e-9)
    assert finite_difference_error(bias, positions, system.box, 1.0) < 1e-6
    if kind not in ("angle", "dihedral", "rotation", "gaussian") and fraction >= 1 - 1e-9:
        # These caps are met exactly where the force reaches them; there, nothing jumps.
        assert energy == pytest.approx(free_energy, rel=1e-6, abs=1e-9 * largest)
        np.testing.assert_allclose(forces, free, rtol=1e-6, atol=1e-6 * largest)


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), system=systems(), seed=SEEDS)
def test_energy_is_the_integral_of_the_capped_force_along_any_path(
    kind: str, data: st.DataObject, system: System, seed: int
) -> None:
    pull = data.draw(interactions(kinds=[kind], max_forces=CAPS[:-1]))
    bias, positions = begun(system, pull)
    step = np.random.default_rng(seed).normal(scale=2e-3, size=positions.shape)
    before, _ = bias.evaluate(positions, None, 1.0)
    for _ in range(50):  # the energy may not change by more than the force allows, across the cap or not
        positions = positions + step
        energy, _ = bias.evaluate(positions, None, 1.0)
        bound = pull.max_force * float(np.linalg.norm(step, axis=1).sum())
        assert abs(energy - before) <= bound * (1 + 1e-9) + 1e-9 * abs(energy)
        before = energy


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), system=systems(), seed=SEEDS)
def test_moving_particles_by_box_vectors_changes_nothing(
    kind: str, data: st.DataObject, system: System, seed: int
) -> None:
    bias, positions = begun(system, data.draw(interactions(kinds=[kind])))
    rng = np.random.default_rng(seed)
    energy, forces = bias.evaluate(positions, system.box, 2.0)
    moved = translated(system, rng)[bias.particles]
    same_energy, same_forces = bias.evaluate(moved, system.box, 2.0)
    tolerance = 1e-7 * max(1.0, float(np.abs(forces).max()), abs(energy))
    # A tie between images may go either way; then energies agree and forces need not.
    assert same_energy == pytest.approx(energy, abs=tolerance) or kind in ("steered", "wall", "angle", "dihedral")
    if np.allclose(np.linalg.norm(same_forces, axis=1), np.linalg.norm(forces, axis=1), atol=tolerance):
        return
    nudged = disturbed(positions, seed) - positions
    assert_same_nearby(bias, positions + nudged, moved + nudged, system)


def assert_same_nearby(bias: Bias, one: NDArray[np.float64], other: NDArray[np.float64], system: System) -> None:
    energy, forces = bias.evaluate(one, system.box, 2.0)
    same_energy, same_forces = bias.evaluate(other, system.box, 2.0)
    scale = max(1.0, float(np.abs(forces).max()), abs(energy))
    assert same_energy == pytest.approx(energy, abs=1e-6 * scale)
    np.testing.assert_allclose(same_forces, forces, atol=1e-6 * scale)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), system=systems(massless=True), seed=SEEDS)
def test_many_together_are_the_sum_of_each_alone(data: st.DataObject, system: System, seed: int) -> None:
    pulls = [data.draw(interactions(id=f"pull-{n}")) for n in range(data.draw(st.integers(2, 6)))]
    bias, _ = begun(system, *pulls)
    everything = disturbed(system.positions, seed)
    energy, forces = bias.step(everything[bias.particles], system.box, 1.0)
    together = np.zeros((PARTICLES, 3))
    together[bias.particles] = forces
    total, energies, net = np.zeros((PARTICLES, 3)), [], []
    for pull in pulls:
        alone, _ = begun(system, pull)
        part, share = alone.step(everything[alone.particles], system.box, 1.0)
        total[alone.particles] += share
        energies.append(part)
        net.append(share[np.isin(alone.particles, pull.groups[0] if pull.groups else pull.particles)].sum(axis=0))
    scale = max(1.0, float(np.abs(total).max()), float(np.abs(energies).max()))
    np.testing.assert_allclose(together, total, atol=1e-9 * scale)
    np.testing.assert_allclose(bias.energies, energies, atol=1e-9 * scale)
    np.testing.assert_allclose(bias.net_forces, net, atol=1e-9 * scale * PARTICLES)
    assert energy == pytest.approx(sum(energies), abs=1e-9 * scale)


DEGENERATE = {
    "all in one place": np.zeros((PARTICLES, 3)),
    "on one line": np.arange(PARTICLES)[:, None] * np.array([0.1, 0.0, 0.0]),
    "on one line, askew": np.arange(PARTICLES)[:, None] * np.array([0.1, 0.07, -0.03]),
    "nearly in one place": np.random.default_rng(0).normal(size=(PARTICLES, 3)) * 1e-170,
    "very far out": np.random.default_rng(0).normal(size=(PARTICLES, 3)) * 1e12,
}


@pytest.mark.parametrize("positions", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), zero=st.booleans(), periodic=st.booleans())
def test_degenerate_geometries_give_finite_forces_below_the_cap(
    positions: NDArray[np.float64], kind: str, data: st.DataObject, zero: bool, periodic: bool
) -> None:
    pull = data.draw(interactions(kinds=[kind]))
    if zero:
        pull = pull.moved((0.0, 0.0, 0.0))
    bias = Bias(np.linspace(1, 20, PARTICLES))
    box = np.diag([3.0, 3.0, 4.0]) if periodic else None
    bias.set([pull], positions, box, 0.0)
    energy, forces = bias.step(positions[bias.particles], box, 1.0)
    assert math.isfinite(energy) and np.isfinite(forces).all()
    assert np.linalg.norm(forces, axis=1).max() <= pull.max_force * (1 + 1e-9)


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), system=systems(massless=True))
def test_under_a_cap_of_zero_there_is_no_force_and_no_energy(kind: str, data: st.DataObject, system: System) -> None:
    pull = data.draw(interactions(kinds=[kind], max_forces=[0.0]))
    bias, positions = begun(system, pull)
    energy, forces = bias.evaluate(disturbed(positions, 1), system.box, 3.0)
    assert energy == 0 and not forces.any()


class Wrong:
    """A bias whose forces are a little off."""

    def __init__(self, bias: Bias, factor: float) -> None:
        self._bias, self._factor = bias, factor

    def evaluate(self, *where: Any) -> tuple[float, NDArray[np.float64]]:
        energy, forces = self._bias.evaluate(*where)
        return energy, forces * self._factor


@pytest.mark.parametrize("kind", BUILT_IN)
@settings(max_examples=5, deadline=None)
@given(data=st.data(), system=systems(), seed=SEEDS)
def test_a_force_that_is_off_by_a_hundred_thousandth_is_found(
    kind: str, data: st.DataObject, system: System, seed: int
) -> None:
    bias, positions = begun(system, data.draw(interactions(kinds=[kind], max_forces=[60.0, math.inf])))
    positions = disturbed(positions, seed)
    if np.abs(bias.evaluate(positions, system.box, 1.0)[1]).max() > 1e-3:
        wrong: Any = Wrong(bias, 1 + 1e-5)
        assert finite_difference_error(wrong, positions, system.box, 1.0) > 5e-6
