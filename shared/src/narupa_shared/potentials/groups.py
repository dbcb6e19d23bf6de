"""Many groups of particles as one list: gathered, made whole and averaged together, without a loop over groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from narupa_shared.periodic import Lattice
from narupa_shared.potentials.vectors import Array


class Groups:
    """G groups, one after the other, of M particles in all.

    Attributes:
        union: (n,) sorted indices of all particles that are in some group.
        places: (M,) where each particle of each group is in the union.
        counts: (G,) particles in each group.
        starts: (G,) where each group begins among the M.
        weights: (M,) mass in amu, or 1.
        totals: (G,) sum of weights.
        shares: (M,) weight by total; equal shares in a group without weight.
        top_shares: (G,) the largest share.
    """

    __slots__ = (
        "_identity",
        "_order",
        "_repeat",
        "_single",
        "counts",
        "places",
        "shares",
        "starts",
        "top_shares",
        "totals",
        "union",
        "weights",
    )

    def __init__(self, groups: Sequence[Sequence[int]], masses: Array, weighted: Sequence[bool]) -> None:
        """Groups of indices into `masses`, (N,) amu; `weighted` says for each whether its weights are the masses."""
        self.counts = np.array([len(group) for group in groups], dtype=np.intp)
        self.starts = np.cumsum(self.counts) - self.counts
        members = np.fromiter(chain.from_iterable(groups), np.intp, int(self.counts.sum()))
        self.union, self.places = np.unique(members, return_inverse=True)
        self.places = self.places.astype(np.intp).ravel()
        self.weights = np.where(np.repeat(np.array(weighted, dtype=bool), self.counts), masses[members], 1.0)
        self.totals = np.add.reduceat(self.weights, self.starts) if len(groups) else np.empty(0)
        weightless = np.repeat(self.totals <= 0, self.counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.shares = np.where(
                weightless,
                np.repeat(1.0 / self.counts, self.counts),
                self.weights / np.repeat(self.totals, self.counts),
            )
        self.top_shares = np.maximum.reduceat(self.shares, self.starts) if len(groups) else np.empty(0)
        self._repeat = np.repeat(np.arange(len(groups)), self.counts)
        self._single = bool((self.counts == 1).all())
        # Where no particle is in two groups: the member that each particle of the union is.
        self._order = np.argsort(self.places) if len(self.union) == len(members) else None
        self._identity = self._order is not None and bool((self.places == np.arange(len(members))).all())

    def gather(self, positions: Array) -> Array:
        """(3, M) from the union's positions, (n, 3)."""
        columns: Array = np.ascontiguousarray(positions.T)
        return columns if self._identity else columns.take(self.places, axis=1)

    def whole(self, members: Array, lattice: Lattice | None) -> tuple[Array, Array]:
        """The members, (3, M), at the images closest to their group's first; and the groups' centres, (3, G)."""
        if self._single:
            return members, members
        # Relative to the first particle, so that no digits are lost far from the origin.
        firsts = members[:, self.starts]
        anchors = firsts.take(self._repeat, axis=1)
        offsets = members - anchors
        if lattice is not None:
            closest = lattice.closest_columns(offsets)
            if closest is not offsets:
                offsets = closest
                members = anchors + offsets
        centres = np.add.reduceat(offsets * self.shares, self.starts, axis=1)
        centres += firsts
        return members, centres

    def spread(self, forces: Array) -> Array:
        """(3, M): the forces on the centres, (3, G), shared out."""
        return forces if self._single else forces.take(self._repeat, axis=1) * self.shares

    def scatter(self, forces: Array) -> Array:
        """(n, 3): the sum over groups of the forces on their members, (3, M)."""
        count = len(self.union)
        if self._identity:
            return np.ascontiguousarray(forces.T)
        if self._order is not None:
            return np.ascontiguousarray(forces.take(self._order, axis=1).T)
        return np.stack([np.bincount(self.places, row, count) for row in forces], axis=1)

    def largest(self, values: Array) -> Array:
        """(G,) the largest of the members' values, (M,), in each group."""
        out: Array = np.maximum.reduceat(values, self.starts)
        return out

    def equal(self) -> NDArray[np.intp]:
        """(M,) the group of each member."""
        return self._repeat
