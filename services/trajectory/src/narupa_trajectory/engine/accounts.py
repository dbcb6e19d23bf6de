"""What the service knows of the interactions in force, should their engine end before it tells their accounts. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot


@dataclass(slots=True)
class OpenAccount:
    """One interaction's, as last heard of."""

    interaction: Interaction
    started_at: float  # seconds since 1970
    start_time_ps: float
    end_time_ps: float
    work: float = 0.0  # kJ/mol


class OpenAccounts:
    """The accounts that no engine has told yet."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._open: dict[str, OpenAccount] = {}

    def applied(self, interactions: Iterable[Interaction], time_ps: float) -> None:
        """These act now; those of them that did not before have begun at `time_ps`."""
        for item in interactions:
            known = self._open.get(item.id)
            if known is not None and known.interaction.particles == item.particles:
                known.interaction = item
            else:
                self._open[item.id] = OpenAccount(item, self._clock(), time_ps, time_ps)

    def seen(self, snapshot: Snapshot) -> None:
        """The work is that of `snapshot`."""
        for id, work in zip(snapshot.interaction_ids, snapshot.interaction_work.tolist(), strict=True):
            if account := self._open.get(id):
                account.work = work
                account.end_time_ps = account.end_time_ps if snapshot.time_ps is None else snapshot.time_ps

    def told(self, id: str) -> None:
        """The engine has told this one."""
        self._open.pop(id, None)

    def rolled_back(self, works: Mapping[str, float], time_ps: float) -> None:
        """The simulation is back at `time_ps`, where `works` had been done: what came after has not happened."""
        for id, account in self._open.items():
            account.work = works.get(id, 0.0)
            account.end_time_ps = time_ps
            account.start_time_ps = min(account.start_time_ps, time_ps)

    def close(self, reason: str, only: str | None = None, still: Collection[str] = ()) -> list[FinishedInteraction]:
        """The accounts that end here without the engine's word, because of `reason`: all but `still`, or `only` one."""
        ids = [id for id in self._open if id not in still and only in (None, id)]
        now = self._clock()
        return [finished(self._open.pop(id), now, reason) for id in ids]


def finished(account: OpenAccount, now: float, reason: str) -> FinishedInteraction:
    """`account`, ended at `now` (seconds since 1970)."""
    item = account.interaction
    return FinishedInteraction(
        id=item.id,
        owner=item.owner,
        potential=item.kind,
        particles=item.particles,
        started_at=account.started_at,
        duration_s=max(0.0, now - account.started_at),
        start_time_ps=account.start_time_ps,
        end_time_ps=account.end_time_ps,
        work=account.work,
        reason=reason,
    )


def works_in(checkpoint: bytes, particle_count: int) -> dict[str, float]:
    """The work of each interaction at a checkpoint, kJ/mol, by id; nothing where the checkpoint does not say."""
    read = known_form(checkpoint, particle_count)
    try:
        accounts = read.bias.get("accounts", {}) if read else {}
        return {str(id): float(account["work"]) for id, account in accounts.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def time_in(checkpoint: bytes, particle_count: int) -> float | None:
    """The simulated time of a checkpoint, ps; None where the checkpoint does not say."""
    read = known_form(checkpoint, particle_count)
    return read.time_ps if read else None


def known_form(checkpoint: bytes, particle_count: int) -> Checkpoint | None:
    """The checkpoint where it has the form of the engines that come with the service; None of an engine's own."""
    try:
        return Checkpoint.from_bytes(checkpoint, particle_count) if checkpoint else None
    except InvalidArgumentError:
        return None


def finished_of(item: Mapping[str, Any]) -> FinishedInteraction:
    """The account in one item of the engine's message."""
    return FinishedInteraction(**{**item, "particles": tuple(item["particles"])})
