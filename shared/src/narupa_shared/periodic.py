"""Minimum image in any box: orthorhombic, triclinic however skewed, and periodic along only some of its vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narupa_shared.errors import InvalidArgumentError

Vectors = NDArray[np.float64]

# Below this fraction of the product of the lengths, box vectors count as lying in one plane (or on one line).
FLATNESS = 1.0e-9
# No box of anything is smaller, nm; and its square must not vanish.
SHORTEST = 1.0e-6


class Lattice:
    """The translations that leave a periodic system as it is, and the shortest image of any displacement under them.

    Subtracting box vectors row by row, as is common, misses the closest image in the corners of a skewed box. Here the
    box is first reduced to its shortest basis (Minkowski reduction, by the greedy algorithm of Nguyen and Stehle, ACM
    Trans. Algorithms 5, 46 (2009)); of a displacement rounded in that basis, the closest image is at most one vector
    away along each axis, so testing 26 neighbours is exact. Most displacements are shorter than half the shortest
    vector, which settles them at once.
    """

    __slots__ = (
        "_columns",
        "_flat_inverse",
        "_flat_neighbours",
        "_flat_vectors",
        "_half_squares",
        "_inverse_columns",
        "_neighbours",
        "_safe_squared",
        "orthogonal",
    )

    def __init__(self, vectors: Sequence[Vectors]) -> None:
        """The lattice of one to three linearly independent vectors, (3,) float64 nm each, already reduced."""
        count = len(vectors)
        basis = np.zeros((3, 3))
        basis[:count] = vectors
        inverse = np.zeros((3, 3))
        inverse[:, :count] = np.linalg.pinv(basis[:count])
        gram = basis @ basis.T
        lengths = np.sqrt(np.diag(gram)[:count])
        steps = itertools.product(*([(-1, 0, 1)] * count + [(0,)] * (3 - count)))
        self._columns = np.ascontiguousarray(basis.T)
        self._inverse_columns = np.ascontiguousarray(inverse.T)
        # One of each pair of opposite neighbours.
        self._neighbours = np.array([step for step in steps if step > (0, 0, 0)], dtype=np.float64) @ basis
        self._half_squares = (self._neighbours * self._neighbours).sum(axis=1)[:, None] / 2
        self._safe_squared = float(lengths.min() / 2) ** 2
        self._flat_vectors: list[float] = basis.ravel().tolist()
        self._flat_neighbours: list[list[float]] = np.hstack([self._neighbours, self._half_squares]).tolist()
        self._flat_inverse: list[float] = inverse.ravel().tolist()
        self.orthogonal = bool(np.abs(gram - np.diag(np.diag(gram))).max() <= 1e-12 * lengths.max() ** 2)

    @classmethod
    def of_box(cls, box: ArrayLike | None) -> Lattice | None:
        """The lattice whose translations are the rows of `box`, (3, 3) nm; a row of zeros is no period.

        Returns:
            None when there is no periodic direction.

        Raises:
            InvalidArgumentError: not nine finite numbers, or the rows are linearly dependent.
        """
        if box is None:
            return None
        rows = np.array(box, dtype=np.float64)
        if rows.shape != (3, 3) or not np.isfinite(rows).all():
            raise InvalidArgumentError("box", box, "must be three rows of three finite numbers, in nm")
        vectors = [row for row in rows if row.any()]
        if not vectors:
            return None
        lengths = np.linalg.norm(vectors, axis=1)
        if lengths.min() < SHORTEST:
            raise InvalidArgumentError("box", rows.tolist(), f"its vectors must be at least {SHORTEST:g} nm long")
        scaled = np.array(vectors) / lengths[:, None]
        if np.prod(np.linalg.svd(scaled, compute_uv=False)) < FLATNESS:
            raise InvalidArgumentError("box", rows.tolist(), "its vectors lie in one plane")
        return cls(reduced(vectors))

    def closest(self, displacements: Vectors) -> Vectors:
        """The shortest images of `displacements`, (m, 3) float64 nm."""
        return np.ascontiguousarray(self.closest_columns(np.ascontiguousarray(displacements.T)).T)

    def closest_columns(self, displacements: Vectors) -> Vectors:
        """The shortest images of `displacements`, (3, ...) float64 nm, components first.

        The very same array is returned when all of them are shortest already.
        """
        if displacements.size == 3:
            return np.array(self.closest_one(*displacements.ravel().tolist())).reshape(displacements.shape)
        if displacements.size <= 300 and np.vdot(displacements, displacements) <= self._safe_squared:
            return displacements
        x, y, z = displacements
        squares = x * x
        squares += y * y
        squares += z * z
        unsettled = (squares.ravel() > self._safe_squared).nonzero()[0]
        if not unsettled.size:
            return displacements
        flat = displacements.reshape(3, -1)
        images = self._closest_columns(flat if unsettled.size == flat.shape[1] else flat[:, unsettled])
        if unsettled.size == flat.shape[1]:
            return images.reshape(displacements.shape)
        out = flat.copy()
        out[:, unsettled] = images
        return out.reshape(displacements.shape)

    def _closest_columns(self, displacements: Vectors) -> Vectors:
        images: Vectors = displacements - self._columns @ np.rint(self._inverse_columns @ displacements)
        if self.orthogonal:
            return images
        unsettled = (np.einsum("ij,ij->j", images, images) > self._safe_squared).nonzero()[0]
        if not unsettled.size:
            return images
        # |d - v|^2 < |d|^2 where d.v > v^2 / 2, so 13 neighbours stand for their opposites too.
        doubtful = images[:, unsettled]
        along = self._neighbours @ doubtful
        gains = np.abs(along) - self._half_squares
        best = gains.argmax(axis=0)
        columns = np.arange(best.size)
        signs = np.where(gains[best, columns] > 0, np.sign(along[best, columns]), 0.0)
        images[:, unsettled] = doubtful - signs * self._neighbours[best].T
        return images

    def closest_one(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """The shortest image of one displacement, nm. Without numpy: at this size it would cost ten times as much."""
        square = x * x + y * y + z * z
        if square <= self._safe_squared or not math.isfinite(square):
            return x, y, z
        ia, ib, ic, ja, jb, jc, ka, kb, kc = self._flat_inverse
        a, b, c = round(x * ia + y * ja + z * ka), round(x * ib + y * jb + z * kb), round(x * ic + y * jc + z * kc)
        ax, ay, az, bx, by, bz, cx, cy, cz = self._flat_vectors
        x -= a * ax + b * bx + c * cx
        y -= a * ay + b * by + c * cy
        z -= a * az + b * bz + c * cz
        if self.orthogonal or x * x + y * y + z * z <= self._safe_squared:
            return x, y, z
        best, shift = 0.0, (0.0, 0.0, 0.0)
        for nx, ny, nz, half in self._flat_neighbours:
            along = x * nx + y * ny + z * nz
            if abs(along) - half > best:
                best = abs(along) - half
                shift = (nx, ny, nz) if along > 0 else (-nx, -ny, -nz)
        return x - shift[0], y - shift[1], z - shift[2]


def reduced(vectors: Sequence[Vectors]) -> list[Vectors]:
    """A shortest basis of the lattice that one to three independent `vectors` span, shortest first."""
    basis = sorted(vectors, key=lambda vector: float(vector @ vector))
    while len(basis) > 1:
        head, last = reduced(basis[:-1]), basis[-1]
        shorter = Lattice(head).closest(last[None, :])[0]
        if shorter @ shorter >= (last @ last) * (1 - 1e-12):
            return [*head, last]
        basis = sorted([*head, shorter], key=lambda vector: float(vector @ vector))
    return basis
