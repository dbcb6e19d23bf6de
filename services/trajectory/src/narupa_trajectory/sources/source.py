"""What every source of frames looks like to the engine process that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import NarupaError
from narupa_shared.frames import Frame
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction

# What a key of a topology may hold: see docs/frames.md for the keys.
TopologyValue = float | str | list[str] | NDArray[np.float32] | NDArray[np.uint32]


class SourceDivergedError(NarupaError):
    """Positions or energies are no longer finite: the simulation can only be reset, or restored from a checkpoint."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is true of a source for as long as it is loaded."""

    name: str
    particle_count: int
    live: bool  # a simulation that feels forces; False for a recording
    frame_count: int | None = None  # frames of a recording; None for a live source
    velocity_reset_available: bool = False
    steps_per_frame: int = 1  # integration steps that `advance(1)` frame makes by default
    content_id: str = ""  # of a recording: the same for the same content; "" for a live source
    frame_interval_s: float | None = None  # of a recording that has a pace: wall-clock time between its frames, about
    restorable: bool = True  # it can be reset, checkpointed and restored; False for an engine run by somebody else


@dataclass(slots=True)
class Snapshot:
    """One instant of a source. Floats are in kJ/mol, K and ps; None where the source does not have the quantity."""

    positions: NDArray[np.float32]  # (N, 3) nm
    time_ps: float | None
    step: int  # integration steps since the last load or reset; for a recording, the index of its frame
    box: NDArray[np.float32] | None = None  # (3, 3) nm, rows are the box vectors
    potential_energy: float | None = None  # without the users' bias
    kinetic_energy: float | None = None
    temperature: float | None = None
    energies_at_ps: float | None = None  # what energies and temperature are of, where not always of this instant
    velocities: NDArray[np.float32] | None = None  # (N, 3) nm/ps
    user_energy: float = 0.0
    user_index: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))  # (n,), ascending
    user_forces: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3), np.float32))  # (n, 3) kJ/(mol nm)
    user_work: float = 0.0  # integral of F dx over the particles' paths since the last load or reset
    interaction_ids: tuple[str, ...] = ()  # the interactions in force; the next three are in their order
    interaction_energies: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (K,) kJ/mol
    interaction_work: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (K,) kJ/mol, since each began
    interaction_forces: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))  # (K, 3) kJ/(mol nm)
    # Of a recorded session: all that changes with time, as it was recorded. It is shown in place of what stands above.
    recorded: Frame | None = None
    taken_at: float | None = None  # when the engine was asked for it, time.monotonic, s; None where nobody has said


class Source(Protocol):
    """One system or recording. Lives in the engine process and is called from one thread.

    A source is positioned at its first frame when made. All arrays it returns are fresh or never written again.
    """

    @property
    def info(self) -> SourceInfo: ...

    def topology(self) -> Mapping[str, TopologyValue]:
        """The keys that do not change with time: `particle.count`, `particle.elements`, `bond.pairs`, ..."""

    def advance(self, steps: int) -> bool:
        """Moves on by `steps` integration steps (a recording: by one frame, whatever `steps`).

        Returns:
            False: it stands at the last frame already, and has not moved.

        Raises:
            SourceDivergedError: positions or energies are no longer finite.
        """

    def snapshot(self, velocities: bool = False) -> Snapshot:
        """The present instant. Energies cost a force evaluation, so this is called only when somebody is due a frame.

        Raises:
            SourceDivergedError: positions or energies are no longer finite.
        """

    def seek(self, index: int) -> None:
        """A recording is at frame `index`. Raises: FailedPreconditionError (live source), NoLongerKeptError (out of range)."""

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """From the next step on these, and no others, act. Ids that are no longer there and asked for it get their
        particles' velocities redrawn. Interactions with indices beyond the system are left out. No effect on a recording."""

    def take_finished(self) -> Sequence[FinishedInteraction]:
        """The accounts of the interactions that have ended since this was called last, each told once."""

    def suspects(self) -> Sequence[str]:
        """After a divergence: ids of the interactions that may have caused it, the likeliest first; those of no effect are
        left out."""

    def reset(self) -> None:
        """Back at the first frame, with no work done, no user force and no account. Raises: FailedPreconditionError."""

    def checkpoint(self) -> bytes:
        """All that `restore` on a newly made source of the same input needs to go on from here, bit for bit where the engine
        and the machine are the same.

        Raises:
            FailedPreconditionError: it is not restorable.
            SourceDivergedError: what there is to keep is no longer good.
        """

    def restore(self, checkpoint: bytes) -> None:
        """Goes on from a checkpoint. Raises: InvalidArgumentError when it does not fit this system."""

    def close(self) -> None:
        """Frees what the source holds. Idempotent."""


@runtime_checkable
class Glimpsed(Protocol):
    """What the engine's loop also asks a source that can show an instant for much less than a force evaluation."""

    def glimpse(self, velocities: bool = False) -> Snapshot:
        """The present instant without energies and temperature. Called only while no interactions act.

        Raises:
            SourceDivergedError: positions are no longer finite, or velocities beyond what counts as a simulation.
        """
