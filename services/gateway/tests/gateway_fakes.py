"""What the gateway's parts lean on, as objects that a test moves by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Self

import msgpack

from narupa_client.frames import CurrentFrame
from narupa_client.provided_commands import CommandCall
from narupa_client.records import SessionDetails, SessionFacts, User
from narupa_gateway.guests import Guest
from narupa_shared.errors import NarupaError, PermissionDeniedError, UnavailableError
from narupa_shared.subscriptions import Subscription

LIMIT_S = 10.0


class FakeFrames:
    """A subscription of frames that the test fills."""

    def __init__(self, interval_s: float, mode: str) -> None:
        self.interval_s = interval_s
        self.mode = mode
        self.trouble: str | None = None
        self.open = False
        self._items: deque[CurrentFrame | NarupaError] = deque()
        self._arrived = asyncio.Event()

    def push(self, item: CurrentFrame | NarupaError) -> None:
        self._items.append(item)
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CurrentFrame:
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        if isinstance(item, NarupaError):
            raise item
        return item

    async def __aenter__(self) -> Self:
        self.open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open = False


class FakeWriter:
    """One stream of writes of a guest."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self.problem: NarupaError | None = None

    async def write(self, updates: Mapping[str, Any], remove: Iterable[str] = ()) -> int:
        session = self._session
        await session.writable.wait()
        if session.write_problem is not None:
            if isinstance(session.write_problem, UnavailableError):
                self.problem = session.write_problem
            raise session.write_problem
        session.written.append((dict(updates), list(remove)))
        return len(session.written)


class FakeProvider:
    """One stream of provided commands of a guest."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self.problem: NarupaError | None = None
        self.registered: dict[str, dict[str, Any]] = {}
        self.answers: list[tuple[int, Any, str]] = []
        self._calls: asyncio.Queue[CommandCall | NarupaError] = asyncio.Queue()

    def call(self, id: int, command: str, **arguments: Any) -> None:
        self._calls.put_nowait(CommandCall(id, command, arguments, "user-1"))

    def lose(self, problem: NarupaError) -> None:
        self.problem = problem
        self._calls.put_nowait(problem)

    async def register(self, name: str, **facts: Any) -> None:
        if name in self._session.refused_commands:
            raise self._session.refused_commands[name]
        self.registered[name] = facts

    async def answer(self, call: CommandCall, result: Any = None, *, error: str = "") -> None:
        self.answers.append((call.id, result, error))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CommandCall:
        item = await self._calls.get()
        if isinstance(item, NarupaError):
            raise item
        return item


class FakeLobby:
    """What a guest may ask of the lobby."""

    def __init__(self) -> None:
        self.said: list[tuple[str | None, ...]] = []
        self.problem: NarupaError | None = None
        self.guest_role = ""

    def _take(self, *said: str | None) -> None:
        if self.problem is not None:
            raise self.problem
        self.said.append(said)

    async def session(self) -> SessionDetails:
        self._take("session")
        return SessionDetails(SessionFacts("s", "S", guest_role=self.guest_role), ())

    async def set_role(self, user_id: str, role: str) -> None:
        self._take("set_role", user_id, role)

    async def kick(self, user_id: str) -> None:
        self._take("kick", user_id)

    async def set_guest_role(self, role: str | None) -> None:
        self._take("set_guest_role", role)


class FakeSession:
    """A session as the gateway uses it: for its own frames, or for one guest."""

    def __init__(self, role: str = "participant") -> None:
        self.role = role
        self.user_id = "user-7"
        self.ended: NarupaError | None = None
        self.subscriptions: list[FakeFrames] = []
        self.writable = asyncio.Event()
        self.writable.set()
        self.write_problem: NarupaError | None = None
        self.open_problem: NarupaError | None = None
        self.written: list[tuple[dict[str, Any], list[str]]] = []
        self.writers = 0
        self.open_writers = 0
        self.published: list[tuple[dict[str, Any], dict[str, Any], int]] = []
        self.ran: list[tuple[str, dict[str, Any]]] = []
        self.command: Callable[..., Any] = lambda name, arguments: {"ran": name}
        self.providers: list[FakeProvider] = []
        self.refused_commands: dict[str, NarupaError] = {}
        self.state = self
        self.users: list[User] = []
        self.lobby = FakeLobby()

    def frames(self, interval_s: float, mode: str, *, reconnect: bool) -> FakeFrames:
        self.subscriptions.append(FakeFrames(interval_s, mode))
        return self.subscriptions[-1]

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[FakeWriter]:
        if self.open_problem is not None:
            raise self.open_problem
        self.writers += 1
        self.open_writers += 1
        try:
            yield FakeWriter(self)
        finally:
            self.open_writers -= 1

    async def publish_frame(self, values: Any, arrays: Any, *, index: int) -> int:
        if self.role != "host":
            raise PermissionDeniedError("publishing frames needs the role host")
        self.published.append((values, arrays, index))
        return index

    async def run_command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.ran.append((name, arguments))
        result = self.command(name, arguments)
        if asyncio.iscoroutine(result):
            result = await result
        return dict(result)

    @contextlib.asynccontextmanager
    async def command_provider(self) -> AsyncIterator[FakeProvider]:
        if self.open_problem is not None:
            raise self.open_problem
        self.providers.append(FakeProvider(self))
        yield self.providers[-1]


def guest_of(session: FakeSession, number: int = 1) -> Guest:
    return Guest(number, "NanoVer", "10.0.0.7", session)  # type: ignore[arg-type]


class SocketClosed(Exception):
    """The other side is gone, as a WebSocket library says it."""


class FakeSocket:
    """A WebSocket whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self.taken = 0
        self._inbox: asyncio.Queue[bytes | str | None] = asyncio.Queue()

    async def follow(self, subscription: Subscription) -> None:
        async for data in subscription:
            await self.send(data)

    def say(self, items: Any) -> None:
        """The client sends this message."""
        self._inbox.put_nowait(items if isinstance(items, bytes | str) else msgpack.packb(items))

    def hang_up(self) -> None:
        self._inbox.put_nowait(None)

    async def send(self, message: bytes) -> None:
        await self.reading.wait()
        if self.closed:
            raise SocketClosed
        self.raw.append(message)
        self.sent.append(msgpack.unpackb(message, strict_map_key=False))

    async def recv(self) -> bytes | str:
        data = await self._inbox.get()
        if data is None or self.closed:
            raise SocketClosed
        self.taken += 1
        return data

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed is None:
            self.closed = (code, reason)
            self._inbox.put_nowait(None)

    def commands(self) -> list[dict[str, Any]]:
        return [message["command"] for message in self.sent if "command" in message]

    def states(self) -> list[dict[str, Any]]:
        return [message["state"] for message in self.sent if "state" in message]
