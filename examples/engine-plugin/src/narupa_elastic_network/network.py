"""The force field: springs between all beads that are near each other in the structure.

    E = k/2 sum_{i<j, d_ij < cutoff} (|x_i - x_j| - d_ij)^2          d_ij: the distance in the structure
    F_i = -dE/dx_i = -k sum_j (|x_i - x_j| - d_ij) (x_i - x_j) / |x_i - x_j|

Tirion, Phys. Rev. Lett. 77, 1905 (1996); its second derivatives at the structure are the anisotropic network model of Atilgan
et al., Biophys. J. 80, 505 (2001), whose slowest modes are the large motions that proteins are known for.
"""

from __future__ import annotations

import numpy as np
from MDAnalysis.lib.distances import self_capped_distance
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError

# Springs of this length have no direction; none gets so short by its own force.
SHORTEST_NM = 1e-9


class Network:
    """Springs over N beads. Stateless once made."""

    def __init__(self, positions: NDArray[np.float64], cutoff_nm: float, stiffness: float) -> None:
        """
        Args:
            positions: Of the structure, (N, 3) nm, in which no spring is stretched.
            cutoff_nm: The longest spring, nm.
            stiffness: Of each, kJ/(mol nm^2).

        Raises:
            InvalidArgumentError: the cutoff leaves the beads in several pieces.
        """
        # It reckons in single precision; the lengths are taken in double, so that the structure is at rest.
        pairs = self_capped_distance(positions.astype(np.float32), cutoff_nm, return_distances=False)
        self.pairs: NDArray[np.intp] = np.asarray(pairs, np.intp).reshape(-1, 2)
        self.lengths = np.linalg.norm(positions[self.pairs[:, 0]] - positions[self.pairs[:, 1]], axis=1)
        self.stiffness = stiffness
        if (pieces := piece_count(len(positions), self.pairs)) > 1:
            raise InvalidArgumentError("cutoff_nm", cutoff_nm, f"leaves the structure in {pieces} pieces; raise it")

    def fastest(self, mass: float) -> float:
        """An upper bound of the angular frequencies, rad/ps, for beads of `mass` amu.

        A spring adds at most 2 k to the curvature in its own direction, so that none exceeds 2 k times the most springs on
        one bead (the bound of a graph's Laplacian).
        """
        most = int(np.bincount(self.pairs.ravel(), minlength=1).max())
        return float(np.sqrt(2 * self.stiffness * most / mass))

    def evaluate(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The energy, kJ/mol, and the forces (N, 3) in kJ/(mol nm) at `positions` (N, 3) nm."""
        first, second = self.pairs.T
        arms = positions[first] - positions[second]
        distances = np.sqrt(np.einsum("ij,ij->i", arms, arms))
        stretches = distances - self.lengths
        pulls = (self.stiffness * stretches / np.maximum(distances, SHORTEST_NM))[:, None] * arms
        count = len(positions)
        along = [np.bincount(second, pull, count) - np.bincount(first, pull, count) for pull in pulls.T]
        return 0.5 * self.stiffness * float(stretches @ stretches), np.column_stack(along)


def piece_count(count: int, pairs: NDArray[np.intp]) -> int:
    """Into how many pieces `count` beads fall that the `pairs` (P, 2) join: each ends up with the least number in its piece."""
    first, second = pairs.T
    labels = np.arange(count)
    while True:
        lower = labels.copy()
        np.minimum.at(lower, first, labels[second])
        np.minimum.at(lower, second, labels[first])
        lower = lower[lower]
        if np.array_equal(lower, labels):
            return len(np.unique(labels))
        labels = lower
