"""Which network interfaces this machine has, and over which of them a service is to be announced."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psutil

from narupa_shared.hosts import is_loopback

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_BROADCAST: Final = "127.255.255.255"
# In messages to this machine: existing clients that look for a server of their own machine take this for one, 127.0.0.1 not.
LOOPBACK_NAME: Final = "localhost"
ANY_HOSTS: Final = ("", "0.0.0.0", "::")


Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One IPv4 address of one interface that is up.

    Attributes:
        interface: The interface's name.
        address: Our address.
        broadcast: Where all others on its network hear us; None where there is no such address, as on most VPNs.
    """

    interface: str
    address: str
    broadcast: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where an announcement goes.

    Attributes:
        interface: The interface's name, for log lines.
        address: Our own IP address there.
        broadcast: The destination.
        announced: The address to announce there.
    """

    interface: str
    address: str
    broadcast: str
    announced: str

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine hears it."""
        return is_loopback(self.address)


def read_interfaces() -> tuple[InterfaceAddress, ...]:
    """The addresses that this machine has now. It asks the operating system, which may take some milliseconds.

    Raises:
        OSError: the system does not say.
    """
    try:
        return interface_addresses(psutil.net_if_addrs(), psutil.net_if_stats())
    except psutil.Error as error:
        raise OSError(str(error)) from error


async def apart(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, on a thread that ends with it: for what is asked once in a while, and may take its time."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="narupa-discovery")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, ask)
    finally:
        thread.shutdown(wait=False)


def usable(addresses: Sequence[str]) -> tuple[str, ...]:
    """Those of `addresses` that are this machine's own, and up.

    Raises:
        OSError: none is, though there are some; it says why of the last.
    """
    found, trouble = [], None
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                trouble = OSError(error.errno, f"{address}: {error.strerror}")
            else:
                found.append(address)
    if trouble is not None and not found:
        raise trouble
    return tuple(found)


def interface_addresses(
    addresses: Mapping[str, Sequence[Any]], states: Mapping[str, Any]
) -> tuple[InterfaceAddress, ...]:
    """What psutil's `net_if_addrs` and `net_if_stats` say, without what is down, or is not IPv4."""
    found = []
    for interface, entries in addresses.items():
        if interface not in states or not states[interface].isup:
            continue
        for entry in entries:
            if entry.family == socket.AF_INET:
                found.append(InterfaceAddress(interface, entry.address, _broadcast(entry)))
    return tuple(found)


def targets(host: str, interfaces: Sequence[InterfaceAddress]) -> tuple[Target, ...]:
    """Where a service that listens on `host` is to be announced.

    Only loopback where `host` is; every interface that has a broadcast address, and loopback, where it is any address;
    otherwise only the interface that has this address. Nothing for an IPv6 address: these messages are IPv4.
    """
    host = host.strip("[]").lower()
    here = tuple(item for item in interfaces if is_loopback(item.address))[:1]
    near = tuple(Target(item.interface, LOOPBACK, LOOPBACK_BROADCAST, LOOPBACK_NAME) for item in here)
    if host in ("localhost", "::1", LOOPBACK):
        return near
    if is_loopback(host):
        return tuple(Target(item.interface, host, LOOPBACK_BROADCAST, host) for item in here)
    far = (
        Target(item.interface, item.address, item.broadcast, item.address)
        for item in interfaces
        if item.broadcast is not None and not is_loopback(item.address) and host in (*ANY_HOSTS, item.address)
    )
    return tuple(dict.fromkeys((*(near if host in ANY_HOSTS else ()), *far)))


def multicast_addresses(host: str, interfaces: Sequence[InterfaceAddress]) -> tuple[str, ...]:
    """Our own addresses at which a service that listens on `host` is to be announced by multicast DNS.

    Loopback only where there is nothing else: who listens elsewhere is heard on this machine as well.
    """
    found = targets(host, interfaces)
    return tuple(item.address for item in found if not item.loopback) or tuple(item.address for item in found)


def _broadcast(entry: Any) -> str | None:
    """The broadcast address. Windows tells none, and Linux the address itself where it was set up without one."""
    if entry.broadcast not in (None, "", "0.0.0.0", entry.address):
        return str(entry.broadcast)
    if entry.ptp or not entry.netmask:
        return None
    try:
        network = ipaddress.IPv4Network(f"{entry.address}/{entry.netmask}", strict=False)
    except ValueError:
        return None
    return str(network.broadcast_address) if network.prefixlen < 31 else None
