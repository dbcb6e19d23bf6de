"""Guests: clients for whom a gateway joins with its own token, at a real lobby that comes, goes and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from narupa_client.address import SessionAddress
from narupa_client.blocking_lobby import connect_lobby
from narupa_client.connection import Endpoint
from narupa_client.lobby import Lobby, open_lobby
from narupa_client.membership import LobbyMembership
from narupa_client.place import Admission
from narupa_client.tasks import TaskScope
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError, UnavailableError
from narupa_shared.registration import LobbyRegistration
from narupa_shared.testing.waiting import until

LIMIT_S: Final = 20.0
CODE, KEY, OPERATOR = "CODE-OF-SESSION", "a service key of this test", "an operator's key of this test"


class Scene:
    """A closed lobby that forgets all when it stops, and a gateway that keeps itself registered there."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder
        self._serving = AsyncExitStack()
        config = ServiceConfig(lobby=self.address, service_key=SecretStr(KEY))
        self.gateway = LobbyRegistration(config, "gateway", Bound("127.0.0.1", 1))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, **settings: Any) -> None:
        config = LobbyConfig(
            port=self.port, open_access=False, store="memory", state_dir=self._folder, drain_grace_s=0.2,
            join_code=CODE, service_key=SecretStr(KEY), operator_key=SecretStr(OPERATOR), **settings,
        )  # fmt: skip
        self.app = LobbyApp(config)
        await self._serving.enter_async_context(serving("lobby", config, self.app))

    async def stop(self) -> None:
        await self._serving.aclose()

    @property
    def users(self) -> dict[str, str]:
        """Who is in the session, and as what."""
        return {user.name: user.role for user in self.app.lobby.state.users("default")}

    @asynccontextmanager
    async def as_operator(self) -> AsyncIterator[Lobby]:
        async with open_lobby(self.address, operator_key=OPERATOR) as lobby:
            yield lobby

    def guest(self, name: str = "A headset", **said: Any) -> LobbyMembership:
        admission = Admission(name, guest=True, client_address="10.0.0.7", service_token=lambda: self.gateway.token)
        return LobbyMembership(SessionAddress((Endpoint("127.0.0.1", self.port),)), replace(admission, **said))


