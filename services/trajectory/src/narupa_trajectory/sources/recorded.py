"""What recordings have that simulations have not: a pace, an end, other systems on the way, and a shared state to show again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from narupa_shared.recordings.recording import StateChange
from narupa_trajectory.sources.source import Snapshot, TopologyValue

# What came next: another frame, something else than a frame, or nothing, since it stands at the end already.
Moved = Literal["frame", "other", "end"]


@runtime_checkable
class Recorded(Protocol):
    """What the engine's loop asks a source that is a recording, besides what it asks every source."""

    @property
    def loops(self) -> bool:
        """Whether it starts over at its end; else it stops there."""

    def pace_s(self, interval_s: float) -> float:
        """Wall-clock time from where it stands to what comes next, s; `interval_s` is the service's own between frames."""

    def move(self) -> Moved:
        """It stands at what comes next, be it a frame or not; `advance` goes to the next frame."""

    def seek_time(self, time_s: float) -> None:
        """It is at the last frame that is no later than `time_s`, seconds of the recording; before the first, at that.

        Raises:
            FailedPreconditionError: it has no times.
        """

    def peek(self, index: int, velocities: bool) -> Snapshot:
        """Frame `index`, whole where it has frames of its own kind. It stands where it stood.

        Raises:
            NoLongerKeptError: there is none.
        """

    def take_topology(self) -> Mapping[str, TopologyValue] | None:
        """The topology, if it is another one than was last given by this or by `topology`."""

    def take_state(self) -> StateChange | None:
        """How the shared state has changed since this was last called, all of it after a seek; None: not at all."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a recording is to be played.

    Attributes:
        speed: How many times as fast as it was recorded, or as the service plays frames where it has no times.
        loops: Whether it starts over at its end.
        frame_interval_s: Wall-clock time between frames before `speed`, s; None: as recorded, or as the service has it.
    """

    speed: float = 1.0
    loops: bool = True
    frame_interval_s: float | None = None

    def scaled(self, time_s: float) -> float:
        return time_s / self.speed
