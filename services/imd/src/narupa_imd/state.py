"""The session's shared state: keys with JSON-like values, one increasing revision, owners and locks. No I/O.

A watcher is nothing but the revision it has seen: `changes` gives what is different since, merged, in time proportional to
the number of keys that changed. So nothing is queued for anybody, and a stalled watcher costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from narupa_imd.locks import Locks
from narupa_imd.values import checked_key, checked_size
from narupa_shared.changed_keys import MOST_REMOVALS, ChangedKeys, Place
from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError, PermissionDeniedError, QuotaError


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes.

    Attributes:
        owner: `user:<id>`, `token:<digest>` or `peer:<address>`.
        connection: What the writer's own keys live as long as: a TCP connection, or one stream on it.
        replays: Whether this is a recording that is played, whose keys are shown and have no effect.
    """

    owner: str
    connection: str
    replays: bool = False


SERVER: Final = Writer("server", "")
# What was kept from an earlier life of the service: no more trusted than any other writer.
KEPT: Final = Writer("kept", "")


@dataclass(frozen=True, slots=True)
class Family:
    """The rules for keys that begin with `prefix`.

    Attributes:
        owned: Only its owner changes or removes such a key. It ends with the connection that wrote it last, which may be any
            of its owner's.
        yields: Owned, but only until somebody else wants the key.
        read_only: Only this service writes it.
        fleeting: It does not outlive this service, although nobody owns it.
        follows: Prefix of keys with which it goes: `<prefix>x` is gone once `<follows>x` is.
        max_bytes: Largest value, serialised.
        max_per_owner: Most keys of one owner; only for owned ones.
        max_keys: Most keys in all; only for owned ones.
        parse: Gives the value its meaning, kept as `Entry.meaning`; raises InvalidArgumentError.
    """

    prefix: str
    owned: bool = False
    yields: bool = False
    read_only: bool = False
    fleeting: bool = False
    follows: str = ""
    max_bytes: int = 64 * 1024
    max_per_owner: int = 10_000
    max_keys: int = 10_000
    parse: Callable[[str, Any], object] | None = None

    @property
    def lasts(self) -> bool:
        """Whether such keys outlive the service."""
        return not (self.owned or self.fleeting)


PLAIN: Final = Family("")
# Whatever a recording says of the state: no key of it means anything, and each is anybody's who wants it.
REPLAYED: Final = Family("", owned=True, yields=True, max_bytes=2 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the whole state may hold, and how many removed keys it remembers for those who have not been told."""

    keys: int = 10_000
    total_bytes: int = 16 * 1024 * 1024
    removals: int = MOST_REMOVALS


@dataclass(slots=True)
class Entry:
    """A key's present value. `encoded` is room for the wire's form of it, made once per change by whoever needs it."""

    value: Any
    size: int
    revision: int
    writer: Writer
    family: Family
    meaning: object = None
    encoded: bytes | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since some revision; with `whole`, `updated` is everything there is."""

    revision: int
    whole: bool
    updated: Sequence[tuple[str, Entry]]
    removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.whole or self.updated or self.removed)


@dataclass(slots=True)
class Ended:
    """What went with a connection."""

    keys: list[str] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.keys or self.locks)


