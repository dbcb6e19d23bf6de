"""Some of the particles of a system, as a system of their own."""

from __future__ import annotations

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
    keys.COLORS,
    keys.INDICES,
)
_PER_RESIDUE: Final = (keys.RESIDUE_NAMES, keys.RESIDUE_IDS)


class Kept:
    """Those of `count` things that are kept, in their order, which are then counted from 0."""

    def __init__(self, indices: NDArray[np.integer[Any]], count: int, what: str) -> None:
        """
        Args:
            indices: (n,) of those that are kept, ascending, below `count`.
            count: How many there are.
            what: A word for one of them.
        """
        self.indices = indices.astype(np.uint32)
        self._count = count
        self._what = what
        self._places = np.full(count, -1, np.int64)
        self._places[self.indices] = np.arange(len(self.indices))

    def taken(self, key: str, array: Any) -> Any:
        """The rows of those that are kept. Raises: InvalidArgumentError: `array` has not one for each that there is."""
        if len(array) != self._count:
            reason = f"must be {self._count}, one for each {self._what}"
            raise InvalidArgumentError(f"length of {key}", len(array), reason)
        if isinstance(array, list):
            return np.array(array, object)[self.indices].tolist()
        return array[self.indices]

    def renumbered(self, key: str, array: Any) -> NDArray[np.int64]:
        """The new number of each that `array` names; -1 where it is not kept. Raises: InvalidArgumentError for no such one."""
        if array.size and int(array.max()) >= self._count:
            raise InvalidArgumentError(
                key, int(array.max()), f"must be below {self._count}, which is each {self._what}"
            )
        places: NDArray[np.int64] = self._places[array.astype(np.int64)]
        return places


class Subset:
    """Particles that are kept, and the residues and chains that they are in.

    Attributes:
        indices: Of the particles, (n,) uint32, ascending.
        complete: Whether that is all of them: frames stay as they are.
        problem: Why it is empty, where that was not wanted.
    """

    def __init__(
        self, indices: NDArray[np.integer[Any]], whole: Frame, problem: InvalidArgumentError | None = None
    ) -> None:
        """
        Args:
            indices: (n,) of the particles, ascending, below the particle count.
            whole: A whole frame.
            problem: See above.

        Raises:
            InvalidArgumentError: the frame does not fit itself.
        """
        count = particle_count(whole)
        self.complete = len(indices) == count and problem is None
        self.problem = problem
        self._particles = Kept(indices, count, "particle")
        self._residues = self._chains = None
        self.indices = self._particles.indices
        residues: Any = whole.arrays.get(keys.RESIDUES)
        if residues is not None:
            kept = np.unique(self._particles.taken(keys.RESIDUES, residues))
            self._residues = Kept(kept, _count(whole, residues, keys.RESIDUE_COUNT, *_PER_RESIDUE), "residue")
            chains: Any = whole.arrays.get(keys.RESIDUE_CHAINS)
            if chains is not None:
                kept = np.unique(self._residues.taken(keys.RESIDUE_CHAINS, chains))
                self._chains = Kept(kept, _count(whole, chains, keys.CHAIN_COUNT, keys.CHAIN_NAMES), "chain")

    def of(self, frame: Frame) -> Frame:
        """What `frame` says of the particles, residues and chains that are kept.

        Raises:
            InvalidArgumentError: it is of another system.
        """
        if self.complete:
            return frame
        values, arrays = dict(frame.values), dict(frame.arrays)
        for key in _PER_PARTICLE:
            if key in arrays:
                arrays[key] = self._particles.taken(key, arrays[key])
        self._keep_bonds(arrays)
        self._keep_forces(arrays)
        for key, kept in (
            (keys.PARTICLE_COUNT, self._particles),
            (keys.RESIDUE_COUNT, self._residues),
            (keys.CHAIN_COUNT, self._chains),
        ):
            if key in values and kept is not None:
                values[key] = float(len(kept.indices))
        self._keep_residues(arrays)
        if self.problem is not None and not values.get(keys.EXCEPTION):
            values[keys.EXCEPTION] = str(self.problem)
        return Frame(frame.index, values, arrays)

    def of_topology(self, topology: Frame) -> Frame:
        """As `of`, with `particle.indices`."""
        if self.complete:
            return topology
        cut = self.of(topology)
        cut.values[keys.PARTICLE_COUNT] = float(len(self.indices))
        cut.arrays.setdefault(keys.INDICES, self.indices)
        return cut

    def _keep_bonds(self, arrays: dict[str, Any]) -> None:
        if keys.BOND_PAIRS in arrays:
            ends = self._particles.renumbered(keys.BOND_PAIRS, arrays[keys.BOND_PAIRS]).reshape(-1, 2)
            inside = np.all(ends >= 0, axis=1)
            if keys.BOND_ORDERS in arrays and len(arrays[keys.BOND_ORDERS]) == len(ends):
                arrays[keys.BOND_ORDERS] = arrays[keys.BOND_ORDERS][inside]
            arrays[keys.BOND_PAIRS] = ends[inside].astype(np.uint32)

    def _keep_forces(self, arrays: dict[str, Any]) -> None:
        if keys.USER_INDEX in arrays:
            felt = self._particles.renumbered(keys.USER_INDEX, arrays[keys.USER_INDEX])
            if keys.USER_SPARSE in arrays and len(arrays[keys.USER_SPARSE]) == len(felt):
                arrays[keys.USER_SPARSE] = arrays[keys.USER_SPARSE][felt >= 0]
            arrays[keys.USER_INDEX] = felt[felt >= 0].astype(np.uint32)

    def _keep_residues(self, arrays: dict[str, Any]) -> None:
        if self._residues is None:
            return
        if keys.RESIDUES in arrays:
            of_particles = self._particles.taken(keys.RESIDUES, arrays[keys.RESIDUES])
            arrays[keys.RESIDUES] = self._residues.renumbered(keys.RESIDUES, of_particles).astype(np.uint32)
        for key in _PER_RESIDUE:
            if key in arrays:
                arrays[key] = self._residues.taken(key, arrays[key])
        if self._chains is None:
            return
        if keys.RESIDUE_CHAINS in arrays:
            of_residues = self._residues.taken(keys.RESIDUE_CHAINS, arrays[keys.RESIDUE_CHAINS])
            arrays[keys.RESIDUE_CHAINS] = self._chains.renumbered(keys.RESIDUE_CHAINS, of_residues).astype(np.uint32)
        if keys.CHAIN_NAMES in arrays:
            arrays[keys.CHAIN_NAMES] = self._chains.taken(keys.CHAIN_NAMES, arrays[keys.CHAIN_NAMES])


def particle_count(whole: Frame) -> int:
    """How many particles a whole frame says it has, or has positions of."""
    count = whole.values.get(keys.PARTICLE_COUNT)
    if isinstance(count, int | float):
        return int(count)
    return next((len(whole.arrays[key]) for key in _PER_PARTICLE if key in whole.arrays), 0)


def _count(whole: Frame, indices: Any, count_key: str, *array_keys: str) -> int:
    """How many residues or chains there are."""
    for key in array_keys:
        if key in whole.arrays:
            return len(whole.arrays[key])
    said = whole.values.get(count_key)
    return int(said) if isinstance(said, int | float) else int(indices.max(initial=-1)) + 1
