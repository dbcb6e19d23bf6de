"""Leases kept in memory, for stores that one process has to itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.stores.store import LeaseChanges, LeaseHeldError


class Leases:
    """When each lease lapses, by the injected clock. Whoever calls sees to it that no two threads do at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadlines: dict[str, float] = {}

    @property
    def names(self) -> frozenset[str]:
        """Every lease that nobody has ended, lapsed ones included."""
        return frozenset(self._deadlines)

    def check(self, changes: LeaseChanges) -> None:
        """Nothing stands against `changes`.

        Raises:
            LeaseHeldError: a lease that was to have lapsed has not.
        """
        if not changes.only_if_lapsed:
            return
        now = self._clock()
        for name in sorted(changes.only_if_lapsed):
            if self._deadlines.get(name, now) > now:
                raise LeaseHeldError(held_text(name))

    def apply(self, changes: LeaseChanges) -> None:
        """What `changes` ends has ended, and then what it holds has begun."""
        for name in changes.release | changes.only_if_lapsed:
            self._deadlines.pop(name, None)
        if changes.hold:
            now = self._clock()
            self._deadlines.update({name: now + seconds for name, seconds in changes.hold.items()})

    def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        """See `Store.renew`."""
        now = self._clock()
        self._deadlines.update({name: now + seconds for name, seconds in leases.items() if name in self._deadlines})
        return frozenset(leases) - self._deadlines.keys()

    def lapsed(self, at_most: int) -> tuple[str, ...]:
        """See `Store.lapsed`."""
        now = self._clock()
        overdue = sorted((deadline, name) for name, deadline in self._deadlines.items() if deadline <= now)
        return tuple(name for _, name in overdue[:at_most])

    def saved(self) -> dict[str, float]:
        """A copy for `restore`."""
        return dict(self._deadlines)

    def restore(self, saved: Mapping[str, float]) -> None:
        """The leases are again as they were when `saved` was made."""
        self._deadlines = dict(saved)

    def clear(self) -> None:
        """There is none."""
        self._deadlines.clear()


def held_text(name: str) -> str:
    """What `LeaseHeldError` says about the lease `name`."""
    return f"the lease {name!r} has been renewed and has not lapsed; look again before you end it"


def checked_times(leases: Mapping[str, float]) -> None:
    """Every lease has a name that can be written and a time that can pass.

    Raises:
        InvalidArgumentError: some time is not a finite number of seconds, 0 or more, or a name is no UTF-8 text.
    """
    for name, seconds in leases.items():
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InvalidArgumentError(f"leases[{name!r}]", seconds, "must be a finite number of seconds, 0 or more")
    checked_names(leases)


def checked_names(names: Iterable[str]) -> None:
    """Every one of `names` can be written as UTF-8.

    Raises:
        InvalidArgumentError: some cannot.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("leases", name, f"must be UTF-8 text: {error.reason}") from None
