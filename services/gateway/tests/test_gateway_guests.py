"""Who comes in through the gateway: what they say at the door, and how many there is room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from narupa_client.membership import Admission
from narupa_gateway import guests as guests_module
from narupa_gateway.config import GatewayConfig
from narupa_gateway.guests import MAX_CODE, MAX_NAME, SHORTEST_INVITE, Credentials, Guests, looks_like_code
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError, QuotaError, UnavailableError

INVITE = "i" * SHORTEST_INVITE


@pytest.mark.parametrize(
    ("target", "credentials"),
    [
        ("/", Credentials()),
        ("/ABCD-2345", Credentials(guessed=True, join_code="ABCD-2345")),
        ("/ABCD-2345/", Credentials(guessed=True, join_code="ABCD-2345")),
        ("/?code=ABCD-2345", Credentials(join_code="ABCD-2345")),
        ("/ws", Credentials()),
        ("/ws?code=ws", Credentials(join_code="ws")),
        ("/socket/io", Credentials()),
        (f"/{INVITE}", Credentials(invite=INVITE)),
        (f"/?code={INVITE}", Credentials(invite=INVITE)),
        (f"/?invite={INVITE}&name=Ada%20L.", Credentials("Ada L.", invite=INVITE)),
        ("/?join_code=x&password=y", Credentials(join_code="x", password="y")),
        ("/?name=" + "n" * 100, Credentials("n" * MAX_NAME)),
        ("/?name=+Ada+", Credentials("Ada")),
        ("/?other=1", Credentials()),
        ("/" + "x" * (MAX_CODE + 1), Credentials()),
    ],
)
def test_what_an_address_says(target: str, credentials: Credentials) -> None:
    assert Credentials.of_path(target) == credentials


@pytest.mark.parametrize(
    "target", ["/?code=a&code=b", "/?name=a&name=b", "/?code=" + "s" * (MAX_CODE + 1), "//[::bad?code=s"]
)
def test_what_an_address_may_not_say(target: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        Credentials.of_path(target)
    assert "'***'" in str(refusal.value)


@given(st.text(max_size=400))
@example("/?code=%ff%fe")
@example("/%00%ff")
@example("/?" + "&".join(f"x{number}=1" for number in range(17)))
def test_no_address_is_too_odd(target: str) -> None:
    try:
        credentials = Credentials.of_path(target)
    except InvalidArgumentError as error:
        assert error.value == "***"
        return
    assert all(len(text) <= MAX_CODE for text in (credentials.join_code, credentials.invite, credentials.password))
    assert len(credentials.name) <= MAX_NAME
    if credentials.guessed:
        assert looks_like_code(credentials.join_code)


@given(
    st.text("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=8, max_size=100),
    st.sampled_from(["code", "invite", "password"]),
)
def test_secrets_are_shown_nowhere(secret: str, what: str) -> None:
    credentials = Credentials.of_path(f"/?{what}={secret}&name=me")
    assert credentials.secret
    assert secret not in repr(credentials)
    with pytest.raises(InvalidArgumentError) as refusal:
        Credentials.of_path(f"/?{what}={secret}&{what}={secret}")
    assert secret not in str(refusal.value)


class Door:
    """Stands for the lobby: lets in who says the right thing."""

    def __init__(self) -> None:
        self.asked: list[Admission] = []
        self.left = 0
        self.code = "RIGHT-CODE"
        self.guests = True
        self.problem: NarupaError | None = None
        self.wait: asyncio.Event | None = None

    @contextlib.asynccontextmanager
    async def joined(self, membership: Any, policy: Any, tls: Any, wait_s: float) -> AsyncIterator[Any]:
        said: Admission = membership._admission
        self.asked.append(said)
        if self.wait is not None:
            await self.wait.wait()
        if self.problem is not None:
            raise self.problem
        if said.join_code and said.join_code != self.code:
            raise PermissionDeniedError("the join code is wrong")
        if not said.join_code and not said.invite and not self.guests:
            raise PermissionDeniedError("no guests are let in")

        class Entered:
            user_id = f"user-{len(self.asked)}"
            role = "participant"
            ended = None

        try:
            yield Entered()
        finally:
            self.left += 1


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door()
    monkeypatch.setattr(guests_module, "joined", door.joined)
    return door


def made(**settings: Any) -> Guests:
    guests = Guests(GatewayConfig(**settings))

    class Registration:
        token = "the gateway's own"

    guests.registration = Registration()  # type: ignore[assignment]
    return guests


async def enter(guests: Guests, said: Credentials = Credentials()) -> str:  # noqa: B008 - it is frozen
    """The name of the user, who has left again."""
    async with guests.joined("NanoVer", "10.0.0.7", said) as guest:
        return str(guest.session.user_id)


async def test_everybody_is_a_user_of_their_own(door: Door) -> None:
    guests = made()
    async with (
        guests.joined("NanoVer", "10.0.0.7", Credentials()) as one,
        guests.joined("gRPC", "10.0.0.8", Credentials("Ada")) as other,
    ):
        assert (one.number, other.number) == (1, 2)
        assert list(guests.present) == [1, 2]
        assert [said.user_name for said in door.asked] == ["NanoVer guest 1", "Ada"]
        assert [said.client_address for said in door.asked] == ["10.0.0.7", "10.0.0.8"]
        assert all(said.guest and said.service_token and said.service_token() for said in door.asked)
    assert guests.present == {} and door.left == 2


async def test_there_is_room_for_so_many_and_again_when_one_leaves(door: Door) -> None:
    guests = made(max_clients=2)
    async with guests.joined("NanoVer", "a", Credentials()):
        async with guests.joined("NanoVer", "b", Credentials()):
            with pytest.raises(QuotaError, match="2 clients"):
                await enter(guests)
        await enter(guests)
    assert guests.refusals.total == 1


async def test_whoever_is_turned_away_or_gives_up_takes_no_place(door: Door) -> None:
    guests = made(max_clients=1)
    door.problem = UnavailableError("the lobby cannot be reached")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await enter(guests)
    door.problem, door.wait = None, asyncio.Event()
    waiting = asyncio.create_task(enter(guests))
    while len(door.asked) < 4:
        await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    door.wait = None
    assert await enter(guests)


async def test_nobody_is_let_in_before_the_gateway_has_its_own_place(door: Door) -> None:
    guests = Guests(GatewayConfig())
    with pytest.raises(UnavailableError, match="starting"):
        await enter(guests)
    assert door.asked == []


async def test_a_path_that_is_no_code_is_not_held_against_a_guest(door: Door) -> None:
    guests = made()
    assert await enter(guests, Credentials.of_path("/simulation"))
    assert [(said.join_code, said.guest) for said in door.asked] == [("simulation", False), ("", True)]
    door.asked.clear()
    assert await enter(guests, Credentials.of_path(f"/{door.code}"))
    assert [said.join_code for said in door.asked] == [door.code]


async def test_a_wrong_code_is_told_when_guests_are_not_let_in_either(door: Door) -> None:
    door.guests = False
    guests = made()
    with pytest.raises(PermissionDeniedError, match="join code is wrong"):
        await enter(guests, Credentials.of_path("/WRONG-CODE"))


async def test_a_code_that_was_said_to_be_one_is_taken_at_its_word(door: Door) -> None:
    guests = made()
    with pytest.raises(PermissionDeniedError, match="join code is wrong"):
        await enter(guests, Credentials.of_path("/?code=WRONG-CODE"))
    assert len(door.asked) == 1 and guests.refusals.total == 1


async def test_no_secret_is_logged(door: Door) -> None:
    guests = made()
    with capture_logs() as logs:
        await enter(guests, Credentials.of_path(f"/{door.code}?name=Ada&password=SECRET-PASSWORD"))
        with pytest.raises(PermissionDeniedError):
            await enter(guests, Credentials.of_path("/?code=WRONG-CODE"))
        await enter(guests, Credentials.of_path(f"/{INVITE}"))
    text = repr(logs)
    assert {entry["event"] for entry in logs} == {"guest_entered", "guest_left", "guest_refused"}
    assert not any(secret in text for secret in (door.code, "SECRET-PASSWORD", "WRONG-CODE", INVITE, "gateway's own"))
    assert not any(secret in repr(door.asked) for secret in (door.code, "SECRET-PASSWORD", INVITE))
