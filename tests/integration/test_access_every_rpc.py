"""Every RPC and command of every service, called with every role and every kind of token.

The RPCs are found through the services' own reflection, so that none can be forgotten. A call counts as let in when its
handler begins; whatever the handler then says is its own affair.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from ase.build import molecule
from ase.io import write
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_lobby.records import User
from narupa_shared.access import METHODS, Standing, command_access
from narupa_shared.auth import OPERATOR_KEY, Identity, TokenSigner
from narupa_shared.commands import CommandTable
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import NarupaError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as compat_commands
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2
from narupa_shared.rpc_handlers import Stream, Unary, rewrapped
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

TOKEN_ROLES: Final[tuple[Any, ...]] = ("viewer", "participant", "host", "service")
BAD_TOKENS: Final = ("expired", "forged", "unknown key", "other session", "revoked", "unsigned", "malformed", "huge")
KEY: Final = "an-operator-key-of-this-test"
LIMIT_S: Final = 5.0
NOT_SERVED: Final = ("grpc.health.", "grpc.reflection.")

Metadata = Sequence[tuple[str, str]]


class Watched:
    """A service whose handlers are seen to begin and to end; for the harness it is the service itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.reached: Counter[str] = Counter()
        self.in_progress: Counter[str] = Counter()
        self.hold_open = False  # streams go on for ever, also those that have no more to say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def add_to(self, server: grpc.aio.Server) -> None:
        self._app.add_to(_WatchedServer(server, self))

    def watched(self, method: str, handler: Any) -> Any:
        def unary(behaviour: Unary) -> Unary:
            async def call(request: Any, context: Any) -> Any:
                self.reached[method] += 1
                return await behaviour(request, context)

            return call

        def stream(behaviour: Stream) -> Stream:
            async def call(request: Any, context: Any) -> AsyncGenerator[Any, None]:
                self.reached[method] += 1
                self.in_progress[method] += 1
                try:
                    with contextlib.suppress(*([NarupaError] if self.hold_open else [])):
                        async with contextlib.aclosing(behaviour(request, context)) as responses:
                            async for response in responses:
                                yield response
                    if self.hold_open:
                        await asyncio.Event().wait()
                finally:
                    self.in_progress[method] -= 1

            return call

        return rewrapped(handler, unary, stream)


