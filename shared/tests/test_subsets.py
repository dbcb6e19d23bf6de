"""Some of the particles as a system of their own: rows, bonds, residues and chains are numbered alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.subsets import Subset


def system(seed: int, count: int) -> tuple[Frame, Frame]:
    """A topology, and a frame with what changes, of particles that can be told apart by every array."""
    random = np.random.default_rng(seed)
    residue_count, chain_count = int(random.integers(1, count + 1)), int(random.integers(1, 4))
    pairs = np.sort(random.integers(0, count, (3 * count, 2)), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0).astype(np.uint32)
    felt = np.flatnonzero(random.random(count) < 0.5).astype(np.uint32)
    topology: dict[str, Any] = {
        keys.PARTICLE_COUNT: float(count),
        keys.ELEMENTS: random.integers(1, 90, count).astype(np.uint32),
        keys.NAMES: [f"A{n}" for n in range(count)],
        keys.RESIDUES: random.integers(0, residue_count, count).astype(np.uint32),
        keys.RESIDUE_COUNT: float(residue_count),
        keys.RESIDUE_NAMES: [f"R{n}" for n in range(residue_count)],
        keys.RESIDUE_IDS: [str(n + 1) for n in range(residue_count)],
        keys.RESIDUE_CHAINS: random.integers(0, chain_count, residue_count).astype(np.uint32),
        keys.CHAIN_COUNT: float(chain_count),
        keys.CHAIN_NAMES: [f"C{n}" for n in range(chain_count)],
        keys.BOND_PAIRS: pairs,
        keys.BOND_ORDERS: random.random(len(pairs)).astype(np.float32),
        keys.COLORS: random.integers(0, 256, (count, 4)).astype(np.uint32),
        keys.SIMULATION_NAME: "x",
    }
    changing: dict[str, Any] = {
        keys.POSITIONS: random.random((count, 3)).astype(np.float32),
        keys.VELOCITIES: random.random((count, 3)).astype(np.float32),
        keys.FORCES: random.random((count, 3)).astype(np.float32),
        keys.USER_INDEX: felt,
        keys.USER_SPARSE: random.random((len(felt), 3)).astype(np.float32),
        keys.INTERACTION_FORCES: random.random((2, 3)).astype(np.float32),
        keys.POTENTIAL: -1.5,
    }
    return Frame.of(0, topology), Frame.of(7, changing)


def described(topology: Frame, frame: Frame, particle: int) -> tuple[Any, ...]:
    """Everything that is known of one particle, in words that no numbering changes."""
    arrays: Any = {**topology.arrays, **frame.arrays}
    residue = int(arrays[keys.RESIDUES][particle])
    chain = int(arrays[keys.RESIDUE_CHAINS][residue])
    partners = {
        (arrays[keys.NAMES][a + b - particle], float(order))
        for (a, b), order in zip(arrays[keys.BOND_PAIRS].tolist(), arrays[keys.BOND_ORDERS], strict=True)
        if particle in (a, b)
    }
    felt = np.flatnonzero(arrays[keys.USER_INDEX] == particle)
    return (
        arrays[keys.NAMES][particle],
        int(arrays[keys.ELEMENTS][particle]),
        arrays[keys.COLORS][particle].tolist(),
        arrays[keys.RESIDUE_NAMES][residue],
        arrays[keys.RESIDUE_IDS][residue],
        arrays[keys.CHAIN_NAMES][chain],
        *(arrays[key][particle].tolist() for key in (keys.POSITIONS, keys.VELOCITIES, keys.FORCES)),
        arrays[keys.USER_SPARSE][felt].tolist(),
        partners,
    )


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), data=st.data())
def test_each_particle_that_is_kept_is_what_it_was(seed: int, count: int, data: st.DataObject) -> None:
    topology, frame = system(seed, count)
    kept = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    names = {f"A{n}" for n in kept}
    subset = Subset(np.array(kept, np.int64), topology.overlaid(frame))
    cut_topology, cut = subset.of_topology(topology), subset.of(frame)
    assert cut.index == 7
    for number, particle in enumerate(kept):
        *facts, partners = described(topology, frame, particle)
        expected = (*facts, {partner for partner in partners if partner[0] in names})
        assert described(cut_topology, cut, number) == expected
    indices: Any = cut_topology.arrays.get(keys.INDICES, np.arange(count))
    assert indices.tolist() == kept
    assert cut_topology.values[keys.PARTICLE_COUNT] == len(kept)
    arrays: Any = cut_topology.arrays
    if len(kept) < count:
        assert set(arrays[keys.RESIDUES].tolist()) == set(range(len(arrays[keys.RESIDUE_NAMES])))
        assert set(arrays[keys.RESIDUE_CHAINS].tolist()) == set(range(len(arrays[keys.CHAIN_NAMES])))
        assert cut_topology.values[keys.RESIDUE_COUNT] == len(arrays[keys.RESIDUE_NAMES])
        assert cut_topology.values[keys.CHAIN_COUNT] == len(arrays[keys.CHAIN_NAMES])
    else:
        assert cut is frame
        assert cut_topology is topology
    np.testing.assert_array_equal(cut.arrays[keys.INTERACTION_FORCES], frame.arrays[keys.INTERACTION_FORCES])
    assert cut.values[keys.POTENTIAL] == -1.5


def test_bonds_across_the_boundary_are_left_out_with_their_orders() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 3]], np.uint32)
    whole = Frame.of(
        0, {keys.PARTICLE_COUNT: 4.0, keys.BOND_PAIRS: pairs, keys.BOND_ORDERS: np.array([1, 2, 3], np.float32)}
    )
    cut = Subset(np.array([0, 2, 3]), whole).of_topology(whole)
    assert cut.arrays[keys.BOND_PAIRS].tolist() == [[1, 2]]  # type: ignore[union-attr]
    assert cut.arrays[keys.BOND_ORDERS].tolist() == [3.0]  # type: ignore[union-attr]
    none = Subset(np.array([0, 3]), whole).of_topology(whole)
    assert none.arrays[keys.BOND_PAIRS].shape == (0, 2)  # type: ignore[union-attr]


def test_what_a_frame_does_not_have_is_not_missed() -> None:
    nobody = {keys.BOND_PAIRS: np.zeros((0, 2), np.uint32), keys.USER_INDEX: np.zeros(0, np.uint32)}
    whole = Frame.of(0, {keys.PARTICLE_COUNT: 4.0, **nobody})
    cut = Subset(np.array([0, 2]), whole).of_topology(whole)
    assert cut.arrays.keys() == {keys.BOND_PAIRS, keys.USER_INDEX, keys.INDICES}
    assert cut.values == {keys.PARTICLE_COUNT: 2.0}


def test_a_frame_of_another_system_is_refused() -> None:
    topology, frame = system(1, 9)
    subset = Subset(np.array([1, 4]), topology)
    other = Frame(1, {}, {keys.POSITIONS: np.zeros((8, 3), np.float32)})
    with pytest.raises(InvalidArgumentError, match=r"particle\.positions is 8: must be 9"):
        subset.of(other)
    with pytest.raises(InvalidArgumentError, match=r"forces\.user\.index is 9"):
        subset.of(Frame(1, {}, {keys.USER_INDEX: np.array([9], np.uint32)}))
    assert len(subset.of(frame).arrays[keys.POSITIONS]) == 2


def test_an_empty_one_says_why_unless_the_engine_has_something_to_say() -> None:
    topology, frame = system(2, 5)
    subset = Subset(np.empty(0, np.uint32), topology, InvalidArgumentError("view.selection", "x", "matches nothing"))
    assert subset.of(frame).values[keys.EXCEPTION] == "view.selection is 'x': matches nothing"
    failing = Frame(8, {**frame.values, keys.EXCEPTION: "it exploded"}, frame.arrays)
    assert subset.of(failing).values[keys.EXCEPTION] == "it exploded"
    assert subset.of_topology(topology).values[keys.PARTICLE_COUNT] == 0
