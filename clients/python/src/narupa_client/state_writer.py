"""Many writes of the shared state over one stream, whose own keys live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Self

from narupa_client.connection import CALL_TIMEOUT_S
from narupa_client.duplex import Duplex
from narupa_client.route import Route
from narupa_client.tasks import TaskScope
from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as v1
from narupa_shared.rpc_errors import error_of
from narupa_shared.structs import to_struct

_PATH: Final = "/narupa.imd.v1.StateService/WriteState"


class StateWriter:
    """Writes the shared state for as long as its `async with` is open; many writes may be under way at once.

    Avatars, play areas and interactions that it writes end when it is left, or when the service is lost. It does not come
    back by itself: open another one then, and write anew what is to be there.
    """

    def __init__(self, route: Route, scope: TaskScope) -> None:
        types = (v1.WriteStateRequest, v1.WriteStateResponse)
        self._stream = Duplex(route, scope, _PATH, types, self._take, self._lose)
        self._sequence = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._lost: asyncio.Future[NarupaError] = asyncio.get_running_loop().create_future()

    @property
    def problem(self) -> NarupaError | None:
        """Why nothing can be written any more; None while it can."""
        return self._stream.problem

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stream.__aexit__(*exc)

    async def write(self, updates: Mapping[str, Any], remove: Iterable[str] = ()) -> int:
        """`updates` are set and the keys `remove` are gone, all or nothing; returns the state's revision then.

        The service applies writes in the order in which they are begun, and each at once, whether or not those before it
        have been answered.

        Raises:
            InvalidArgumentError: bad key or value.
            PermissionDeniedError: a key is owned or locked by somebody else, or is the service's.
            QuotaError: the state would be too large, or too much is written.
            UnavailableError: the imd service was lost, or does not answer.
        """
        sequence = next(self._sequence)
        values = to_struct(updates, "updates")
        self._stream.send(v1.WriteStateRequest(sequence=sequence, updates=values, removals=list(remove)))
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers[sequence] = answer
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise UnavailableError("the imd service did not answer a write in time") from error
        finally:
            self._answers.pop(sequence, None)

    async def wait_lost(self) -> NarupaError:
        """Returns, once nothing can be written any more, why."""
        return await asyncio.shield(self._lost)

    def _take(self, reply: v1.WriteStateResponse) -> None:
        answer = self._answers.pop(reply.sequence, None)
        if answer is None or answer.done():
            return
        if reply.code:
            answer.set_exception(error_of(reply.code, reply.error))
        else:
            answer.set_result(reply.revision)

    def _lose(self, problem: NarupaError) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(problem)
        self._answers.clear()
        if not self._lost.done():
            self._lost.set_result(problem)


class LastingWriter:
    """A `StateWriter` that is opened with the first write, and anew with the one after it was lost."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[StateWriter]]) -> None:
        """`opening` opens one, as `SharedState.writer` does."""
        self._opening = opening
        self._opened: AbstractAsyncContextManager[StateWriter] | None = None
        self._writer: StateWriter | None = None
        self._lock = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether what was written is owned through a stream that is still there."""
        return self._writer is not None

    async def write(self, updates: Mapping[str, Any], removals: Iterable[str] = ()) -> None:
        """As `StateWriter.write`; where the service is away, it is looked for with the next write."""
        writer = await self._open()
        try:
            await writer.write(updates, remove=list(removals))
        except NarupaError:
            if writer.problem is not None:  # the stream is over, whatever for
                await self._forget(writer)
            raise

    async def close(self) -> None:
        """The stream is over, and with it what was owned through it. Idempotent."""
        if self._writer is not None:
            await self._forget(self._writer)

    async def _open(self) -> StateWriter:
        async with self._lock:
            if self._writer is None:
                opening = self._opening()
                self._writer = await opening.__aenter__()
                self._opened = opening
            return self._writer

    async def _forget(self, writer: StateWriter) -> None:
        async with self._lock:
            if self._writer is not writer or self._opened is None:
                return
            opened, self._opened, self._writer = self._opened, None, None
            with contextlib.suppress(NarupaError):
                await opened.__aexit__(None, None, None)
