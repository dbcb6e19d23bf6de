"""The way to the service of a kind that is in use, which changes when that service drains: streams follow without a gap."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

from narupa_client.connection import CALL_TIMEOUT_S, Connection, Endpoint
from narupa_client.directory import Directory
from narupa_client.records import Service
from narupa_client.subscription import Deliver
from narupa_client.tasks import ended
from narupa_shared.errors import NarupaError
from narupa_shared.tls import TlsConfig

Item = TypeVar("Item")
Reply = TypeVar("Reply")
# Follows the service at a connection once, until its stream ends.
Follow = Callable[[Connection, Deliver[Item]], Awaitable[None]]
# What to deliver for an item of the next service; None while the present one shall go on. Nothing more of the present one is
# delivered once it has said something, be it that nothing is to be delivered.
TakeOver = Callable[[Item], Awaitable[Sequence[Item] | None]]

_TRY_AGAIN_S: Final = 0.5


class Route:
    """Connections to services of one kind: one in use, and those that streams are leaving.

    When the service in use drains and another one runs, or another is wanted, there is a new connection in use from
    then on, and the old one is closed when its last call is over.
    """

    def __init__(self, kind: str, directory: Directory, tls: TlsConfig | None = None) -> None:
        self.service = kind
        self._directory = directory
        self._tls = tls
        self._wanted: Service | None = None
        self._calls: Counter[Connection] = Counter()
        self._listeners: set[Callable[[], None]] = set()
        self.connection = self._new()
        directory.on_change(self._look)

    @property
    def address(self) -> str:
        """Of the service in use, once it was connected to."""
        return self.connection.address

    def use(self, service: Service) -> None:
        """From now on this one is used, for as long as it runs."""
        self._wanted = service
        if self.address and self.address not in map(str, service.endpoints):
            self._move()

    async def call(self, path: str, request: Any, reply_type: type[Reply], timeout_s: float = CALL_TIMEOUT_S) -> Reply:
        """The reply to one unary call to the service in use; as `Connection.call`.

        Raises:
            SessionEndedError: the session is over for us.
        """
        self.check()
        async with self.calling() as connection:
            try:
                return await connection.call(path, request, reply_type, timeout_s)
            except NarupaError:
                self.check()
                raise

    def check(self) -> None:
        """
        Raises:
            SessionEndedError: the session is over for us.
        """
        if self._directory.ended is not None:
            raise self._directory.ended

    async def renew_token(self) -> None:
        """As `Connection.renew_token`, for the service in use."""
        await self.connection.renew_token()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Connection]:
        """The connection in use now; within, it stays open."""
        connection = self.connection
        self._calls[connection] += 1
        try:
            yield connection
        finally:
            self._calls[connection] -= 1
            if not self._calls[connection]:
                del self._calls[connection]
                if connection is not self.connection:
                    connection.close()

    @asynccontextmanager
    async def news(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever another connection is in use, or the session has ended."""
        event = asyncio.Event()
        self._listeners.add(event.set)
        try:
            yield event
        finally:
            self._listeners.discard(event.set)

    def close(self) -> None:
        """Every connection is closed. Idempotent."""
        for connection in {self.connection, *self._calls}:
            connection.close()

    def _new(self) -> Connection:
        directory = self._directory
        return Connection(self.service, self._endpoints, lambda: directory.token, directory.renew, tls=self._tls)

    def _endpoints(self) -> Sequence[Endpoint]:
        known = self._directory.endpoints(self.service)
        if self._wanted is None:
            return known
        wanted = next((item for item in self._directory.services if item.id == self._wanted.id), self._wanted)
        return [*wanted.endpoints, *known] if wanted.status == "running" else known

    def _look(self) -> None:
        if self._directory.ended is not None:
            self._tell()
            return
        here, others = None, False
        for service in self._directory.services:
            if service.kind != self.service:
                continue
            if self.address in map(str, service.endpoints):
                here = service
            elif service.status == "running" and service.endpoints:
                others = True
        if here is not None and here.status == "draining" and others:
            self._move()

    def _move(self) -> None:
        left, self.connection = self.connection, self._new()
        if left not in self._calls:
            left.close()
        self._tell()

    def _tell(self) -> None:
        for tell in tuple(self._listeners):
            tell()


class _Leg(Generic[Item]):
    """One stream to one service, in a task of its own."""

    def __init__(self, route: Route, follow: Follow[Item], deliver: Deliver[Item], over: Callable[[], None]) -> None:
        self.connection = route.connection
        self._route = route
        self._follow = follow
        self._deliver = deliver
        self.leads = False
        self.left = False
        self.task = asyncio.create_task(self._run(), name=f"narupa-{route.service}-stream")
        self.task.add_done_callback(lambda _: over())

    async def _run(self) -> None:
        async with self._route.calling() as self.connection:
            await self._follow(self.connection, self._deliver)

    def problem(self) -> BaseException | None:
        """Why it ended; None where the service just ended it."""
        return None if self.task.cancelled() else self.task.exception()


async def followed(
    route: Route,
    follow: Follow[Item],
    deliver: Deliver[Item],
    take_over: Callable[[Connection, Connection], TakeOver[Item]],
) -> None:
    """Delivers what the service in use sends, until its stream ends with nothing to follow.

    When `route` moves on, the next service's stream is opened beside the present one, which is ended only once the next
    has taken over: when `take_over`, given the connection that is left and the next, has something to say to an item.

    Raises:
        NarupaError: as the stream ended. SessionEndedError: the session is over for us.
    """
    turn = asyncio.Lock()  # one item at a time, from whichever stream

    def first() -> _Leg[Item]:
        async def take(item: Item) -> None:
            async with turn:
                if not made.left:
                    await deliver(item)

        made = _Leg(route, follow, take, lambda: news.set())
        return made

    def following(leaving: _Leg[Item]) -> _Leg[Item]:
        admitted = take_over(leaving.connection, route.connection)

        async def take(item: Item) -> None:
            async with turn:
                items = None if made.left else await admitted(item)
                if items is None:
                    return
                made.leads = leaving.left = True
                news.set()
                for one in items:
                    await deliver(one)

        made = _Leg(route, follow, take, lambda: news.set())
        return made

    async with route.news() as news:
        route.check()
        present = first()
        coming: _Leg[Item] | None = None
        try:
            while True:
                await news.wait()
                news.clear()
                route.check()
                if coming is not None and coming.leads:
                    await ended(present.task)
                    present, coming = coming, None
                if coming is not None and coming.task.done():
                    coming.problem()  # it goes on here, and is tried there again
                    coming = None
                    asyncio.get_running_loop().call_later(_TRY_AGAIN_S, news.set)
                elif coming is None and not present.task.done() and route.connection is not present.connection:
                    coming = following(present)
                if present.task.done():
                    if coming is None:
                        return present.task.result()
                    present.problem()
                    present, coming = coming, None
        finally:
            for one in (present, coming):
                if one is not None:
                    await ended(one.task)
                    one.problem()
