"""Frames one after the other of one run of the same particles, in memory, for the analysis that comes after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from narupa_client.conversion import tables
from narupa_client.frames import CurrentFrame
from narupa_shared import frame_keys as keys
from narupa_shared.errors import FailedPreconditionError, QuotaError

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from MDAnalysis import Universe

# (N, 3) in each frame, and (F, N, 3) in a series.
_STACKED: Final = (keys.POSITIONS, keys.VELOCITIES, keys.FORCES)
# What the particles are.
_TOPOLOGY: Final = (
    keys.INDICES,
    keys.ELEMENTS,
    keys.NAMES,
    keys.RESIDUES,
    keys.RESIDUE_NAMES,
    keys.RESIDUE_IDS,
    keys.RESIDUE_CHAINS,
    keys.CHAIN_NAMES,
    keys.BOND_PAIRS,
    keys.BOND_ORDERS,
)
# What a frame takes besides its arrays, about, bytes.
_FRAME_BYTES: Final = 4096


class FrameSeries(Sequence[CurrentFrame]):
    """Whole frames, all of the same particles in one run; a slice of it is a series, too. Arrays are read-only."""

    def __init__(
        self, frames: Sequence[CurrentFrame] = (), stacks: Mapping[str, NDArray[np.float32]] | None = None
    ) -> None:
        """Of frames that `SeriesBuilder` has checked; `FrameSeries.of` takes any."""
        self._frames = tuple(frames)
        self._stacks = stacks or {}

    @classmethod
    def of(cls, frames: Iterable[CurrentFrame]) -> FrameSeries:
        """The series of these frames.

        Raises:
            FailedPreconditionError: one has not as many positions as particles, is of another run, or of other particles.
        """
        frames = list(frames)
        builder = SeriesBuilder(None, len(frames))
        for frame in frames:
            builder.add(frame)
        return builder.built()

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, at: int) -> CurrentFrame: ...
    @overload
    def __getitem__(self, at: slice) -> FrameSeries: ...
    def __getitem__(self, at: int | slice) -> CurrentFrame | FrameSeries:
        if isinstance(at, slice):
            return FrameSeries(self._frames[at], {key: stack[at] for key, stack in self._stacks.items()})
        return self._frames[at]

    def __iter__(self) -> Iterator[CurrentFrame]:
        return iter(self._frames)

    def __repr__(self) -> str:
        if not self._frames:
            return "<FrameSeries of no frames>"
        times = self.times_ps[[0, -1]]
        when = "" if np.isnan(times).any() else f", {times[0]:g} to {times[1]:g} ps"
        return f"<FrameSeries of {len(self)} frames of {self.particle_count} particles{when}>"

    @property
    def particle_count(self) -> int:
        """N."""
        return int(self.positions.shape[1])

    @property
    def positions(self) -> NDArray[np.float32]:
        """(F, N, 3) float32, nm; N is 0 where positions were not asked for."""
        return self._stacks.get(keys.POSITIONS, np.zeros((0, 0, 3), np.float32))

    @property
    def velocities(self) -> NDArray[np.float32] | None:
        """(F, N, 3) float32, nm/ps; None where not every frame has them."""
        return self._stacks.get(keys.VELOCITIES)

    @property
    def forces(self) -> NDArray[np.float32] | None:
        """Of the simulation, (F, N, 3) float32, kJ/(mol nm); None where not every frame has them."""
        return self._stacks.get(keys.FORCES)

    @property
    def boxes(self) -> NDArray[np.float32] | None:
        """Box vectors of each frame as rows, (F, 3, 3) float32, nm; None where not every frame has a box."""
        boxes = [frame.box for frame in self._frames]
        return None if not boxes or any(box is None for box in boxes) else np.array(boxes, np.float32)

    @property
    def times_ps(self) -> NDArray[np.float64]:
        """Simulated time of each frame, (F,) float64, ps; NaN where it has none."""
        return tables.numbers(self._frames, "time_ps")

    @property
    def potential_energies(self) -> NDArray[np.float64]:
        """(F,) float64, kJ/mol, without what users add; NaN where there is none."""
        return tables.numbers(self._frames, "potential_energy")

    @property
    def kinetic_energies(self) -> NDArray[np.float64]:
        """(F,) float64, kJ/mol; NaN where there is none."""
        return tables.numbers(self._frames, "kinetic_energy")

    @property
    def user_energies(self) -> NDArray[np.float64]:
        """Energy of all interactions, (F,) float64, kJ/mol; NaN where there is none."""
        return tables.numbers(self._frames, "user_energy")

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table with a row for each frame, by its index: step, time, energies, temperature, users' energy and work.

        The columns are named and in units as the properties of a frame; NaN is what the source has not.

        Raises:
            FailedPreconditionError: pandas is not installed.
        """
        return tables.frame_table(self._frames)

    def to_atoms(self) -> list[Atoms]:
        """An ASE Atoms for each frame, as `CurrentFrame.to_atoms`."""
        return [frame.to_atoms() for frame in self._frames]

    def to_universe(self) -> Universe:
        """An MDAnalysis Universe with these frames as its trajectory in memory: Å, ps, Å/ps, kJ/(mol Å), amu.

        Box lengths and angles, velocities and forces are there where the frames have them; masses are those of the elements.
        Where frames have no time, they are numbered by it.

        Raises:
            FailedPreconditionError: there are no frames, or no positions, or MDAnalysis is not installed.
            InvalidArgumentError: the topology does not fit the particles.
        """
        if not self._frames or not self.particle_count:
            raise FailedPreconditionError(f"a universe needs positions, and there are none in {self!r}")
        from narupa_client.conversion.universes import universe_over

        times = self.times_ps
        return universe_over(
            self._frames[0].as_frame(),
            self.positions,
            self.velocities,
            self.forces,
            [frame.box for frame in self._frames],
            None if np.isnan(times).any() else times,
        )


