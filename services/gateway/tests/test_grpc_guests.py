"""Connections of gRPC clients as guests: one each, from the first call to the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from gateway_fakes import FakeSession, guest_of

from narupa_client.directory import SessionEndedError
from narupa_gateway import grpc_guests
from narupa_gateway.grpc_guests import MAX_STREAMS, GrpcGuest, GrpcGuests
from narupa_gateway.guests import Credentials, Guest
from narupa_shared.errors import NarupaError, PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.rates import RateLimit
from narupa_shared.testing.clock import FakeClock
from narupa_shared.testing.waiting import until


class Call:
    """The context of one call."""

    def __init__(self, peer: str = "ipv4:10.0.0.7:5000", token: str = "") -> None:
        self._peer = peer
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata


class Session:
    """Stands for the gateway's door; every guest has a session of their own."""

    def __init__(self) -> None:
        self.entered: list[Guest] = []
        self.addresses: list[str] = []
        self.left: list[int] = []
        self.problem: BaseException | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.changed: list[Callable[[], None]] = []

    @contextlib.asynccontextmanager
    async def joined(
        self, family: str, address: str, said: Credentials, on_change: Callable[[], None]
    ) -> AsyncIterator[Guest]:
        await self.open.wait()
        if self.problem is not None:
            raise self.problem
        guest = guest_of(FakeSession(), len(self.entered) + 1)
        self.entered.append(guest)
        self.addresses.append(address)
        self.changed.append(on_change)
        try:
            yield guest
        finally:
            self.left.append(guest.number)

    def end(self, number: int, reason: str) -> None:
        self.entered[number - 1].session.ended = SessionEndedError(reason)  # type: ignore[misc]
        self.changed[number - 1]()


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
async def guests(session: Session, clock: FakeClock) -> AsyncIterator[GrpcGuests]:
    calls, volumes = RateLimit(clock, 10, 20, "calls"), RateLimit(clock, 1000, 2000, "bytes")
    guests = GrpcGuests(session, calls, volumes, clock)  # type: ignore[arg-type]
    task = asyncio.create_task(guests.run())
    await asyncio.sleep(0)
    yield guests
    session.open.set()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sorted(session.left) == [guest.number for guest in session.entered]


