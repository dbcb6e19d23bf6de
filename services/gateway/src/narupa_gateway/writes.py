"""What one client writes to the shared state: over one stream, so that what it owns ends with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from narupa_client.state_writer import StateWriter
from narupa_gateway.guests import Guest
from narupa_shared.errors import NarupaError, PermissionDeniedError

_AVATAR: Final = "avatar."


class GuestWrites:
    """The stream of one guest's writes, opened with the first one, and anew after it was lost."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._opened: contextlib.AbstractAsyncContextManager[StateWriter] | None = None
        self._writer: StateWriter | None = None
        self._lock = asyncio.Lock()

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
        writer = await self._open()
        try:
            await writer.write(updates, remove=removals)
            self._note(updates, removals)
        except NarupaError:
            if writer.problem is not None:  # the stream is over, whatever for; the next write opens another
                await self._forget(writer)
            raise

    async def close(self) -> None:
        """The stream is over, and with it what the guest owned. Idempotent."""
        if self._writer is not None:
            await self._forget(self._writer)

    def _note(self, updates: Mapping[str, Any], removals: Iterable[str]) -> None:
        self._guest.avatars.difference_update(key.removeprefix(_AVATAR) for key in removals)
        self._guest.avatars.update(key.removeprefix(_AVATAR) for key in updates if key.startswith(_AVATAR))

    async def _open(self) -> StateWriter:
        async with self._lock:
            if self._writer is None:
                opening = self._guest.session.state.writer()
                self._writer = await opening.__aenter__()
                self._opened = opening
            return self._writer

    async def _forget(self, writer: StateWriter) -> None:
        async with self._lock:
            if self._writer is not writer or self._opened is None:
                return
            opened, self._opened, self._writer = self._opened, None, None
            self._guest.avatars.clear()
            with contextlib.suppress(NarupaError):
                await opened.__aexit__(None, None, None)
