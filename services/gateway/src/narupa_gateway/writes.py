"""What one client writes to the shared state: over one stream, so that what it owns ends with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from narupa_client.state_writer import LastingWriter
from narupa_gateway.guests import Guest
from narupa_shared.errors import NarupaError, PermissionDeniedError

_AVATAR: Final = "avatar."


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
