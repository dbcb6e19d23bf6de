"""When each service showed life to this lobby, which says more about a stall than that it has not lapsed yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable


class Renewals:
    """The time of the last renewal of each service's lease here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._renewed: dict[str, float] = {}

    def note(self, lease: str) -> None:
        """The lease begins, or was renewed just now."""
        self._renewed[lease] = self._clock()

    def forget_but(self, leases: Collection[str]) -> None:
        """Only these are remembered."""
        self._renewed = {lease: at for lease, at in self._renewed.items() if lease in leases}

    def oldest_s(self, leases: Iterable[str]) -> float:
        """How long ago that of `leases` was renewed which has waited longest, s; 0 where none has been renewed here.

        May be called on any thread.
        """
        now = self._clock()
        return max((now - at for lease in leases if (at := self._renewed.get(lease)) is not None), default=0.0)
