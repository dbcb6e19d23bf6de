"""A log of events with increasing revisions, which watchers follow live and resume from; every buffer is bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from narupa_shared.errors import NoLongerKeptError, QuotaError

Event = TypeVar("Event")


class EventLog(Generic[Event]):
    """Numbers events from 1 and keeps the last few.

    Attributes:
        epoch: Changes whenever revisions start over, so that a revision of an earlier log is never mistaken for ours.
        revision: That of the latest event; 0 before the first.
    """

    def __init__(self, epoch: str, kept: int, revision: int = 0) -> None:
        """Goes on after `revision`, and keeps `kept` events from then on."""
        self.epoch: Final = epoch
        self.revision = revision
        self._kept: deque[Event] = deque(maxlen=kept)  # the last one has the number `revision`
        self._watchers: set[Watcher[Event]] = set()
        self._limit = kept

    @property
    def watcher_count(self) -> int:
        return len(self._watchers)

    def append(self, event: Event) -> int:
        """Every watcher will see `event`; returns its revision."""
        self.revision += 1
        self._kept.append(event)
        for watcher in tuple(self._watchers):
            watcher._offer(self.revision, event)
        return self.revision

    def watch(self) -> Watcher[Event]:
        """Follows events after the present revision; to be closed."""
        watcher = Watcher(self, self._limit)
        self._watchers.add(watcher)
        return watcher

    def resume(self, epoch: str, after_revision: int) -> Watcher[Event]:
        """Follows events after `after_revision`, past ones first; to be closed.

        Raises:
            NoLongerKeptError: that epoch has passed, or that revision is no longer kept or has not come yet.
        """
        oldest = self.revision - len(self._kept)
        if epoch != self.epoch:
            raise NoLongerKeptError(
                f"epoch is {epoch[:80]!r}: it has passed, now it is {self.epoch!r}; watch again without it"
            )
        if not oldest <= after_revision <= self.revision:
            raise NoLongerKeptError(
                f"after_revision is {after_revision}: only {oldest} to {self.revision} can be resumed from; "
                "watch again without it"
            )
        watcher = self.watch()
        missed = self.revision - after_revision
        for offset, event in enumerate(list(self._kept)[len(self._kept) - missed :], start=1):
            watcher._offer(after_revision + offset, event)
        return watcher

    def end(self, reason: Exception | None) -> None:
        """Every watcher ends: with `reason`, or in good order when it is None."""
        for watcher in tuple(self._watchers):
            watcher.end(reason)

    def _forget(self, watcher: Watcher[Event]) -> None:
        self._watchers.discard(watcher)


class Watcher(Generic[Event]):
    """One follower's (revision, event) pairs, in order and without a gap: an async iterator that is to be closed.

    A follower that lags too far behind gets `QuotaError` instead of a gap, and costs no memory from then on.
    """

    def __init__(self, log: EventLog[Event], limit: int) -> None:
        self._log = log
        self._limit = limit
        self._waiting: deque[tuple[int, Event]] = deque()
        self._ended = False
        self._reason: Exception | None = None
        self._wake = asyncio.Event()

    def __aiter__(self) -> Watcher[Event]:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        while not self._waiting and not self._ended:
            self._wake.clear()
            await self._wake.wait()
        if self._waiting:
            return self._waiting.popleft()
        if self._reason is not None:
            raise self._reason
        raise StopAsyncIteration

    async def batch(self, at_most: int) -> list[tuple[int, Event]]:
        """All that waits, and at least one, but no more than `at_most`; empty at a good end. Raises as iterating does."""
        try:
            found = [await anext(self)]
        except StopAsyncIteration:
            return []
        while self._waiting and len(found) < at_most:
            found.append(self._waiting.popleft())
        return found

    def close(self) -> None:
        """Nothing more arrives. Idempotent."""
        self._waiting.clear()
        self.end(None)

    def _offer(self, revision: int, event: Event) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.clear()
            self.end(QuotaError(f"the watcher is more than {self._limit} events behind; watch again from the start"))
            return
        self._waiting.append((revision, event))
        self._wake.set()

    def end(self, reason: Exception | None) -> None:
        """After what has arrived already, the follower gets `reason`, or a good end when it is None. Idempotent."""
        if not self._ended:
            self._ended = True
            self._reason = reason
        self._log._forget(self)
        self._wake.set()