@pytest.fixture
async def scene(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(free_port(), tmp_path)
    await scene.start()
    try:
        async with scene.gateway:
            await until(lambda: scene.gateway.registered)
            yield scene
    finally:
        await scene.stop()


@asynccontextmanager
async def present(member: LobbyMembership) -> AsyncIterator[LobbyMembership]:
    """A membership that is kept up, and is left at the end."""
    scope = TaskScope()
    try:
        await member.join(LIMIT_S)
        member.start(scope)
        yield member
    finally:
        await scope.aclose()
        await member.leave()


async def refused(member: LobbyMembership, wait_s: float = LIMIT_S) -> NarupaError:
    """Why the member could not join."""
    try:
        with pytest.raises(NarupaError) as refusal:
            await member.join(wait_s)
        return refusal.value
    finally:
        await member.leave()


async def test_a_guest_is_what_a_host_chose_and_is_promoted_like_everybody(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        assert (await lobby.session()).session.guest_role == ""
        assert (await lobby.set_guest_role("viewer")).guest_role == "viewer"
        async with present(scene.guest()) as guest:
            assert (guest.role, scene.users) == ("viewer", {"A headset": "viewer"})
            token = guest.token
            await lobby.set_role(str(guest.user_id), "participant")
            await until(lambda: guest.role == "participant" and guest.token != token)
            assert (await lobby.set_guest_role("none")).guest_role == "none"
            assert isinstance(await refused(scene.guest("Another")), PermissionDeniedError)
            assert scene.users == {"A headset": "participant"}
        await until(lambda: scene.users == {})
        assert (await lobby.set_guest_role(None)).guest_role == ""
        with pytest.raises(InvalidArgumentError, match="boss"):
            await lobby.set_guest_role("boss")


async def test_who_is_not_let_in_is_told_at_once_and_why(scene: Scene) -> None:
    problem = await refused(scene.guest())
    assert isinstance(problem, PermissionDeniedError)
    assert "narupa lobby guests participant" in str(problem)


async def test_an_open_gateway_lets_guests_in_as_everybody(scene: Scene) -> None:
    async with present(scene.guest(guests_welcome=True)) as guest:
        assert guest.role == "participant"


async def test_a_code_is_as_good_through_a_gateway(scene: Scene) -> None:
    async with present(scene.guest(guest=False, join_code=CODE)) as member:
        assert member.role == "participant"
    assert isinstance(await refused(scene.guest(guest=False, join_code="WRONG-CODE")), PermissionDeniedError)


async def test_what_the_gateway_was_told_lets_nobody_else_in(scene: Scene) -> None:
    place = SessionAddress((Endpoint("127.0.0.1", scene.port),), join_code=CODE)
    admission = Admission("A headset", guest=True, service_token=lambda: scene.gateway.token)
    assert isinstance(await refused(LobbyMembership(place, admission)), PermissionDeniedError)


async def test_a_guest_waits_until_the_gateway_is_registered(scene: Scene) -> None:
    tokens: list[str | None] = [None, "", "nothing that any lobby signed", scene.gateway.token]

    def token() -> str | None:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    async with present(scene.guest(guests_welcome=True, service_token=token)):
        assert len(tokens) == 1
    for useless in (None, "nothing that any lobby signed"):
        given = replace(scene.guest()._admission, service_token=lambda useless=useless: useless)  # type: ignore[misc]
        place = SessionAddress((Endpoint("127.0.0.1", scene.port),))
        problem = await refused(LobbyMembership(place, given), 0)
        assert isinstance(problem, UnavailableError) and "gateway" in str(problem)


async def test_guests_come_back_to_a_lobby_that_has_forgotten_them_and_the_gateway(scene: Scene) -> None:
    async with present(scene.guest(guests_welcome=True)) as guest, present(scene.guest("With a code", join_code=CODE)):
        token, user_id = guest.token, guest.user_id
        await scene.stop()
        await scene.start(join_role="viewer")
        await until(lambda: scene.users == {"A headset": "viewer", "With a code": "viewer"})
        await until(lambda: guest.token != token)
        assert (guest.role, guest.ended) == ("viewer", None)
        assert guest.user_id != user_id


async def test_guests_stay_away_where_a_lobby_that_has_forgotten_them_lets_none_in(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        await lobby.set_guest_role("participant")
    async with present(scene.guest()) as guest:
        await scene.stop()
        await scene.start()
        await until(lambda: guest.ended)
        assert "narupa lobby guests participant" in str(guest.ended)
        assert scene.users == {}


async def test_a_guest_comes_back_as_the_same_whatever_has_been_chosen_since(scene: Scene) -> None:
    async with scene.as_operator() as lobby, present(scene.guest(guests_welcome=True)) as guest:
        await lobby.set_guest_role("none")
        again = scene.guest("", rejoin_token=str(guest.token))
        async with present(again):
            assert (again.user_id, again.role) == (guest.user_id, "participant")


async def test_a_guest_who_is_kicked_stays_out(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        await lobby.set_guest_role("participant")
        async with present(scene.guest()) as guest:
            await lobby.kick(str(guest.user_id), "noise")
            await until(lambda: guest.ended)
            assert "removed" in str(guest.ended)
        assert scene.users == {}


async def test_a_session_is_made_with_its_role_of_guests(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        made = await lobby.create_session("Open day", guest_role="viewer")
        assert (made.session.guest_role, (await lobby.session(made.session.id)).session.guest_role) == ("viewer",) * 2
        with pytest.raises(InvalidArgumentError, match="guest_role"):
            await lobby.create_session("Open day", guest_role="boss")


async def test_notebooks_choose_too(scene: Scene) -> None:
    def choose() -> list[str]:
        with connect_lobby(scene.address, operator_key=OPERATOR) as lobby:
            return [lobby.set_guest_role(role).guest_role for role in ("host", "none", None)]

    with ThreadPoolExecutor(1) as threads:
        chosen = await asyncio.get_running_loop().run_in_executor(threads, choose)
    assert chosen == ["host", "none", ""]
