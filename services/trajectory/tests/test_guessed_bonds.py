"""Bonds that a file does not tell, from how far apart atoms are."""

from __future__ import annotations

import tracemalloc

import numpy as np

from narupa_trajectory.sources.topologies import guessed_bonds


def test_bonds_are_between_neighbours_wherever_the_molecule_is() -> None:
    water = np.array([[0.0, 0.0, 0.0], [0.0957, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    for place in ((0.0, 0.0, 0.0), (-500.0, 3.0, 40.0)):
        waters = np.concatenate([water, water + np.array([0.36, 0.0, 0.0])]) + np.array(place)
        assert guessed_bonds([8, 1, 1] * 2, waters).tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]


def test_memory_grows_with_the_atoms_and_not_with_their_square() -> None:
    chain = np.zeros((4000, 3))
    chain[:, 0] = 0.15 * np.arange(4000)
    tracemalloc.start()
    try:
        bonds = guessed_bonds([6] * 4000, chain)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(bonds) == 3999
    assert peak_bytes < 64e6
