"""The interface of every store: records, an ordered log of commits that change them, and leases that lapse.

A service keeps its state in memory as a copy of the store's records. It changes the store by commits, each of which has the
number after the last one: when two services share a store, one of them is first and the other hears `BehindError`, takes in
what it missed, and decides again. So every copy goes through the same states in the same order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from narupa_shared.errors import NarupaError

Key = tuple[str, str]
"""A record's collection and its key within."""


class BehindError(NarupaError):
    """Another commit has this number already: take it in with `since`, and decide again."""


class LeaseHeldError(NarupaError):
    """A lease that was to have lapsed has been renewed: whoever holds it is alive after all."""


class StoreError(NarupaError):
    """The store cannot be reached, read or written; a commit may or may not have been made."""


class StoreReplacedError(StoreError):
    """The store was emptied, or has lost commits, while it was in use: read it anew, a copy of it is worth nothing any more."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes that are made together or not at all.

    Attributes:
        number: 1 for the first of the store, then one more each time.
        id: Unique; tells the writer after a lost answer whether it was made.
        changes: The new value of each changed record (UTF-8 text, JSON by custom); None removes it.
        note: What followers of the log should know besides, such as why; UTF-8 text, opaque to the store.
    """

    number: int
    id: str
    changes: Mapping[Key, str | None]
    note: str = ""


@dataclass(frozen=True, slots=True)
class LeaseChanges:
    """What happens to leases in the same instant as a commit.

    Attributes:
        hold: Leases that begin, or begin anew, and their time, s.
        release: Leases that end, whether or not they are there.
        only_if_lapsed: Leases that must have lapsed, or not be there, for the commit to be made; they end with it.
    """

    hold: Mapping[str, float] = field(default_factory=dict)
    release: frozenset[str] = frozenset()
    only_if_lapsed: frozenset[str] = frozenset()


NO_LEASES = LeaseChanges()


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a store holds at one instant.

    Attributes:
        epoch: Made with the store; another store, or an emptied one, has another.
        number: Of the last commit; 0 before the first.
        records: Every record.
        log: The last commits, oldest first, as many as are kept; they end with `number`.
        leases: The leases that are held, lapsed ones included. Stores that are not shared forget leases when they close.
    """

    epoch: str
    number: int
    records: Mapping[Key, str]
    log: tuple[Commit, ...]
    leases: frozenset[str]


class Store(Protocol):
    """See the module. Used from one event loop; no method blocks it."""

    @property
    def shared(self) -> bool:
        """Whether several services may have it open at once."""

    async def open(self) -> Contents:
        """What the store holds. Called once, before anything else.

        Raises:
            StoreError: it cannot be reached, is not a store of ours or of a newer version, or is open elsewhere and not shared.
        """

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        """The commit is made and durable: it survives the death of any process, at any moment, from here on.

        Safe to repeat: a commit whose `id` was made already (and is still in the kept log) is not made twice.

        Raises:
            BehindError: `commit.number` is not the one after the last; nothing has changed.
            LeaseHeldError: a lease of `only_if_lapsed` is held and has not lapsed; nothing has changed.
            StoreError: see there.
        """

    def since(self, number: int) -> AsyncIterator[Commit]:
        """The commits after `number` in order, whoever made them, as they come; never ends by itself.

        Raises:
            NoLongerKeptError: some of them are no longer in the log.
            StoreError: see there.
        """

    async def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        """Each of these leases that is there lasts this many seconds from now; returns those that are not there.

        A lease that has lapsed and that nobody has ended yet is there.
        """

    async def lapsed(self, at_most: int = 1000) -> tuple[str, ...]:
        """Leases whose time is up and that nobody has ended, the longest overdue first."""

    async def close(self) -> None:
        """Everything is let go. Idempotent."""
