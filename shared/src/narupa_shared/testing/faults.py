"""Faults that a session must survive, as objects a test switches on and off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final, Generic, Self, TypeVar

Item = TypeVar("Item")

# What strangers send to an open port. A service must answer none of it with anything but a closed connection.
GARBAGE: Final[tuple[bytes, ...]] = (
    b"\x00" * 4096,
    b"\xff" * 4096,
    b"GET / HTTP/1.1\r\nHost: narupa\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 512,
    # A SETTINGS frame whose length says 16 MiB and then stops.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00",
)


class SlowSubscriber(Generic[Item]):
    """Reads a stream only when told to, so that everything in between fills up.

    Attributes:
        received: What was read so far, in order.
    """

    def __init__(self, stream: AsyncIterator[Item]) -> None:
        self._stream = stream
        self.received: list[Item] = []

    async def read(self, count: int = 1, within_s: float = 5.0) -> list[Item]:
        """The next `count` items.

        Raises:
            TimeoutError: they did not come `within_s`.
            StopAsyncIteration: the stream ended before.
        """
        items: list[Item] = []
        async with asyncio.timeout(within_s):
            for _ in range(count):
                items.append(await anext(self._stream))
        self.received += items
        return items

    async def read_all(self, within_s: float = 5.0) -> list[Item]:
        """Everything up to the end of the stream; raises what ends it, and TimeoutError if nothing does."""
        async with asyncio.timeout(within_s):
            async for item in self._stream:
                self.received.append(item)
        return self.received


class FaultyLink:
    """A TCP relay in front of a service that can stall and be cut, as networks are.

    Use as `async with FaultyLink(port) as link:` and connect to `127.0.0.1:<link.port>`.

    Attributes:
        port: Where the relay listens.
        connections: How many connections are open through it.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target = (target_host, target_port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._refusing = False
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    @property
    def connections(self) -> int:
        return len(self._open)

    def stall(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told."""
        self._flowing.clear()

    def resume(self) -> None:
        """Bytes pass again; none were lost."""
        self._flowing.set()

    def refuse(self, refusing: bool = True) -> None:
        """New connections are closed at once, as by a service that is down."""
        self._refusing = refusing

    async def cut(self) -> None:
        """Every open connection is reset; new ones are accepted."""
        tasks = list(self._open)
        for writers in self._open.values():
            for writer in writers:
                _reset(writer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._refusing:
            _reset(writer)
            return
        ends = self._open[task] = [writer]
        try:
            try:
                target_reader, target_writer = await asyncio.open_connection(*self._target)
            except OSError:
                _reset(writer)
                return
            ends.append(target_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, target_writer))
                both.create_task(self._pump(target_reader, writer))
        except* OSError:
            pass
        finally:
            del self._open[task]
            for end in ends:
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """The peer gets RST, not FIN: the way a machine that crashed and came back answers."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
