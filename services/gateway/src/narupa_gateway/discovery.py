"""Making the gateway known on the network: existing clients list it among their servers, `narupa discover` among the sessions."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

import structlog

from narupa_shared.discovery.broadcasting import HubBroadcaster
from narupa_shared.discovery.essd import ESSD_PORT, ServiceHub, checked_lobbies
from narupa_shared.discovery.interfaces import apart
from narupa_shared.discovery.mdns import MdnsAdvertiser
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.hosts import is_loopback

log = structlog.get_logger(__name__)

GRPC_SERVICES: Final = ("trajectory", "imd", "multiplayer")
# A resolver that does not answer shall not hold up the start.
_RESOLVE_S: Final = 3.0


class Discovery:
    """The gateway is announced while `async with` is open; whatever fails of it is logged, and hinders nothing else.

    On loopback it is announced to this machine only: programs on it find each other, and nothing leaves it.

    Attributes:
        hub: What is announced.
        mdns: What announces it by multicast DNS; None where nothing does.
    """

    def __init__(
        self,
        name: str,
        host: str,
        ports: Mapping[str, int],
        *,
        session: str,
        lobbies: Sequence[str] = (),
        tls: bool = False,
        broadcast: bool = True,
        mdns: bool | None = None,
        port: int = ESSD_PORT,
        ids: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """
        Args:
            name: What people see in their lists; empty for one that names the session and this machine.
            host: Where the gateway listens.
            ports: `gateway_ports`.
            session: The session's id.
            lobbies: HOST:PORT of the lobbies, or :PORT of one that is where the gateway is found; those on loopback are
                named to this machine only.
            tls: Whether the session wants TLS.
            broadcast: Whether to be announced by ESSD broadcasts.
            mdns: Whether to be announced by multicast DNS; None means where other machines can reach the gateway.
            port: The UDP port of the broadcasts.
            ids: Makes the hub's id.
        """
        self.hub = ServiceHub(
            name=name or default_name(session, socket.gethostname()),
            address=host,
            id=ids(),
            services=dict(ports),
            session=session,
            lobbies=checked_lobbies(lobbies),
            tls=tls,
        )
        self._host = host
        self._broadcast = broadcast
        self._by_mdns = not is_loopback(host) if mdns is None else mdns
        self.mdns: MdnsAdvertiser | None = None
        self._port = port
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if not (self._broadcast or self._by_mdns):
            return self
        try:
            host = await _address(self._host)
        except OSError as error:
            log.warning("cannot_announce", where=self._host, error=error.strerror or str(error) or "timed out")
            return self
        if self._broadcast:
            try:
                await self._stack.enter_async_context(HubBroadcaster(self.hub, host, port=self._port))
            except (OSError, InvalidArgumentError) as error:
                log.warning("cannot_announce", where=host, error=str(error))
        if self._by_mdns:
            self.mdns = await self._stack.enter_async_context(MdnsAdvertiser(self.hub, host))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def gateway_ports(grpc: int | None, websocket: int | None, *, tls: bool = False) -> dict[str, int]:
    """The ports by the names that existing clients look for; None for what is not served."""
    ports = {} if grpc is None else dict.fromkeys(GRPC_SERVICES, grpc)
    if websocket is not None:
        ports |= dict.fromkeys(("wss", "https") if tls else ("ws",), websocket)
    return ports


def default_name(session: str, machine: str) -> str:
    """A name that tells apart the sessions of a room full of machines."""
    session = "" if session == "default" else f"{session} "
    return f"Narupa {session}on {machine.partition('.')[0] or 'this machine'}"


async def _address(host: str) -> str:
    """`host` as an address; a name is looked up.

    Raises:
        OSError: there is no such name, or nobody knows in time.
    """
    host = host.strip("[]")
    try:
        return host if host == "" or is_loopback(host) else str(ipaddress.ip_address(host))
    except ValueError:
        pass
    async with asyncio.timeout(_RESOLVE_S):
        found = await apart(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM))
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if ":" not in address), addresses[0])
