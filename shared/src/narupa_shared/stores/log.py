"""The commit log: how a commit is written down, and a log kept in memory that followers wait on."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError
from narupa_shared.stores.leases import checked_names, checked_times
from narupa_shared.stores.store import BehindError, Commit, LeaseChanges, StoreError

KEPT_COMMITS: Final = 2_000
"""How many commits a log keeps unless it is told otherwise."""

_BATCH: Final = 256


def checked_kept(kept_commits: int) -> int:
    """`kept_commits`, which is at least 1.

    Raises:
        InvalidArgumentError: it is not: without the last commit a store cannot tell a repeated one.
    """
    if kept_commits < 1:
        raise InvalidArgumentError("kept_commits", kept_commits, "must be 1 or more")
    return kept_commits


def checked(commit: Commit, leases: LeaseChanges) -> str:
    """The commit as it is written into a log, less its number.

    Raises:
        InvalidArgumentError: no store could keep it: text that is not UTF-8, an empty id, a number below 1, or a lease whose
            time is not a finite number of seconds.
    """
    checked_times(leases.hold)
    checked_names(leases.release | leases.only_if_lapsed)
    if not commit.id:
        raise InvalidArgumentError("id", commit.id, "must not be empty: it tells a repeated commit from a new one")
    if commit.number < 1:
        raise InvalidArgumentError(
            "number", commit.number, "must be 1 or more: the first commit of a store has number 1"
        )
    changes = [[collection, key, value] for (collection, key), value in commit.changes.items()]
    body = json.dumps(
        {"id": commit.id, "changes": changes, "note": commit.note}, ensure_ascii=False, separators=(",", ":")
    )
    try:
        body.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("changes", body[error.start : error.start + 20], "must be UTF-8 text") from None
    return body


def read_commit(number: int, body: str) -> Commit:
    """The commit that `checked` wrote.

    Raises:
        ValueError: it did not.
    """
    try:
        fields = json.loads(body)
        changes = {(collection, key): value for collection, key, value in fields["changes"]}
        return Commit(number, fields["id"], changes, fields["note"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a commit ({type(error).__name__}: {error})") from None


def behind_text(number: int, last: int) -> str:
    """What `BehindError` says about a commit of this number."""
    return f"commit {number} does not follow the last one, {last}; take in what was missed and decide again"


def not_kept_text(number: int, first: int, last: int) -> str:
    """What `NoLongerKeptError` says about the commits after `number`."""
    return f"the commits after {number} are not all kept; kept are {first} to {last}: read the store anew"


class CommitLog:
    """The last commits in memory. Used from one event loop.

    Attributes:
        number: Of the last commit; 0 before the first.
    """

    def __init__(self, number: int = 0, commits: Iterable[Commit] = (), *, kept_commits: int = KEPT_COMMITS) -> None:
        self.number = number
        self._commits = deque(commits, maxlen=checked_kept(kept_commits))
        self._ids = {commit.id for commit in self._commits}
        self._grown = asyncio.Event()
        self._closed = False

    @property
    def commits(self) -> tuple[Commit, ...]:
        """Those that are kept, oldest first."""
        return tuple(self._commits)

    def has(self, id: str) -> bool:
        """Whether a commit with this id is kept."""
        return id in self._ids

    def check(self, commit: Commit) -> None:
        """The commit may come next.

        Raises:
            BehindError: it may not.
        """
        if commit.number != self.number + 1:
            raise BehindError(behind_text(commit.number, self.number))

    def append(self, commit: Commit) -> None:
        """The commit is the last one, and followers are woken."""
        if len(self._commits) == self._commits.maxlen:
            self._ids.discard(self._commits[0].id)
        self._commits.append(commit)
        self._ids.add(commit.id)
        self.number = commit.number
        self._wake()

    async def since(self, number: int) -> AsyncIterator[Commit]:
        """See `Store.since`."""
        while True:
            if self._closed:
                raise StoreError("the store is not open, or has been closed")
            first = self.number - len(self._commits) + 1
            if not first - 1 <= number <= self.number:
                raise NoLongerKeptError(not_kept_text(number, first, self.number))
            if number == self.number:
                await self._grown.wait()
                continue
            start = number + 1 - first
            for commit in tuple(islice(self._commits, start, start + _BATCH)):
                yield commit
                number = commit.number

    def close(self) -> None:
        """Followers hear a StoreError."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()
