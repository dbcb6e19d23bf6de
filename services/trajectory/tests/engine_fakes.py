"""A source that needs no engine: particles on a line that move one step a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from narupa_shared.errors import FailedPreconditionError, NoLongerKeptError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue


class FakeSource:
    """Three particles; x is the step, and each interaction does 1 kJ/mol of work a step. Recordings have ten frames.

    Attributes:
        bombs: Ids of interactions that make it blow up a step after they begin to act.
        nans: Ids of interactions that make its snapshots hold what is no number.
    """

    def __init__(
        self,
        live: bool = True,
        diverges_at: int | None = None,
        restorable: bool = True,
        bombs: Collection[str] = (),
        nans: Collection[str] = (),
    ) -> None:
        self.info = SourceInfo("fake", 3, live, None if live else 10, live, 2, restorable=restorable)
        self.step = 0
        self.snapshots = 0
        self.longest_block = 0
        self.interactions: Sequence[Interaction] = ()
        self.closed = False
        self.bombs, self.nans = bombs, nans
        self.restored: list[int] = []
        self.checkpoints = 0
        self._began: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._finished: list[FinishedInteraction] = []
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
        if any(item.id in self.bombs for item in self.interactions):
            raise SourceDivergedError("the simulation diverged: the kinetic energy is inf kJ/mol")
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        self.snapshots += 1
        positions = np.zeros((3, 3), np.float32)
        positions[:, 0] = np.nan if any(item.id in self.nans for item in self.interactions) else self.step
        snapshot = Snapshot(positions, time_ps=0.5 * self.step, step=self.step, box=np.eye(3, dtype=np.float32))
        if velocities:
            snapshot.velocities = positions + 1
        if self.interactions:
            count = len(self.interactions)
            snapshot.user_energy = 2.5
            snapshot.user_index = np.array([1, 2], np.uint32)
            snapshot.user_forces = np.arange(6, dtype=np.float32).reshape(2, 3)
            snapshot.interaction_ids = tuple(item.id for item in self.interactions)
            snapshot.interaction_energies = np.full(count, 2.5 / count)
            snapshot.interaction_work = np.array(
                [self.step - self._began[id] for id in snapshot.interaction_ids], float
            )
            snapshot.interaction_forces = np.arange(3.0 * count).reshape(count, 3)
        return snapshot

    def seek(self, index: int) -> None:
        if not 0 <= index < 10:
            raise NoLongerKeptError(f"frame {index} is not there")
        self.step = index

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        now = {item.id for item in interactions}
        self._finished += [self._account(item) for item in self.interactions if item.id not in now]
        self._began = {id: self._began.get(id, self._known.get(id, self.step)) for id in now}
        self._known = {}
        self.interactions = interactions

    def _account(self, item: Interaction) -> FinishedInteraction:
        began = self._began[item.id]
        work = float("nan") if item.id in {*self.bombs, *self.nans} else float(self.step - began)
        times = (0.0, 0.0, 0.5 * began, 0.5 * self.step)
        return FinishedInteraction(item.id, item.owner, item.kind, item.particles, *times, work)

    def take_finished(self) -> Sequence[FinishedInteraction]:
        taken, self._finished = self._finished, []
        return taken

    def suspects(self) -> Sequence[str]:
        guilty = [item.id for item in self.interactions if item.id in {*self.bombs, *self.nans}]
        return [*guilty, *(item.id for item in self.interactions if item.id not in guilty)]

    def reset(self) -> None:
        if not self.info.restorable:
            raise FailedPreconditionError("this engine is run by somebody else; reset it there")
        self.step = 0
        self._forget()

    def checkpoint(self) -> bytes:
        self.checkpoints += 1
        still = np.zeros((3, 3))
        accounts = {id: {"work": float(self.step - began), "began": began} for id, began in self._began.items()}
        return Checkpoint(still, still, 0.5 * self.step, self.step, 0.0, bias={"accounts": accounts}).to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        self._forget()
        read = Checkpoint.from_bytes(checkpoint, 3)
        self.step = read.step
        self._known = {id: account["began"] for id, account in read.bias["accounts"].items()}
        self.restored.append(self.step)

    def _forget(self) -> None:
        self.interactions, self._began, self._known, self._finished = (), {}, {}, []

    def close(self) -> None:
        self.closed = True
