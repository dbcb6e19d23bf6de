"""How much may be under way to a viewer."""

from __future__ import annotations

import asyncio


class Window:
    """Messages of one kind that were sent and not acknowledged yet; a sender waits for room, and then sends what is newest."""

    def __init__(self, size: int) -> None:
        """`size` is how many may be under way: more than one, or a long way to the browser would slow everything down."""
        self._size = size
        self._sent = 0
        self._acknowledged = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def under_way(self) -> int:
        return self._sent - self._acknowledged

    def sent(self) -> None:
        """One more is under way."""
        self._sent += 1
        if self.under_way >= self._size:
            self._room.clear()

    def acknowledge(self, count: object) -> None:
        """The viewer has dealt with `count` messages so far; what cannot be is passed over."""
        if isinstance(count, bool) or not isinstance(count, int) or not self._acknowledged < count <= self._sent:
            return
        self._acknowledged = count
        if self.under_way < self._size:
            self._room.set()

    async def room(self) -> None:
        """Returns once another may be sent."""
        await self._room.wait()
