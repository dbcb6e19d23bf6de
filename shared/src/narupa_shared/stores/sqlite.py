"""A store in one SQLite file, which one process has open at a time.

A commit that has returned is on the disk: neither kill -9 nor the loss of power undoes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

from narupa_shared.stores.leases import Leases, checked_times
from narupa_shared.stores.log import KEPT_COMMITS, CommitLog, behind_text, checked, checked_kept
from narupa_shared.stores.sqlite_file import SqliteFile
from narupa_shared.stores.store import (
    NO_LEASES,
    BehindError,
    Commit,
    Contents,
    LeaseChanges,
    LeaseHeldError,
    StoreError,
)

T = TypeVar("T")

# At most this many waiting commits share one transaction.
_GROUP: Final = 1000


@dataclass(frozen=True, slots=True)
class _Write:
    """A commit that waits to be made durable."""

    commit: Commit
    body: str
    leases: LeaseChanges
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Call:
    """Something else that the thread is to do."""

    function: Callable[[], Any]
    done: asyncio.Future[Any]


_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class SqliteStore:
    """See `Store`.

    A thread of its own owns the file and the leases, and does what it is asked in the order in which it is asked. Commits that
    wait while it writes go into its next transaction together, so that many cost one flush to disk. Leases are kept in memory.
    """

    def __init__(
        self, path: str | Path, clock: Callable[[], float] = time.monotonic, *, kept_commits: int = KEPT_COMMITS
    ) -> None:
        self._path = Path(path)
        self._kept = checked_kept(kept_commits)
        self._file = SqliteFile(self._path, kept_commits)
        self._leases = Leases(clock)
        self._log = CommitLog()
        self._log.close()
        self._is_open = False
        self._jobs: queue.SimpleQueue[_Write | _Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def shared(self) -> bool:
        return False

    async def open(self) -> Contents:
        if self._thread is not None:
            raise StoreError(f"{self._path} is open already; it serves one owner at a time")
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._jobs = queue.SimpleQueue()
        # A daemon, so that an owner who dies without closing does not keep its process alive.
        self._thread = threading.Thread(target=self._run, args=(loop, self._ended), name="narupa-sqlite", daemon=True)
        self._thread.start()
        try:
            contents = await self._ask(self._file.open)
        except BaseException:
            await self.close()
            raise
        self._log = CommitLog(contents.number, contents.log, kept_commits=self._kept)
        self._is_open = True
        return contents

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        body = checked(commit, leases)
        self._check_open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Write(commit, body, leases, done))
        await done

    def since(self, number: int) -> AsyncIterator[Commit]:
        return self._log.since(number)

    async def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        checked_times(leases)
        self._check_open()
        return await self._ask(lambda: self._leases.renew(leases))

    async def lapsed(self, at_most: int = 1000) -> tuple[str, ...]:
        self._check_open()
        return await self._ask(lambda: self._leases.lapsed(at_most))

    async def close(self) -> None:
        self._is_open = False
        self._log.close()
        thread, ended = self._thread, self._ended
        if thread is None or ended is None:
            return
        self._jobs.put(None)
        await asyncio.shield(ended)
        thread.join()  # it has said that it is at its end
        if self._thread is thread:
            self._thread = None

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError(f"{self._path} is not open")

    def _ask(self, function: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Call(function, done))
        return done

    # From here on: the thread.

    def _run(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        open_for_jobs = True
        while open_for_jobs:
            jobs = self._waiting()
            open_for_jobs = None not in jobs
            for is_write, group in groupby(filter(None, jobs), key=lambda job: isinstance(job, _Write)):
                if is_write:
                    writes = [job for job in group if isinstance(job, _Write)]
                    outcomes, made = self._make(writes)
                else:
                    outcomes, made = [self._call(job) for job in group if isinstance(job, _Call)], []
                _tell(loop, self._deliver, outcomes, made)
        self._file.close()
        self._leases.clear()
        _tell(loop, _settle, ended, None, None)

    def _waiting(self) -> list[_Write | _Call | None]:
        """All that waits, and at least one job; nothing that comes after the end."""
        jobs = [self._jobs.get()]
        with contextlib.suppress(queue.Empty):
            while len(jobs) < _GROUP and jobs[-1] is not None:
                jobs.append(self._jobs.get_nowait())
        return jobs

    @staticmethod
    def _call(job: _Call) -> _Outcome:
        try:
            return job.done, job.function(), None
        except Exception as error:
            return job.done, None, error

    def _make(self, writes: list[_Write]) -> tuple[list[_Outcome], list[Commit]]:
        """The outcome of each, and those that are durable now."""
        outcomes: list[_Outcome] = []
        made: list[Commit] = []
        leases = self._leases.saved()
        try:
            with self._file.transaction():
                for write in writes:
                    try:
                        if not self._file.has(write.commit.id):
                            self._add(write)
                            made.append(write.commit)
                        outcomes.append((write.done, None, None))
                    except (BehindError, LeaseHeldError) as error:
                        outcomes.append((write.done, None, error))
        except Exception as error:
            self._leases.restore(leases)
            return [(write.done, None, error) for write in writes], []
        return outcomes, made

    def _add(self, write: _Write) -> None:
        if write.commit.number != self._file.number + 1:
            raise BehindError(behind_text(write.commit.number, self._file.number))
        self._leases.check(write.leases)
        self._leases.apply(write.leases)
        self._file.add(write.commit, write.body)

    # From here on: the event loop again.

    def _deliver(self, outcomes: list[_Outcome], made: list[Commit]) -> None:
        for commit in made:
            self._log.append(commit)
        for done, result, error in outcomes:
            _settle(done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Whoever awaits `done`, and has not been cancelled meanwhile, goes on."""
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed before the store: nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)
