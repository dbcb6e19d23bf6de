"""The minimum image against brute force, in any box."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.periodic import Lattice

ORTHORHOMBIC = np.diag([2.0, 2.5, 3.0])
TRICLINIC = np.array([[3.0, 0.0, 0.0], [1.2, 2.8, 0.0], [-1.4, 1.3, 2.2]])
# Reduced as OpenMM asks, and still its closest images are several vectors away.
FLAT = np.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [3.3, 0.0, 1.0]])
SLAB = np.array([[2.0, 0.0, 0.0], [0.9, 2.0, 0.0], [0.0, 0.0, 0.0]])


def brute_force_closest(displacement: NDArray[np.float64], box: NDArray[np.float64], reach: int = 6) -> float:
    steps = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    start = displacement - np.rint(displacement @ np.linalg.pinv(box)) @ box
    return float(np.linalg.norm(start + steps @ box, axis=1).min())


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
    # In a box this skewed the closest image may be further away than the search goes, never the other way round.
    assert np.linalg.norm(image) <= brute_force_closest(np.array(displacement), box, reach=8) + 1e-9
    translation = (np.array(displacement) - image) @ np.linalg.inv(box)
    np.testing.assert_allclose(translation, translation.round(), atol=1e-9)
    assert np.linalg.norm(lattice.closest_one(*displacement)) == pytest.approx(np.linalg.norm(image), abs=1e-9)
    twice = lattice.closest_columns(np.array([displacement, displacement]).T.copy())
    np.testing.assert_allclose(np.linalg.norm(twice, axis=0), np.linalg.norm(image), atol=1e-9)


@pytest.mark.parametrize(
    "box", [np.ones((3, 3)), np.eye(2), np.full((3, 3), np.nan), np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])]
)
def test_impossible_boxes_are_refused(box: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidArgumentError, match="box"):
        Lattice.of_box(box)


def test_a_box_of_zeros_is_no_box() -> None:
    assert Lattice.of_box(np.zeros((3, 3))) is None


@pytest.mark.parametrize("box", [ORTHORHOMBIC, TRICLINIC, FLAT, SLAB])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 400), (3, 20, 5)])
def test_many_at_once_are_the_same_as_one_by_one(box: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    lattice = Lattice.of_box(box)
    assert lattice is not None
    displacements = np.random.default_rng(3).normal(scale=3.0, size=shape)
    given = displacements.copy()
    images = lattice.closest_columns(displacements)
    np.testing.assert_array_equal(displacements, given)
    assert images.shape == shape
    for place in np.ndindex(*shape[1:]):
        one = (slice(None), *place)
        expected = brute_force_closest(displacements[one], box)
        assert np.linalg.norm(images[one]) == pytest.approx(expected, abs=1e-9)


def test_what_is_closest_already_is_given_back_as_it_is() -> None:
    lattice = Lattice.of_box(TRICLINIC)
    assert lattice is not None
    near = np.full((3, 500), 0.1)
    assert lattice.closest_columns(near) is near
