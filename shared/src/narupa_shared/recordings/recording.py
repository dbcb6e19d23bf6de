"""What every recording is, whatever its format: moments in order of time, each with a frame, a change of the state, or both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError, shown
from narupa_shared.frames import Frame

# One message of a recording may be this long, bytes: the state and a frame of some million particles.
MAX_MESSAGE_BYTES: Final = 512 * 1024 * 1024
# Lists and maps of one message may have this many items together: names and residues of some million particles.
MAX_ITEMS: Final = 20_000_000
# A recording may have this many messages: a month at sixty each second.
MAX_MESSAGES: Final = 200_000_000
# The index of a frame whose recording does not tell it without being read.
UNKNOWN_INDEX: Final = -1


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of the shared state.

    Attributes:
        updates: New values by key.
        removals: Keys that are gone.
        whole: Whether `updates` is all there is.
    """

    updates: Mapping[str, Any] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    whole: bool = False

    def applied(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state after this change of `state`."""
        after = {} if self.whole else {key: value for key, value in state.items() if key not in self.removals}
        return {**after, **self.updates}


@dataclass(frozen=True, slots=True)
class Moment:
    """What a recording has at one time.

    Attributes:
        time_s: Since the start of the recording.
        frame: The keys that are new; one of index 0 begins another run. None: no frame.
        state: What changes; None: nothing.
    """

    time_s: float
    frame: Frame | None = None
    state: StateChange | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is, in order, without what is in it.

    Attributes:
        times_s: (M,) float64, seconds since the start, never going back.
        frames: (M,) bool, which moments have a frame. Only reading tells for certain.
        states: (M,) bool, which moments have a change of the state. Only reading tells for certain.
        indices: (M,) int64, the frames' indices; -1 where there is none, or where only reading tells.
    """

    times_s: NDArray[np.float64]
    frames: NDArray[np.bool_]
    states: NDArray[np.bool_]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times_s)


class OpenRecording(ABC):
    """A recording that is open, whatever its format. One thread at a time.

    Attributes:
        path: Where it is.
        contents: What is in it.
    """

    path: Path
    contents: Contents

    @abstractmethod
    def read(self, number: int) -> Moment:
        """Moment `number`, from 0 on. Arrays are read-only.

        Raises:
            InvalidArgumentError: what is there is no such message; names the file, the moment and the field.
        """

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""

    def __len__(self) -> int:
        return len(self.contents)

    def __iter__(self) -> Iterator[Moment]:
        """All moments, one at a time: never more than one is in memory."""
        return (self.read(number) for number in range(len(self.contents)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def duration_s(self) -> float:
        """From the first moment to the last."""
        return float(self.contents.times_s[-1]) if len(self) else 0.0


def elapsed(microseconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds since the first of these times, never going back."""
    if not len(microseconds):
        return np.empty(0)
    ascending: NDArray[np.float64] = np.maximum.accumulate(microseconds)
    seconds: NDArray[np.float64] = (ascending - ascending[0]) * 1e-6
    return seconds


def refused(path: Path, where: str, value: object, reason: str) -> InvalidArgumentError:
    """The error about one place in a recording."""
    return InvalidArgumentError(f"{where} of {path.name}", value, reason)


def told(path: Path, where: str, error: Exception) -> InvalidArgumentError:
    """The error of reading one place in a recording, with the file and the place before it."""
    mended = InvalidArgumentError.__new__(InvalidArgumentError)
    mended.field, mended.value, mended.reason = where, str(path), str(error)
    Exception.__init__(mended, f"{path.name} cannot be read at {where}: {shown(str(error), 300)[1:-1]}")
    return mended
