"""Waiting, for streams: until the state changes, until a time, until a message, and for the service's end in all three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from narupa_shared.errors import NarupaError

Message = TypeVar("Message")


class Streams:
    """Everyone who waits. `wake` is called at each change, `drain` once at the end."""

    def __init__(self) -> None:
        self._for_change: set[asyncio.Future[None]] = set()
        self._for_end: set[asyncio.Future[None]] = set()
        self._error: NarupaError | None = None

    def wake(self) -> None:
        """Everyone in `change` goes on, once this turn of the loop is over: changes within a turn are seen as one."""
        for future in self._for_change:
            if not future.done():
                future.set_result(None)

    def drain(self, error: NarupaError) -> None:
        """Everyone who waits, now or later, gets `error`."""
        self._error = error
        for future in (*self._for_change, *self._for_end):
            if not future.done():
                future.set_exception(error)

    async def change(self, timeout_s: float | None = None) -> None:
        """The state has changed, or the time is over.

        Raises:
            NarupaError: the service drains.
        """
        await self._wait(self._for_change, timeout_s)

    async def pause(self, seconds: float) -> None:
        """The time is over.

        Raises:
            NarupaError: the service drains.
        """
        await self._wait(self._for_end, seconds)

    async def requests(
        self, iterator: AsyncIterator[Message], news: asyncio.Event | None = None
    ) -> AsyncIterator[Message | None]:
        """What the caller sends, until the caller is done; and None whenever `news` is set, which it then no longer is.

        Raises:
            NarupaError: the service drains.
        """
        news = news or asyncio.Event()
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for_end.add(end)
        if self._error:
            end.set_exception(self._error)
        reading: asyncio.Future[Message] | None = None
        hearing: asyncio.Future[bool] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(anext(iterator))
                hearing = hearing or asyncio.ensure_future(news.wait())
                await asyncio.wait((hearing, reading, end), return_when=asyncio.FIRST_COMPLETED)
                if end.done():
                    end.result()
                if hearing.done():
                    hearing = None
                    news.clear()
                    yield None
                if reading.done():
                    try:
                        request = reading.result()
                    except StopAsyncIteration:
                        return
                    reading = None
                    yield request
        finally:
            self._for_end.discard(end)
            for future in (end, reading, hearing):
                # What nobody asks for any more is asked for here: the loop would complain about it.
                if future and not future.cancel() and not future.cancelled():
                    future.exception()

    async def _wait(self, waiters: set[asyncio.Future[None]], timeout_s: float | None) -> None:
        if self._error:
            raise self._error
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiters.add(future)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _resolve, future)
        try:
            await future
        finally:
            waiters.discard(future)
            if timer:
                timer.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
