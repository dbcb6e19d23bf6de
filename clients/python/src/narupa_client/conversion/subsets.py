"""Some of the particles of a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame

_PER_PARTICLE: Final = (
    keys.POSITIONS,
    keys.VELOCITIES,
    keys.FORCES,
    keys.SYSTEM_FORCES,
    keys.ELEMENTS,
    keys.NAMES,
    keys.RESIDUES,
    keys.COLORS,
)


class Subset:
    """Particles that are kept, in the order of their indices, which are then counted from 0."""

    def __init__(self, indices: NDArray[np.int64], particle_count: int) -> None:
        """
        Args:
            indices: (n,) of the particles to keep, ascending.
            particle_count: Of a frame before.
        """
        self.indices = indices
        self._count = particle_count
        self._places = np.full(particle_count, -1, np.int64)
        self._places[indices] = np.arange(len(indices))
        self._made: dict[str, tuple[Any, Any]] = {}

    def of(self, frame: Frame) -> Frame:
        """What `frame` says of the particles that are kept.

        Raises:
            InvalidArgumentError: it has another number of particles.
        """
        values, arrays = dict(frame.values), dict(frame.arrays)
        if keys.PARTICLE_COUNT in values:
            values[keys.PARTICLE_COUNT] = float(len(self.indices))
        for key in _PER_PARTICLE:
            if key in arrays:
                arrays[key] = self._once(key, arrays[key], self._taken)
        if keys.BOND_PAIRS in arrays:
            pairs = arrays[keys.BOND_PAIRS]
            if keys.BOND_ORDERS in arrays and len(arrays[keys.BOND_ORDERS]) == len(pairs):
                orders: Any = arrays[keys.BOND_ORDERS]
                arrays[keys.BOND_ORDERS] = orders[self._inside(pairs)]
            arrays[keys.BOND_PAIRS] = self._once(keys.BOND_PAIRS, pairs, self._bonds)
        if keys.USER_INDEX in arrays and keys.USER_SPARSE in arrays:
            felt = self._renumbered(arrays[keys.USER_INDEX])
            forces: Any = arrays[keys.USER_SPARSE]
            arrays[keys.USER_INDEX] = felt[felt >= 0].astype(np.uint32)
            arrays[keys.USER_SPARSE] = forces[felt >= 0]
        return Frame(frame.index, values, arrays)

    def _once(self, key: str, array: Any, make: Callable[[str, Any], Any]) -> Any:
        """What is made of an array; the same for the same one, as of a topology that comes with every frame."""
        made_of, made = self._made.get(key, (None, None))
        if made_of is not array:
            made = make(key, array)
            self._made[key] = (array, made)
        return made

    def _bonds(self, key: str, pairs: Any) -> NDArray[np.uint32]:
        return self._renumbered(pairs)[self._inside(pairs)].astype(np.uint32)

    def _inside(self, pairs: Any) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.all(self._renumbered(pairs).reshape(-1, 2) >= 0, axis=1)
        return inside

    def _taken(self, key: str, array: Any) -> Any:
        if len(array) != self._count:
            raise InvalidArgumentError(key, len(array), f"must be {self._count}, as where the selection was made")
        return [array[index] for index in self.indices] if isinstance(array, list) else array[self.indices]

    def _renumbered(self, array: Any) -> NDArray[np.int64]:
        if array.size and int(array.max()) >= self._count:
            raise InvalidArgumentError("particle index", int(array.max()), f"must be below {self._count}")
        places: NDArray[np.int64] = self._places[array.astype(np.int64)]
        return places
