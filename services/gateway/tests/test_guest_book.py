"""Guests at the lobby: what they share is one, what happens concerns whom it is about, and the lobby knows who is here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

from narupa_client.address import SessionAddress
from narupa_client.place import Admission
from narupa_client.records import User
from narupa_client.tasks import TaskScope
from narupa_gateway.guest_book import GuestBook, GuestPlace
from narupa_shared.errors import NotFoundError, PermissionDeniedError, UnavailableError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.sdk.narupa.lobby import v1 as sdk
from narupa_shared.testing.clock import FakeClock
from narupa_shared.testing.waiting import until

TOKEN_LIFE_S = 100.0


class FakeCalls:
    """The lobby, as calls to it.

    Attributes:
        calls: How many there were, by method.
        problem: With which each ends; None answers them.
        forgetful: Whether it takes everybody who joins for somebody new.
        revision: Of the session, as `Join` tells it.
        closed: How often the connection was.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.problem: Exception | None = None
        self.forgetful = False
        self.role = v1.ROLE_PARTICIPANT
        self.revision = 1
        self.closed = 0
        self.address = "a lobby"
        self._ids: dict[str, str] = {}

    def presenting(self, token: Callable[[], str | None]) -> Self:
        return self

    async def call(self, method: str, request: Any, reply_type: Any, **how: Any) -> Any:
        self.calls[method] += 1
        number = self.calls.total()
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        if method == "Join":
            known = "" if self.forgetful else self._ids.get(request.rejoin_token, "")
            user_id = known or f"user-{number}"
            self._ids[f"token-{number}"] = user_id
            return v1.JoinResponse(
                session_id="s",
                user=v1.User(id=user_id, name=request.user_name, role=self.role),
                token=f"token-{number}",
                token_expires_in_s=TOKEN_LIFE_S,
                revision=self.revision,
            )
        if method == "RenewToken":
            return v1.RenewTokenResponse(token=f"token-{number}", token_expires_in_s=TOKEN_LIFE_S, role=self.role)
        return reply_type()

    def close(self) -> None:
        self.closed += 1


class FakeStream:
    """What `HoldUsers` was told, and what it answers."""

    def __init__(self) -> None:
        self.told: list[tuple[set[str], set[str]]] = []
        self.channel = self
        self._missing: asyncio.Queue[list[str] | None] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def request(self, *_: Any, **__: Any) -> AsyncIterator[Self]:
        yield self

    async def send_request(self) -> None:
        """It is open."""

    async def send_message(self, request: v1.HoldUsersRequest) -> None:
        self.told.append((set(request.begin), set(request.end)))

    def miss(self, *user_ids: str) -> None:
        self._missing.put_nowait(list(user_ids))

    def lose(self) -> None:
        self._missing.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> v1.HoldUsersResponse:
        missing = await self._missing.get()
        if missing is None:
            raise StopAsyncIteration
        return v1.HoldUsersResponse(missing=missing)


