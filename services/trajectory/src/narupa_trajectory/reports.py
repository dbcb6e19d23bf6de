"""The accounts of interactions that have ended, each with a number, for everyone who wants to hear of each one once. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from narupa_shared.errors import InvalidArgumentError, NarupaError, NoLongerKeptError, QuotaError
from narupa_shared.potentials.accounts import FinishedInteraction

# Besides their number, the particles that all kept reports name are limited: one interaction may name a hundred thousand.
MAX_KEPT_PARTICLES: Final = 1_000_000
# A response is at most so many reports, and ends after the one with which it names so many particles.
MAX_BATCH: Final = 100
MAX_BATCH_PARTICLES: Final = 100_000


@dataclass(frozen=True, slots=True)
class FinishedReport:
    """One interaction's account and its place among all of them.

    Attributes:
        sequence: 1, 2, ... within the epoch.
        account: What the engine told.
        run_id: `system.simulation.run` of the simulation that it acted on.
    """

    sequence: int
    account: FinishedInteraction
    run_id: str


class FinishedReports:
    """The newest reports, and everyone who waits for the next. To be used from the event loop's thread."""

    def __init__(self, epoch: str, kept: int = 1000, max_watchers: int = 10_000) -> None:
        """Nothing has ended yet.

        Args:
            epoch: Names this life of the numbering; another one, should it ever begin anew.
            kept: How many of the newest reports are kept for watchers that come back.
            max_watchers: How many `watch` at once.
        """
        self.epoch = epoch
        self.newest = 0  # sequence of the last report; 0 before the first
        self.watchers = 0
        self._kept = kept
        self._max_watchers = max_watchers
        self._ring: deque[FinishedReport] = deque()
        self._particles = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._drained: NarupaError | None = None

    def add(self, items: Sequence[FinishedInteraction], run_id: str) -> None:
        """Reports of these, in this order, are there for everybody."""
        for account in items:
            self.newest += 1
            self._ring.append(FinishedReport(self.newest, account, run_id))
            self._particles += len(account.particles)
        while len(self._ring) > self._kept or (self._particles > MAX_KEPT_PARTICLES and len(self._ring) > 1):
            self._particles -= len(self._ring.popleft().account.particles)
        if items:
            self._wake()

    def after(self, epoch: str = "", sequence: int = 0) -> list[FinishedReport]:
        """The reports that came after `sequence` of `epoch`; without an epoch, all that are kept.

        Raises:
            InvalidArgumentError: a sequence without its epoch.
            NoLongerKeptError: they are not all kept any more, or there has been no such sequence.
        """
        if not epoch:
            if sequence:
                raise InvalidArgumentError("after_sequence", sequence, "resuming needs the epoch as well")
            return list(self._ring)
        if epoch != self.epoch:
            raise NoLongerKeptError(f"epoch {epoch!r} is over, the present one is {self.epoch!r}; watch without it")
        if sequence > self.newest:
            raise NoLongerKeptError(
                f"after_sequence is {sequence}, and {self.newest} is the last there has been; watch without it"
            )
        first = self.newest - len(self._ring) + 1
        if sequence < first - 1:
            raise NoLongerKeptError(
                f"after_sequence is {sequence}, and reports are kept from {first} on; watch without it"
            )
        return [self._ring[place] for place in range(sequence + 1 - first, len(self._ring))]

    async def watch(self, epoch: str = "", sequence: int = 0) -> AsyncGenerator[list[FinishedReport], None]:
        """What `after` gives, in batches, and then what comes; the first batch is empty where there is nothing yet.

        Raises:
            InvalidArgumentError, NoLongerKeptError: as `after`; the latter also when the watcher falls too far behind.
            QuotaError: too many watch.
            NarupaError: what `drain` was given.
        """
        if self._drained:
            raise self._drained
        reports = self.after(epoch, sequence)
        if self.watchers >= self._max_watchers:
            raise QuotaError(f"{self._max_watchers} watches of finished interactions are open, which is the limit here")
        sequence = reports[0].sequence - 1 if reports else self.newest
        self.watchers += 1
        try:
            batch = _batch(reports)
            while True:
                yield batch
                sequence += len(batch)
                while sequence == self.newest:
                    if self._drained:
                        raise self._drained
                    await self._news()
                batch = _batch(self.after(self.epoch, sequence))
        finally:
            self.watchers -= 1

    def drain(self, error: NarupaError) -> None:
        """Every watch ends with `error` once it has told what there was; later ones do at once."""
        self._drained = error
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _news(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


def _batch(reports: Sequence[FinishedReport]) -> list[FinishedReport]:
    """The first of `reports`, as many as go into one response."""
    batch: list[FinishedReport] = []
    particles = 0
    for report in reports[:MAX_BATCH]:
        batch.append(report)
        particles += len(report.account.particles)
        if particles >= MAX_BATCH_PARTICLES:
            break
    return batch
