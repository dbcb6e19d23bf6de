"""What lobby.proto promises, held against a running lobby by two independent gRPC stacks."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import betterproto2
import grpc.aio
import pytest
import redis.asyncio
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
from narupa_shared.testing.redis_server import RedisServer

LIMIT_S = 5.0
RUNNING, UNHEALTHY = 3, 4
LEASES = "{narupa:lobby}:leases"  # Redis's sorted set of them, by deadline in us


class Client(Protocol):
    """The lobby's methods, whatever the stack; statuses come back as domain errors."""

    async def call(self, method: str, token: str | None = None, operator: str = "", **fields: Any) -> Any: ...
    def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]: ...
    def service(self, **change: Any) -> Any: ...
    def spec(self, **fields: Any) -> Any: ...
    def event(self, response: Any) -> tuple[str, Any]: ...


SERVICE: dict[str, Any] = {
    "id": "imd-1", "kind": "imd", "status": RUNNING, "capacity": 10, "occupancy": 1.0, "metadata": {"source": "17-ala"},
    "endpoints": [{"protocol": "grpc", "host": "127.0.0.1", "port": 38812}],
}  # fmt: skip


def authorization(token: str | None, operator: str = "") -> dict[str, str]:
    given = {} if token is None else {"authorization": f"Bearer {token}"}
    return given | ({"narupa-operator-key": operator} if operator else {})