class Desk:
    """A guest book that runs, at a lobby that the test plays."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.book = GuestBook(SessionAddress.parse("127.0.0.1:1"), None, self.clock)
        self.lobby = FakeCalls()
        self.book.lobby = self.lobby  # type: ignore[assignment]
        self.changes: Counter[str] = Counter()
        self._revision = 0

    async def guest(self, name: str = "Ada") -> GuestPlace:
        place = self.book.place(Admission(name))
        place.on_change(lambda: self.changes.update([name]))
        await place.join(0)
        place.start(TaskScope())
        return place

    def happens(self, reason: str = "", **event: Any) -> None:
        self._revision += 1
        self.book.take(sdk.WatchSessionResponse(epoch="e", revision=self._revision, reason=reason, **event))

    async def renewed(self, after_s: float) -> int:
        """How often tokens were renewed once so much time has passed, and all that was due was done."""
        self.clock.advance(after_s)
        self.book.wake()
        for _ in range(20):
            await asyncio.sleep(0)
        return self.lobby.calls["RenewToken"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.book.run())
    try:
        yield desk
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def held(desk: Desk) -> AsyncIterator[FakeStream]:
    """A stream over which the lobby is told who is here."""
    stream = FakeStream()
    holding = asyncio.create_task(desk.book.hold(stream, {}))  # type: ignore[arg-type]
    try:
        yield stream
    finally:
        stream.lose()
        await holding


def user(place: GuestPlace, role: sdk.Role = sdk.Role.PARTICIPANT) -> sdk.User:
    return sdk.User(id=place.user_id or "", name="Ada", role=role)


async def test_all_guests_look_at_one_list_of_people_which_nothing_copies(desk: Desk) -> None:
    guests = [await desk.guest(f"guest {number}") for number in range(5)]
    people = desk.book.users
    desk.changes.clear()
    for number in range(50):
        desk.happens(user_joined=sdk.User(id=f"other-{number}", name="Bob", role=sdk.Role.VIEWER))
    desk.happens(user_changed=sdk.User(id="other-0", name="Bob", role=sdk.Role.HOST))
    desk.happens(user_left=sdk.User(id="other-1"), reason="left")
    assert desk.book.users is people and all(guest.users is people for guest in guests)
    assert people["other-0"] == User("other-0", "Bob", "host") and "other-1" not in people
    assert {guest.user_id for guest in guests} <= set(people) and len(people) == 54
    # Of others' coming and going, a guest is not even told.
    assert not desk.changes and desk.lobby.calls == {"Join": 5}


async def test_a_role_that_changed_is_that_guests_at_once_and_so_is_a_token_with_it(desk: Desk) -> None:
    ada, bob = await desk.guest("Ada"), await desk.guest("Bob")
    desk.changes.clear()
    desk.lobby.role = v1.ROLE_HOST
    before = ada.token
    desk.happens(user_changed=user(ada, sdk.Role.HOST))
    assert (ada.role, bob.role) == ("host", "participant")
    await until(lambda: ada.token != before)
    assert desk.changes == {"Ada": 1} and desk.lobby.calls["RenewToken"] == 1


async def test_a_role_that_changed_on_the_way_in_is_not_missed(desk: Desk) -> None:
    desk.happens(user_joined=sdk.User(id="user-1", name="Ada", role=sdk.Role.PARTICIPANT))
    desk.happens(user_changed=sdk.User(id="user-1", name="Ada", role=sdk.Role.VIEWER))
    ada = await desk.guest()  # as of the first event
    assert (ada.user_id, ada.role) == ("user-1", "viewer")


async def test_whoever_is_removed_is_told_and_nobody_else(desk: Desk) -> None:
    ada, bob = await desk.guest("Ada"), await desk.guest("Bob")
    desk.changes.clear()
    desk.happens(user_left=user(ada), reason="kicked: too loud")
    assert "too loud" in str(ada.ended) and bob.ended is None and desk.changes == {"Ada": 1}
    await ada.leave()
    assert desk.lobby.calls["Leave"] == 0 and len(desk.book) == 1


async def test_the_end_of_the_session_is_everybodys(desk: Desk) -> None:
    guests = [await desk.guest(), await desk.guest("Bob")]
    desk.happens(session_ended=sdk.Session(id="s"), reason="over")
    assert all("over" in str(guest.ended) for guest in guests) and not desk.book.users


@pytest.mark.parametrize("how", ["left", "snapshot", "missing"])
async def test_whom_the_lobby_has_let_go_comes_back_as_the_same(desk: Desk, how: str) -> None:
    async with held(desk) as stream:
        ada = await desk.guest()
        await until(lambda: stream.told)
        before = ada.user_id
        match how:
            case "left":
                desk.happens(user_left=user(ada), reason="vanished")
            case "snapshot":
                desk.happens(snapshot=sdk.SessionSnapshot(users=[sdk.User(id="somebody", name="S")]))
            case "missing":
                stream.miss(str(before), "nobody here")
        await until(lambda: desk.lobby.calls["Join"] == 2)
        await until(lambda: not ada.coming_back)
        assert ada.user_id == before and stream.told[-1] == ({before}, set())


async def test_a_lobby_that_has_forgotten_all_knows_the_guest_by_another_id(desk: Desk) -> None:
    async with held(desk) as stream:
        ada = await desk.guest()
        await until(lambda: stream.told)
        before = ada.user_id
        desk.lobby.forgetful = True
        desk.happens(snapshot=sdk.SessionSnapshot())
        await until(lambda: ada.user_id != before)
        await until(lambda: stream.told[-1] == ({ada.user_id}, {before}))
        assert len(desk.book) == 1


async def test_coming_back_is_tried_until_it_succeeds_or_is_refused(desk: Desk) -> None:
    ada = await desk.guest()
    desk.lobby.problem = UnavailableError("no lobby")
    desk.happens(user_left=user(ada), reason="vanished")
    desk.happens(user_left=user(ada), reason="vanished")
    await until(lambda: desk.lobby.calls["Join"] >= 3)
    assert ada.ended is None
    desk.lobby.problem = PermissionDeniedError("the rejoin_token is of a user who cannot come back")
    await until(lambda: ada.ended)
    assert "does not let us back" in str(ada.ended)


async def test_the_lobby_is_told_who_comes_and_goes_and_by_another_stream_who_is_here(desk: Desk) -> None:
    async with held(desk) as stream:
        ada, bob = await desk.guest("Ada"), await desk.guest("Bob")
        both = {ada.user_id, bob.user_id}
        await until(lambda: set[str | None]().union(*(begun for begun, _ in stream.told)) == both)
        await ada.leave()
        await until(lambda: stream.told[-1] == (set(), {ada.user_id}))
    assert desk.lobby.closed == 1  # it leads to where no lobby is any more, perhaps
    async with held(desk) as stream:
        await until(lambda: stream.told == [({bob.user_id}, set())])


async def test_one_timer_renews_each_token_in_its_time(desk: Desk) -> None:
    tasks = len(asyncio.all_tasks())
    await desk.guest("Ada")
    desk.clock.advance(30)
    others = [await desk.guest(f"guest {number}") for number in range(9)]
    assert len(asyncio.all_tasks()) == tasks
    assert await desk.renewed(after_s=29) == 0
    assert await desk.renewed(after_s=2) == 1  # at 60 of its 100 s
    assert await desk.renewed(after_s=30) == 10
    await others[0].leave()
    assert await desk.renewed(after_s=100) == 19


async def test_a_token_that_could_not_be_renewed_is_tried_again_before_it_expires(desk: Desk) -> None:
    await desk.guest()
    desk.lobby.problem = UnavailableError("no lobby")
    assert await desk.renewed(after_s=61) == 1
    desk.lobby.problem = None
    assert await desk.renewed(after_s=38) == 1
    assert await desk.renewed(after_s=3) == 2


async def test_a_renewal_that_finds_nobody_joins_again(desk: Desk) -> None:
    ada = await desk.guest()
    desk.lobby.problem = NotFoundError("user", "user-1", "they have left")
    assert await desk.renewed(after_s=61) == 1
    assert desk.lobby.calls["Join"] == 2 and "does not let us back" in str(ada.ended)


async def test_somebody_of_whom_the_book_has_heard_already_is_not_put_in_again(desk: Desk) -> None:
    desk.happens(user_joined=sdk.User(id="user-1", name="Ada"))
    desk.happens(user_left=sdk.User(id="user-1"), reason="kicked")
    await desk.guest()
    assert not desk.book.users
