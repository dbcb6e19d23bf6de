"""One bidirectional stream that is open for a while: requests go out in order, replies are taken as they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Generic, Self, TypeVar

from grpclib.client import Stream
from grpclib.const import Cardinality

from narupa_client.connection import CALL_TIMEOUT_S, TOKEN_PATIENCE_S, Connection
from narupa_client.route import Route
from narupa_client.rpc import domain_errors, replies
from narupa_client.tasks import TaskScope, ended
from narupa_shared.errors import NarupaError, UnauthenticatedError, UnavailableError

Request = TypeVar("Request")
Reply = TypeVar("Reply")

# The service may have yet to hear of the lobby's new key.
_TRY_AGAIN_S = 0.2


class Duplex(Generic[Request, Reply]):
    """The stream is open within its `async with`, or until the service ends it, is lost, or is left for another that takes
    over from it; it does not come back.
    """

    def __init__(
        self,
        route: Route,
        scope: TaskScope,
        path: str,
        types: tuple[type[Request], type[Reply]],
        take: Callable[[Reply], None],
        lost: Callable[[NarupaError], None],
    ) -> None:
        """
        Args:
            types: Of requests and of replies.
            take: Gets each reply.
            lost: Gets why the stream is over, once.
        """
        self._route = route
        self._scope = scope
        self._path = path
        self._types = types
        self._take = take
        self._tell_lost = lost
        self._task: asyncio.Task[None] | None = None
        self._requests: deque[Request] = deque()
        self._asked = asyncio.Event()
        self.problem: NarupaError | None = UnavailableError(f"the stream to the {route.service} service is not open")
        """Why nothing goes out any more; None while it does."""

    async def __aenter__(self) -> Self:
        """The service has let us in.

        Raises:
            NarupaError: as the service answered, or it cannot be reached.
        """
        give_up = time.monotonic() + TOKEN_PATIENCE_S
        while True:
            try:
                await self._begin()
            except UnauthenticatedError:
                if time.monotonic() > give_up:
                    raise
                await self._route.renew_token()
                await asyncio.sleep(_TRY_AGAIN_S)
            else:
                return self

    async def __aexit__(self, *_: object) -> None:
        self._end(UnavailableError(f"the stream to the {self._route.service} service is closed"))
        if self._task is not None:
            await ended(self._task)

    def send(self, request: Request) -> None:
        """`request` goes out after those before it.

        Raises:
            NarupaError: the stream is over.
        """
        if self.problem is not None:
            raise self.problem
        self._requests.append(request)
        self._asked.set()

    async def _begin(self) -> None:
        self._route.check()
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def over(_: object) -> None:
            problem = UnavailableError("the session is closed")
            if not begun.done():
                begun.set_exception(problem)
            self._end(problem)

        self._task = self._scope.spawn(self._run(begun), f"narupa-{self._path.rpartition('/')[2]}")
        self._task.add_done_callback(over)
        try:
            await begun
        except BaseException:
            await ended(self._task)
            raise

    async def _run(self, begun: asyncio.Future[None]) -> None:
        problem: NarupaError = UnavailableError(f"the {self._route.service} service ended the stream")
        try:
            async with (
                self._route.calling() as connection,
                connection.stream(self._path, Cardinality.STREAM_STREAM, *self._types) as stream,
            ):
                await stream.send_request()
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await stream.recv_initial_metadata()
                if not begun.done():
                    self.problem = None
                    begun.set_result(None)
                await self._until_over(stream, connection)
        except NarupaError as error:
            problem = error
        try:
            self._route.check()
        except NarupaError as error:
            problem = error
        if not begun.done():
            begun.set_exception(problem)
        self._end(problem)

    async def _until_over(self, stream: Stream[Request, Reply], connection: Connection) -> None:
        """Requests go out and replies are taken until the service ends the stream, or another service is in use."""
        reading = asyncio.create_task(self._take_all(stream), name="narupa-replies")
        sending = asyncio.create_task(self._send_all(stream), name="narupa-requests")
        try:
            async with self._route.news() as news:
                while self._route.connection is connection and not reading.done():
                    self._route.check()
                    news.clear()
                    hearing = asyncio.create_task(news.wait(), name="narupa-news")
                    try:
                        await asyncio.wait((reading, hearing), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        await ended(hearing)
            if not reading.done():
                raise UnavailableError(f"another {self._route.service} service is in use from now on")
            reading.result()
        finally:
            await ended(sending)
            await ended(reading)
            if not reading.cancelled():
                reading.exception()  # or the loop would complain that nobody asked

    async def _take_all(self, stream: Stream[Request, Reply]) -> None:
        async with aclosing(replies(stream)) as items:
            async for reply in items:
                self._take(reply)

    async def _send_all(self, stream: Stream[Request, Reply]) -> None:
        # From one task: a message that is cut off halfway, or mixed with another, would spoil the stream.
        with suppress(NarupaError), domain_errors(self._route.service, self._route.address):  # who reads hears of it
            while True:
                while self._requests:
                    await stream.send_message(self._requests.popleft())
                self._asked.clear()
                await self._asked.wait()

    def _end(self, problem: NarupaError) -> None:
        if self.problem is None:
            self.problem = problem
            self._tell_lost(problem)