class _WatchedServer:
    """Takes handlers for a server, and has them watched."""

    def __init__(self, server: grpc.aio.Server, watched: Watched) -> None:
        self._server = server
        self._watched = watched

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers([_WatchedHandler(each, self._watched) for each in handlers])  # type: ignore[misc]

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The generic ones do."""


class _WatchedHandler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, handler: Any, watched: Watched) -> None:
        self._handler = handler
        self._watched = watched

    def service(self, details: Any) -> Any:
        return self._watched.watched(details.method, self._handler.service(details))


class Service:
    """A closed service on a real port, and whoever calls it."""

    def __init__(self, app: Watched, bound: Bound, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.channel = channel
        self.bound = bound
        self._signer = TokenSigner.generate()
        self._foreign_key = Ed25519PrivateKey.generate()
        app.verifier.trust([self._signer.public_key])
        self.knows_operator = getattr(app, "operator", None) is not None
        self._numbers = itertools.count()

    @property
    def signer(self) -> TokenSigner:
        """Signs tokens that the service takes for good ones."""
        return self._signer

    async def void(self, role: Any) -> Identity:
        """Somebody whose tokens have been revoked."""
        identity = self.identity(role)
        self.app.verifier.revoke(identity.user_id, identity.generation)
        return identity

    async def methods(self) -> list[MethodDescriptor]:
        """Every method that the service says it serves, health and reflection apart."""
        ask: Any = reflection_pb2.ServerReflectionRequest(list_services="")
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel)  # type: ignore[no-untyped-call]
        call = stub.ServerReflectionInfo(iter([ask]))
        answer = await call.read()
        call.cancel()
        names = [each.name for each in answer.list_services_response.service if not each.name.startswith(NOT_SERVED)]
        pool = descriptor_pool.Default()
        return [method for name in names for method in pool.FindServiceByName(name).methods]

    def identity(self, role: Any, expires_in_s: float = 600.0, session_id: str = "default") -> Identity:
        """A caller whom nobody has seen before."""
        user_id = f"user-{next(self._numbers)}"
        return Identity(user_id, "Ada", session_id, role, time.time() + expires_in_s, generation=3)

    async def bearer(self, role: Any, kind: str) -> Metadata:
        """Metadata with a token of this role and kind."""
        return [("authorization", f"Bearer {await self._token(role, kind)}")]

    async def _token(self, role: Any, kind: str) -> str:
        identity = self.identity(role)
        match kind:
            case "good":
                return self.signer.sign(identity)
            case "expired":
                return self.signer.sign(self.identity(role, expires_in_s=-1))
            case "forged":
                return TokenSigner(self._foreign_key, self.signer.public_key[0]).sign(identity)
            case "unknown key":
                return TokenSigner.generate().sign(identity)
            case "other session":
                return self.signer.sign(self.identity(role, session_id="another"))
            case "revoked":
                return self.signer.sign(await self.void(role))
            case "unsigned":
                header, claims, _ = self.signer.sign(identity).split(".")
                kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
                plain = json.dumps({"alg": "none", "typ": "JWT", "kid": kid}).encode()
                return f"{base64.urlsafe_b64encode(plain).rstrip(b'=').decode()}.{claims}."
            case "malformed":
                return self.signer.sign(identity).replace(".", "", 1)
        return "a" * 5000

    async def outcome(self, method: MethodDescriptor, metadata: Metadata | None) -> str:
        """ "let in" once the handler begins, else the name of the status that the call was refused with."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        before = self.app.reached[path]
        call = self.begin(method, metadata)
        ended = asyncio.ensure_future(call.code())
        try:
            async with asyncio.timeout(LIMIT_S):
                while self.app.reached[path] == before and not ended.done():
                    await asyncio.wait({ended}, timeout=0.001)
            return "let in" if self.app.reached[path] > before else ended.result().name
        finally:
            call.cancel()
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    def begin(self, method: MethodDescriptor, metadata: Metadata | None, request: bytes = b"") -> Any:
        shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        call = getattr(self.channel, shape)(f"/{method.containing_service.full_name}/{method.name}")
        return call(metadata=metadata) if method.client_streaming else call(request, metadata=metadata)

    async def status(self, path: str, request: bytes, metadata: Metadata) -> grpc.StatusCode:
        call = self.channel.unary_unary(path)(request, metadata=metadata, timeout=LIMIT_S)  # type: ignore[call-arg]
        code: grpc.StatusCode = await call.code()
        return code


class LobbyService(Service):
    """A closed lobby: it signs itself, and voids the tokens of who leaves."""

    _void: User | None = None

    @property
    def signer(self) -> TokenSigner:
        signer: TokenSigner = self.app.lobby.tokens.ring.signer
        return signer

    async def joined(self, name: str) -> Any:
        """What the lobby says to somebody who joins."""
        stub: Any = lobby_pb2_grpc.LobbyServiceStub(self.channel)  # type: ignore[no-untyped-call]
        return await stub.Join(lobby_pb2.JoinRequest(user_name=name), metadata=[(OPERATOR_KEY, KEY)])

    async def leave(self, token: str) -> None:
        stub: Any = lobby_pb2_grpc.LobbyServiceStub(self.channel)  # type: ignore[no-untyped-call]
        await stub.Leave(lobby_pb2.LeaveRequest(), metadata=[("authorization", f"Bearer {token}")])

    async def void(self, role: Any) -> Identity:
        if self._void is None:
            answer = await self.joined("Ada")
            self._void = self.app.lobby.state.user("default", answer.user.id)
            await self.leave(answer.token)
        assert self._void is not None
        return replace(self.identity(role), user_id=self._void.id, generation=self._void.generation)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("inputs") / "ethanol.pdb"
    write(path, molecule("CH3CH2OH"))
    return f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"