class GrpcioClient:
    """grpcio and protobuf's own runtime."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]

    async def call(self, method: str, token: str | None = None, operator: str = "", **fields: Any) -> Any:
        request = getattr(lobby_pb2, f"{method}Request")(**fields)
        try:
            return await getattr(self._stub, method)(
                request, metadata=tuple(authorization(token, operator).items()), timeout=LIMIT_S
            )
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error

    async def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]:
        request = lobby_pb2.WatchSessionRequest(**fields)
        stream = self._stub.WatchSession(request, metadata=tuple(authorization(token).items()))
        try:
            async for response in stream:
                for each in (response, *response.more):
                    yield each
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error
        finally:
            stream.cancel()

    def service(self, **change: Any) -> Any:
        return lobby_pb2.Service(**SERVICE | change)

    def spec(self, **fields: Any) -> Any:
        return lobby_pb2.SessionSpec(**fields)

    def event(self, response: Any) -> tuple[str, Any]:
        name = response.WhichOneof("event")
        return name, getattr(response, name)


class GrpclibClient:
    """grpclib and betterproto2."""

    def __init__(self, channel: Channel) -> None:
        self._stub = sdk.LobbyServiceStub(channel)

    async def call(self, method: str, token: str | None = None, operator: str = "", **fields: Any) -> Any:
        request = getattr(sdk, f"{method}Request")(**fields)
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method).lstrip("_")
        try:
            return await getattr(self._stub, name)(request, metadata=authorization(token, operator), timeout=LIMIT_S)
        except GRPCError as error:
            raise error_of(error.status.value, error.message or "") from error

    async def watch(self, token: str | None = None, **fields: Any) -> AsyncIterator[Any]:
        request = sdk.WatchSessionRequest(**fields)
        try:
            async for response in self._stub.watch_session(request, metadata=authorization(token)):
                for each in (response, *response.more):
                    yield each
        except GRPCError as error:
            raise error_of(error.status.value, error.message or "") from error

    def service(self, **change: Any) -> Any:
        fields = SERVICE | change
        fields["endpoints"] = [sdk.Endpoint(**each) for each in fields["endpoints"]]
        return sdk.Service(**fields | {"status": sdk.ServiceStatus(fields["status"])})

    def spec(self, **fields: Any) -> Any:
        return sdk.SessionSpec(**fields)

    def event(self, response: Any) -> tuple[str, Any]:
        return betterproto2.which_one_of(response, "event")


class Running:
    """A lobby on a real port, whose time only the test moves, but for the moments that pass in Redis while it runs."""

    def __init__(self, app: LobbyApp, port: int, clock: FakeClock, store_url: str) -> None:
        self.app, self.port, self._clock, self._url = app, port, clock, store_url

    async def later(self, seconds: float) -> None:
        lobby = self.app.lobby
        await lobby.sweep()
        async with lobby._upkeep._sweeping:  # it sweeps by itself, too
            self._clock.advance(seconds)
            if self.app.store.shared:
                await self._brought_forward(seconds)
            await lobby._presence.renew_watched()
        await lobby.sweep()

    async def _brought_forward(self, seconds: float) -> None:
        """Leases in Redis, which are judged by its own clock, end so much earlier."""
        async with redis.asyncio.Redis.from_url(self._url, decode_responses=True) as database:
            for lease in await database.zrange(LEASES, 0, -1):
                await database.zincrby(LEASES, -seconds * 1e6, str(lease))


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(scope="module", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, redis_server: RedisServer) -> str:
    """An empty store of each kind."""
    if request.param != "redis":
        return str(request.param)
    with redis.Redis.from_url(redis_server.url) as database:
        database.flushall()
    return redis_server.url


@pytest.fixture
def start(clock: FakeClock, store_url: str, tmp_path: Path) -> Start:
    @contextlib.asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Running]:
        config = LobbyConfig(port=0, drain_grace_s=0.2, store=store_url, state_dir=tmp_path / "state", **settings)
        app = LobbyApp(config, clock, clock)
        async with serving("lobby", config, app) as bound:
            yield Running(app, bound.port, clock, store_url)

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
    assert verifier.verify(joined.token) == Identity(joined.user.id, "Ada", "default", "host", clock() + 3600, 1)
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


async def test_a_restarted_lobby_goes_on_where_its_store_is(start: Start, stack: str, store_url: str) -> None:
    async with start() as lobby, connected(stack, lobby.port) as client:
        joined = await client.call("Join", user_name="Ada")
        stream = client.watch()
        before = await following(stream)
        ended = asyncio.ensure_future(following(stream))
        await asyncio.sleep(0)
        await lobby.app.drain()
        with pytest.raises(errors.UnavailableError, match="stopping"):
            await ended
    async with start() as lobby, connected(stack, lobby.port) as client:
        resumed = client.watch(epoch=before.epoch, after_revision=before.revision)
        if store_url == "memory":
            with pytest.raises(errors.NoLongerKeptError, match="epoch"):
                await following(resumed)
            return
        assert await names_in(client) == ["Ada"]
        await client.call("RenewToken", joined.token)
        await client.call("Leave", joined.token)
        async with contextlib.aclosing(resumed) as stream:  # type: ignore[type-var]
            left = await following(stream)
        assert (left.revision, left.user_left.id, left.reason) == (before.revision + 1, joined.user.id, "left")
        revoked = [(each.user_id, each.generation) for each in left.revocations]
        assert revoked == [(joined.user.id, 1)]


async def test_presence_follows_the_watch(client: Client, lobby: Running) -> None:
    joined = await client.call("Join", user_name="Ada")
    stream = client.watch(joined.token)
    await following(stream)
    await lobby.later(1000)
    assert await names_in(client) == ["Ada"]
    await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(LIMIT_S):
        while lobby.app.lobby.watcher_count("default"):  # the socket's end is no event of ours
            await asyncio.sleep(0.01)
    await lobby.later(1.5)
    assert await names_in(client) == ["Ada"]
    await lobby.later(0.5)
    assert await names_in(client) == []
    with pytest.raises(errors.NotFoundError, match="join again"):
        await following(client.watch(joined.token))


async def test_a_user_who_does_not_watch_leaves_with_the_lease(client: Client, lobby: Running) -> None:
    joined = await client.call("Join", user_name="Ada")
    await lobby.later(28)
    renewed = await client.call("RenewToken", joined.token)
    assert renewed.token_expires_in_s == 3600
    await lobby.later(28)
    assert await names_in(client) == ["Ada"]
    await lobby.later(2)
    assert await names_in(client) == []
    with pytest.raises(errors.NotFoundError):
        await client.call("RenewToken", joined.token)


async def test_a_lease_lapses(client: Client, lobby: Running) -> None:
    lease = await client.call("RegisterService", service=client.service())
    await lobby.later(2)
    assert (await client.call("RenewLease", lease_id=lease.lease_id)).lease_ttl_s == 3
    await lobby.later(3)
    assert list((await client.call("ListServices")).services) == []
    with pytest.raises(errors.NotFoundError, match="register again"):
        await client.call("RenewLease", lease_id=lease.lease_id)


async def test_one_of_a_group_leads_until_its_lease_lapses_or_it_resigns(client: Client, lobby: Running) -> None:
    first, second = [
        (await client.call("RegisterService", service=client.service(id=id, kind="trajectory", group="g"))).lease_id
        for id in ("a", "b")
    ]
    chosen = await client.call("Lead", lease_id=first)
    assert (chosen.epoch, chosen.lease_ttl_s, chosen.standbys, chosen.leader_id) == (1, 1.5, 1, "a")
    refused = await client.call("Lead", lease_id=second, seen_epoch=1)
    assert (refused.epoch, refused.leader_id, refused.leader_epoch) == (0, "a", 1)
    assert (await client.call("Lead", lease_id=first, seen_epoch=1)).epoch == 1
    await lobby.later(2)
    assert (await client.call("Lead", lease_id=second, seen_epoch=1)).epoch == 2
    assert (await client.call("Lead", lease_id=first, seen_epoch=1)).epoch == 0
    await client.call("Lead", lease_id=second, resign=True)
    assert (await client.call("Lead", lease_id=first, seen_epoch=2)).epoch == 3
    listed = await client.call("ListServices", kind="trajectory")
    assert {each.id: each.epoch for each in listed.services} == {"a": 3, "b": 0}
    alone = await client.call("RegisterService", service=client.service())
    with pytest.raises(errors.FailedPreconditionError):
        await client.call("Lead", lease_id=alone.lease_id)
    with pytest.raises(errors.NotFoundError):
        await client.call("Lead", lease_id="unknown")


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
    signer = lobby.app.lobby.tokens.ring.signer
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
        for code in ("", "open sesame"):
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


OPERATOR = "operator-key-of-this-test"


async def test_sessions_are_made_listed_and_ended(client: Client) -> None:
    spec = client.spec(name="Course", join_role=1, max_users=2, idle_timeout_s=60.0, password="correct horse")
    made = await client.call("CreateSession", spec=spec, host_name="Ada", request_id="r")
    again = await client.call("CreateSession", spec=spec, host_name="Ada", request_id="r")
    session = made.session
    assert (again.session.id, again.host.user.id) == (session.id, made.host.user.id)
    assert (session.name, session.max_users, session.idle_timeout_s, session.has_password) == ("Course", 2, 60, True)
    assert list(session.hosts) == [made.host.user.id]
    assert {each.id for each in (await client.call("ListSessions")).sessions} == {"default", session.id}
    grace = await client.call("Join", session_id=session.id, user_name="Grace", password="correct horse")
    assert grace.user.role == 1
    as_host = await client.call("GetSession", made.host.token)
    as_viewer = await client.call("GetSession", grace.token)
    assert (as_host.join_code, as_viewer.join_code) == (made.join_code, "")
    assert {user.name for user in as_viewer.users} == {"Ada", "Grace"}
    with pytest.raises(errors.QuotaError, match="full"):
        await client.call("Join", session_id=session.id, user_name="Alan", password="correct horse")
    async with contextlib.aclosing(client.watch(grace.token)) as stream:  # type: ignore[type-var]
        await following(stream)
        await client.call("EndSession", made.host.token, session_id=session.id)
        ended = await following(stream)
        assert (client.event(ended)[0], ended.reason) == ("session_ended", "ended by Ada")
        with pytest.raises(StopAsyncIteration):
            await following(stream)
    with pytest.raises(errors.UnauthenticatedError, match="ended"):
        await client.call("ListServices", grace.token)
    with pytest.raises(errors.NotFoundError, match="session"):
        await client.call("GetSession", session_id=session.id)
    with pytest.raises(errors.FailedPreconditionError, match="default"):
        await client.call("EndSession", session_id="default")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("spec.name", {"name": "x" * 65}),
        ("spec.join_role", {"join_role": 4}),
        ("spec.max_users", {"max_users": 1000}),
        ("spec.idle_timeout_s", {"idle_timeout_s": math.nan}),
        ("spec.join_code", {"join_code": "a-b"}),
        ("spec.password", {"password": "short"}),
        ("spec.simulations[0]", {"simulations": ["no such"]}),
        ("spec.guest_role", {"guest_role": 4}),
    ],
)
async def test_bad_specs_are_refused_by_field(client: Client, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgumentError) as refusal:
        await client.call("CreateSession", spec=client.spec(**change))
    assert str(refusal.value).startswith(f"{field} is ")
    assert change.get("password", "\0") not in str(refusal.value)
    assert len((await client.call("ListSessions")).sessions) == 1


async def test_unknown_templates_and_too_many_sessions(start: Start, stack: str) -> None:
    async with start(max_sessions=2) as lobby, connected(stack, lobby.port) as client:
        with pytest.raises(errors.NotFoundError, match="template"):
            await client.call("CreateSession", template="nothing")
        await client.call("CreateSession")
        with pytest.raises(errors.QuotaError, match="2 sessions"):
            await client.call("CreateSession")


async def test_codes_passwords_and_invites_of_a_closed_lobby(start: Start, stack: str) -> None:
    settings = {"open_access": False, "operator_key": OPERATOR}
    async with start(**settings) as lobby, connected(stack, lobby.port) as client:
        with pytest.raises(errors.UnauthenticatedError):
            await client.call("CreateSession")
        made = await client.call("CreateSession", operator=OPERATOR, host_name="Ada")
        code = made.join_code.lower().replace("-", " ")
        grace = await client.call("Join", user_name="Grace", join_code=code)
        assert (grace.session_id, grace.user.role) == (made.session.id, 2)
        with pytest.raises(errors.PermissionDeniedError, match="host"):
            await client.call("CreateInvite", grace.token)
        invited = await client.call("CreateInvite", made.host.token, role=3, uses=1)
        alan = await client.call("Join", user_name="Alan", invite=invited.secret, request_id="a")
        assert (alan.session_id, alan.user.role) == (made.session.id, 3)
        repeated = await client.call("Join", user_name="Alan", invite=invited.secret, request_id="a")
        assert repeated.user == alan.user
        with pytest.raises(errors.PermissionDeniedError, match="used up"):
            await client.call("Join", user_name="Eve", invite=invited.secret)
        assert list((await client.call("ListInvites", made.host.token)).invites) == []
        invited = await client.call("CreateInvite", made.host.token, uses=5)
        await client.call("RevokeInvite", made.host.token, invite_id=invited.invite.id)
        with pytest.raises(errors.PermissionDeniedError, match="revoked"):
            await client.call("Join", user_name="Eve", invite=invited.secret)
        for _ in range(5):
            with pytest.raises(errors.PermissionDeniedError, match="join_code is wrong"):
                await client.call("Join", user_name="Eve", join_code="WRONG-CODE")
        with pytest.raises(errors.QuotaError, match="try again in"):
            await client.call("Join", user_name="Eve", join_code="WRONG-CODE")


async def test_kicking_ends_the_watch_and_bars_the_way_back(client: Client) -> None:
    ada = await client.call("Join", user_name="Ada")
    grace = await client.call("Join", user_name="Grace")
    async with contextlib.aclosing(client.watch(grace.token)) as stream:  # type: ignore[type-var]
        await following(stream)
        await client.call("KickUser", ada.token, user_id=grace.user.id, reason="noise")
        left = await following(stream)
        assert (left.user_left.id, left.reason) == (grace.user.id, "kicked: noise")
        with pytest.raises(errors.PermissionDeniedError, match="kicked: noise"):
            await following(stream)
    with pytest.raises(errors.UnauthenticatedError, match="revoked"):
        await client.call("ListServices", grace.token)
    with pytest.raises(errors.PermissionDeniedError, match="removed"):
        await client.call("Join", user_name="Grace", rejoin_token=grace.token)
    with pytest.raises(errors.NotFoundError, match="user"):
        await client.call("KickUser", ada.token, user_id=grace.user.id)


async def test_roles_change(client: Client) -> None:
    ada = await client.call("Join", user_name="Ada")
    grace = await client.call("Join", user_name="Grace")
    async with contextlib.aclosing(client.watch()) as stream:  # type: ignore[type-var]
        await following(stream)
        changed = await client.call("SetUserRole", ada.token, user_id=grace.user.id, role=1)
        event = await following(stream)
    assert (event.user_changed, changed.user.role) == (changed.user, 1)
    assert [(each.user_id, each.generation) for each in event.revocations] == [(grace.user.id, 1)]
    with pytest.raises(errors.PermissionDeniedError, match="host"):  # the older token says host, the lobby knows better
        await client.call("KickUser", grace.token, user_id=ada.user.id)
    assert (await client.call("RenewToken", grace.token)).role == 1
    with pytest.raises(errors.FailedPreconditionError, match="only host"):
        await client.call("SetUserRole", ada.token, user_id=ada.user.id, role=2)
    for role in (0, 4, 9):
        with pytest.raises(errors.InvalidArgumentError, match="role"):
            await client.call("SetUserRole", ada.token, user_id=grace.user.id, role=role)


async def test_hosts_choose_as_what_guests_come_in(start: Start, stack: str, store_url: str) -> None:
    settings = {"open_access": False, "join_code": "sesame", "service_key": "key", "operator_key": OPERATOR}
    async with start(**settings) as lobby, connected(stack, lobby.port) as client:
        gateway = await client.call("RegisterService", service=client.service(kind="gateway"), service_key="key")
        ada = await client.call("Join", user_name="Ada", join_code="sesame")
        host = (await client.call("Join", operator=OPERATOR, user_name="Grace")).token
        guest = {"guest": True, "client_address": "10.0.0.7"}
        async with contextlib.aclosing(client.watch(ada.token)) as stream:  # type: ignore[type-var]
            session = client.event(await following(stream))[1].session
            assert chosen(session) is None
            with pytest.raises(errors.PermissionDeniedError, match="lobby guests participant"):
                await client.call("Join", gateway.token, user_name="A headset", **guest)
            welcome = await client.call("Join", gateway.token, user_name="A headset", guests_welcome=True, **guest)
            assert (welcome.user.name, welcome.user.role) == ("A headset", 2)
            assert client.event(await following(stream)) == ("user_joined", welcome.user)
            for role in (1, 0, 0, None):
                answer = await client.call("SetGuestRole", host, guest_role=role)
                assert chosen(answer.session) == role
                shown = [(await client.call("GetSession", ada.token)).session]
                shown += (await client.call("ListSessions", ada.token)).sessions
                assert [chosen(each) for each in shown] == [role, role]
                if role == 1:
                    viewer = await client.call("Join", gateway.token, user_name="Another", **guest)
                    assert viewer.user.role == 1
            events = [client.event(await following(stream)) for _ in range(4)]
        names = ["session_changed", "user_joined", "session_changed", "session_changed"]
        assert [name for name, _ in events] == names, "once more the same is no news"
        assert [chosen(told) for name, told in events if name == "session_changed"] == [1, 0, None]
        await client.call("SetGuestRole", operator=OPERATOR, guest_role=0)
        for wish in (guest, guest | {"guests_welcome": True}):
            with pytest.raises(errors.PermissionDeniedError, match="as a guest"):
                await client.call("Join", gateway.token, user_name="A headset", **wish)
        by_code = await client.call("Join", gateway.token, user_name="A headset", join_code="sesame", **guest)
        assert by_code.user.role == 2
        with pytest.raises(errors.PermissionDeniedError, match="host"):
            await client.call("SetGuestRole", by_code.token, guest_role=3)
        with pytest.raises(errors.PermissionDeniedError):
            await client.call("SetGuestRole", gateway.token, guest_role=3)
        with pytest.raises(errors.UnauthenticatedError):
            await client.call("SetGuestRole", guest_role=3)
    if store_url == "memory":
        return
    async with start(**settings) as lobby, connected(stack, lobby.port) as client:
        assert chosen((await client.call("GetSession", operator=OPERATOR)).session) == 0


def chosen(session: Any) -> int | None:
    """The session's role of guests, whatever the stack; None when it is unset."""
    if isinstance(session, sdk.Session):
        return session.guest_role
    return session.guest_role if session.HasField("guest_role") else None