class SharedState:
    """Owns every key, its owner and its locks. Synchronous; to be used from one thread."""

    def __init__(
        self,
        clock: Callable[[], float],
        epoch: str,
        families: Sequence[Family] = (),
        limits: Limits | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`epoch` names this life of the state; `on_change` is called after every change of the revision."""
        self.epoch = epoch
        self.bytes = 0
        self._families = tuple(families)
        self._followed = tuple((family.follows, family.prefix) for family in families if family.follows)
        self._limits = limits or Limits()
        self._on_change = [on_change]
        self._entries: dict[str, Entry] = {}
        self._changed = ChangedKeys(self._limits.removals)  # a key that is not in `_entries` was removed
        self._by_connection: dict[str, set[str]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()  # keys of an owned family by (prefix, owner); "" counts all
        self.locks = Locks(clock)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def revision(self) -> int:
        """Raised with every change."""
        return self._changed.revision

    def watching(self) -> AbstractContextManager[Place]:
        """Somebody watches, and moves their place on as they are told: what they have not heard of is kept."""
        return self._changed.watching()

    def listen(self, act: Callable[[], None]) -> None:
        """`act` too is called after every change of the revision."""
        self._on_change.append(act)

    def available(self, writer: Writer, key: str) -> bool:
        """Whether nobody but the writer's owner has `key`, has it locked, or has the key that it goes with."""
        entry, family = self._entries.get(key), self._family(key)
        if family.read_only or family.follows or self.locks.holder(key) not in (None, writer.owner):
            return False
        return entry is None or entry.writer.owner == writer.owner

    def lasts(self, key: str) -> bool:
        """Whether `key` outlives this service (`Family`)."""
        return self._family(key).lasts

    def changed_at(self, key: str) -> int | None:
        """The revision at which `key` was last changed or removed; None when that is not known any more."""
        return self._changed.at(key)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def owned_by(self, connection: str) -> frozenset[str]:
        """Keys that end with `connection`."""
        return frozenset(self._by_connection.get(connection, ()))

    def entries(self, prefix: str = "") -> list[tuple[str, Entry]]:
        """Keys that begin with `prefix`, and their entries."""
        return [item for item in self._entries.items() if item[0].startswith(prefix)]

    def count(self, prefix: str) -> int:
        """How many keys the owned family of this prefix has. May be called on any thread."""
        return self._counts[prefix, ""]

    def values(self, prefix: str = "") -> dict[str, Any]:
        """Keys that begin with `prefix`, and their values."""
        return {key: entry.value for key, entry in self.entries(prefix)}

    # Reading changes.

    def changes(self, after: int | None, prefix: str = "") -> Changes:
        """What changed after revision `after`, merged; everything when it is None.

        Raises:
            NoLongerKeptError: `after` is too long ago, or has not come yet.
        """
        if after is None:
            return Changes(self.revision, True, self.entries(prefix), ())
        if after > self.revision:
            raise NoLongerKeptError(
                f"after_revision is {after}, and this state is at {self.revision}; watch without it"
            )
        if after < self._changed.forgotten:
            raise NoLongerKeptError(
                f"after_revision is {after}, and changes are kept from {self._changed.forgotten} on; watch without it"
            )
        updated: list[tuple[str, Entry]] = []
        removed: list[str] = []
        for key in self._changed.since(after):
            if not key.startswith(prefix):
                continue
            entry = self._entries.get(key)
            if entry is None:
                removed.append(key)
            else:
                updated.append((key, entry))
        return Changes(self.revision, False, updated, removed)

    def resume(self, epoch: str, after: int) -> int:
        """`after`, once it is known to be a revision of this epoch.

        Raises:
            NoLongerKeptError: the epoch is over.
        """
        if epoch != self.epoch:
            raise NoLongerKeptError(f"epoch {epoch!r} is over, the present one is {self.epoch!r}; watch without it")
        return after

    # Writing.

    def update(self, writer: Writer, updates: Mapping[str, Any], removals: Iterable[str] = ()) -> int:
        """All of it is applied, or nothing; returns the revision then.

        Raises:
            InvalidArgumentError: a bad key or value.
            PermissionDeniedError: a key belongs to somebody else, is locked, or is the service's own.
            QuotaError: too many keys, or too large a value or state.
        """
        gone = [checked_key(key) for key in removals]
        made = {checked_key(key): self._entry(writer, key, value) for key, value in updates.items()}
        for key in gone:
            if key in made:
                raise InvalidArgumentError("removals", key, "is set and removed in one update")
        for key in (*made, *gone):
            self._check_permission(writer, key)
        gone = [key for key in dict.fromkeys(gone) if key in self._entries]
        self._check_quota(writer, made, gone)
        if made or gone:
            self._apply(made, gone)
        return self.revision

    def replace_value(self, writer: Writer, key: str, value: Any, meaning: object) -> int:
        """As `update` of one key that exists, for a value known to be valid and as large as the one before.

        Raises:
            PermissionDeniedError: as `update`.
        """
        self._check_permission(writer, key)
        entry = self._entries[key]
        self._apply({key: Entry(value, entry.size, 0, writer, entry.family, meaning)}, ())
        return self.revision

    def _entry(self, writer: Writer, key: str, value: Any) -> Entry:
        family = REPLAYED if writer.replays else self._family(key)
        if value is None:
            raise InvalidArgumentError(key, None, "null is no value; to remove the key, name it among the removals")
        meaning = family.parse(key, value) if family.parse else None
        size = checked_size(key, value) + len(key.encode()) + 12
        if size > family.max_bytes:
            raise QuotaError(
                f"{key} has a value of {size} bytes; at most {family.max_bytes} are shared under one such key"
            )
        return Entry(value, size, 0, writer, family, meaning)

    def _family(self, key: str) -> Family:
        return next((family for family in self._families if key.startswith(family.prefix)), PLAIN)

    def _check_permission(self, writer: Writer, key: str) -> None:
        if writer is SERVER:
            return
        family = self._family(key)
        if family.read_only and not (writer is KEPT and family.lasts):
            raise PermissionDeniedError(f"{key} is written by the service only")
        self._check_owner(writer, key)
        holder = self.locks.holder(key)
        if holder not in (None, writer.owner):
            raise PermissionDeniedError(f"{key} is locked by {holder}; wait until the lock is released or has expired")

    def _check_owner(self, writer: Writer, key: str) -> None:
        entry = self._entries.get(key)
        if entry and entry.family.owned and not entry.family.yields and entry.writer.owner != writer.owner:
            raise PermissionDeniedError(f"{key} belongs to {entry.writer.owner}; only its owner changes or removes it")

    def _check_quota(self, writer: Writer, made: Mapping[str, Entry], gone: Iterable[str]) -> None:
        if writer is SERVER:
            return
        total, keys = self.bytes, len(self._entries)
        counts: Counter[tuple[str, str]] = Counter()
        for key in gone:
            old = self._entries[key]
            total, keys = total - old.size, keys - 1
            counts[old.family.prefix, old.writer.owner] -= 1
            counts[old.family.prefix, ""] -= 1
        for key, entry in made.items():
            previous = self._entries.get(key)
            total += entry.size - (previous.size if previous else 0)
            if previous is None:
                keys += 1
                counts[entry.family.prefix, writer.owner] += 1
                counts[entry.family.prefix, ""] += 1
        if keys > max(self._limits.keys, len(self._entries)):
            raise QuotaError(
                f"the shared state would have {keys} keys; at most {self._limits.keys} fit, remove some first"
            )
        if total > max(self._limits.total_bytes, self.bytes):
            raise QuotaError(
                f"the shared state would have {total} bytes; at most {self._limits.total_bytes} fit, remove something first"
            )
        for family in {entry.family.prefix: entry.family for entry in made.values() if entry.family.owned}.values():
            for owner, limit in ((writer.owner, family.max_per_owner), ("", family.max_keys)):
                more = counts[family.prefix, owner]
                if more > 0 and self._counts[family.prefix, owner] + more > limit:
                    of = f"of {owner}" if owner else "in all"
                    raise QuotaError(f"there would be more than {limit} {family.prefix}* keys {of}; remove some first")

    def _apply(self, made: Mapping[str, Entry], gone: Iterable[str]) -> None:
        gone = self._with_followers(made, gone)
        self._changed.change(gone, made)
        for key in gone:
            self._forget(key)
        for key, entry in made.items():
            if key in self._entries:
                self._forget(key)
            entry.revision = self.revision
            self._entries[key] = entry
            self.bytes += entry.size
            if entry.family.owned:
                self._by_connection.setdefault(entry.writer.connection, set()).add(key)
                self._counts[entry.family.prefix, entry.writer.owner] += 1
                self._counts[entry.family.prefix, ""] += 1
        for act in self._on_change:
            act()

    def _with_followers(self, made: Mapping[str, Entry], gone: Iterable[str]) -> list[str]:
        """`gone`, and the keys that go with them."""
        all_gone = dict.fromkeys(gone)
        for key in tuple(all_gone):
            for leading, prefix in self._followed:
                follower = prefix + key.removeprefix(leading)
                if key.startswith(leading) and follower in self._entries and follower not in made:
                    all_gone[follower] = None
        return list(all_gone)

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key)
        self.bytes -= entry.size
        if entry.family.owned:
            held = self._by_connection[entry.writer.connection]
            held.discard(key)
            if not held:
                del self._by_connection[entry.writer.connection]
            for owner in (entry.writer.owner, ""):
                self._counts[entry.family.prefix, owner] -= 1
                if not self._counts[entry.family.prefix, owner]:
                    del self._counts[entry.family.prefix, owner]

    # Locks.

    def update_locks(self, writer: Writer, acquire_s: Mapping[str, object], release: Iterable[str] = ()) -> None:
        """Every lock in `acquire_s` (key -> s) is taken or none; what is in `release` is released in any case.

        Raises:
            InvalidArgumentError: a bad key or duration; nothing is done then.
            PermissionDeniedError: a key is locked by, or belongs to, somebody else.
            QuotaError: too many locks.
        """
        released = [checked_key(key) for key in release]
        wanted = self.locks.checked({checked_key(key): value for key, value in acquire_s.items()})
        for key in released:
            self.locks.release(writer.owner, key)
        for key in wanted:
            self._check_permission(writer, key)
        self.locks.acquire(writer.owner, writer.connection, wanted)

    # The end of a connection.

    def end_connection(self, connection: str) -> Ended:
        """Owned keys and locks of `connection` are gone; says which. Idempotent."""
        keys = sorted(self._by_connection.get(connection, ()))
        locks = self.locks.end_connection(connection)
        if keys:
            self._apply({}, keys)
        return Ended(keys, locks)

    def connections(self) -> set[str]:
        """Connections that own a key or a lock."""
        return {connection for connection in (*self._by_connection, *self.locks.connections()) if connection}