Start = Callable[[str], contextlib.AbstractAsyncContextManager[Service]]


@pytest.fixture
def start(source: str) -> Start:
    """Starts a closed service of one kind, with no lobby to be found."""
    closed: dict[str, Any] = {"port": 0, "open_access": False, "drain_grace_s": 0.2}

    def made(kind: str) -> tuple[ServiceConfig, Any]:
        config: Any
        if kind == "lobby":
            config = LobbyConfig(**closed, store="memory", operator_key=SecretStr(KEY))
            return config, LobbyApp(config)
        if kind == "imd":
            config = ImdConfig(**closed, lobby="127.0.0.1:1")
            return config, ImdApp(config)
        config = TrajectoryConfig(**closed, lobby="127.0.0.1:1", sources=(source,))
        return config, TrajectoryApp(config)

    @contextlib.asynccontextmanager
    async def started(kind: str) -> AsyncIterator[Service]:
        config, app = made(kind)
        watched = Watched(app)
        async with (
            serving(kind, config, watched) as bound,
            grpc.aio.insecure_channel(bound.address) as channel,
        ):
            yield (LobbyService if kind == "lobby" else Service)(watched, bound, channel)

    return started


SERVICES: Final = ("lobby", "imd", "trajectory")
LEAST_METHODS: Final = {"lobby": 9, "imd": 19, "trajectory": 17}


def expected(path: str, role: Standing | None, kind: str) -> str:
    """What the table says of a call with a token of this role and kind; without a token the role is None."""
    access = METHODS[path]
    if path.startswith("/narupa.lobby.") and kind == "other session":
        kind = "revoked"  # the lobby has every session but those that have ended
    if kind not in ("good", "none") and not (kind == "revoked" and access.revoked_too):
        return "UNAUTHENTICATED"
    if role is None:
        return "let in" if access.public else "UNAUTHENTICATED"
    return "let in" if access.admits(role) else "PERMISSION_DENIED"


async def cases(service: Service) -> AsyncIterator[tuple[Standing | None, str, Metadata | None]]:
    """Roles and kinds of token, with metadata made anew."""
    for role in TOKEN_ROLES:
        for kind in ("good", *BAD_TOKENS):
            if kind == "revoked" and role == "service" and isinstance(service, LobbyService):
                continue  # the lobby revokes what it gave to users
            yield role, kind, await service.bearer(role, kind)
    yield None, "none", None
    yield None, "a token that says operator", await service.bearer("operator", "good")
    yield None, "an authorization that is no bearer's", [("authorization", "Basic YTpi")]
    if service.knows_operator:
        yield "operator", "good", [(OPERATOR_KEY, KEY)]
    else:
        yield None, "none", [(OPERATOR_KEY, KEY)]