async def test_a_bad_choice_of_a_role_of_guests_is_refused(client: Client) -> None:
    for role in (4, 9, -1):
        with pytest.raises(errors.InvalidArgumentError, match="guest_role"):
            await client.call("SetGuestRole", guest_role=role)
    with pytest.raises(errors.NotFoundError, match="session"):
        await client.call("SetGuestRole", session_id="elsewhere", guest_role=1)
    made = await client.call("CreateSession", spec=client.spec(guest_role=0))
    assert chosen(made.session) == 0
    assert chosen((await client.call("CreateSession", spec=client.spec(guest_role=3))).session) == 3
    assert chosen((await client.call("CreateSession", spec=client.spec())).session) is None


async def test_only_a_gateway_brings_guests_and_says_where_they_call_from(start: Start, stack: str) -> None:
    settings = {"open_access": False, "join_code": "sesame", "service_key": "key"}
    async with start(**settings) as lobby, connected(stack, lobby.port) as client:
        gateway = await client.call("RegisterService", service=client.service(kind="gateway"), service_key="key")
        ada = await client.call("Join", user_name="Ada", join_code="sesame")
        for token in (None, ada.token):
            with pytest.raises(errors.PermissionDeniedError, match="only a gateway"):
                await client.call("Join", token, user_name="Eve", guest=True, guests_welcome=True)
        with pytest.raises(errors.UnauthenticatedError):
            await client.call("Join", gateway.token[:-4], user_name="Eve", guest=True, guests_welcome=True)
        with pytest.raises(errors.InvalidArgumentError, match="client_address"):
            await client.call("Join", gateway.token, user_name="Eve", join_code="sesame", client_address="x" * 65)
        through = {"token": gateway.token, "user_name": "Eve"}
        for _ in range(5):
            with pytest.raises(errors.PermissionDeniedError, match="join_code is wrong"):
                await client.call("Join", **through, join_code="WRONG-CODE", client_address="10.0.0.7")
        with pytest.raises(errors.QuotaError, match="try again in"):
            await client.call("Join", **through, join_code="sesame", client_address="10.0.0.7")
        await client.call("Join", **through, join_code="sesame", client_address="10.0.0.8")
        await client.call("Join", **through, join_code="sesame")
        # Others cannot spend the attempts of an address that is not theirs, nor spare their own by naming one.
        for number in range(5):
            with pytest.raises(errors.PermissionDeniedError, match="join_code is wrong"):
                await client.call("Join", user_name="Eve", join_code="WRONG-CODE", client_address=f"10.0.1.{number}")
        with pytest.raises(errors.QuotaError):
            await client.call("Join", user_name="Eve", join_code="sesame", client_address="10.0.1.9")
        await client.call("Join", **through, join_code="sesame", client_address="10.0.1.1")


