"""The bias potentials against finite differences, an independent formula, and brute-force minimum images."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.periodic import Lattice
from narupa_shared.potentials import PROFILES, BiasPotential, gaussian_crossings

ORTHORHOMBIC = np.diag([2.0, 2.5, 3.0])
TRICLINIC = np.array([[3.0, 0.0, 0.0], [1.2, 2.8, 0.0], [-1.4, 1.3, 2.2]])
# Reduced as OpenMM asks, and still its closest images are several vectors away.
FLAT = np.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [3.3, 0.0, 1.0]])
SLAB = np.array([[2.0, 0.0, 0.0], [0.9, 2.0, 0.0], [0.0, 0.0, 0.0]])
BOXES = {"none": None, "orthorhombic": ORTHORHOMBIC, "triclinic": TRICLINIC, "flat": FLAT, "slab": SLAB}
MASSES = np.array([1.008, 12.011, 15.999, 35.45, 1.008, 22.99])

coordinate = st.floats(-4, 4)
# Where each particle is relative to the first: well within half of every box, so that a group is one molecule.
offsets = st.lists(st.tuples(*[st.floats(-0.2, 0.2)] * 3), min_size=5, max_size=5)


def interaction(**fields: Any) -> Interaction:
    return Interaction.parse("test", **fields)


def brute_force_closest(displacement: NDArray[np.float64], box: NDArray[np.float64], reach: int = 6) -> float:
    steps = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    start = displacement - np.rint(displacement @ np.linalg.pinv(box)) @ box
    return float(np.linalg.norm(start + steps @ box, axis=1).min())


def numerical_forces(
    bias: BiasPotential, positions: NDArray[np.float64], box: Any, h: float = 1e-3
) -> NDArray[np.float64]:
    """-dE/dx by the five-point stencil, whose error is of order h^4."""
    forces = np.zeros_like(positions)
    for index in np.ndindex(*positions.shape):
        values = {}
        for k in (-2, -1, 1, 2):
            moved = positions.copy()
            moved[index] += k * h
            values[k] = bias.evaluate(moved, box)[0]
        forces[index] = -(values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * h)
    return forces


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("mass_weighted", [True, False], ids=["mass", "equal"])
@pytest.mark.parametrize("kind", PROFILES)
@settings(max_examples=20, deadline=None)
@given(
    first=st.tuples(coordinate, coordinate, coordinate),
    offsets=offsets,
    handle=st.tuples(coordinate, coordinate, coordinate),
    particles=st.sampled_from([(2,), (0, 1), (1, 2, 3), (0, 1, 2, 3, 4, 5)]),
    scale=st.sampled_from([1.0, 30.0, -5.0]),
    max_force=st.sampled_from([0.0, 0.3, 5.0, 60.0, math.inf]),
    split=st.booleans(),
)
def test_force_is_negative_gradient_and_never_exceeds_the_cap(
    box: Any,
    mass_weighted: bool,
    kind: str,
    first: Any,
    offsets: Any,
    handle: Any,
    particles: Any,
    scale: float,
    max_force: float,
    split: bool,
) -> None:
    bias = BiasPotential(MASSES)
    pull = interaction(
        kind=kind, position=handle, particles=particles, scale=scale, max_force=max_force, mass_weighted=mass_weighted
    )
    bias.set([pull])
    everything = np.array([first, *(np.add(first, offset) for offset in offsets)])
    if box is not None and split:  # scatter the group over neighbouring images
        everything += np.array([[i % 2, -(i % 3), (i + 1) % 2] for i in range(6)]) @ box
    positions = everything[list(particles)]

    energy, forces = bias.evaluate(positions, box)

    assert math.isfinite(energy)
    assert np.linalg.norm(forces, axis=1).max() <= max_force * (1 + 1e-12)
    # Away from the points where no gradient exists: a tie between images, a kink of the cap, the tip of the cone.
    weights = MASSES[list(particles)] if mass_weighted else np.ones(len(particles))
    whole = np.array([first, *(np.add(first, offset) for offset in offsets)])[list(particles)]
    away = np.average(whole, axis=0, weights=weights) - handle
    if box is not None:
        images = np.linalg.norm(
            Lattice.of_box(box).closest(away[None])  # type: ignore[union-attr]
            + np.array(list(itertools.product(range(-6, 7), repeat=3)))
            @ box,  # far: flat boxes have near neighbours there
            axis=1,
        )
        distances = np.sort(np.unique(images.round(9)))
        assume(len(distances) < 2 or distances[1] - distances[0] > 0.03)
        r = float(distances[0])
    else:
        r = float(np.linalg.norm(away))
    assume(r > 0.02)
    limit = max_force * len(particles) / (abs(scale) * weights.max())
    kinks = [limit / 2] if kind == "spring" else []
    if kind == "gaussian" and 0 < limit < math.exp(-0.5):
        kinks = list(gaussian_crossings(limit))
    assume(all(abs(r - kink) > 0.01 for kink in kinks))
    expected = numerical_forces(bias, positions, box)
    # The stencil cannot resolve less than the rounding of the energy.
    assert np.abs(forces - expected).max() <= 1e-6 * np.abs(forces).max() + 1e-10 * max(1.0, abs(energy))


@pytest.mark.parametrize("mass_weighted", [True, False])
@pytest.mark.parametrize("kind", PROFILES)
def test_uncapped_force_is_the_published_law(kind: str, mass_weighted: bool) -> None:
    rng = np.random.default_rng(5)
    positions, handle, particles = rng.normal(size=(4, 3)), rng.normal(size=3), (1, 2, 3, 5)
    bias = BiasPotential(MASSES)
    pull = interaction(
        kind=kind,
        position=handle.tolist(),
        particles=particles,
        scale=7.0,
        max_force=math.inf,
        mass_weighted=mass_weighted,
    )
    bias.set([pull])
    weights = MASSES[list(particles)] if mass_weighted else np.ones(4)
    d = (weights[:, None] * positions).sum(axis=0) / weights.sum() - handle
    law = {
        "gaussian": -d * np.exp(-(d @ d) / 2),
        "spring": -2 * d,
        "constant": -d / np.linalg.norm(d),
    }[kind]
    expected = 7.0 * weights[:, None] * law / 4
    np.testing.assert_allclose(bias.evaluate(positions, None)[1], expected, rtol=1e-12)


def test_uncapped_energies_are_the_published_laws() -> None:
    bias = BiasPotential([10.0, 10.0])
    positions = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 1.5]])
    for kind, unit in (("gaussian", -math.exp(-0.5)), ("spring", 1.0), ("constant", 1.0)):
        bias.set([interaction(kind=kind, particles=[0, 1], scale=3.0, max_force=math.inf)])
        assert bias.evaluate(positions, None)[0] == pytest.approx(3.0 * 20 / 2 * unit)


@pytest.mark.parametrize("limit", [1e-300, 1e-9, 0.01, 0.3, 0.6, math.exp(-0.5) * (1 - 1e-12)])
def test_capped_gaussian_is_continuous_and_vanishes_far_away(limit: float) -> None:
    inner, outer = gaussian_crossings(limit)
    assert 0 < inner <= 1 <= outer
    profile = PROFILES["gaussian"](limit)
    for radius in (inner, outer):
        below, above = profile(radius * (1 - 1e-12)), profile(radius * (1 + 1e-12))
        assert below == pytest.approx(above, rel=1e-9, abs=1e-11)
        assert profile(radius)[1] == pytest.approx(limit, rel=1e-6)
    assert abs(profile(40.0)[0]) <= 1e-300
    radii = np.linspace(1e-6, 8, 4000)
    slopes = [profile(r)[1] for r in radii]
    heights = np.array([profile(r)[0] for r in radii])
    assert max(slopes) <= limit * (1 + 1e-9)
    assert (np.diff(heights) >= 0).all()


@pytest.mark.parametrize("kind", ["spring", "constant"])
def test_capped_energy_is_continuous(kind: Any) -> None:
    profile = PROFILES[kind](0.8)
    radii = np.linspace(0, 1, 2001)
    heights, slopes = np.array([profile(r) for r in radii]).T
    np.testing.assert_allclose(np.diff(heights), (slopes[1:] + slopes[:-1]) / 2 * np.diff(radii), atol=1e-6)


@pytest.mark.parametrize("kind", PROFILES)
def test_no_force_exactly_at_the_handle(kind: str) -> None:
    bias = BiasPotential(MASSES)
    bias.set([interaction(kind=kind, position=(1, 2, 3), particles=[1], scale=1e9)])
    assert not bias.evaluate(np.array([[1.0, 2.0, 3.0]]), None)[1].any()


@pytest.mark.parametrize("kind", PROFILES)
def test_no_force_and_no_energy_under_a_cap_of_zero(kind: str) -> None:
    bias = BiasPotential(MASSES)
    bias.set([interaction(kind=kind, particles=[1, 2], max_force=0.0, scale=-4.0)])
    energy, forces = bias.evaluate(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.1]]), None)
    assert energy == 0 and not forces.any()


def test_massless_particles_feel_nothing() -> None:
    bias = BiasPotential([0.0, 0.0, 2.0])
    bias.set([interaction(kind="spring", particles=[0, 1])])
    assert not bias.evaluate(np.ones((2, 3)), None)[1].any()
    bias.set([interaction(kind="spring", particles=[0, 2])])
    forces = bias.evaluate(np.ones((2, 3)), None)[1]
    assert not forces[0].any() and forces[1].all()


def test_a_molecule_across_the_boundary_is_whole() -> None:
    bias = BiasPotential([12.0, 16.0])
    bias.set([interaction(kind="spring", particles=[0, 1], position=(0.0, 1.0, 1.0), scale=10)])
    inside = np.array([[0.05, 1.0, 1.0], [0.15, 1.0, 1.0]])
    across = inside - [0.1, 0, 0]
    wrapped = across % np.diag(ORTHORHOMBIC)
    assert wrapped[0, 0] > 1.9
    expected = bias.evaluate(across, None)
    energy, forces = bias.evaluate(wrapped, ORTHORHOMBIC)
    assert energy == pytest.approx(expected[0])
    np.testing.assert_allclose(forces, expected[1], atol=1e-9)


@pytest.mark.parametrize("box", [ORTHORHOMBIC, TRICLINIC, FLAT, SLAB, FLAT[[2, 0, 1]]])
@settings(max_examples=150, deadline=None)
@given(displacement=st.tuples(*[st.floats(-30, 30)] * 3))
def test_closest_image_is_the_closest(box: NDArray[np.float64], displacement: tuple[float, float, float]) -> None:
    lattice = Lattice.of_box(box)
    assert lattice is not None
    vector = np.array(displacement)
    image = lattice.closest(vector[None])[0]
    assert np.linalg.norm(image) == pytest.approx(brute_force_closest(vector, box), abs=1e-9)
    translation = (vector - image) @ np.linalg.pinv(box)
    np.testing.assert_allclose(translation, translation.round(), atol=1e-9)
    assert np.linalg.norm(lattice.closest_one(*displacement)) == pytest.approx(np.linalg.norm(image), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=3, max_size=3),
    displacement=st.tuples(*[st.floats(-8, 8)] * 3),
)
def test_closest_image_in_any_box(rows: Any, displacement: Any) -> None:
    box = np.array(rows)
    lengths = np.linalg.norm(box, axis=1)
    assume((lengths > 0.5).all())
    assume(np.prod(np.linalg.svd(box / lengths[:, None], compute_uv=False)) > 0.2)
    lattice = Lattice.of_box(box)
    assert lattice is not None
    image = lattice.closest(np.array([displacement]))[0]
    assert np.linalg.norm(image) == pytest.approx(brute_force_closest(np.array(displacement), box, reach=8), abs=1e-9)


@pytest.mark.parametrize(
    "box", [np.ones((3, 3)), np.eye(2), np.full((3, 3), np.nan), np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])]
)
def test_impossible_boxes_are_refused(box: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidArgumentError, match="box"):
        Lattice.of_box(box)


def test_a_box_of_zeros_is_no_box() -> None:
    assert Lattice.of_box(np.zeros((3, 3))) is None


def test_particles_are_the_sorted_union_and_impossible_interactions_are_left_out() -> None:
    bias = BiasPotential(MASSES)
    bias.set([interaction(particles=[5, 1]), interaction(particles=[1, 3]), interaction(particles=[2, 6])])
    assert bias.particles.tolist() == [1, 3, 5]
    assert len(bias.interactions) == 2
    bias.set([])
    assert bias.empty and bias.particles.size == 0
    assert bias.evaluate(np.empty((0, 3)), None)[0] == 0


def test_overlapping_interactions_add_up() -> None:
    bias = BiasPotential(MASSES)
    one, other = (
        interaction(kind="spring", particles=[1, 3]),
        interaction(kind="constant", particles=[3], position=(1, 1, 1)),
    )
    positions = np.array([[0.3, 0.2, 0.1], [-0.5, 0.4, 0.9]])
    bias.set([one])
    energy, forces = bias.evaluate(positions, None)
    bias.set([other])
    more, extra = bias.evaluate(positions[1:], None)
    bias.set([one, other])
    both = bias.evaluate(positions, None)
    assert both[0] == pytest.approx(energy + more)
    np.testing.assert_allclose(both[1], np.add(forces, [[0, 0, 0], extra[0]]))


class TestWork:
    def test_equals_the_drop_in_energy_of_a_static_bias(self) -> None:
        bias = BiasPotential(MASSES)
        bias.set([interaction(kind="gaussian", particles=[0, 1, 2], scale=50)])
        rng = np.random.default_rng(2)
        positions = rng.normal(size=(3, 3))
        first, _ = bias.step(positions, None)
        for _ in range(2000):
            positions = positions + rng.normal(scale=2e-3, size=(3, 3))
            last, _ = bias.step(positions, None)
        assert bias.work == pytest.approx(first - last, abs=1e-4)

    def test_of_a_step_repeated_in_place_is_none(self) -> None:
        bias = BiasPotential(MASSES)
        bias.set([interaction(kind="spring", particles=[0])])
        for _ in range(3):
            bias.step(np.ones((1, 3)), None)
        assert bias.work == 0

    def test_of_wrapping_is_none(self) -> None:
        bias = BiasPotential(MASSES)
        bias.set([interaction(kind="spring", particles=[0])])
        for shift in ([0, 0, 0], TRICLINIC[1], TRICLINIC[2] - TRICLINIC[0]):
            bias.step(np.array([[0.1, 0.2, 0.3]]) + shift, TRICLINIC)
        assert bias.work == pytest.approx(0, abs=1e-12)

    def test_of_moving_the_handle_is_none_and_the_next_step_counts_under_the_new_one(self) -> None:
        bias = BiasPotential([1.0])
        pull = interaction(kind="spring", particles=[0], scale=10)
        bias.set([pull])
        bias.step(np.array([[0.1, 0, 0]]), None)
        bias.set([pull.moved((5.0, 0, 0))])
        assert bias.work == 0
        bias.step(np.array([[0.2, 0, 0]]), None)
        assert bias.work == pytest.approx(10 * (4.9**2 - 4.8**2))

    def test_of_grabbing_and_releasing_is_none(self) -> None:
        bias = BiasPotential(np.ones(6))
        one, other = (
            interaction(kind="spring", particles=[0]),
            interaction(kind="spring", particles=[4], position=(9, 9, 9)),
        )
        far = np.full((1, 3), 7.0)
        bias.set([one])
        bias.step(np.zeros((1, 3)), None)
        bias.set([one, other])
        bias.step(np.concatenate([np.zeros((1, 3)), far]), None)
        bias.set([other])
        bias.step(far, None)
        assert bias.work == 0

    def test_reset_clears_it(self) -> None:
        bias = BiasPotential([1.0])
        bias.set([interaction(kind="spring", particles=[0])])
        bias.step(np.zeros((1, 3)), None)
        bias.step(np.ones((1, 3)), None)
        assert bias.work != 0
        bias.reset_work()
        bias.step(np.full((1, 3), 2.0), None)
        assert bias.work == 0