async def test_a_connection_is_one_guest_whatever_it_calls_and_however_often(
    guests: GrpcGuests, session: Session
) -> None:
    session.open.clear()
    calls = [asyncio.ensure_future(guests.of(Call())) for _ in range(5)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    session.open.set()
    found = await asyncio.gather(*calls)
    assert len({id(guest) for guest in found}) == 1 and len(session.entered) == 1
    other = await guests.of(Call("ipv6:%5B::1%5D:5000"))  # type: ignore[arg-type]
    assert other is not found[0]
    assert session.addresses == ["10.0.0.7", "::1"]


async def test_a_connection_that_ends_takes_its_guest_along(guests: GrpcGuests, session: Session) -> None:
    present = await guests.of(Call())  # type: ignore[arg-type]
    await present.writes.write({"a": 1})
    guests.end_connection("ipv4:10.0.0.7:5000", "closed")
    guests.end_connection("ipv4:10.0.0.7:5000", "closed")
    await until(lambda: session.left == [1])
    assert present.guest.session.open_writers == 0  # type: ignore[attr-defined]
    assert await guests.of(Call()) is not present  # type: ignore[arg-type]


async def test_another_token_over_the_same_connection_is_somebody_else(guests: GrpcGuests, session: Session) -> None:
    await guests.of(Call())  # type: ignore[arg-type]
    await guests.of(Call(token="a"))  # type: ignore[arg-type]
    await until(lambda: session.left == [1])
    await guests.of(Call(token="a"))  # type: ignore[arg-type]
    assert len(session.entered) == 2


@pytest.mark.parametrize("problem", [PermissionDeniedError("no guests are let in"), QuotaError("the session is full")])
async def test_whoever_is_turned_away_hears_why_and_may_try_again(
    guests: GrpcGuests, session: Session, problem: NarupaError
) -> None:
    session.problem = problem
    for _ in range(2):
        with pytest.raises(type(problem), match=str(problem)):
            await guests.of(Call())  # type: ignore[arg-type]
    session.problem = None
    assert await guests.of(Call())  # type: ignore[arg-type]


async def test_a_fault_in_joining_leaves_nobody_waiting(guests: GrpcGuests, session: Session) -> None:
    session.problem = OSError("the disk is on fire")
    with pytest.raises(UnavailableError, match="try again"):
        await guests.of(Call())  # type: ignore[arg-type]
    session.problem = None
    assert await guests.of(Call())  # type: ignore[arg-type]


async def test_a_gateway_that_stops_waits_for_nobody_on_the_way_in(session: Session, clock: FakeClock) -> None:
    guests = GrpcGuests(session, RateLimit(clock, 10, 20), RateLimit(clock, 10, 20), clock)  # type: ignore[arg-type]
    task = asyncio.create_task(guests.run())
    session.open.clear()
    waiting = asyncio.ensure_future(guests.of(Call()))  # type: ignore[arg-type]
    await until(lambda: guests.connections())
    task.cancel()
    done, _ = await asyncio.wait([task, waiting], timeout=10)
    assert task in done and isinstance(waiting.exception(), UnavailableError)


async def test_calls_and_bytes_of_one_connection_are_limited(
    guests: GrpcGuests, session: Session, clock: FakeClock
) -> None:
    for _ in range(20):
        await guests.of(Call())  # type: ignore[arg-type]
    with pytest.raises(QuotaError, match="calls per second"):
        await guests.of(Call())  # type: ignore[arg-type]
    clock.advance(10)
    await guests.of(Call(), 1900)  # type: ignore[arg-type]
    with pytest.raises(QuotaError, match="bytes per second"):
        await guests.of(Call(), 200)  # type: ignore[arg-type]
    await guests.of(Call("ipv4:10.0.0.8:1"), 200)  # type: ignore[arg-type]
    clock.advance(10)
    await guests.of(Call(), 200)  # type: ignore[arg-type]
    assert len(session.entered) == 2


async def test_whoever_floods_before_having_joined_starts_no_task_for_it(guests: GrpcGuests, session: Session) -> None:
    session.problem = PermissionDeniedError("no guests are let in")
    refused = 0
    for _ in range(200):
        try:
            await guests.of(Call())  # type: ignore[arg-type]
        except NarupaError as error:
            refused += isinstance(error, QuotaError)
    assert refused == 180
    assert not guests._tasks and not guests.connections()


async def test_streams_end_with_the_reason_when_the_session_has_ended(guests: GrpcGuests, session: Session) -> None:
    present = await guests.of(Call())  # type: ignore[arg-type]

    async def stream() -> None:
        async with present.until_ended():
            await asyncio.Event().wait()

    streams = [asyncio.create_task(stream()) for _ in range(2)]
    await until(lambda: len(present._ended) == 2)
    session.end(1, "we were removed from the session: noise")
    for task in streams:
        with pytest.raises(PermissionDeniedError, match="noise"):
            await task
    with pytest.raises(PermissionDeniedError, match="noise"):
        await stream()
    with pytest.raises(PermissionDeniedError, match="noise"):
        await guests.of(Call())  # type: ignore[arg-type]
    await until(lambda: session.left == [1])


async def test_a_stream_that_is_cancelled_is_just_that() -> None:
    present = GrpcGuest(guest_of(FakeSession()))

    async def stream() -> None:
        async with present.until_ended():
            await asyncio.Event().wait()

    task = asyncio.create_task(stream())
    await until(lambda: present._ended)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not present._ended


async def test_a_connection_has_only_so_many_streams() -> None:
    present = GrpcGuest(guest_of(FakeSession()))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_STREAMS):
            await stack.enter_async_context(present.until_ended())
        with pytest.raises(QuotaError, match=str(MAX_STREAMS)):
            await stack.enter_async_context(present.until_ended())
    async with present.until_ended():
        pass
    assert grpc_guests.MAX_STREAMS == MAX_STREAMS


async def test_a_token_of_its_own_is_used_and_no_guest_joins(
    guests: GrpcGuests, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    @contextlib.asynccontextmanager
    async def presented(family: str, address: str, token: str, identity: Any) -> AsyncIterator[Guest]:
        said.append((address, token, identity))
        yield guest_of(FakeSession(), 9)

    who = type("Who", (), {"peer": "ipv4:10.0.0.7:5000", "identity": "Ada"})
    monkeypatch.setattr(session, "presented", presented, raising=False)
    monkeypatch.setattr(grpc_guests, "caller", lambda context: who)
    assert (await guests.of(Call(token="t"))).guest.number == 9  # type: ignore[arg-type]
    assert said == [("10.0.0.7", "t", "Ada")] and session.entered == []