async def test_guests_of_an_open_lobby_are_what_everybody_is(client: Client) -> None:
    gateway = await client.call("RegisterService", service=client.service(kind="gateway"))
    with pytest.raises(errors.PermissionDeniedError, match="as a guest"):
        await client.call("Join", gateway.token, user_name="A headset", guest=True)
    guest = await client.call("Join", gateway.token, user_name="A headset", guest=True, guests_welcome=True)
    assert guest.user.role == 3
    await client.call("SetGuestRole", guest.token, guest_role=1)
    again = await client.call("Join", gateway.token, user_name="A headset", guest=True, guests_welcome=True)
    assert again.user.role == 1
    await client.call("SetUserRole", guest.token, user_id=again.user.id, role=2)
    assert (await client.call("RenewToken", again.token)).role == 2
    await client.call("KickUser", guest.token, user_id=again.user.id)
    with pytest.raises(errors.PermissionDeniedError, match="removed"):
        await client.call("Join", gateway.token, user_name="A headset", guest=True, rejoin_token=again.token)


async def test_coming_back_as_the_same(client: Client, lobby: Running) -> None:
    ada = await client.call("Join", user_name="Ada")
    still = await client.call("Join", rejoin_token=ada.token)
    assert (still.user, still.revision) == (ada.user, ada.revision)
    await lobby.later(31)
    assert await names_in(client) == []
    back = await client.call("Join", rejoin_token=ada.token)
    assert back.user == ada.user
    await client.call("Leave", back.token)
    other = await client.call("Join", user_name="Ada", rejoin_token=back.token)
    assert other.user.id != ada.user.id
    assert (await client.call("Join", user_name="Eve", rejoin_token="garbage")).user.name == "Eve"


