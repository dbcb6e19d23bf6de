"""Announcing a hub: a datagram to every network that hears it, twice a second."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final, Self

import structlog

from narupa_shared.discovery.essd import ESSD_PORT, ServiceHub
from narupa_shared.discovery.interfaces import InterfaceAddress, Target, apart, read_interfaces, targets

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 0.5
# Wi-Fi comes and goes while a session runs.
REREAD_S: Final = 5.0

ReadInterfaces = Callable[[], Sequence[InterfaceAddress]]


class HubBroadcaster:
    """Announces a hub while `async with` is open.

    What cannot be sent over one interface is logged once, and hinders nothing else.

    Attributes:
        targets: Where it is announced at present.
    """

    def __init__(
        self,
        hub: ServiceHub,
        host: str,
        *,
        port: int = ESSD_PORT,
        interval_s: float = INTERVAL_S,
        reread_s: float = REREAD_S,
        read: ReadInterfaces = read_interfaces,
    ) -> None:
        """
        Args:
            hub: Its address is replaced by that of the interface.
            host: Where its services listen.
            port: Where clients listen for announcements.
            interval_s: Time between two announcements, s.
            reread_s: Time after which the interfaces are looked at again, s.
            read: Tells the interfaces; called on a thread.

        Raises:
            InvalidArgumentError: the hub does not fit into a message.
        """
        hub.at("255.255.255.255", loopback=True).encode()
        self._hub = hub
        self._host = host
        self._port = port
        self._interval_s = interval_s
        self._reread_s = reread_s
        self._read = read
        self._messages: dict[Target, bytes] = {}
        self._troubled: set[str] = set()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self._messages)

    async def __aenter__(self) -> Self:
        """
        Raises:
            OSError: no socket is to be had.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._task = asyncio.create_task(self._run(self._socket), name="hub-broadcaster")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._socket is not None:
            self._socket.close()

    async def _run(self, out: socket.socket) -> None:
        clock = asyncio.get_running_loop().time
        look_at = clock()
        while True:
            if clock() >= look_at:
                await self._look()
                look_at = clock() + self._reread_s
            for target, message in self._messages.items():
                self._send(out, target, message)
            await asyncio.sleep(self._interval_s)

    async def _look(self) -> None:
        try:
            interfaces = await apart(self._read)
        except OSError as error:
            self._trouble("interfaces", error)
            return
        found = targets(self._host, interfaces)
        if not found:
            self._trouble(self._host, OSError("no interface with a broadcast address carries this host"))
        if found == self.targets:
            return
        self._messages = {target: self._hub.at(target.announced, loopback=target.loopback).encode() for target in found}
        log.info("announcing", port=self._port, to=[target.broadcast for target in found])

    def _send(self, out: socket.socket, target: Target, message: bytes) -> None:
        try:
            try:
                out.sendto(message, (target.broadcast, self._port))
            except OSError:
                if not target.loopback:
                    raise
                out.sendto(message, (target.address, self._port))  # where loopback has no broadcast address
        except BlockingIOError:
            pass  # the next one comes soon
        except OSError as error:
            self._trouble(f"{target.interface} {target.broadcast}", error)

    def _trouble(self, what: str, error: OSError) -> None:
        if what not in self._troubled:
            self._troubled.add(what)
            log.warning("cannot_announce", where=what, error=str(error))
