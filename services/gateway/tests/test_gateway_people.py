"""What clients without a lobby can ask about people, and what a host can say."""

from __future__ import annotations

import pytest
from gateway_fakes import FakeSession, guest_of

from narupa_client.records import User
from narupa_gateway.guests import Guest
from narupa_gateway.people import people_commands
from narupa_gateway.writes import GuestWrites
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError


@pytest.fixture
def session() -> FakeSession:
    return FakeSession("host")


async def test_everybody_is_told_with_the_avatars_that_come_through_this_gateway(session: FakeSession) -> None:
    present: dict[int, Guest] = {}
    guest = Guest(1, "NanoVer", "10.0.0.7", session, neighbours=present.values)  # type: ignore[arg-type]
    present[1] = guest
    session.users = [User("user-7", "Ada", "host"), User("user-8", "Bob", "viewer")]
    writes = GuestWrites(guest)
    await writes.write({"avatar.p1": {}, "avatar.p2": {}, "scene": 1})
    await writes.write({}, ["avatar.p2"])
    assert await people_commands(guest).run("session/get-people", {}) == {
        "user": "user-7",
        "role": "host",
        "people": [
            {"id": "user-7", "name": "Ada", "role": "host", "avatars": ["p1"]},
            {"id": "user-8", "name": "Bob", "role": "viewer", "avatars": []},
        ],
    }
    await writes.close()
    assert not guest.avatars


async def test_an_avatar_that_was_refused_is_nobodys(session: FakeSession) -> None:
    guest = guest_of(session)
    writes = GuestWrites(guest)
    session.write_problem = PermissionDeniedError("it belongs to somebody else")
    with pytest.raises(PermissionDeniedError):
        await writes.write({"avatar.p1": {}})
    assert not guest.avatars
    await writes.close()


async def test_a_host_has_a_say(session: FakeSession) -> None:
    commands = people_commands(guest_of(session))
    await commands.run("session/set-role", {"user": "user-8", "role": "viewer"})
    await commands.run("session/remove", {"user": "user-8"})
    await commands.run("session/set-guest-role", {"role": "none"})
    await commands.run("session/set-guest-role", {"role": ""})
    assert session.lobby.said == [
        ("set_role", "user-8", "viewer"),
        ("kick", "user-8"),
        ("set_guest_role", "none"),
        ("set_guest_role", None),
    ]
    session.lobby.guest_role = "viewer"
    assert await commands.run("session/get-guest-role", {}) == {"role": "viewer"}


@pytest.mark.parametrize(
    "problem", [PermissionDeniedError("needs the role host"), InvalidArgumentError("role", "king", "there is none")]
)
async def test_what_the_lobby_refuses_is_refused(session: FakeSession, problem: NarupaError) -> None:
    session.lobby.problem = problem
    with pytest.raises(type(problem)):
        await people_commands(guest_of(session)).run("session/set-role", {"user": "user-8", "role": "king"})


@pytest.mark.parametrize("arguments", [{}, {"user": 3, "role": "host"}, {"user": "u", "role": "host", "now": True}])
async def test_arguments_are_checked(session: FakeSession, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        await people_commands(guest_of(session)).run("session/set-role", arguments)
    assert not session.lobby.said
