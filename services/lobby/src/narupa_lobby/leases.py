"""Leases: what is not renewed in time lapses."""

from __future__ import annotations

from collections.abc import Callable


class Leases:
    """Deadlines by key, on an injected clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadlines: dict[str, float] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._deadlines

    def hold(self, key: str, seconds: float) -> None:
        """`key` lapses in `seconds` unless it is held again or ended."""
        self._deadlines[key] = self._clock() + seconds

    def end(self, key: str) -> None:
        """`key` never lapses. Idempotent."""
        self._deadlines.pop(key, None)

    def lapsed(self) -> list[str]:
        """The keys whose time is up, the longest overdue first; they are forgotten here."""
        now = self._clock()
        due = sorted((deadline, key) for key, deadline in self._deadlines.items() if deadline <= now)
        for _, key in due:
            del self._deadlines[key]
        return [key for _, key in due]
