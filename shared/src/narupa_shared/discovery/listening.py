"""Hearing which hubs are announced: a bounded memory of what anybody on the network may say."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from narupa_shared.discovery.essd import ESSD_PORT, ServiceHub
from narupa_shared.errors import InvalidArgumentError, UnavailableError

# Hubs that are remembered, each at each address of its; and messages that are looked at, per second.
MAX_HUBS: Final = 256
MESSAGES_PER_S: Final = 500.0


class HeardHubs:
    """The hubs that were announced, the latest of each.

    Attributes:
        ignored: How many messages were malformed, or more than is taken.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.ignored = 0
        self._clock = clock
        self._hubs: dict[tuple[str, str], ServiceHub] = {}
        self._left = MESSAGES_PER_S
        self._then = clock()

    @property
    def hubs(self) -> Sequence[ServiceHub]:
        """In the order in which they were first heard; one that is heard over several interfaces is there several times."""
        return list(self._hubs.values())

    def take(self, data: bytes, sender: str) -> bool:
        """One message, from the IP address `sender`, is taken into account; tells whether it was news."""
        now = self._clock()
        self._left = min(MESSAGES_PER_S, self._left + (now - self._then) * MESSAGES_PER_S)
        self._then = now
        if self._left < 1:
            self.ignored += 1
            return False
        self._left -= 1
        try:
            hub = ServiceHub.parse(data).seen_from(sender)
        except InvalidArgumentError:
            self.ignored += 1
            return False
        key = (hub.id, hub.address)
        if key not in self._hubs and len(self._hubs) >= MAX_HUBS:
            self.ignored += 1
            return False
        if self._hubs.get(key) == hub:
            return False
        self._hubs[key] = hub
        return True


class HubListener(asyncio.DatagramProtocol):
    """Listens for announcements while `async with` is open, beside other programs that do.

    Attributes:
        heard: What was announced so far.
        port: Where it listens.
    """

    def __init__(self, port: int = ESSD_PORT, host: str = "0.0.0.0") -> None:
        """
        Args:
            port: Where to listen; 0 takes any free one.
            host: The destination of the messages to hear: any, or one broadcast address.
        """
        self.heard = HeardHubs()
        self.port = port
        self._host = host
        self._transport: asyncio.BaseTransport | None = None
        self._closed = asyncio.Event()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        """
        Raises:
            UnavailableError: the port cannot be listened on.
        """
        try:
            listening = _shared_socket(self._host, self.port)
        except OSError as error:
            raise UnavailableError(
                f"UDP port {self.port} cannot be listened on: {(error.strerror or str(error)).lower()}; "
                "another program may hold it for itself"
            ) from error
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=listening)
        except BaseException:
            listening.close()
            raise
        self.port = listening.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    async def until(self, enough: Callable[[Sequence[ServiceHub]], bool]) -> Sequence[ServiceHub]:
        """The hubs heard, as soon as they are enough."""
        while not enough(self.heard.hubs):
            self._news.clear()
            await self._news.wait()
        return self.heard.hubs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.heard.take(data, addr[0]):
            self._news.set()


def _shared_socket(host: str, port: int) -> socket.socket:
    """A socket on which several programs hear the same broadcasts."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
