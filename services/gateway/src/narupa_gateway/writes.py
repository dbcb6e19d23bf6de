"""What one client writes to the shared state: over one stream, so that what it owns ends with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from narupa_client.state_writer import LastingWriter
from narupa_gateway.guests import Guest
from narupa_shared.errors import NarupaError, PermissionDeniedError

_AVATAR: Final = "avatar."
# Writes that wait for the imd service; the client is not read from while there are this many.
MAX_WAITING_WRITES: Final = 64
MAX_WAITING_BYTES: Final = 1024 * 1024


class GuestWrites:
    """The stream of one guest's writes, opened with the first one, and anew after it was lost."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._writer = LastingWriter(lambda: guest.session.state.writer())

    async def write(self, updates: Mapping[str, Any], removals: Iterable[str] = ()) -> None:
        """All of it is applied, or nothing.

        Raises:
            InvalidArgumentError: a bad key or value.
            PermissionDeniedError: the guest only watches; or a key is owned or locked by somebody else, or the service's own.
            QuotaError: too much.
            UnavailableError: the imd service is away; it will be looked for with the next write.
        """
        removals = list(removals)
        if not self._guest.may_write:
            raise PermissionDeniedError(
                "changing the shared state needs the role participant, and yours is viewer; a host of the session can give "
                "you that role"
            )
        try:
            await self._writer.write(updates, removals)
            self._note(updates, removals)
        except NarupaError:
            if not self._writer.is_open:
                self._guest.avatars.clear()
            raise

    async def close(self) -> None:
        """The stream is over, and with it what the guest owned. Idempotent."""
        self._guest.avatars.clear()
        await self._writer.close()

    def _note(self, updates: Mapping[str, Any], removals: Iterable[str]) -> None:
        self._guest.avatars.difference_update(key.removeprefix(_AVATAR) for key in removals)
        self._guest.avatars.update(key.removeprefix(_AVATAR) for key in updates if key.startswith(_AVATAR))


class WaitingWrites:
    """What a client has written and the imd service has not taken yet, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[dict[str, Any], list[str], int]] = asyncio.Queue(MAX_WAITING_WRITES)
        self._bytes = 0
        self._room = asyncio.Event()

    async def put(self, updates: dict[str, Any], removals: list[str], size: int) -> None:
        """The write, a message of so many bytes, waits; returns once there is room for the next."""
        self._bytes += size
        await self._queue.put((updates, removals, size))
        while self._bytes > MAX_WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    @contextlib.asynccontextmanager
    async def next(self) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
        """The write that has waited longest, once there is one; it makes room when this is left."""
        updates, removals, size = await self._queue.get()
        yield updates, removals
        self._bytes -= size
        self._room.set()
