"""Decisions become commits: one writer per lobby, which takes the operations that wait together to the store."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from narupa_lobby import metrics
from narupa_lobby.records import Event, Record, events_from_json, events_to_json, from_json, to_json
from narupa_lobby.state import Draft, State
from narupa_shared.errors import NarupaError, QuotaError, UnavailableError
from narupa_shared.stores.store import (
    BehindError,
    Commit,
    Contents,
    Key,
    LeaseHeldError,
    Store,
    StoreError,
    StoreReplacedError,
)

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Operation = Callable[[Draft], Result]
"""Reads the draft's state, changes the draft, and returns a result or raises; may be called again after others' commits."""

CALL_LIMIT_S: Final = 2.0
RETRY_S: Final = 0.1
MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 256


@dataclass(slots=True)
class _Call(Generic[Result]):
    operation: Operation[Result]
    alone: bool
    done: asyncio.Future[Result]


@dataclass(slots=True)
class _Batch:
    draft: Draft
    results: list[tuple[_Call[Any], Any]]


class LogWriter:
    """Owns two copies of the store's records: what is committed, and what is decided but not yet committed.

    Operations run against the latter, one after another and each to its end, so that none sees half of another. Everyone
    else reads the former.
    """

    def __init__(
        self,
        store: Store,
        took_in: Callable[[tuple[Event, ...], frozenset[Key]], None],
        new_id: Callable[[], str],
    ) -> None:
        """`took_in` is told the events and the keys of each commit, once it is in `state`, whoever made it."""
        self.state = State()
        self.number = 0
        self._store = store
        self._took_in = took_in
        self._new_id = new_id
        self._decided = State()
        self._stale: set[Key] = set()  # records in which the two copies may differ
        self._waiting: deque[_Call[Any]] = deque()
        self._committing: list[_Call[Any]] = []
        self._called = asyncio.Event()
        self._grown = asyncio.Event()
        self._complained = False
        self._lost = ""

    def load(self, contents: Contents) -> list[Event]:
        """Both copies are what the store holds; returns the events of its log, oldest first."""
        records = {key: from_json(key, text) for key, text in contents.records.items()}
        self.state.apply(records)
        self._decided.apply(records)
        self.number = contents.number
        return [event for commit in contents.log for event in events_from_json(commit.note)]

    async def submit(self, operation: Operation[Result], *, alone: bool = False) -> Result:
        """What `operation` returned, once its changes are durable.

        Args:
            operation: See `Operation`.
            alone: Whether it must not share a commit with others, as it may fail because of a lease.

        Raises:
            UnavailableError: the store cannot be reached; the changes may still be made later.
            QuotaError: too many others wait.
            LeaseHeldError: a lease was to have lapsed and has not. Nothing is changed.
            NarupaError: what `operation` raised. Nothing is changed.
        """
        if self._lost:
            raise UnavailableError(self._lost)
        if len(self._waiting) >= MAX_WAITING:
            raise QuotaError(f"{MAX_WAITING} calls wait for the lobby's store already; try again in a few seconds")
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        call = _Call(operation, alone, done)
        self._waiting.append(call)
        self._called.set()
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await done
        except TimeoutError as error:
            raise UnavailableError(
                f"the lobby's store has not answered for {CALL_LIMIT_S:g} s; try again, with the same request_id if any"
            ) from error

    def give_up(self, reason: str) -> None:
        """Whoever waits, and whoever comes, hears UnavailableError: nothing is committed any more."""
        self._lost = reason
        for call in (*self._waiting, *self._committing):
            if not call.done.done():
                call.done.set_exception(UnavailableError(reason))
        self._waiting.clear()

    async def write(self) -> None:
        """Commits what is submitted, for ever.

        Raises:
            StoreReplacedError: the store is no longer the one that the copies are of.
            StoreError: somebody else has changed a store that cannot be shared.
        """
        while True:
            await self._called.wait()
            batch = self._decide()
            self._committing = [call for call, _ in batch.results]
            if batch.draft:
                await self._commit(batch)
            else:
                _resolve(batch)
            if not self._waiting:
                self._called.clear()

    async def follow(self) -> None:
        """Takes in the commits of other lobbies, for ever.

        Raises:
            NoLongerKeptError: some of them are no longer in the store's log.
            StoreReplacedError: the store is no longer the one that the copies are of.
            StoreError: a commit is none that this version understands.
        """
        while True:
            commits = self._store.since(self.number)
            while (commit := await self._next(commits)) is not None:
                self._settle()
                self._take_in_foreign(commit)
            await asyncio.sleep(RETRY_S)

    async def _next(self, commits: AsyncIterator[Commit]) -> Commit | None:
        """The next of these; None when the store is in trouble, or has no more to say."""
        try:
            return await anext(commits, None)
        except StoreReplacedError:
            raise
        except StoreError as error:
            self._complain(error)
            return None

    def _decide(self) -> _Batch:
        """The changes of the operations that wait, as many as go together."""
        self._decided.apply({key: self.state.get(key) for key in self._stale})
        self._stale.clear()
        batch = _Batch(Draft(self._decided), [])
        while self._waiting and len(batch.results) < MAX_BATCH:
            if self._waiting[0].alone and batch.results:
                break
            call = self._waiting.popleft()
            if call.done.done():  # nobody waits for it any more
                continue
            draft = Draft(self._decided)
            try:
                result = call.operation(draft)
            except Exception as error:
                draft.undo()
                call.done.set_exception(error)
                continue
            batch.draft.add(draft)
            batch.results.append((call, result))
            if call.alone:
                break
        return batch

    async def _commit(self, batch: _Batch) -> None:
        draft = batch.draft
        changes = {key: to_json(key, record) for key, record in draft.changes.items()}
        commit = Commit(self.number + 1, self._new_id(), changes, events_to_json(tuple(draft.events)))
        started = time.perf_counter()
        try:
            await self._made(commit, draft)
        except BehindError:
            self._stale |= changes.keys()
            self._waiting.extendleft(call for call, _ in reversed(batch.results))
            await self._caught_up(commit.number)
        except LeaseHeldError as error:
            self._stale |= changes.keys()
            for call, _ in batch.results:
                if not call.done.done():
                    call.done.set_exception(error)
        else:
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started)
            self._take_in(commit.number, draft.changes, tuple(draft.events))
            _resolve(batch)

    async def _made(self, commit: Commit, draft: Draft) -> None:
        """The commit is in the store: a lost answer is asked for again, as the store knows the commit by its id."""
        while True:
            try:
                await self._store.commit(commit, draft.leases)
            except StoreReplacedError:
                raise
            except StoreError as error:
                self._complain(error)
                await asyncio.sleep(RETRY_S)
            else:
                self._settle()
                return

    async def _caught_up(self, number: int) -> None:
        metrics.BEHIND.inc()
        if not self._store.shared:
            raise StoreError(
                "the store was changed by somebody else, and it is not one that can be shared; start again"
            )
        while self.number < number:
            await self._grown.wait()

    def _take_in_foreign(self, commit: Commit) -> None:
        if commit.number > self.number:
            changes = {key: from_json(key, text) for key, text in commit.changes.items()}
            self._stale |= changes.keys()
            self._take_in(commit.number, changes, events_from_json(commit.note))

    def _take_in(self, number: int, changes: dict[Key, Record | None], events: tuple[Event, ...]) -> None:
        if number <= self.number:  # the follower was faster than the answer
            return
        self.number = number
        self.state.apply(changes)
        self._took_in(events, frozenset(changes))
        self._grown.set()
        self._grown = asyncio.Event()

    def _complain(self, error: NarupaError) -> None:
        metrics.STORE_TROUBLE.inc()
        if not self._complained:
            self._complained = True
            log.error("store_trouble", reason=str(error))

    def _settle(self) -> None:
        if self._complained:
            self._complained = False
            log.info("store_back")


def _resolve(batch: _Batch) -> None:
    for call, result in batch.results:
        if not call.done.done():
            call.done.set_result(result)
