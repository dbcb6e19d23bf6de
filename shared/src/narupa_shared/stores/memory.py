"""A store that lives as long as its process: for tests, and for sessions that nobody needs back."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping

from narupa_shared.stores.leases import Leases, checked_times
from narupa_shared.stores.log import KEPT_COMMITS, CommitLog, checked
from narupa_shared.stores.store import NO_LEASES, Commit, Contents, Key, LeaseChanges, StoreError


class MemoryStore:
    """See `Store`. Records outlive `close` in this object, so that opening it again is like the restart of a service."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, kept_commits: int = KEPT_COMMITS) -> None:
        self._epoch = secrets.token_hex(8)
        self._kept = kept_commits
        self._records: dict[Key, str] = {}
        self._log = CommitLog(kept_commits=kept_commits)
        self._log.close()
        self._leases = Leases(clock)
        self._is_open = False

    @property
    def shared(self) -> bool:
        return False

    async def open(self) -> Contents:
        if self._is_open:
            raise StoreError("the store in memory is open already; it serves one owner at a time")
        self._is_open = True
        self._log = CommitLog(self._log.number, self._log.commits, kept_commits=self._kept)
        return Contents(self._epoch, self._log.number, dict(self._records), self._log.commits, self._leases.names)

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        checked(commit, leases)
        self._check_open()
        if self._log.has(commit.id):
            return
        self._log.check(commit)
        self._leases.check(leases)
        self._leases.apply(leases)
        for key, value in commit.changes.items():
            if value is None:
                self._records.pop(key, None)
            else:
                self._records[key] = value
        self._log.append(commit)

    def since(self, number: int) -> AsyncIterator[Commit]:
        return self._log.since(number)

    async def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        checked_times(leases)
        self._check_open()
        return self._leases.renew(leases)

    async def lapsed(self, at_most: int = 1000) -> tuple[str, ...]:
        self._check_open()
        return self._leases.lapsed(at_most)

    async def close(self) -> None:
        self._is_open = False
        self._leases.clear()
        self._log.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError("the store in memory is not open")
