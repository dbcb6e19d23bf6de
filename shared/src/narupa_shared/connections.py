"""Which connections to a server still exist: what a connection owns ends with it.

A connection is held by the streams on it. One that never had a stream is looked up among the process's TCP connections,
which works because gRPC closes its socket as soon as the other side is gone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, Self
from urllib.parse import unquote

import psutil
import structlog

log = structlog.get_logger(__name__)

Address = tuple[str, int]

# A client that ends one subscription and begins another keeps what it owns for this long, s.
GRACE_S: Final = 0.5
CHECK_INTERVAL_S: Final = 1.0
# Where the process may not look at its own connections: how long after its last write a silent one counts as gone, s.
LEASE_S: Final = 10.0


class Owners(Protocol):
    """What belongs to connections."""

    def connections(self) -> set[str]:
        """Connections that own something."""

    def end_connection(self, connection: str, reason: str) -> object:
        """What the connection owned is gone. Idempotent."""


class Hold:
    """A stream's hold on its connection, to be used with `with`, or ended by `end`; ending it again does nothing.

    Attributes:
        connection: What the stream's own keys belong to.
    """

    def __init__(self, connection: str, act: Callable[[], None]) -> None:
        self.connection = connection
        self._act: Callable[[], None] | None = act

    def end(self, _call: object = None) -> None:
        """The stream is over. Also a call's done-callback: gRPC tells of the end even while a response waits to be sent."""
        act, self._act = self._act, None
        if act:
            act()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Connections:
    """Ends what belonged to connections that are gone."""

    def __init__(
        self,
        owners: Owners,
        clock: Callable[[], float],
        established: Callable[[], set[Address] | None] | None = None,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """`established` gives the far ends of the process's connections (None: cannot tell), `call_later` sets a timer."""
        self._owners = owners
        self._clock = clock
        self._established = established or established_connections
        self._call_later = call_later or (lambda delay, act: asyncio.get_running_loop().call_later(delay, act))
        self._streams: Counter[str] = Counter()
        self._leases: set[str] = set()
        self._numbers = itertools.count(1)
        self._in_grace: Counter[str] = Counter()
        self._last_write: dict[str, float] = {}

    @property
    def streams(self) -> int:
        """Streams open now."""
        return self._streams.total()

    def stream(self, peer: str) -> Hold:
        """A stream holds the connection until the returned hold ends."""
        self._streams[peer] += 1
        return Hold(peer, lambda: self._stream_ended(peer))

    def lease(self, peer: str) -> Hold:
        """The same for a stream that owns things itself: under the hold's `connection`, and they end with it at once."""
        lease = f"{peer}#{next(self._numbers)}"
        self._leases.add(lease)
        self._streams[peer] += 1

        def end() -> None:
            self._leases.discard(lease)
            self._owners.end_connection(lease, "its stream ended")
            self._stream_ended(peer)

        return Hold(lease, end)

    def _stream_ended(self, peer: str) -> None:
        self._streams[peer] -= 1
        if not self._streams[peer]:
            del self._streams[peer]
            self._in_grace[peer] += 1
            self._call_later(GRACE_S, lambda: self._after_grace(peer))

    def wrote(self, peer: str) -> None:
        """The connection is in use without a stream."""
        self._last_write[peer] = self._clock()

    def _after_grace(self, peer: str) -> None:
        self._in_grace[peer] -= 1
        if self._in_grace[peer] <= 0:
            del self._in_grace[peer]
        if not self._streams[peer] and peer not in self._in_grace:
            self._owners.end_connection(peer, "its last stream ended")

    def unheld(self) -> set[str]:
        """Connections that own something and have no stream to tell of their end."""
        return {
            peer
            for peer in self._owners.connections()
            if peer not in self._leases and not self._streams[peer] and peer not in self._in_grace
        }

    def end_all_but(self, suspects: set[str], alive: set[Address] | None) -> None:
        """Those of `suspects` that are still without a stream, and not `alive`, have ended."""
        now = self._clock()
        for peer in sorted(suspects & self.unheld()):
            address = address_of(peer)
            if alive is not None and address is not None:
                if address not in alive:
                    self._owners.end_connection(peer, "its connection closed")
            elif now - self._last_write.get(peer, now - LEASE_S) >= LEASE_S:
                self._owners.end_connection(peer, f"nothing written for {LEASE_S:g} s")
        owning = self._owners.connections()
        self._last_write = {peer: then for peer, then in self._last_write.items() if peer in owning}

    async def run(self) -> None:
        """Looks after connections without streams until cancelled."""
        loop = asyncio.get_running_loop()
        # The system's table takes microseconds to read, or tens of milliseconds with thousands of connections.
        with ThreadPoolExecutor(1, "connections") as reader:
            while True:
                await asyncio.sleep(CHECK_INTERVAL_S)
                suspects = self.unheld()
                if suspects:
                    self.end_all_but(suspects, await loop.run_in_executor(reader, self._established))
                else:
                    self._last_write.clear()


def established_connections() -> set[Address] | None:
    """The far ends of this process's TCP connections; None when the operating system does not let it look."""
    try:
        found = psutil.Process().net_connections(kind="tcp")
    except (psutil.Error, OSError, NotImplementedError) as error:
        log.warning("connections_unknown", reason=str(error))
        return None
    return {
        (_plain_host(item.raddr.ip), item.raddr.port)
        for item in found
        if item.raddr and item.status == psutil.CONN_ESTABLISHED
    }


def address_of(peer: str) -> Address | None:
    """The host and port in gRPC's name of a TCP connection, such as `ipv6:%5B::1%5D:54321`; None for any other."""
    scheme, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    try:
        return _plain_host(host.strip("[]")), int(port)
    except ValueError:
        return None


def _plain_host(text: str) -> str:
    address = ipaddress.ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
