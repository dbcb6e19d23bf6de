"""A source that needs no engine: particles on a line that move one step a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from narupa_shared.errors import NoLongerKeptError
from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue


class FakeSource:
    """Three particles; x is the step. Recordings have ten frames. Diverges at step `diverges_at`."""

    def __init__(self, live: bool = True, diverges_at: int | None = None) -> None:
        self.info = SourceInfo("fake", 3, live, None if live else 10, live, 2)
        self.step = 0
        self.snapshots = 0
        self.longest_block = 0
        self.interactions: Sequence[Interaction] = ()
        self.closed = False
        self._diverges_at = diverges_at

    def topology(self) -> Mapping[str, TopologyValue]:
        return {
            "particle.count": 3.0,
            "particle.elements": np.array([6, 1, 8], np.uint32),
            "particle.names": ["C", "H", "O"],
        }

    def advance(self, steps: int) -> bool:
        self.longest_block = max(self.longest_block, steps)
        if not self.info.live and self.step == 9:
            return False
        self.step += steps if self.info.live else 1
        if self._diverges_at is not None and self.step >= self._diverges_at:
            raise SourceDivergedError("the simulation diverged: the potential energy is nan kJ/mol")
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        self.snapshots += 1
        positions = np.zeros((3, 3), np.float32)
        positions[:, 0] = self.step
        snapshot = Snapshot(positions, time_ps=0.5 * self.step, step=self.step, box=np.eye(3, dtype=np.float32))
        if velocities:
            snapshot.velocities = positions + 1
        if self.interactions:
            snapshot.user_energy = 2.5
            snapshot.user_index = np.array([1, 2], np.uint32)
            snapshot.user_forces = np.arange(6, dtype=np.float32).reshape(2, 3)
        return snapshot

    def seek(self, index: int) -> None:
        if not 0 <= index < 10:
            raise NoLongerKeptError(f"frame {index} is not there")
        self.step = index

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        self.interactions = interactions

    def reset(self) -> None:
        self.step = 0

    def checkpoint(self) -> bytes:
        return str(self.step).encode()

    def restore(self, checkpoint: bytes) -> None:
        self.step = int(checkpoint)

    def close(self) -> None:
        self.closed = True
