"""Clients of the gRPC protocols: each connection is a guest, from its first call to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc.aio
import structlog

from narupa_gateway.guests import Credentials, Guest, Guests
from narupa_gateway.writes import GuestWrites
from narupa_shared.auth import Identity, bearer_token, caller
from narupa_shared.connections import Connections, address_of
from narupa_shared.errors import NarupaError, PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.rates import RateLimit

log = structlog.get_logger(__name__)

FAMILY: Final = "gRPC"
Context = grpc.aio.ServicerContext[Any, Any]
# Streams that one connection may have open; existing clients have two or three.
MAX_STREAMS: Final = 16


class GrpcGuest:
    """The guest that a connection is.

    Attributes:
        guest: As the session sees it.
        writes: What it writes to the shared state.
        streams: Streams that are open on the connection; they are told when the session ends for the guest.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.writes = GuestWrites(guest)
        self._ended: set[asyncio.Future[None]] = set()

    def look(self) -> None:
        """Streams end when the session has, for this guest."""
        if ended := self.guest.ended:
            for future in self._ended:
                if not future.done():
                    future.set_exception(PermissionDeniedError(str(ended)))

    @contextlib.asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Within, the calling task is cancelled, and the error raised, once the session has ended for the guest.

        Raises:
            QuotaError: the guest has too many streams.
        """
        if len(self._ended) >= MAX_STREAMS:
            raise QuotaError(f"{MAX_STREAMS} streams are open on this connection, which is the limit; end one first")
        task = asyncio.current_task()
        assert task is not None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.add(future)
        future.add_done_callback(lambda done: done.cancelled() or task.cancel())
        self.look()
        try:
            yield
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (error := future.exception()):
                task.uncancel()
                raise error from None
            raise
        finally:
            self._ended.discard(future)
            future.cancel()


class _Place:
    """A connection's guest, present or on its way in."""

    def __init__(self, identity: Identity | None, token: str) -> None:
        self.identity = identity
        self.token = token
        self.entered: asyncio.Future[GrpcGuest] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()


class GrpcGuests:
    """All of them. To be used from the loop's thread."""

    def __init__(
        self,
        guests: Guests,
        calls: RateLimit,
        volumes: RateLimit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guests = guests
        self._calls = calls
        self._volumes = volumes
        self._places: dict[str, _Place] = {}
        self._tasks: dict[asyncio.Task[None], _Place] = {}
        self.connections_held = Connections(self, clock)

    # What `Connections` asks.

    def connections(self) -> set[str]:
        """The connections that are guests."""
        return set(self._places)

    def end_connection(self, connection: str, reason: str) -> None:
        """The guest leaves the session, and takes along what it owned. Idempotent."""
        if place := self._places.pop(connection, None):
            log.debug("grpc_connection_ended", connection=connection, reason=reason)
            place.over.set()
        self._calls.forget(connection)
        self._volumes.forget(connection)

    # What the servicers ask.

    async def of(self, context: Context, size: int = 0) -> GrpcGuest:
        """The guest whose connection makes the present call, of `size` bytes, and who joins with the first one.

        Raises:
            PermissionDeniedError: no guests are let in, or the session is over for this one.
            QuotaError: the session or the gateway is full, or this connection calls too often or says too much.
            UnavailableError: the lobby cannot be reached.
        """
        who = caller(context)
        self._calls.spend(who.peer)
        self._volumes.spend(who.peer, size)
        self.connections_held.wrote(who.peer)
        token = bearer_token(context.invocation_metadata()) or ""  # type: ignore[arg-type]
        place = self._places.get(who.peer)
        if place is None or place.token != token:
            # Another token over the same connection is somebody else.
            if place is not None:
                self.end_connection(who.peer, "another token came")
            place = self._places[who.peer] = _Place(who.identity, token)
            task = asyncio.create_task(self._stay(who.peer, place), name=f"guest {who.peer}")
            self._tasks[task] = place
            task.add_done_callback(self._stayed)
        present = await asyncio.shield(place.entered)
        if ended := present.guest.ended:
            self.end_connection(who.peer, str(ended))
            raise PermissionDeniedError(str(ended))
        return present

    def _stayed(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()):
            log.error("guest_failed", exc_info=error)

    async def _stay(self, peer: str, place: _Place) -> None:
        """The guest is in the session until its connection is over."""
        address = address_of(peer)
        host = address[0] if address else ""
        inside: list[GrpcGuest] = []

        def look() -> None:
            for present in inside:
                present.look()

        if place.identity is not None:
            entering = self._guests.presented(FAMILY, host, place.token, place.identity)
        else:
            entering = self._guests.joined(FAMILY, host, Credentials(), look)
        try:
            async with entering as guest:
                present = GrpcGuest(guest)
                inside.append(present)
                if not place.entered.done():
                    place.entered.set_result(present)
                try:
                    await place.over.wait()
                finally:
                    await asyncio.shield(present.writes.close())
        except NarupaError as error:
            self._turned_away(peer, place, error)
        except BaseException:
            self._turned_away(peer, place, UnavailableError("joining the session has failed; try again"))
            raise

    def _turned_away(self, peer: str, place: _Place, error: NarupaError) -> None:
        if self._places.get(peer) is place:
            del self._places[peer]  # the next call tries again
        if not place.entered.done():
            place.entered.set_exception(error)
            place.entered.exception()  # whoever waits gets it; nobody may be left who does

    async def run(self) -> None:
        """Looks after connections until cancelled; then every guest leaves."""
        try:
            await self.connections_held.run()
        finally:
            for peer in list(self._places):
                self.end_connection(peer, "the gateway stops")
            for task, place in self._tasks.items():
                if not place.entered.done():  # it waits for a lobby, perhaps
                    task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
