"""Locks on keys of the shared state: each has an owner and ends by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from narupa_shared.errors import InvalidArgumentError, QuotaError

MAX_LOCK_S: Final = 3600.0
MAX_LOCKS: Final = 10_000
MAX_LOCKS_PER_OWNER: Final = 1_000


@dataclass(frozen=True, slots=True)
class Lock:
    owner: str
    connection: str
    expires: float


class Locks:
    """Who holds which key, until when (by the injected clock, s)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._locks: dict[str, Lock] = {}

    def holder(self, key: str) -> str | None:
        """The owner of the lock on `key`, or None when nobody holds it now."""
        lock = self._locks.get(key)
        if lock is None:
            return None
        if lock.expires <= self._clock():
            del self._locks[key]
            return None
        return lock.owner

    def checked(self, acquire_s: Mapping[str, object]) -> dict[str, float]:
        """`acquire_s` with durations that are numbers of seconds.

        Raises:
            InvalidArgumentError: one is not, or is too long.
        """
        for key, value in acquire_s.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
            if not number or not 0 < value <= MAX_LOCK_S:  # type: ignore[operator]
                raise InvalidArgumentError(
                    f"lock on {key}", value, f"hold it for more than 0 and at most {MAX_LOCK_S:g} s"
                )
        return {key: float(value) for key, value in acquire_s.items()}  # type: ignore[arg-type]

    def acquire(self, owner: str, connection: str, wanted: Mapping[str, float]) -> None:
        """The locks are the owner's; whoever calls has made sure that nobody else holds one of them.

        Raises:
            QuotaError: too many locks, of this owner or in all.
        """
        now = self._clock()
        if len(self._locks) + len(wanted) > MAX_LOCKS_PER_OWNER:
            self._locks = {key: lock for key, lock in self._locks.items() if lock.expires > now}
            others = sum(lock.owner != owner for lock in self._locks.values())
            own = len({key for key, lock in self._locks.items() if lock.owner == owner} | set(wanted))
            if own > MAX_LOCKS_PER_OWNER or own + others > MAX_LOCKS:
                raise QuotaError(
                    f"{owner} would hold {own} locks of {own + others}; at most {MAX_LOCKS_PER_OWNER} of {MAX_LOCKS}"
                )
        for key, duration_s in wanted.items():
            self._locks[key] = Lock(owner, connection, now + duration_s)

    def release(self, owner: str, key: str) -> None:
        """The owner holds no lock on `key`; another's lock stays."""
        if self.holder(key) == owner:
            del self._locks[key]

    def end_connection(self, connection: str) -> list[str]:
        """Locks of `connection` are released; says which."""
        ended = [key for key, lock in self._locks.items() if lock.connection == connection]
        for key in ended:
            del self._locks[key]
        return ended

    def connections(self) -> Iterable[str]:
        return {lock.connection for lock in self._locks.values()}

    def __len__(self) -> int:
        return len(self._locks)
