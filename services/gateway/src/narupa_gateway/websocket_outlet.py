"""Frames on a WebSocket, written as they come: what many viewers cost the least."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from narupa_shared.errors import NarupaError
from narupa_shared.frames import Part, size_of
from narupa_shared.subscriptions import Subscription

# A whole message in one frame, binary and, as all that servers send, not masked (RFC 6455, section 5.2).
_BINARY: Final = 0x82


class FrameConnection(ServerConnection):
    """A connection on which a subscription's responses go straight to the transport.

    The library would copy each message behind a header for each connection, and have a task wait for each. Here the header is
    all that is made, and the message's own memory is written.
    """

    _subscription: Subscription | None = None
    _frames_ended: asyncio.Future[None] | None = None

    async def follow(self, subscription: Subscription) -> None:
        """Its responses are sent as they come, the newest once there is room, until the connection is lost.

        Raises:
            NarupaError: it ended before; why.
        """
        self._subscription, self._frames_ended = subscription, self.loop.create_future()
        try:
            subscription.pass_to(self)
            await self._frames_ended
        finally:
            self._subscription = self._frames_ended = None

    @property
    def ready(self) -> bool:
        # Between its being cut off and `connection_lost`, a connection is still said to be open.
        return not self.paused and self.state is State.OPEN and not self.transport.is_closing()

    def wrapped(self, response: Sequence[Part]) -> Sequence[Part]:
        return (header(size_of(response)), *response)

    def write(self, wrapped: Sequence[Part]) -> None:
        try:
            self.transport.writelines(wrapped)
        except (OSError, RuntimeError):  # uvloop's for a transport that is gone; one viewer's end is nobody else's
            self.transport.abort()

    def end(self, error: NarupaError) -> None:
        if self._frames_ended is not None and not self._frames_ended.done():
            self._frames_ended.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._frames_ended is not None and not self._frames_ended.done():
            self._frames_ended.set_result(None)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._subscription is not None:
            self._subscription.flush()


def header(size: int) -> bytes:
    """What stands before a binary message of so many bytes."""
    if size < 126:
        return struct.pack("!BB", _BINARY, size)
    if size < 65_536:
        return struct.pack("!BBH", _BINARY, 126, size)
    return struct.pack("!BBQ", _BINARY, 127, size)
