"""Being in a session, whatever happens to the lobby or to us: the same user, the role, the end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

import narupa_client
from narupa_client import SessionEndedError
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    NotFoundError,
    PermissionDeniedError,
)
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2
from narupa_shared.testing.waiting import until


@dataclass
class Fakes:
    lobby: FakeLobby
    other: FakeLobby
    trajectory: FakeTrajectory
    imd: FakeImd

    @property
    def addresses(self) -> str:
        return f"{self.lobby.address},{self.other.address}"


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    lobby = FakeLobby()
    async with lobby, FakeLobby(beside=lobby) as other, FakeTrajectory() as trajectory, FakeImd() as imd:
        trajectory.publish(Frame(0, {"particle.count": 2.0}))
        await lobby.add_service("trajectory", trajectory.address)
        await lobby.add_service("imd", imd.address)
        yield Fakes(lobby, other, trajectory, imd)


async def test_a_join_whose_answer_was_lost_is_not_made_twice(fakes: Fakes) -> None:
    fakes.lobby.unanswered = 2
    async with narupa_client.join(fakes.lobby.address, "Ada", wait_s=5) as session:
        assert session.user_id == "user-1"
    assert fakes.lobby.joins == 1


async def test_a_join_whose_answer_was_lost_is_repeated_at_the_next_lobby(fakes: Fakes) -> None:
    fakes.lobby.unanswered = 1
    async with narupa_client.join(fakes.addresses, "Ada") as session:
        assert session.user_id == "user-1"
    assert fakes.lobby.joins + fakes.other.joins == 1


async def test_a_lobby_that_does_not_answer_is_skipped(fakes: Fakes) -> None:
    async with narupa_client.join(f"127.0.0.1:1,{fakes.other.address}", "Ada", wait_s=0) as session:
        assert session.user_id == "user-1"


async def test_membership_goes_on_at_the_next_lobby(fakes: Fakes) -> None:
    async with (
        narupa_client.join(fakes.addresses, "Ada") as session,
        session.frames(mode="all") as frames,
        session.pull([0], to=(0, 0, 1)) as pull,
    ):
        await anext(frames)
        await until(lambda: len(session.services) == 2)
        await fakes.lobby.stop()
        await fakes.other.add_service("gateway", "127.0.0.1:1")
        await until(lambda: any(service.kind == "gateway" for service in session.services))
        fakes.trajectory.publish(Frame(1))
        assert (await anext(frames)).index == 1
        assert fakes.trajectory.subscriptions == 1
        assert pull.active
        assert session.user_id == "user-1"
    assert fakes.lobby.joins + fakes.other.joins == 1


async def test_we_come_back_as_the_same_user(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        await until(lambda: len(session.users) == 1)
        await fakes.lobby.vanish("user-1")
        await until(lambda: fakes.lobby.joins == 2)
        await until(lambda: [user.id for user in session.users] == ["user-1"])
        assert session.user_id == "user-1"


async def test_another_program_can_be_the_same_user(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        token = session.rejoin_token
    async with narupa_client.join(fakes.lobby.address, "Ada", rejoin_token=token) as session:
        assert session.user_id == "user-1"


async def test_a_role_is_known_and_a_new_one_comes_with_a_new_token(fakes: Fakes) -> None:
    fakes.lobby.role = lobby_pb2.ROLE_PARTICIPANT
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        assert session.role == "participant"
        first = session.rejoin_token
        fakes.lobby.users[str(first)].role = lobby_pb2.ROLE_HOST
        async with narupa_client.open_lobby(fakes.lobby.address) as lobby:
            assert (await lobby.set_role("user-1", "host")).role == "host"
        await until(lambda: session.role == "host" and session.rejoin_token != first)
        assert [user.role for user in session.users] == ["host"]


async def test_being_removed_is_final(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session, session.frames(mode="all") as frames:
        await anext(frames)
        async with session.pull([0], to=(0, 0, 1)) as pull:
            holding = asyncio.create_task(_raised(pull.hold(20)))
            await session.lobby.kick("user-1", "too loud")
            with pytest.raises(SessionEndedError, match="removed from the session: kicked: too loud"):
                await anext(frames)
            assert isinstance(await holding, SessionEndedError)
        with pytest.raises(SessionEndedError, match="too loud"):
            await session.state.get()
        assert "too loud" in str(session.ended)
    assert fakes.lobby.joins == 1


async def test_being_removed_while_the_lobby_was_not_heard_is_final(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session, session.frames(mode="all") as frames:
        await anext(frames)
        await until(lambda: len(session.users) == 1)
        await fakes.lobby.stop()
        fakes.lobby.memory.kicked |= set(fakes.lobby.users)
        fakes.lobby.users.clear()
        await fakes.lobby.start()
        with pytest.raises(SessionEndedError, match="does not let us back"):
            await anext(frames)
    assert fakes.lobby.joins == 1


async def test_the_end_of_the_session_is_final(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session, session.state.watch() as changes:
        await anext(changes)
        await session.lobby.end_session("default")
        with pytest.raises(SessionEndedError, match="the session has ended: ended by the operator"):
            await anext(changes)
    assert fakes.lobby.joins == 1


async def test_an_invite_link_is_an_address(fakes: Fakes) -> None:
    fakes.lobby.join_code = fakes.other.join_code = "sesame"
    async with narupa_client.open_lobby(fakes.addresses) as lobby:
        invite = await lobby.create_invite("viewer", uses=2)
        link = lobby.link(invite=invite.secret)
    assert link == f"narupa://{fakes.addresses}/default?invite={invite.secret}"
    assert invite.secret not in repr(invite)
    async with narupa_client.join(link, "Ada") as session:
        assert (session.role, session.session_id) == ("viewer", "default")
    async with narupa_client.join(f"narupa://{fakes.lobby.address}/?join_code=sesame") as session:
        assert session.role == "host"
    with pytest.raises(PermissionDeniedError, match="invite is void"):
        async with narupa_client.join(link + "x"):
            pass


@pytest.mark.parametrize("query", ["invite=hush&invite=hush", "inviet=hush", "invite=hush&other=1"])
async def test_a_wrong_link_is_refused_without_its_secret(query: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no invite link") as refusal:
        async with narupa_client.join(f"narupa://127.0.0.1:1/lab?{query}"):
            pass
    assert "hush" not in str(refusal.value)


async def test_an_unknown_session_is_named(fakes: Fakes) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        async with narupa_client.join(fakes.lobby.address, session="nowhere"):
            pass


async def test_a_service_tells_how_it_is(fakes: Fakes) -> None:
    service = lobby_pb2.Service(
        id="water-1",
        kind="trajectory",
        status=lobby_pb2.SERVICE_STATUS_STOPPED,
        simulation="water",
        reason="out of memory",
        progress=0.5,
        log_tail=["one", "two"],
        restarts=3,
    )
    service.endpoints.add(protocol="grpcs", host="water.example", port=38811)
    service.endpoints.add(protocol="carrier-pigeon", host="water.example", port=1)
    await fakes.lobby.change_service(service)
    async with narupa_client.join(fakes.lobby.address) as session:
        found = next(item for item in session.services if item.id == "water-1")
        assert (found.status, found.simulation, found.reason) == ("stopped", "water", "out of memory")
        assert (found.progress, found.log_tail, found.restarts) == (0.5, ("one", "two"), 3)
        assert found.endpoints == (narupa_client.Endpoint("water.example", 38811, tls=True),)
        assert (await session.get_frame()).index == 0


async def test_without_a_lobby_there_is_nothing_to_administer(fakes: Fakes) -> None:
    async with narupa_client.open(trajectory=fakes.trajectory.address) as session:
        assert (session.role, session.ended, session.session_id) == (None, None, "")
        with pytest.raises(FailedPreconditionError, match="without a lobby"):
            _ = session.lobby


async def _raised(call: object) -> NarupaError | None:
    try:
        await call  # type: ignore[misc]
    except NarupaError as error:
        return error
    return None
