"""What becomes of a user's streams at another service when the lobby revokes their token, or only loses sight of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from pydantic import SecretStr

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.auth import OPERATOR_KEY
from narupa_shared.daemon import serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

KEY = "the-key-of-the-operator"
OPERATOR = [(OPERATOR_KEY, KEY)]
TOKEN_TTL_S = 4.0
GRACE_S = 0.5


class Session:
    """A closed lobby and a closed imd service, each behind a channel."""

    def __init__(self, id: str, lobby: grpc.aio.Channel, imd: grpc.aio.Channel) -> None:
        self.id = id
        self.lobby: Any = lobby_pb2_grpc.LobbyServiceStub(lobby)  # type: ignore[no-untyped-call]
        self.interactions: Any = imd_pb2_grpc.InteractionServiceStub(imd)  # type: ignore[no-untyped-call]
        self.state: Any = imd_pb2_grpc.StateServiceStub(imd)  # type: ignore[no-untyped-call]

    async def join(self, role: Any = pb.ROLE_PARTICIPANT) -> Guest:
        invite = await self.lobby.CreateInvite(pb.CreateInviteRequest(session_id=self.id, role=role), metadata=OPERATOR)
        answer = await self.lobby.Join(pb.JoinRequest(user_name="Ada", invite=invite.secret))
        guest = Guest(self, answer)
        guest.watch = self.lobby.WatchSession(pb.WatchSessionRequest(), metadata=guest.metadata)
        await guest.watch.read()
        return guest


class Guest:
    """Somebody in the session with a token, and streams on it."""

    def __init__(self, session: Session, answer: Any) -> None:
        self.session = session
        self.id = answer.user.id
        self.metadata = [("authorization", f"Bearer {answer.token}")]
        self.watch: Any = None

    async def watching_state(self) -> End:
        call = self.session.state.WatchState(imd_pb2.WatchStateRequest(), metadata=self.metadata)
        assert await call.read()
        return reading(call)

    async def interacting(self) -> End:
        call = self.session.interactions.Interact(metadata=self.metadata)
        await call.write(imd_pb2.InteractRequest(sequence=1, remove="nothing"))
        assert await call.read()
        return reading(call)

    async def renew(self) -> None:
        answer = await self.session.lobby.RenewToken(pb.RenewTokenRequest(), metadata=self.metadata)
        self.metadata = [("authorization", f"Bearer {answer.token}")]


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    closed: dict[str, Any] = {
        "port": 0, "open_access": False, "drain_grace_s": 0.2, "service_key": SecretStr("the-key-of-services")
    }  # fmt: skip
    limits: dict[str, Any] = {"token_ttl_s": TOKEN_TTL_S, "rejoin_grace_s": GRACE_S, "service_lease_s": 0.6}
    lobby = LobbyConfig(**closed, **limits, store="memory", operator_key=SecretStr(KEY))
    async with contextlib.AsyncExitStack() as stack:
        at = await stack.enter_async_context(serving("lobby", lobby, LobbyApp(lobby)))
        to_lobby = await stack.enter_async_context(grpc.aio.insecure_channel(at.address))
        stub: Any = lobby_pb2_grpc.LobbyServiceStub(to_lobby)  # type: ignore[no-untyped-call]
        made = await stub.CreateSession(pb.CreateSessionRequest(), metadata=OPERATOR)
        imd = ImdConfig(**closed, lobby=at.address, session_id=made.session.id)
        bound = await stack.enter_async_context(serving("imd", imd, ImdApp(imd)))
        to_imd = await stack.enter_async_context(grpc.aio.insecure_channel(bound.address))
        session = Session(made.session.id, to_lobby, to_imd)
        listing = pb.ListServicesRequest(session_id=session.id)
        async with asyncio.timeout(5):
            while not (await session.lobby.ListServices(listing, metadata=OPERATOR)).services:
                await asyncio.sleep(0.02)
        yield session


End = asyncio.Future[tuple[grpc.StatusCode, str]]


def reading(call: Any) -> End:
    """The stream is read from now on; the status and message with which it will end."""

    async def read() -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        return await call.code(), await call.details()

    return asyncio.ensure_future(read())


async def ended(end: End, within_s: float = 1.0) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(within_s):
        return await end


async def goes_on(end: End) -> bool:
    """Whether the stream is still there a second later."""
    return not (await asyncio.wait({end}, timeout=1.0))[0]


async def test_streams_of_a_kicked_user_end(session: Session) -> None:
    ada, bob = await session.join(), await session.join()
    calls = [await ada.watching_state(), await ada.interacting()]
    bobs = await bob.watching_state()
    await session.lobby.KickUser(
        pb.KickUserRequest(session_id=session.id, user_id=ada.id, reason="asleep"), metadata=OPERATOR
    )
    for call in calls:
        code, details = await ended(call)
        assert code is grpc.StatusCode.UNAUTHENTICATED and "revoked" in details
    with pytest.raises(grpc.aio.AioRpcError, match="revoked") as refusal:
        await session.state.GetState(imd_pb2.GetStateRequest(), metadata=ada.metadata)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (await ended(reading(ada.watch)))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert await goes_on(bobs)


async def test_streams_of_a_user_who_leaves_end(session: Session) -> None:
    ada = await session.join()
    call = await ada.watching_state()
    await session.lobby.Leave(pb.LeaveRequest(), metadata=ada.metadata)
    await session.lobby.Leave(pb.LeaveRequest(), metadata=ada.metadata)
    assert (await ended(call))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_demoted_user_goes_on_with_the_lesser_role(session: Session) -> None:
    ada = await session.join(pb.ROLE_HOST)
    await session.join(pb.ROLE_HOST)
    call = await ada.interacting()
    lesser = pb.SetUserRoleRequest(session_id=session.id, user_id=ada.id, role=pb.ROLE_VIEWER)
    await session.lobby.SetUserRole(lesser, metadata=OPERATOR)
    assert (await ended(call))[0] is grpc.StatusCode.UNAUTHENTICATED
    await ada.renew()
    await ada.watching_state()
    refused = session.interactions.Interact(metadata=ada.metadata)
    code, details = await ended(reading(refused))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "needs the role participant, and yours is viewer" in details


async def test_streams_end_with_their_session(session: Session) -> None:
    ada = await session.join()
    call = await ada.watching_state()
    await session.lobby.EndSession(pb.EndSessionRequest(session_id=session.id), metadata=OPERATOR)
    assert (await ended(call))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_all_streams_end_when_the_keys_are_revoked(session: Session) -> None:
    ada = await session.join()
    call = await ada.watching_state()
    await session.lobby.RotateKeys(pb.RotateKeysRequest(revoke=True), metadata=OPERATOR)
    assert (await ended(call))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_outlives_its_token_while_its_user_is_there(session: Session) -> None:
    ada, bob = await session.join(), await session.join()
    adas, bobs = await ada.watching_state(), await bob.watching_state()
    began = time.monotonic()
    bob.watch.cancel()  # he vanishes, which revokes nothing
    assert await goes_on(bobs)
    code, details = await ended(bobs, TOKEN_TTL_S)
    assert code is grpc.StatusCode.UNAUTHENTICATED and "expired" in details
    assert time.monotonic() - began > TOKEN_TTL_S - 1.0
    with pytest.raises(grpc.aio.AioRpcError, match="expired"):
        await session.state.GetState(imd_pb2.GetStateRequest(), metadata=ada.metadata)
    assert await goes_on(adas)
