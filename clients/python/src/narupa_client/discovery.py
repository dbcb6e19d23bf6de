"""Finding sessions, and servers of existing programs, on the local network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from narupa_client.connection import Endpoint
from narupa_shared.discovery.essd import ESSD_PORT, ServiceHub
from narupa_shared.discovery.listening import HubListener
from narupa_shared.discovery.mdns import browse
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.hosts import is_loopback

_GRPC = ("trajectory", "imd", "multiplayer")


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session, or a server of another program, that was announced. Nobody vouches for what it says of itself.

    Attributes:
        name: For people.
        id: The announcement's; another one after a restart.
        addresses: Where it is, the one to use first at the front.
        services: Name to port: `ws`, `wss`, `https`, `trajectory`, `imd`, `multiplayer`.
        session_id: Empty for other programs' servers.
        lobbies: Where the session is joined, which `join` takes; empty for other programs' servers, and where the lobby
            cannot be reached from here.
        tls: Whether the session wants TLS.
        found_by: "broadcast", "mdns", or both.
    """

    name: str
    id: str
    addresses: tuple[str, ...]
    services: Mapping[str, int]
    session_id: str = ""
    lobbies: tuple[Endpoint, ...] = ()
    tls: bool = False
    found_by: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The address to use."""
        return self.addresses[0]

    @property
    def websocket(self) -> str:
        """The URL for NanoVer clients; empty without one."""
        for scheme in ("wss", "ws"):
            if scheme in self.services:
                return f"{scheme}://{Endpoint(self.address, self.services[scheme])}"
        return ""

    @property
    def grpc(self) -> Mapping[str, Endpoint]:
        """Where Narupa and NanoVer clients find `trajectory`, `imd` and `multiplayer`, as far as there are any."""
        return {name: Endpoint(self.address, self.services[name]) for name in _GRPC if name in self.services}


async def discover(
    seconds: float = 2.0,
    *,
    port: int = ESSD_PORT,
    mdns: bool = True,
    on_problem: Callable[[str], None] = lambda _: None,
) -> list[FoundSession]:
    """What is announced on the local network within `seconds`, by name.

    Args:
        seconds: How long to listen, s; servers announce themselves twice a second.
        port: The UDP port of the broadcasts.
        mdns: Whether to ask by multicast DNS, too.
        on_problem: Told why one of the two ways cannot be used, when the other can.

    Raises:
        InvalidArgumentError: `seconds` is no positive number, or `port` none.
        UnavailableError: no way can be used; the text says why.
    """
    if not 0 < seconds <= 3600:
        raise InvalidArgumentError("seconds", seconds, "write a number above 0, and at most 3600")
    if not 0 < port < 65536:
        raise InvalidArgumentError("port", port, "write a number from 1 to 65535")
    ways = {"broadcast": _heard(seconds, port)} | ({"mdns": _answered(seconds)} if mdns else {})
    results = await asyncio.gather(*ways.values(), return_exceptions=True)
    found: list[tuple[str, ServiceHub]] = []
    problems: list[str] = []
    for way, result in zip(ways, results, strict=True):
        if isinstance(result, NarupaError):
            problems.append(str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            found += [(way, hub) for hub in result]
    if len(problems) == len(ways):
        raise UnavailableError("; ".join(problems))
    for problem in problems:
        on_problem(problem)
    return merged(found)


def merged(found: Iterable[tuple[str, ServiceHub]]) -> list[FoundSession]:
    """One entry for each that was found, however often and in whichever of the ways, by name."""
    by_id: dict[str, list[tuple[str, ServiceHub]]] = {}
    for way, hub in found:
        by_id.setdefault(hub.id, []).append((way, hub))
    return sorted((_one(seen) for seen in by_id.values()), key=lambda one: (one.name.casefold(), one.addresses))


def _one(seen: Sequence[tuple[str, ServiceHub]]) -> FoundSession:
    # This machine's own loopback first; and what the broadcasts say before what multicast DNS says.
    hubs = sorted((hub for _, hub in seen), key=lambda hub: not is_loopback(hub.address))
    services: dict[str, int] = {}
    for hub in reversed(hubs):
        services |= hub.services
    lobbies = dict.fromkeys(lobby for hub in hubs for lobby in hub.lobbies)
    return FoundSession(
        name=hubs[0].name,
        id=hubs[0].id,
        addresses=tuple(dict.fromkeys(_numeric(hub.address) for hub in hubs)),
        services=services,
        session_id=next((hub.session for hub in hubs if hub.session), ""),
        lobbies=tuple(dict.fromkeys(_endpoint(lobby) for lobby in lobbies)),
        tls=any(hub.tls for hub in hubs),
        found_by=tuple(dict.fromkeys(way for way, _ in seen)),
    )


def _endpoint(lobby: str) -> Endpoint:
    endpoint = Endpoint.parse(lobby, "lobby")
    return Endpoint(_numeric(endpoint.host), endpoint.port)


def _numeric(address: str) -> str:
    return "127.0.0.1" if address == "localhost" else address


async def _heard(seconds: float, port: int) -> Sequence[ServiceHub]:
    async with HubListener(port) as listener:
        await asyncio.sleep(seconds)
        return listener.heard.hubs


async def _answered(seconds: float) -> Sequence[ServiceHub]:
    try:
        return await browse(seconds)
    except OSError as error:
        raise UnavailableError(f"multicast DNS cannot be used: {error.strerror or error}") from error
