"""The IMD listener: to programs that read or pull simulations over IMD, a session is an engine among others.

IMD knows no users, and an engine speaks first; so a client is greeted, and joins the session, as a guest of its own, once it has
said GO. What is an engine's alone to do stays the session's: a client that pauses or kills holds up, or ends, only itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Final, Literal, Self

import structlog

from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Credentials, Guest, Guests
from narupa_gateway.imd_client import ImdClient, ImdLimits, Write
from narupa_gateway.imd_frames import ImdFrames, WholeFrame
from narupa_gateway.writes import GuestWrites
from narupa_shared.daemon import StartError
from narupa_shared.errors import NarupaError
from narupa_shared.rates import RateLimit

log = structlog.get_logger(__name__)

FAMILY: Final = "IMD"
STOPPING: Final = "the gateway is stopping"
CLOSING_LIMIT_S: Final = 1.0
# A client that has vanished without a word is noticed after the first, and then so many times the second, s.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}

# Whole frames, the newest at each time; nothing is fetched before somebody iterates, nor after.
Frames = Callable[[], AsyncGenerator[WholeFrame, None]]
# A client that calls from this address is in the session while this is open; the function given is called when that is over,
# and what is yielded writes to the shared state in its name.
Join = Callable[[str, Callable[[str], None]], contextlib.AbstractAsyncContextManager[Write]]


class ImdServer:
    """Serves clients that speak IMD, as `async with`.

    Attributes:
        port: Where it listens.
        accepted: How many connections there have been.
        refused: How many of them were too many.
    """

    def __init__(
        self,
        frames: Frames,
        join: Join,
        *,
        host: str,
        port: int,
        version: Literal[2, 3] = 3,
        limits: ImdLimits | None = None,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        """Nothing listens.

        Args:
            frames: What clients see.
            join: How they become users.
            host: Address to listen on.
            port: Port to listen on; 0 takes any free one.
            version: Of IMD; 2 is for VMD.
            limits: What they may.
            shared: Whether other processes listen on the same port.
            clock: Gives seconds.
            new_id: Gives ids that are unique in the session.
        """
        self._source = frames
        self._join = join
        self._host = host
        self._version = version
        self._limits = limits or ImdLimits()
        self._shared = shared
        self._new_id = new_id
        self._rates = RateLimit(clock, self._limits.messages_per_s, self._limits.messages_burst, "messages")
        self._clients: set[ImdClient] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._frames: ImdFrames | None = None  # while there are clients
        self._pump: asyncio.Task[None] | None = None
        self.port = port
        self.accepted = self.refused = 0

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self._clients)

    async def __aenter__(self) -> Self:
        """Listens. Raises: StartError when the port is in use, or the address is not this machine's."""
        host = self._host.strip("[]")
        try:
            self._server = await asyncio.start_server(self._accept, host, self.port, reuse_port=self._shared)
        except OSError as error:
            raise StartError(
                f"cannot listen on {self._host}:{self.port} for IMD: {error.strerror or error}; stop what uses it, or choose "
                "another with --imd-port (NARUPA_GATEWAY_IMD_PORT)"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("imd_ready", host=self._host, port=self.port, version=self._version)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing listens, and every client has been told to go and is gone."""
        if self._server is None:
            return
        self._server.close()
        await self.end_all(STOPPING)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * CLOSING_LIMIT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stop_pump()
        await self._server.wait_closed()
        self._server = None

    async def end_all(self, reason: str) -> None:
        """Every client is told to go."""
        for client in list(self._clients):
            client.end(reason)

    # Connections.

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        opening = sum(not client.joined for client in self._clients)
        if len(self._clients) >= self._limits.connections or opening >= self._limits.opening:
            self.refused += 1
            log.info("imd_client_refused", address=_address(writer), clients=len(self._clients))
            writer.transport.abort()
            return
        client = ImdClient(self._new_id(), reader, writer, self._running_frames(), self._rates, self._limits)
        self._clients.add(client)
        task = asyncio.create_task(self._serve(client, writer), name=f"imd-{client.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: ImdClient, writer: asyncio.StreamWriter) -> None:
        address = _address(writer)
        _configure(writer)
        log.info("imd_client_connected", client=client.id, address=address)
        reason = STOPPING
        try:
            reason = await client.serve(lambda ended: self._join(address, ended))
        finally:
            self._clients.discard(client)
            log.info("imd_client_left", client=client.id, address=address, frames=client.sent, reason=reason)
            await _close(writer)
            if not self._clients:
                await self._stop_pump()

    # Frames.

    def _running_frames(self) -> ImdFrames:
        """What clients see, which is fetched from now on if it was not."""
        if self._frames is None or self._frames.ended is not None:
            self._frames = ImdFrames(self._version)
            self._pump = asyncio.create_task(self._fetch(self._frames), name="imd-frames")
        return self._frames

    async def _fetch(self, frames: ImdFrames) -> None:
        reason = "there are no more frames"
        try:
            async with contextlib.aclosing(self._source()) as source:
                async for frame in source:
                    frames.publish(frame)
        except NarupaError as error:
            reason = str(error)
        finally:
            frames.end(reason)

    async def _stop_pump(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            self._frames = None
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)


def imd_server(config: GatewayConfig, guests: Guests, feed: FrameFeed, port: int) -> ImdServer:
    """The listener that the gateway's settings describe, at `port`."""

    async def frames() -> AsyncGenerator[WholeFrame, None]:
        subscription = feed.subscribe("v1", "latest", config.frame_interval_s, "frame_interval_s")
        try:
            async for _ in subscription:
                if feed.current is not None:
                    yield feed.current
        finally:
            feed.unsubscribe(subscription)

    @contextlib.asynccontextmanager
    async def join(address: str, ended: Callable[[str], None]) -> AsyncIterator[Write]:
        entered: list[Guest] = []

        def look() -> None:
            for guest in entered:
                if guest.ended is not None:
                    ended(str(guest.ended))

        async with guests.joined(FAMILY, address, Credentials(), look) as guest:
            entered.append(guest)
            look()
            writes = GuestWrites(guest)
            try:
                yield writes.write
            finally:
                await asyncio.shield(writes.close())

    return ImdServer(
        frames,
        join,
        host=config.host,
        port=port,
        version=2 if config.imd_version == 2 else 3,
        shared=config.processes > 1,
    )


def _address(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else "unknown"


def _configure(writer: asyncio.StreamWriter) -> None:
    """A frame is sent at once, whole, and not before the one in front of it has gone; a dead connection ends."""
    writer.transport.set_write_buffer_limits(high=0)
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def _close(writer: asyncio.StreamWriter) -> None:
    """The connection is closed: what is on its way has a moment to arrive."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSING_LIMIT_S):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass
