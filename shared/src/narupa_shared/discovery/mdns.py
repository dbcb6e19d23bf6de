"""Multicast DNS: a session is a service of the type `_narupa._tcp.local.`, as every system's own tools list it.

It needs the package `zeroconf`, which is loaded when something is first announced or looked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from narupa_shared.discovery.broadcasting import REREAD_S, ReadInterfaces
from narupa_shared.discovery.essd import MAX_ID, MAX_NAME, ServiceHub, checked_lobbies, is_port, printable_line
from narupa_shared.discovery.interfaces import apart, multicast_addresses, read_interfaces, usable
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.hosts import is_loopback

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = structlog.get_logger(__name__)

SERVICE_TYPE: Final = "_narupa._tcp.local."
MAX_FOUND: Final = 64
MAX_ADDRESSES: Final = 8
# Of a DNS label, less what resolving a conflict may append; and of one TXT entry, its key included.
_MAX_LABEL: Final = 63 - 4
_MAX_ENTRY: Final = 255
_GOODBYE_S: Final = 2.0
_WEB: Final = ("ws", "wss", "https")
_GRPC: Final = ("trajectory", "imd", "multiplayer")


def text_of(hub: ServiceHub) -> dict[str, str]:
    """The TXT record that says what `hub` does: `id`, `name`, `session`, `version`, `lobby`, `tls`, and a port for `grpc`
    and for each of `ws`, `wss` and `https` that it has."""
    grpc = next((hub.services[name] for name in _GRPC if name in hub.services), None)
    lobbies = list(hub.lobbies)
    while len(",".join(lobbies)) > _MAX_ENTRY - len("lobby="):
        lobbies.pop()
    said = {
        "id": hub.id,
        "name": _fitting(printable_line(hub.name)[:MAX_NAME], _MAX_ENTRY - len("name=")),
        "session": _fitting(hub.session, _MAX_ENTRY - len("session=")),
        "version": importlib.metadata.version("narupa-shared"),
        "lobby": ",".join(lobbies),
        "grpc": "" if grpc is None else str(grpc),
        "tls": "1" if hub.tls else "",
        **{name: str(hub.services[name]) for name in _WEB if name in hub.services},
    }
    return {key: value for key, value in said.items() if value}


def hub_of(text: Mapping[bytes, bytes | None], address: str) -> ServiceHub:
    """The hub that a TXT record from anybody describes, at `address`.

    Raises:
        InvalidArgumentError: it does not say which session, or no port at which it is to be joined.
    """
    said = {key.decode("ascii", "replace"): (value or b"").decode("utf-8", "replace") for key, value in text.items()}
    session = printable_line(said.get("session", ""))[:MAX_ID]
    if not session:
        raise InvalidArgumentError("session", said.get("session"), "a session says its id")
    services = {name: port for name in _WEB if (port := _port(said.get(name, ""))) is not None}
    if (port := _port(said.get("grpc", ""))) is not None:
        services |= dict.fromkeys(_GRPC, port)
    lobbies = checked_lobbies(said.get("lobby", "").split(","))
    if not services and not lobbies:
        raise InvalidArgumentError("ports", said, "a session says a port or a lobby")
    return ServiceHub(
        name=printable_line(said.get("name", ""))[:MAX_NAME] or address,
        address=address,
        id=printable_line(said.get("id", ""))[:MAX_ID] or f"{address} {session}",
        services=services,
        session=session,
        lobbies=lobbies,
        tls=said.get("tls") == "1",
    )


def instance_label(name: str) -> str:
    """The DNS label for a session's name: what people see in other programs' lists. Dots would part it."""
    return _fitting(printable_line(name.replace(".", "-")), _MAX_LABEL) or "Narupa"


class MdnsAdvertiser:
    """Announces a hub by multicast DNS while `async with` is open, on the interfaces on which its services listen.

    Where an interface cannot be used, that is logged once, and tried again.

    Attributes:
        name: Under which the network knows it, made unique; empty until it does.
        registered: Set while the network knows it.
    """

    def __init__(
        self, hub: ServiceHub, host: str, *, reread_s: float = REREAD_S, read: ReadInterfaces = read_interfaces
    ) -> None:
        """
        Args:
            hub: What to announce; its address is replaced by those of the interfaces.
            host: Where its services listen.
            reread_s: Time after which the interfaces are looked at again, s.
            read: Tells the interfaces; called on a thread.
        """
        self.name = ""
        self.registered = asyncio.Event()
        self._hub = hub
        self._host = host
        self._reread_s = reread_s
        self._read = read
        self._troubled = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="mdns-advertiser")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        used: tuple[str, ...] = ()
        service: AsyncZeroconf | None = None
        try:
            while True:
                found = await self._addresses(used)
                if found != used:
                    await self._withdraw(service)
                    service = None
                    used = ()
                    service = await self._register(found)
                    used = found if service is not None else ()
                await asyncio.sleep(self._reread_s)
        finally:
            await self._withdraw(service)

    async def _addresses(self, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return usable(multicast_addresses(self._host, await apart(self._read)))
        except OSError as error:
            self._trouble(error)
            return otherwise

    async def _register(self, addresses: Sequence[str]) -> AsyncZeroconf | None:
        """None where it cannot be announced at `addresses`."""
        if not addresses:
            return None
        service: AsyncZeroconf | None = None
        try:
            _, zeroconf_asyncio = await apart(_load)
            service = zeroconf_asyncio.AsyncZeroconf(interfaces=list(addresses))
            info = self._info(zeroconf_asyncio, addresses)
            announced = await service.async_register_service(info, allow_name_change=True)
            await announced
        except Exception as error:  # whatever it is that this network, or its names, make the library say
            self._trouble(error)
            await self._withdraw(service)
            return None
        except BaseException:
            await self._withdraw(service)
            raise
        self.name = info.name.removesuffix(f".{SERVICE_TYPE}")
        self.registered.set()
        log.info("announcing_mdns", name=self.name, at=list(addresses))
        return service

    def _info(self, zeroconf_asyncio: Any, addresses: Sequence[str]) -> AsyncServiceInfo:
        near = all(is_loopback(address) for address in addresses)
        hub = self._hub.at("", loopback=near)
        main = next((hub.services[name] for name in (*_WEB, *_GRPC) if name in hub.services), 0)
        host_label = re.sub(r"[^a-z0-9-]", "", f"narupa-{hub.id}".lower())[:_MAX_LABEL]
        info: AsyncServiceInfo = zeroconf_asyncio.AsyncServiceInfo(
            SERVICE_TYPE,
            f"{instance_label(hub.name)}.{SERVICE_TYPE}",
            port=main,
            properties=text_of(hub),
            server=f"{host_label}.local.",
            parsed_addresses=list(addresses),
        )
        return info

    async def _withdraw(self, service: AsyncZeroconf | None) -> None:
        self.registered.clear()
        self.name = ""
        if service is not None:
            with contextlib.suppress(Exception):  # it is going either way
                async with asyncio.timeout(_GOODBYE_S):
                    await service.async_close()

    def _trouble(self, error: Exception) -> None:
        if not self._troubled:
            self._troubled = True
            log.warning("cannot_announce_mdns", host=self._host, error=str(error) or type(error).__name__)


async def browse(seconds: float, interfaces: Sequence[str] | None = None) -> list[ServiceHub]:
    """The sessions that answer within `seconds`: at most `MAX_FOUND`, each at each of its first `MAX_ADDRESSES` addresses.

    Args:
        seconds: How long to wait for answers, s.
        interfaces: Our own addresses of the interfaces to ask on; None asks on all.

    Raises:
        OSError: no interface can be used.
    """
    zeroconf, zeroconf_asyncio = await apart(_load)
    names: dict[str, None] = {}
    infos: dict[str, AsyncServiceInfo] = {}

    def changed(zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if len(names) < MAX_FOUND:
            names.setdefault(name)

    async def ask(name: str) -> None:
        info = zeroconf_asyncio.AsyncServiceInfo(SERVICE_TYPE, name)
        if await info.async_request(service.zeroconf, timeout=max(1, int((until - clock()) * 1000))):
            infos[name] = info

    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    choice = zeroconf.InterfaceChoice.All if interfaces is None else list(interfaces)
    service = zeroconf_asyncio.AsyncZeroconf(interfaces=choice)
    try:
        browser = zeroconf_asyncio.AsyncServiceBrowser(service.zeroconf, SERVICE_TYPE, handlers=[changed])
        asked: set[str] = set()
        async with asyncio.TaskGroup() as asking:
            while clock() < until:
                for name in [name for name in names if name not in asked]:
                    asked.add(name)
                    asking.create_task(ask(name), name="mdns-question")
                await asyncio.sleep(min(0.05, seconds))
        await browser.async_cancel()
    except* zeroconf.Error as errors:
        raise OSError(str(errors.exceptions[0])) from errors
    finally:
        await service.async_close()
    return _hubs(infos)


def _hubs(infos: Mapping[str, AsyncServiceInfo]) -> list[ServiceHub]:
    found = []
    for info in infos.values():
        for address in info.parsed_addresses()[:MAX_ADDRESSES]:
            with contextlib.suppress(InvalidArgumentError):
                # Who answers is not told; this machine is what a loopback address means to whoever asked here.
                found.append(hub_of(info.properties, address).seen_from(address))
    return found


def _load() -> tuple[Any, Any]:
    import zeroconf
    import zeroconf.asyncio

    return zeroconf, zeroconf.asyncio


def _port(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if is_port(number) else None


def _fitting(text: str, size: int) -> str:
    """`text`, or as much of its beginning as takes `size` bytes in UTF-8."""
    return text.encode("utf-8")[:size].decode("utf-8", "ignore").strip()