class SeriesBuilder:
    """Takes frames one by one, as long as they are of one run of the same particles."""

    def __init__(self, limit_bytes: int | None, expected: int | None = None) -> None:
        """One of the two is needed.

        Args:
            limit_bytes: How much memory the frames may take, about; None for any.
            expected: How many frames are to come, at most, so that it is told at once if there is no room for all.
        """
        self._limit = limit_bytes
        self._expected = expected
        self._clear()

    def _clear(self) -> None:
        self._frames: list[CurrentFrame] = []
        self._arrays: list[dict[str, Any]] = []  # those of the frames, which are theirs alone
        self._stacks: dict[str, _Stack] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: CurrentFrame) -> None:
        """The frame is behind those before it.

        Raises:
            FailedPreconditionError: it has not as many positions as particles, is of another run, or of other particles.
            QuotaError: there is no room for it.
        """
        count = len(frame.positions)
        if keys.POSITIONS in frame.arrays and count != frame.particle_count:
            reason = f"has {count} positions, and {frame.particle_count} particles"
            raise FailedPreconditionError(f"frame {frame.index}, after {len(self)}, {reason}")
        arrays = {**frame.arrays, keys.POSITIONS: frame.positions}
        if self._frames:
            self._compare(frame, arrays)
        self._count = count
        before = self._arrays[-1] if self._arrays else {}  # without what is stacked, which is another one each time
        size = _FRAME_BYTES + sum(_size(array) for key, array in arrays.items() if before.get(key) is not array)
        least = _FRAME_BYTES + sum(_size(arrays.get(key, [])) for key in _STACKED)
        further = max(0, (self._expected or 0) - len(self) - 1)
        needed = self._bytes + size + further * least
        if self._limit is not None and needed > self._limit:
            text = f"{len(self) + 1 + further} frames of {count} particles need {needed / 2**20:.4g} MiB of memory"
            raise QuotaError(f"{text}, and the limit is {self._limit / 2**20:.4g}; collect fewer, or raise limit_bytes")
        self._bytes += size
        self._stack(arrays, least)
        self._frames.append(CurrentFrame(frame.index, frame.values, arrays))
        self._arrays.append(arrays)

    def _compare(self, frame: CurrentFrame, arrays: dict[str, Any]) -> None:
        """Arrays of the topology are those of the first frame, the very same."""
        first = self._frames[0]
        how = f"after {len(self)} frames"
        if frame.run_id != first.run_id or (frame.index == 0 and not first.run_id):
            reason = f"another run began {how}: the simulation was reset, or another one loaded"
            raise FailedPreconditionError(f"{reason}; a series is of one run, so take each for itself")
        if len(frame.positions) != self._count:
            reason = f"{how} there are {len(frame.positions)} particles instead of {self._count}"
            raise FailedPreconditionError(f"{reason}; a series is of the same particles, so take each for itself")
        for key in _TOPOLOGY:
            old, new = first.arrays.get(key), arrays.get(key)
            if new is old:
                continue
            if old is None or new is None or not np.array_equal(old, new):
                reason = f"{key} changed {how}: another system was loaded, or shown"
                raise FailedPreconditionError(f"{reason}; a series is of the same particles, so take each for itself")
            arrays[key] = old

    def _stack(self, arrays: dict[str, Any], least_bytes: int) -> None:
        """What every frame has so far is moved from `arrays` to where it is for all of them."""
        shape = arrays[keys.POSITIONS].shape
        for key in _STACKED:
            if np.shape(arrays.get(key, ())) != shape:
                continue
            if not self._frames:
                room = self._expected or (self._limit or 0) // least_bytes
                self._stacks[key] = _Stack(np.empty((room, *shape), np.float32))
            stack = self._stacks.get(key)
            if stack is not None and stack.count == len(self._frames):
                stack.add(arrays.pop(key))

    def built(self) -> FrameSeries:
        """The series of all frames that were added; the builder is empty."""
        frames, arrays = self._frames, self._arrays
        stacks = {key: stack.whole() for key, stack in self._stacks.items()}
        self._clear()
        for key, stack in stacks.items():
            for each, rows in zip(arrays, stack, strict=False):
                each[key] = rows
        return FrameSeries(frames, {key: stack for key, stack in stacks.items() if len(stack) == len(frames)})


class _Stack:
    """An array of F frames, which takes no more memory than those that are in it."""

    def __init__(self, room: NDArray[np.float32]) -> None:
        """
        Args:
            room: (most of F, N, 3), of whatever it holds: the system gives it memory where it is written.
        """
        self.count = 0
        self._array = room

    def add(self, rows: NDArray[np.float32]) -> None:
        self._array[self.count] = rows
        self.count += 1

    def whole(self) -> NDArray[np.float32]:
        """(F, N, 3), read-only. Nothing can be added any more."""
        self._array.resize((self.count, *self._array.shape[1:]), refcheck=False)  # nothing else refers to it yet
        self._array.flags.writeable = False
        return self._array


def _size(array: Any) -> int:
    return 64 * len(array) if isinstance(array, list) else int(array.nbytes)
