"""Sessions side by side: nobody of one acts on another, or learns who is in it.

The RPCs are found through the proto, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor

from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.auth import OPERATOR_KEY
from narupa_shared.daemon import serving
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

LIMIT_S: Final = 5.0
OPERATOR: Final = "an-operator-key-of-this-test"
KEY: Final = "a-service-key-of-this-test"
CODES: Final = {"A": "CODE-OF-A", "B": "CODE-OF-B"}
ROLES: Final = {"viewer": pb.ROLE_VIEWER, "participant": pb.ROLE_PARTICIPANT, "host": pb.ROLE_HOST}
METHODS: Final[dict[str, MethodDescriptor]] = {
    method.name: method
    for method in pb.DESCRIPTOR.services_by_name["LobbyService"].methods
    if "session_id" in method.input_type.fields_by_name
}
# These ask for a secret of the session or of the lobby, and look at no token: tested below.
BY_SECRET: Final = {"Join", "RegisterService"}
REFUSED: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@dataclass
class Session:
    """A session, somebody in it with each role, and the token of a service."""

    id: str
    tokens: dict[str, str]
    users: dict[str, str]
    invite: str


@dataclass
class Scene:
    """Two sessions at one lobby."""

    stub: Any
    app: LobbyApp
    a: Session
    b: Session

    async def call(self, method: str, token: str = "", operator: str = "", **fields: Any) -> Any:
        """The answer; of a stream, its first message."""
        metadata = [("authorization", f"Bearer {token}")] if token else []
        metadata += [(OPERATOR_KEY, operator)] if operator else []
        request = getattr(pb, f"{method}Request")(**fields)
        call = getattr(self.stub, method)(request, metadata=metadata, timeout=LIMIT_S)
        if method == "WatchSession":
            try:
                return await call.read()
            finally:
                call.cancel()
        return await call

    async def status(self, method: str, token: str = "", **fields: Any) -> grpc.StatusCode:
        try:
            await self.call(method, token, **fields)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def what_there_is(self, session: Session) -> Any:
        """All that somebody could change in a session."""
        state = self.app.lobby.state
        records = {key: state.get(key) for key in state.keys_in(session.id)}
        return state.session(session.id), state.revision(session.id), records


@contextlib.asynccontextmanager
async def two_sessions(folder: Path, *, open_access: bool) -> AsyncIterator[Scene]:
    catalogue = folder / "catalogue"
    catalogue.mkdir()
    (catalogue / "demo.yaml").write_text("kind: simulation\nname: demo\ninputs: ['demo:peptide']\n")
    config = LobbyConfig(
        port=0, store="memory", open_access=open_access, operator_key=OPERATOR, service_key=KEY, catalogue=catalogue,
        state_dir=folder, drain_grace_s=0.2, join_role="viewer",
    )  # fmt: skip
    app = LobbyApp(config)
    async with serving("lobby", config, app) as bound, grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
        nowhere = Session("", {}, {}, "")
        scene = Scene(stub, app, nowhere, nowhere)
        scene.a, scene.b = [await _made(scene, name) for name in CODES]
        yield scene


async def _made(scene: Scene, name: str) -> Session:
    spec = pb.SessionSpec(name=name, join_code=CODES[name])
    made = await scene.call("CreateSession", operator=OPERATOR, spec=spec, host_name=f"host of {name}")
    id, tokens, users = made.session.id, {"host": made.host.token}, {"host": made.host.user.id}
    for role in ("viewer", "participant"):
        invited = await scene.call("CreateInvite", tokens["host"], role=ROLES[role])
        joined = await scene.call("Join", user_name=f"{role} of {name}", invite=invited.secret)
        tokens[role], users[role] = joined.token, joined.user.id
    invited = await scene.call("CreateInvite", tokens["host"])
    service = pb.Service(
        id=f"imd-of-{name}", kind="imd", status=pb.SERVICE_STATUS_RUNNING,
        endpoints=[pb.Endpoint(protocol="grpc", host="127.0.0.1", port=1)],
    )  # fmt: skip
    lease = await scene.call("RegisterService", session_id=id, service=service, service_key=KEY)
    return Session(id, tokens | {"service": lease.token}, users, invited.invite.id)


@pytest.fixture(params=[True, False], ids=["open", "closed"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with two_sessions(tmp_path, open_access=request.param) as scene:
        yield scene


def fields_for(method: str, session_id: str, target: Session) -> dict[str, Any]:
    """A request about `target`'s users, services and invites, which would do something."""
    every = {
        "session_id": session_id, "user_id": target.users["viewer"], "role": ROLES["host"], "reason": "mischief",
        "invite_id": target.invite, "simulation": "demo", "service_id": "imd-of-B",
    }  # fmt: skip
    return {name: value for name, value in every.items() if name in METHODS[method].input_type.fields_by_name}


