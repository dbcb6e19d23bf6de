"""The client against real lobbies: who may do what, coming back, several lobbies over one store."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest
from pydantic import SecretStr

import narupa_client
from narupa_client import SessionEndedError
from narupa_client.testing import FakeTrajectory
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.daemon import serving
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc
from narupa_shared.testing.redis_server import RedisServer
from narupa_shared.testing.waiting import until

KEY = "an operator's key"


class Lobbies:
    """Closed lobbies over one store, each of which can be stopped."""

    def __init__(self, count: int, folder: Path, store: str = "memory") -> None:
        self._store = store
        self._folder = folder
        self._stacks: list[AsyncExitStack] = [AsyncExitStack() for _ in range(count)]
        self.addresses: list[str] = []

    @property
    def address(self) -> str:
        return ",".join(self.addresses)

    async def start(self) -> None:
        for stack in self._stacks:
            config = LobbyConfig(
                host="127.0.0.1",
                port=0,
                store=self._store,
                state_dir=self._folder,
                open_access=False,
                join_code=SecretStr("sesame99"),
                operator_key=SecretStr(KEY),
                service_key=SecretStr("a service's key"),
                drain_grace_s=0.1,
            )
            bound = await stack.enter_async_context(serving("lobby", config, LobbyApp(config)))
            self.addresses.append(bound.address)

    async def stop(self, index: int) -> None:
        await self._stacks[index].aclose()

    async def close(self) -> None:
        for stack in self._stacks:
            await stack.aclose()

    async def register(self, at: str) -> None:
        """A trajectory service at this address is in the default session, for as long as a lease lasts."""
        async with grpc.aio.insecure_channel(self.addresses[0]) as channel:
            host, _, port = at.rpartition(":")
            service = pb.Service(
                kind="trajectory",
                status=pb.SERVICE_STATUS_RUNNING,
                endpoints=[pb.Endpoint(protocol="grpc", host=host, port=int(port))],
            )
            request = pb.RegisterServiceRequest(service=service, service_key="a service's key")
            await lobby_pb2_grpc.LobbyServiceStub(channel).RegisterService(request)  # type: ignore[no-untyped-call]


@pytest.fixture
async def lobbies(tmp_path: Path) -> AsyncIterator[Lobbies]:
    made = Lobbies(1, tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def two_lobbies(tmp_path: Path) -> AsyncIterator[Lobbies]:
    with RedisServer(tmp_path) as redis:
        made = Lobbies(2, tmp_path, redis.url)
        await made.start()
        yield made
        await made.close()


async def test_an_operator_makes_a_session_with_a_password_and_ends_it(lobbies: Lobbies) -> None:
    async with narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby:
        made = await lobby.create_session("Kinase", host_name="Ada", password="a password", max_users=5)
        assert made.host is not None and made.host.role == "host"
        assert {session.name for session in await lobby.sessions()} >= {"Kinase"}
        id = made.session.id
        link = lobby.link(id)
        with pytest.raises(PermissionDeniedError):
            async with narupa_client.join(link, "Bob"):
                pass
        async with (
            narupa_client.join(link, "Bob", password="a password") as bob,
            narupa_client.join(lobbies.address, "Ada", session=id, rejoin_token=made.host_token) as ada,
        ):
            assert (ada.user_id, ada.role, bob.role) == (made.host.id, "host", "participant")
            assert {user.name for user in await ada.lobby.users()} == {"Ada", "Bob"}
            with pytest.raises(PermissionDeniedError, match="host"):
                await bob.lobby.end_session(id)
            await ada.lobby.end_session(id)
            await until(lambda: ada.ended and bob.ended)
            assert isinstance(bob.ended, SessionEndedError) and "session has ended" in str(bob.ended)
        with pytest.raises(NotFoundError):
            await lobby.session(id)


async def test_without_a_secret_one_is_told_to_say_who_one_is(lobbies: Lobbies) -> None:
    async with narupa_client.open_lobby(lobbies.address) as lobby:
        with pytest.raises(UnauthenticatedError):
            await lobby.sessions()
    with pytest.raises(PermissionDeniedError):
        async with narupa_client.join(lobbies.address, "Eve", join_code="guessing"):
            pass


async def test_an_invited_host_hosts_for_as_long_as_a_command_takes(lobbies: Lobbies) -> None:
    async with narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby:
        invite = await lobby.create_invite("host", uses=3, expires_in_s=60)
        link = lobby.link(invite=invite.secret)
    async with (
        narupa_client.join(lobbies.address, "Ada", join_code="sesame99") as ada,
        narupa_client.open_lobby(link, "Grace") as lobby,
    ):
        assert (await lobby.session()).join_code
        assert (ada.role, ada.session_id) == ("participant", "default")
        assert (await lobby.set_role(str(ada.user_id), "host")).role == "host"
        await until(lambda: ada.role == "host")
        assert [item.id for item in await ada.lobby.invites()] == [invite.id]
        await ada.lobby.revoke_invite(invite.id)
        assert await ada.lobby.invites() == []
    with pytest.raises(PermissionDeniedError):
        async with narupa_client.open_lobby(link):
            pass


async def test_who_was_kicked_does_not_come_back(lobbies: Lobbies) -> None:
    async with narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby:
        async with narupa_client.join(lobbies.address, "Eve", join_code="sesame99") as eve:
            await until(lambda: eve.users)
            await lobby.kick(str(eve.user_id), "too loud")
            await until(lambda: eve.ended)
            assert "too loud" in str(eve.ended)
            token = eve.rejoin_token
        assert await lobby.users() == []
        with pytest.raises(PermissionDeniedError):
            async with narupa_client.join(lobbies.address, "Eve", join_code="sesame99", rejoin_token=token):
                pass


async def test_a_demoted_user_stays_the_same(lobbies: Lobbies) -> None:
    async with (
        narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby,
        narupa_client.join(lobbies.address, "Ada", join_code="sesame99") as ada,
    ):
        id, token = ada.user_id, ada.rejoin_token
        await lobby.set_role(str(id), "viewer")
        await until(lambda: ada.role == "viewer" and ada.rejoin_token != token)
        assert ada.user_id == id
        assert [(user.id, user.role) for user in await lobby.users()] == [(id, "viewer")]


async def test_nobody_notices_that_a_lobby_ends(two_lobbies: Lobbies) -> None:
    lobbies = two_lobbies
    async with FakeTrajectory() as trajectory:
        trajectory.publish(Frame(0))
        await lobbies.register(trajectory.address)
        async with (
            narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby,
            narupa_client.join(lobbies.address, "Ada", join_code="sesame99") as ada,
            ada.frames(mode="all") as frames,
            lobby.watch() as events,
        ):
            assert (await anext(events)).kind == "snapshot"
            await anext(frames)
            id = ada.user_id
            await lobbies.stop(0)
            await lobby.set_role(str(id), "host")
            while (event := await anext(events)).kind != "user_changed":
                pass
            assert event.users[0].role == "host"
            await until(lambda: ada.role == "host")
            trajectory.publish(Frame(1))
            assert (await anext(frames)).index == 1
            assert trajectory.subscriptions == 1
            assert [user.id for user in await lobby.users()] == [id]
            assert ada.user_id == id


async def test_keys_are_rotated_and_members_stay_or_come_back(lobbies: Lobbies) -> None:
    async with (
        narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby,
        narupa_client.join(lobbies.address, "Ada", join_code="sesame99") as ada,
    ):
        id = ada.user_id
        assert await lobby.rotate_keys()
        assert [user.id for user in await lobby.users()] == [id]
        await lobby.rotate_keys(revoke=True)  # then an old token does not even say who one was
        await until(lambda: [user.name for user in ada.users] == ["Ada"] and ada.user_id != id)
        assert ada.ended is None


async def test_what_is_not_there_is_named(lobbies: Lobbies) -> None:
    async with narupa_client.open_lobby(lobbies.address, operator_key=KEY) as lobby:
        with pytest.raises(NotFoundError, match="nosuch"):
            await lobby.start("nosuch")
        with pytest.raises(NotFoundError, match="nosuch"):
            await lobby.kick("nosuch")
        with pytest.raises(NotFoundError, match="nosuch"):
            await lobby.create_session("x", template="nosuch")
        with pytest.raises(InvalidArgumentError, match="role is 'boss'"):
            await lobby.set_role("nosuch", "boss")
        with pytest.raises((NotFoundError, FailedPreconditionError)):
            await lobby.log("nosuch")
        assert (await lobby.simulations()).simulations == ()
    with pytest.raises(InvalidArgumentError, match="operator_key"):
        async with narupa_client.open_lobby(lobbies.address, operator_key="kéy"):
            pass


def test_the_blocking_face_has_every_verb() -> None:
    verbs = {name for name in dir(narupa_client.Lobby) if not name.startswith("_")}
    assert verbs - set(dir(narupa_client.BlockingLobby)) == {"heard"}
