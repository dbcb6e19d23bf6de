"""A stream of items that outlives the connections it comes over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, Self, TypeVar

from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope, ended
from narupa_shared.errors import NarupaError, UnauthenticatedError, UnavailableError

Item = TypeVar("Item")
Mode = Literal["latest", "all"]
Deliver = Callable[[Item], Awaitable[None]]
# Items read ahead of the reader in "all" mode; behind them the transport's flow control holds the sender back.
_READ_AHEAD = 8


class Subscription(Generic[Item]):
    """Items as an async iterator; a task reads them, so that a reader that takes its time never reads old ones.

    In "latest" mode the reader gets the newest item, in "all" mode every one. After a lost connection the task connects
    again and goes on; the iterator ends with an error once the policy gives up.
    """

    def __init__(
        self,
        scope: TaskScope,
        name: str,
        follow: Callable[[Deliver[Item]], Awaitable[None]],
        *,
        mode: Mode,
        policy: RetryPolicy,
        renew: Callable[[], Awaitable[None]],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            follow: Connects once and delivers items until the connection ends, with or without an error.
            renew: Gets another token after one was refused.
            over: Whether nothing more is to come when the service ends the stream.
        """
        self._follow = follow
        self._policy = policy
        self._renew = renew
        self._no_more = over
        self._latest_only = mode == "latest"
        self._items: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._error: NarupaError | None = None
        self._over = False
        self.trouble: str | None = None
        """Why nothing comes at present; None while connected."""
        self.received = 0
        """How many items have come, those skipped included."""
        self._task = scope.spawn(self._run(), name)
        # Not in `_run`: a task that is cancelled before its first step runs nothing.
        self._task.add_done_callback(self._end)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        self._room.set()
        return item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """The stream is over, at the service as well. Idempotent."""
        await ended(self._task)

    async def _run(self) -> None:
        attempts = Attempts(self._policy)

        async def deliver(item: Item) -> None:
            attempts.succeeded()
            self.trouble = None
            self.received += 1
            if self._latest_only:
                self._items.clear()
            while len(self._items) >= _READ_AHEAD:
                self._room.clear()
                await self._room.wait()
            self._items.append(item)
            self._arrived.set()

        try:
            while True:
                attempts.started()
                try:
                    await self._follow(deliver)
                    if self._no_more():
                        return
                    problem: NarupaError = UnavailableError("the service ended the stream")
                except NarupaError as error:
                    problem = error
                self.trouble = str(problem)
                if isinstance(problem, UnauthenticatedError) and self._policy.reconnect:
                    await self._renew()
                await attempts.pause_after(problem)
        except NarupaError as error:
            self._error = error

    def _end(self, _: asyncio.Task[None]) -> None:
        self._over = True
        self._arrived.set()
