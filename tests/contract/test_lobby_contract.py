"""What lobby.proto promises, held against a running lobby by two independent gRPC stacks."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import betterproto2
import grpc.aio
import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared import errors
from narupa_shared.auth import Identity, TokenSigner, TokenVerifier
from narupa_shared.daemon import serving
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc
from narupa_shared.rpc_errors import error_of
from narupa_shared.sdk.narupa.lobby import v1 as sdk
from narupa_shared.testing.clock import FakeClock

LIMIT_S = 5.0
RUNNING, UNHEALTHY = 3, 4


class Client(Protocol):
    """The lobby's methods, whatever the stack; statuses come back as domain errors."""

    async def call(self, method: str, token: str | None = None, **fields: Any) -> Any: ...
    def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]: ...
    def service(self, **change: Any) -> Any: ...
    def event(self, response: Any) -> tuple[str, Any]: ...


SERVICE: dict[str, Any] = {
    "id": "imd-1", "kind": "imd", "status": RUNNING, "capacity": 10, "occupancy": 1.0, "metadata": {"source": "17-ala"},
    "endpoints": [{"protocol": "grpc", "host": "127.0.0.1", "port": 38812}],
}  # fmt: skip


def authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


class GrpcioClient:
    """grpcio and protobuf's own runtime."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]

    async def call(self, method: str, token: str | None = None, **fields: Any) -> Any:
        request = getattr(lobby_pb2, f"{method}Request")(**fields)
        try:
            return await getattr(self._stub, method)(
                request, metadata=tuple(authorization(token).items()), timeout=LIMIT_S
            )
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error

    async def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]:
        request = lobby_pb2.WatchSessionRequest(**fields)
        stream = self._stub.WatchSession(request, metadata=tuple(authorization(token).items()))
        try:
            async for response in stream:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error
        finally:
            stream.cancel()

    def service(self, **change: Any) -> Any:
        return lobby_pb2.Service(**SERVICE | change)

    def event(self, response: Any) -> tuple[str, Any]:
        name = response.WhichOneof("event")
        return name, getattr(response, name)


class GrpclibClient:
    """grpclib and betterproto2."""

    def __init__(self, channel: Channel) -> None:
        self._stub = sdk.LobbyServiceStub(channel)

    async def call(self, method: str, token: str | None = None, **fields: Any) -> Any:
        request = getattr(sdk, f"{method}Request")(**fields)
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method).lstrip("_")
        try:
            return await getattr(self._stub, name)(request, metadata=authorization(token), timeout=LIMIT_S)
        except GRPCError as error:
            raise error_of(error.status.value, error.message or "") from error

    async def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]:
        request = sdk.WatchSessionRequest(**fields)
        try:
            async for response in self._stub.watch_session(request, metadata=authorization(token)):
                yield response
        except GRPCError as error:
            raise error_of(error.status.value, error.message or "") from error

    def service(self, **change: Any) -> Any:
        fields = SERVICE | change
        fields["endpoints"] = [sdk.Endpoint(**each) for each in fields["endpoints"]]
        return sdk.Service(**fields | {"status": sdk.ServiceStatus(fields["status"])})

    def event(self, response: Any) -> tuple[str, Any]:
        return betterproto2.which_one_of(response, "event")


class Running:
    """A lobby on a real port whose clock only the test moves."""

    def __init__(self, app: LobbyApp, port: int, clock: FakeClock) -> None:
        self.app, self.port, self._clock = app, port, clock

    def later(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.app.lobby.expire()


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(clock: FakeClock) -> Start:
    @contextlib.asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Running]:
        config = LobbyConfig(port=0, drain_grace_s=0.2, **settings)
        app = LobbyApp(config, clock, clock)
        async with serving("lobby", config, app) as bound:
            yield Running(app, bound.port, clock)

    return start


@contextlib.asynccontextmanager
async def connected(stack: str, port: int) -> AsyncIterator[Client]:
    if stack == "grpcio":
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GrpcioClient(channel)
    else:
        async with Channel("127.0.0.1", port) as channel:
            yield GrpclibClient(channel)


@pytest.fixture(params=["grpcio", "grpclib"])
def stack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def lobby(start: Start) -> AsyncIterator[Running]:
    async with start() as running:
        yield running


@pytest.fixture
async def client(lobby: Running, stack: str) -> AsyncIterator[Client]:
    async with connected(stack, lobby.port) as client:
        yield client


async def following(stream: AsyncIterator[Any]) -> Any:
    """The next message, or TimeoutError."""
    async with asyncio.timeout(LIMIT_S):
        return await anext(stream)


async def names_in(client: Client) -> list[str]:
    async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
        return [user.name for user in (await following(stream)).snapshot.users]


async def test_joining_gives_a_token_and_the_services(client: Client, lobby: Running, clock: FakeClock) -> None:
    registered = await client.call("RegisterService", service=client.service())
    joined = await client.call("Join", user_name=" Ada ")
    assert joined.session_id == "default"
    assert joined.user.name == "Ada"
    assert joined.token_expires_in_s == 3600
    assert joined.user_lease_s == 30
    assert joined.revision == 2
    assert list(joined.services) == [client.service()]
    verifier = TokenVerifier("default", clock)
    verifier.trust((key.key_id, key.key) for key in registered.public_keys)
    assert verifier.verify(joined.token) == Identity(joined.user.id, "Ada", "default", "participant", clock() + 3600)
    assert verifier.verify(registered.token).role == "service"


async def test_listing(client: Client) -> None:
    for name, load in (("b", 5.0), ("a", 9.0)):
        await client.call("RegisterService", service=client.service(id=name, occupancy=load))
    await client.call("RegisterService", service=client.service(id="t", kind="trajectory"))
    await client.call("Join", user_name="Ada")
    (session,) = (await client.call("ListSessions")).sessions
    assert (session.id, session.user_count, session.service_count) == ("default", 1, 3)
    listed = await client.call("ListServices")
    assert [service.id for service in listed.services] == ["b", "a", "t"]
    assert listed.revision == 4
    assert [service.id for service in (await client.call("ListServices", kind="trajectory")).services] == ["t"]
    with pytest.raises(errors.NotFoundError, match="'other'"):
        await client.call("ListServices", session_id="other")


async def test_a_watch_starts_with_a_snapshot_and_follows(client: Client, lobby: Running) -> None:
    first = await client.call("RegisterService", service=client.service())
    async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
        start = await following(stream)
        name, snapshot = client.event(start)
        assert (name, start.revision, len(snapshot.services), len(snapshot.users)) == ("snapshot", 1, 1, 0)
        joined = await client.call("Join", user_name="Ada")
        await client.call(
            "RenewLease", lease_id=first.lease_id, status=UNHEALTHY, occupancy=2.0, metadata={"reason": "x"}
        )
        await client.call("RenewLease", lease_id=first.lease_id, occupancy=2.0)  # says nothing new
        await client.call("DeregisterService", lease_id=first.lease_id)
        await client.call("DeregisterService", lease_id=first.lease_id)
        await client.call("Leave", joined.token)
        await client.call("Leave", joined.token)
        messages = [await following(stream) for _ in range(4)]
    changed = client.service(status=UNHEALTHY, occupancy=2.0, metadata={"reason": "x"})
    assert [client.event(each) for each in messages] == [
        ("user_joined", joined.user),
        ("service_changed", changed),
        ("service_removed", changed),
        ("user_left", joined.user),
    ]
    assert [each.revision for each in messages] == [2, 3, 4, 5]
    assert {each.epoch for each in messages} == {start.epoch}


async def test_a_watch_resumes_without_a_gap(client: Client) -> None:
    async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
        start = await following(stream)
    for name in "abc":
        await client.call("Join", user_name=name)
    resumed = client.watch(epoch=start.epoch, after_revision=start.revision + 1)
    async with contextlib.aclosing(resumed) as stream:  # type: ignore[type-var]
        await client.call("Join", user_name="d")
        messages = [await following(stream) for _ in range(3)]
    assert [(each.revision, each.user_joined.name) for each in messages] == [(2, "b"), (3, "c"), (4, "d")]


async def test_what_cannot_be_resumed_is_out_of_range(start: Start, stack: str) -> None:
    async with start(history_events=2) as lobby, connected(stack, lobby.port) as client:
        async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
            epoch = (await following(stream)).epoch
        for name in "abc":
            await client.call("Join", user_name=name)
        for wrong in ({"epoch": "old", "after_revision": 2}, {"epoch": epoch}, {"epoch": epoch, "after_revision": 9}):
            with pytest.raises(errors.NoLongerKeptError, match="watch again without it"):
                await following(client.watch(**wrong))
        with pytest.raises(errors.InvalidArgumentError, match="epoch"):
            await following(client.watch(after_revision=2))


async def test_a_restarted_lobby_has_another_epoch(start: Start, stack: str) -> None:
    async with start() as lobby, connected(stack, lobby.port) as client:
        await client.call("Join", user_name="Ada")
        stream = client.watch()
        before = await following(stream)
        ended = asyncio.ensure_future(following(stream))
        await asyncio.sleep(0)
        await lobby.app.drain()
        with pytest.raises(errors.UnavailableError, match="stopping"):
            await ended
    async with start() as lobby, connected(stack, lobby.port) as client:
        with pytest.raises(errors.NoLongerKeptError, match="epoch"):
            await following(client.watch(epoch=before.epoch, after_revision=before.revision))


async def test_presence_follows_the_watch(client: Client, lobby: Running) -> None:
    joined = await client.call("Join", user_name="Ada")
    stream = client.watch(joined.token)
    await following(stream)
    lobby.later(1000)
    assert await names_in(client) == ["Ada"]
    await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(LIMIT_S):
        while lobby.app.lobby.session("").events.watcher_count:  # the socket's end is no event of ours
            await asyncio.sleep(0.01)
    lobby.later(1.9)
    assert await names_in(client) == ["Ada"]
    lobby.later(0.1)
    assert await names_in(client) == []
    with pytest.raises(errors.NotFoundError, match="join again"):
        await following(client.watch(joined.token))


async def test_a_user_who_does_not_watch_leaves_with_the_lease(client: Client, lobby: Running) -> None:
    joined = await client.call("Join", user_name="Ada")
    lobby.later(29)
    renewed = await client.call("RenewToken", joined.token)
    assert renewed.token_expires_in_s == 3600
    lobby.later(29)
    assert await names_in(client) == ["Ada"]
    lobby.later(1)
    assert await names_in(client) == []
    with pytest.raises(errors.NotFoundError):
        await client.call("RenewToken", joined.token)


async def test_a_lease_lapses(client: Client, lobby: Running) -> None:
    lease = await client.call("RegisterService", service=client.service())
    lobby.later(2.9)
    assert (await client.call("RenewLease", lease_id=lease.lease_id)).lease_ttl_s == 3
    lobby.later(3)
    assert list((await client.call("ListServices")).services) == []
    with pytest.raises(errors.NotFoundError, match="register again"):
        await client.call("RenewLease", lease_id=lease.lease_id)


async def test_registering_an_id_again_ends_the_older_lease(client: Client) -> None:
    older = await client.call("RegisterService", service=client.service())
    newer = await client.call("RegisterService", service=client.service())
    assert older.service_id == newer.service_id
    with pytest.raises(errors.NotFoundError):
        await client.call("RenewLease", lease_id=older.lease_id)
    await client.call("RenewLease", lease_id=newer.lease_id)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("service.id", {"id": "../x"}),
        ("service.kind", {"kind": ""}),
        ("service.kind", {"kind": "No"}),
        ("service.status", {"status": 77}),
        ("service.endpoints", {"endpoints": []}),
        ("service.endpoints[0].protocol", {"endpoints": [{"protocol": "", "host": "a", "port": 1}]}),
        ("service.endpoints[0].host", {"endpoints": [{"protocol": "grpc", "host": "a b", "port": 1}]}),
        ("service.endpoints[0].port", {"endpoints": [{"protocol": "grpc", "host": "a", "port": 0}]}),
        ("service.endpoints[0].port", {"endpoints": [{"protocol": "grpc", "host": "a", "port": 70000}]}),
        ("service.capacity", {"capacity": 4_000_000_000}),
        ("service.occupancy", {"occupancy": math.nan}),
        ("service.occupancy", {"occupancy": -math.inf}),
        ("service.metadata", {"metadata": {"a": "b" * 10_000}}),
        ("service.metadata", {"metadata": {str(number): "" for number in range(100)}}),
    ],
)
async def test_bad_services_are_refused_by_field(client: Client, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgumentError) as refusal:
        await client.call("RegisterService", service=client.service(**change))
    assert str(refusal.value).startswith(f"{field} is ")
    assert list((await client.call("ListServices")).services) == []


async def test_other_bad_input(client: Client) -> None:
    lease = await client.call("RegisterService", service=client.service())
    for name in ("", " ", "x" * 65, "a\tb"):
        with pytest.raises(errors.InvalidArgumentError, match="user_name"):
            await client.call("Join", user_name=name)
    for method, fields in (("Join", {"user_name": "Ada"}), ("RegisterService", {"service": client.service()})):
        with pytest.raises(errors.NotFoundError, match="session"):
            await client.call(method, session_id="elsewhere", **fields)
    with pytest.raises(errors.NotFoundError, match="session"):
        await following(client.watch(session_id="elsewhere"))
    with pytest.raises(errors.InvalidArgumentError, match="status"):
        await client.call("RenewLease", lease_id=lease.lease_id, status=99)
    with pytest.raises(errors.InvalidArgumentError, match="occupancy"):
        await client.call("RenewLease", lease_id=lease.lease_id, occupancy=math.inf)
    with pytest.raises(errors.NotFoundError, match="lease"):
        await client.call("RenewLease", lease_id="no such lease")
    for method in ("Leave", "RenewToken"):
        with pytest.raises(errors.UnauthenticatedError, match="Bearer"):
            await client.call(method)


async def test_bad_tokens_are_refused_everywhere(client: Client, lobby: Running, clock: FakeClock) -> None:
    joined = await client.call("Join", user_name="Ada")
    signer = lobby.app.lobby.signer
    ada = Identity(joined.user.id, "Ada", "default", "participant", clock() + 60)
    expired = signer.sign(Identity(ada.user_id, "Ada", "default", "participant", clock()))
    elsewhere = signer.sign(Identity(ada.user_id, "Ada", "other", "participant", clock() + 60))
    forged = TokenSigner.generate(clock).sign(ada)
    for token in (expired, forged, "garbage", "a.b.c", joined.token[:-4]):
        for method in ("ListServices", "ListSessions", "Leave", "RenewToken"):
            with pytest.raises(errors.UnauthenticatedError):
                await client.call(method, token)
        with pytest.raises(errors.UnauthenticatedError):
            await following(client.watch(token))
    with pytest.raises(errors.UnauthenticatedError, match="'other'"):
        await client.call("ListServices", elsewhere)
    with pytest.raises(errors.UnauthenticatedError, match="'other'"):
        await following(client.watch(elsewhere))
    assert await names_in(client) == ["Ada"]


async def test_a_closed_lobby_wants_codes_and_tokens(start: Start, stack: str) -> None:
    settings = {"open_access": False, "join_code": "sesame", "service_key": "key"}
    async with start(**settings) as lobby, connected(stack, lobby.port) as client:
        for code in ("", "Sesame"):
            with pytest.raises(errors.PermissionDeniedError, match="join_code"):
                await client.call("Join", user_name="Ada", join_code=code)
            with pytest.raises(errors.PermissionDeniedError, match="service_key"):
                await client.call("RegisterService", service=client.service(), service_key=code)
        for method in ("ListSessions", "ListServices"):
            with pytest.raises(errors.UnauthenticatedError, match="closed"):
                await client.call(method)
        with pytest.raises(errors.UnauthenticatedError, match="closed"):
            await following(client.watch())
        lease = await client.call("RegisterService", service=client.service(), service_key="key")
        await client.call("RenewLease", lease_id=lease.lease_id)
        joined = await client.call("Join", user_name="Ada", join_code="sesame")
        for token in (joined.token, lease.token):
            assert len((await client.call("ListServices", token)).services) == 1
            async with contextlib.aclosing(client.watch(token)) as stream:  # type: ignore[type-var]
                await following(stream)
        await client.call("DeregisterService", lease_id=lease.lease_id)


async def test_a_closed_lobby_without_codes_says_what_to_set(start: Start, stack: str) -> None:
    async with start(open_access=False) as lobby, connected(stack, lobby.port) as client:
        with pytest.raises(errors.PermissionDeniedError, match="NARUPA_LOBBY_JOIN_CODE"):
            await client.call("Join", user_name="Ada")


async def test_a_full_session(start: Start, stack: str) -> None:
    async with start(max_users=1, max_services=1, max_watchers=1) as lobby, connected(stack, lobby.port) as client:
        await client.call("Join", user_name="Ada")
        with pytest.raises(errors.QuotaError, match="full"):
            await client.call("Join", user_name="Grace")
        await client.call("RegisterService", service=client.service())
        with pytest.raises(errors.QuotaError):
            await client.call("RegisterService", service=client.service(id="imd-2"))
        async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
            await following(stream)
            with pytest.raises(errors.QuotaError):
                await following(client.watch())
