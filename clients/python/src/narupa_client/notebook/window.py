"""How much may be under way to a viewer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# To a viewer that is kept from acknowledging: how long it must have been silent, s; how far apart messages are at least, s; how
# much is under way at most, bytes, and the time in which that would be spent at the pace of the beginning, s. The pace goes down
# as less is left: from 224 kB/s to none.
SILENT_S: Final = 1.0
UNHEARD_INTERVAL_S: Final = 0.2
MAX_BYTES_UNHEARD: Final = 64 * 1024 * 1024
LASTING_S: Final = 300.0
# What a message takes up beside its data, bytes.
_AROUND: Final = 1024
_LOOK_EVERY_S: Final = 0.1


class Window:
    """Messages of one kind that were sent and not acknowledged yet; a sender waits for room, and then sends what is newest."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        """
        Args:
            size: How many may be under way: more than one, or a long way to the browser would slow everything down.
            clock: Gives seconds.
        """
        self._size = size
        self._clock = clock
        self._under_way: deque[int] = deque()
        self._bytes = 0
        self._acknowledged = 0
        self._sent_at = clock()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def sent(self, size: int) -> None:
        """One more is under way, of so many bytes."""
        self._under_way.append(size + _AROUND)
        self._bytes += size + _AROUND
        self._sent_at = self._clock()
        if self.under_way >= self._size:
            self._room.clear()

    def acknowledge(self, count: object) -> None:
        """The viewer has dealt with `count` messages so far; what cannot be is passed over."""
        if isinstance(count, bool) or not isinstance(count, int):
            return
        if not self._acknowledged < count <= self._acknowledged + self.under_way:
            return
        for _ in range(count - self._acknowledged):
            self._bytes -= self._under_way.popleft()
        self._acknowledged = count
        if self.under_way < self._size:
            self._room.set()

    def due(self, silent_since: float) -> bool:
        """Whether one more may be sent without room, to a viewer that is kept from acknowledging and was not heard since then."""
        left = MAX_BYTES_UNHEARD - self._bytes
        now = self._clock()
        if left <= 0 or now - silent_since < SILENT_S:
            return False
        newest = self._under_way[-1] if self._under_way else 0
        return now - self._sent_at >= max(UNHEARD_INTERVAL_S, newest * LASTING_S / left)

    async def room(self, silent_since: Callable[[], float | None]) -> None:
        """Returns once another may be sent.

        Args:
            silent_since: Says since when a viewer is silent that is kept from acknowledging; None where nothing keeps it.
        """
        while not self._room.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _LOOK_EVERY_S)
            since = silent_since()
            if since is not None and self.due(since):
                return