@pytest.mark.parametrize("role", ["viewer", "participant", "host", "service"])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - BY_SECRET))
async def test_no_token_of_one_session_is_good_for_another(scene: Scene, method: str, role: str) -> None:
    before = scene.what_there_is(scene.b)
    status = await scene.status(method, scene.a.tokens[role], **fields_for(method, scene.b.id, scene.b))
    assert status in REFUSED
    assert scene.what_there_is(scene.b) == before


def ids_in(method: str) -> list[str]:
    """The fields of its request that name something within the session."""
    return [
        name for name in ("user_id", "service_id", "invite_id") if name in METHODS[method].input_type.fields_by_name
    ]


@pytest.mark.parametrize("method", sorted(method for method in METHODS if ids_in(method)))
async def test_ids_of_another_session_mean_nothing_in_ones_own(scene: Scene, method: str) -> None:
    before = scene.what_there_is(scene.b)
    (name,) = ids_in(method)
    for session_id in (scene.a.id, ""):
        fields = fields_for(method, session_id, scene.b)
        for id in (fields[name], f"../{scene.b.id}/{fields[name]}", f"{scene.b.id}/{fields[name]}"):
            status = await scene.status(method, scene.a.tokens["host"], **fields | {name: id})
            idempotent = method == "RevokeInvite"
            assert status == (grpc.StatusCode.OK if idempotent else grpc.StatusCode.NOT_FOUND)
    assert scene.what_there_is(scene.b) == before


async def test_codes_invites_and_earlier_tokens_are_of_their_session_only(scene: Scene) -> None:
    closed = not scene.app.lobby.rules.open
    before = scene.what_there_is(scene.b)
    invited = await scene.call("CreateInvite", scene.a.tokens["host"])
    for wish in (
        {"join_code": CODES["A"]}, {"invite": invited.secret},
        *([{"rejoin_token": scene.a.tokens["participant"]}, {}] if closed else []),
    ):  # fmt: skip
        for token in ("", scene.a.tokens["host"]):
            status = await scene.status("Join", token, session_id=scene.b.id, user_name="Eve", **wish)
            assert status == grpc.StatusCode.PERMISSION_DENIED, wish
    assert scene.what_there_is(scene.b) == before
    joined = await scene.call("Join", session_id=scene.b.id, user_name="A's", rejoin_token=scene.a.tokens["host"],
                              join_code=CODES["B"])  # fmt: skip
    assert joined.user.id != scene.a.users["host"], "who one is in a session says nothing in another"


async def test_a_gateway_of_one_session_brings_nobody_to_another(scene: Scene) -> None:
    for session in (scene.a, scene.b):
        await scene.call("SetGuestRole", session.tokens["host"], guest_role=pb.ROLE_HOST)
    before = scene.what_there_is(scene.b)
    gateway = scene.a.tokens["service"]
    for wish in (
        {"session_id": scene.b.id, "guest": True, "guests_welcome": True},
        {"join_code": CODES["B"]},
        {"join_code": CODES["B"], "guest": True, "guests_welcome": True},
    ):
        status = await scene.status("Join", gateway, user_name="Eve", **wish)
        assert status == grpc.StatusCode.PERMISSION_DENIED, wish
    assert scene.what_there_is(scene.b) == before
    joined = await scene.call("Join", gateway, user_name="Ada", guest=True)
    assert joined.session_id == scene.a.id


async def test_lists_tell_no_codes_and_nothing_of_who_is_in_other_sessions(scene: Scene) -> None:
    secrets = [*CODES.values(), *(code.replace("-", "") for code in CODES.values())]
    others = [*scene.b.users.values(), *(f"{role} of B" for role in ROLES), "imd-of-B"]
    for role, token in scene.a.tokens.items():
        for method in ("ListSessions", "ListServices", "ListInvites", "ListSimulations", "WatchSession", "GetSession"):
            try:
                told = str(await scene.call(method, token))
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.PERMISSION_DENIED
                continue
            found = [text for text in others if text in told]
            assert found == [], (role, method)
            shown = [code for code in secrets if code in told]
            assert shown == ([CODES["A"]] if (role, method) == ("host", "GetSession") else [])
    told = str(await scene.call("ListSessions", operator=OPERATOR))
    assert not any(code in told for code in secrets)