@pytest.mark.parametrize("kind", SERVICES)
async def test_every_rpc_lets_in_whom_the_table_names(start: Start, kind: str) -> None:
    wrong: list[str] = []
    async with start(kind) as service:
        methods = await service.methods()
        assert len(methods) >= LEAST_METHODS[kind]
        for method in methods:
            path = f"/{method.containing_service.full_name}/{method.name}"
            async for role, token, metadata in cases(service):
                was, should = await service.outcome(method, metadata), expected(path, role, token)
                if was != should:
                    wrong.append(f"{path} as {role} with token {token}: {was}, not {should}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["imd", "trajectory"])
async def test_every_stream_ends_when_its_token_is_revoked(start: Start, kind: str) -> None:
    async with start(kind) as service:
        service.app.hold_open = True
        streaming = [method for method in await service.methods() if method.server_streaming]
        assert streaming
        open_calls: dict[str, tuple[Identity, asyncio.Future[tuple[grpc.StatusCode, str]]]] = {}
        for method in streaming:
            path = f"/{method.containing_service.full_name}/{method.name}"
            identity = service.identity(next(role for role in TOKEN_ROLES if METHODS[path].admits(role)))
            call = service.begin(method, [("authorization", f"Bearer {service.signer.sign(identity)}")])
            open_calls[path] = identity, asyncio.ensure_future(end_of(call))
        async with asyncio.timeout(LIMIT_S):
            while sum(service.app.in_progress.values()) < len(streaming):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert not [path for path, (_, end) in open_calls.items() if end.done()]
        for identity, _ in open_calls.values():
            service.app.verifier.revoke(identity.user_id, identity.generation)
        async with asyncio.timeout(1.0):
            ends = {path: await end for path, (_, end) in open_calls.items()}
            while sum(service.app.in_progress.values()):
                await asyncio.sleep(0.01)
        for path, (code, details) in ends.items():
            assert code is grpc.StatusCode.UNAUTHENTICATED, path
            assert "revoked" in details and "join again" in details, path


async def test_the_lobbys_streams_end_when_their_user_leaves(start: Start) -> None:
    async with start("lobby") as service:
        assert isinstance(service, LobbyService)
        for method in [method for method in await service.methods() if method.server_streaming]:
            path = f"/{method.containing_service.full_name}/{method.name}"
            if not METHODS[path].admits("host"):
                continue
            answer = await service.joined("Ada")
            end = asyncio.ensure_future(end_of(service.begin(method, [("authorization", f"Bearer {answer.token}")])))
            async with asyncio.timeout(LIMIT_S):
                while not service.app.in_progress[path]:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert not end.done(), path
            await service.leave(answer.token)
            async with asyncio.timeout(1.0):
                code, _ = await end
                while service.app.in_progress[path]:
                    await asyncio.sleep(0.01)
            assert code is not grpc.StatusCode.UNAVAILABLE, path


async def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message with which a stream ends that is read all the time."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass
    return await call.code(), await call.details()


RUN_COMMAND: Final = {
    "imd": (
        "/narupa.imd.v1.CommandService/RunCommand",
        "/narupa.protocol.command.Command/RunCommand",
        "/nanover.protocol.command.Command/RunCommand",
    ),
    "trajectory": (
        "/narupa.trajectory.v1.TrajectoryService/RunCommand",
        "/narupa.protocol.command.Command/RunCommand",
        "/nanover.protocol.command.Command/RunCommand",
    ),
}


@pytest.mark.parametrize("kind", ["imd", "trajectory"])
async def test_every_command_runs_for_whom_the_table_names(
    start: Start, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    async def run(self: CommandTable, name: str, arguments: Any) -> dict[str, Any]:
        ran.append(name)
        return {}

    monkeypatch.setattr(CommandTable, "run", run)
    wrong: list[str] = []
    async with start(kind) as service:
        listing = await service.channel.unary_unary("/narupa.protocol.command.Command/GetCommands")(  # type: ignore[call-arg]
            b"", metadata=await service.bearer("viewer", "good")
        )
        names = [each.name for each in compat_commands.GetCommandsReply.FromString(listing).commands]
        assert "commands/list" in names and len(names) > 1
        for path, name, role in itertools.product(RUN_COMMAND[kind], [*names, "no/such"], TOKEN_ROLES):
            native = path.startswith("/narupa.trajectory.v1.")
            message: Any = trajectory_pb2.RunCommandRequest if native else compat_commands.CommandMessage
            ran.clear()
            code = await service.status(
                path, message(name=name).SerializeToString(), await service.bearer(role, "good")
            )
            allowed = command_access(name).admits(role)
            if (code.name, ran) != (("OK", [name]) if allowed else ("PERMISSION_DENIED", [])):
                wrong.append(f"{path} {name} as {role}: {code.name}, ran {ran}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", SERVICES)
async def test_health_and_reflection_need_no_token(start: Start, kind: str) -> None:
    async with start(kind) as service:
        assert await service.methods()
        assert await service.status("/grpc.health.v1.Health/Check", b"", []) is grpc.StatusCode.OK