async def test_a_repeated_join_is_one_join(client: Client) -> None:
    joins = [client.call("Join", user_name="Ada", request_id="same") for _ in range(5)]
    assert len({joined.user.id for joined in await asyncio.gather(*joins)}) == 1
    with pytest.raises(errors.InvalidArgumentError, match="request_id"):
        await client.call("Join", user_name="Eve", request_id="same")
    with pytest.raises(errors.InvalidArgumentError, match="request_id"):
        await client.call("Join", user_name="Eve", request_id="x" * 65)


async def test_joins_at_once_never_exceed_the_limit(start: Start, stack: str) -> None:
    async with start(max_users=3) as lobby, connected(stack, lobby.port) as client:
        tried = (client.call("Join", user_name=f"user {number}") for number in range(20))
        results = await asyncio.gather(*tried, return_exceptions=True)
        assert sum(isinstance(each, errors.QuotaError) for each in results) == 17
        assert len(await names_in(client)) == 3


async def test_draining_a_service(client: Client) -> None:
    lease = await client.call("RegisterService", service=client.service())
    drained = await client.call("DrainService", service_id="imd-1")
    assert drained.service.status == 5
    assert (await client.call("RenewLease", lease_id=lease.lease_id, status=RUNNING, occupancy=1.0)).drain
    assert (await client.call("ListServices")).services[0].status == 5
    with pytest.raises(errors.NotFoundError, match="service"):
        await client.call("DrainService", service_id="other")


async def test_keys_rotate_and_all_tokens_can_be_revoked(client: Client, clock: FakeClock) -> None:
    ada = await client.call("Join", user_name="Ada")
    assert len((await client.call("RotateKeys")).public_keys) == 2
    await client.call("RenewToken", ada.token)
    assert len((await client.call("RotateKeys", revoke=True)).public_keys) == 1
    with pytest.raises(errors.UnauthenticatedError):
        await client.call("ListServices", ada.token)
    assert (await client.call("Join", user_name="Ada")).user.id != ada.user.id


async def test_a_lobby_without_a_catalogue_says_so(client: Client) -> None:
    assert list((await client.call("ListSimulations")).simulations) == []
    with pytest.raises(errors.NotFoundError, match="simulation"):
        await client.call("StartService", simulation="nothing")
    for method in ("StopService", "GetServiceLog"):
        with pytest.raises(errors.NotFoundError, match="service"):
            await client.call(method, service_id="nothing")
    with pytest.raises(errors.InvalidArgumentError, match="lines"):
        await client.call("GetServiceLog", service_id="nothing", lines=1001)
