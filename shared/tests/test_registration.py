"""A service's registration against a lobby that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
import structlog.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from narupa_shared.auth import Identity, TokenSigner, TokenVerifier
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import Bound
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import LobbyServiceStub, ServiceStatus, WatchSessionResponse
from narupa_shared.testing.clock import FakeClock

Result = TypeVar("Result")

HERE = Bound("127.0.0.1", 38812)
SIGNER = TokenSigner.generate()


class FakeLobby(lobby_pb2_grpc.LobbyServiceServicer):
    """Remembers what services say, and fails when told to.

    Attributes:
        registered: What RegisterService was asked for, in order.
        renewed: What RenewLease was asked for, in order.
        leases: Leases that are alive.
        others: Services that a watch finds at its start, besides what else is in `snapshot`.
        watched: What WatchSession was asked for, in order.
        drain: Whether services are told to drain when they renew.
        tokens: What a service is given when it registers, and when it renews.
        refusal: Status and message with which every registration ends; None takes them.
    """

    def __init__(self, lease_ttl_s: float = 0.3) -> None:
        self.lease_ttl_s = lease_ttl_s
        self.registered: list[pb.RegisterServiceRequest] = []
        self.renewed: list[pb.RenewLeaseRequest] = []
        self.leases: dict[str, str] = {}
        self.others: list[pb.Service] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.events: asyncio.Queue[pb.WatchSessionResponse] = asyncio.Queue()
        self.watched: list[pb.WatchSessionRequest] = []
        self.snapshot = pb.SessionSnapshot()
        self.drain = False
        self.tokens = ("token-1", "token-2")
        self._something = asyncio.Event()
        self._server: Any = None

    async def start(self, port: int = 0) -> int:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        lobby_pb2_grpc.add_LobbyServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(None)

    async def until(self, condition: Callable[[], bool], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await self._something.wait()
                self._something.clear()

    async def RegisterService(self, request: pb.RegisterServiceRequest, context: Any) -> pb.RegisterServiceResponse:
        self.registered.append(request)
        self._something.set()
        if self.refusal is not None:
            await context.abort(*self.refusal)
        lease_id = f"lease-{len(self.registered)}"
        self.leases[lease_id] = request.service.id
        key_id, key = SIGNER.public_key
        return pb.RegisterServiceResponse(
            service_id=request.service.id,
            lease_id=lease_id,
            lease_ttl_s=self.lease_ttl_s,
            public_keys=[pb.PublicKey(key_id=key_id, key=key)],
            token=self.tokens[0],
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        if request.lease_id not in self.leases:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such lease")
        self.renewed.append(request)
        self._something.set()
        key_id, key = SIGNER.public_key
        return pb.RenewLeaseResponse(
            lease_ttl_s=self.lease_ttl_s,
            public_keys=[pb.PublicKey(key_id=key_id, key=key)],
            token=self.tokens[1],
            drain=self.drain,
        )

    async def DeregisterService(
        self, request: pb.DeregisterServiceRequest, context: Any
    ) -> pb.DeregisterServiceResponse:
        self.leases.pop(request.lease_id, None)
        return pb.DeregisterServiceResponse()

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Any
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        self.watched.append(request)
        self._something.set()
        if not request.epoch:
            snapshot = pb.SessionSnapshot(services=self.others)
            snapshot.MergeFrom(self.snapshot)
            yield pb.WatchSessionResponse(epoch="e", revision=1, snapshot=snapshot)
        elif request.epoch != "e":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "the epoch is over")
        while True:
            yield await self.events.get()


@pytest.fixture
async def lobby() -> AsyncIterator[FakeLobby]:
    lobby = FakeLobby()
    yield lobby
    await lobby.stop()


def config(*ports: int, **settings: Any) -> ServiceConfig:
    return ServiceConfig(lobby=",".join(f"127.0.0.1:{port}" for port in ports), **settings)


class Told(TokenVerifier):
    """A verifier that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("default")
        self.revoked: list[tuple[str, int]] = []
        self.sessions_revoked = 0
        self.present: Collection[str] | None = None
        self.vouched = 0

    def revoke(self, user_id: str, generation: int) -> None:
        self.revoked.append((user_id, generation))

    def revoke_session(self, session_id: str | None = None) -> None:
        self.sessions_revoked += 1

    def vouch(self, user_ids: Collection[str] | None) -> None:
        self.present = user_ids
        self.vouched += 1


async def within(waiting: Awaitable[Result], seconds: float = 5.0) -> Result:
    async with asyncio.timeout(seconds):
        return await waiting


async def test_a_service_registers_renews_and_deregisters(lobby: FakeLobby) -> None:
    port = await lobby.start()
    verifier = TokenVerifier("default")
    registration = LobbyRegistration(
        config(port, service_key="key"), "imd", HERE, verifier, lambda: 2.0, lambda: {"source": "x"}, capacity=9
    )
    async with registration:
        await lobby.until(lambda: len(lobby.renewed) >= 2)
        assert registration.registered
        assert registration.token == "token-2"
    (request,) = lobby.registered
    assert request.service_key == "key"
    assert request.service == pb.Service(
        id=registration.service_id,
        kind="imd",
        status=pb.SERVICE_STATUS_RUNNING,
        endpoints=[pb.Endpoint(protocol="grpc", host="127.0.0.1", port=38812)],
        capacity=9,
        occupancy=2.0,
        metadata={"source": "x"},
    )
    identity = Identity("u", "n", "default", "viewer", 1e12)
    assert verifier.verify(SIGNER.sign(identity)) == identity
    assert lobby.leases == {}


async def test_a_service_that_nobody_shows_a_token_remembers_who_left_as_long_as_its_own_lives(
    lobby: FakeLobby,
) -> None:
    clock = FakeClock()
    signer = TokenSigner(SIGNER._private_key, SIGNER.public_key[0], clock)
    lobby.tokens = (signer.sign(Identity("imd-1", "imd", "default", "service", clock() + 600)), "")
    port = await lobby.start()
    verifier = TokenVerifier("default", clock)
    async with LobbyRegistration(config(port), "imd", HERE, verifier):
        await lobby.until(lambda: bool(lobby.renewed))
    verifier.revoke("ada", 0)
    clock.advance(600)
    verifier.revoke("bob", 0)
    assert set(verifier._revoked) == {"ada", "bob"}
    clock.advance(120)
    verifier.revoke("eve", 0)
    assert set(verifier._revoked) == {"bob", "eve"}


async def test_what_is_advertised_replaces_the_listening_address(lobby: FakeLobby) -> None:
    port = await lobby.start()
    advertise = ("imd.example:443", "[::1]:38812")
    async with LobbyRegistration(config(port, advertise=advertise), "imd", HERE):
        await lobby.until(lambda: bool(lobby.registered))
    endpoints = lobby.registered[0].service.endpoints
    assert [(each.host, each.port) for each in endpoints] == [("imd.example", 443), ("::1", 38812)]


async def test_a_wildcard_address_is_not_advertised(lobby: FakeLobby) -> None:
    port = await lobby.start()
    async with LobbyRegistration(config(port), "imd", Bound("0.0.0.0", 38812)):
        await lobby.until(lambda: bool(lobby.registered))
    assert lobby.registered[0].service.endpoints[0].host == "127.0.0.1"


async def test_news_is_reported_at_once(lobby: FakeLobby) -> None:
    lobby.lease_ttl_s = 600
    port = await lobby.start()
    status = ServiceStatus.RUNNING
    async with LobbyRegistration(config(port), "imd", HERE, status=lambda: status) as registration:
        await lobby.until(lambda: bool(lobby.registered))
        status = ServiceStatus.UNHEALTHY
        registration.report_now()
        await lobby.until(lambda: bool(lobby.renewed))
        assert lobby.renewed[0].status == pb.SERVICE_STATUS_UNHEALTHY


async def test_a_lobby_that_comes_late_and_restarts_needs_no_attention(
    lobby: FakeLobby, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with structlog.testing.capture_logs() as logs:
        async with LobbyRegistration(config(port), "imd", HERE) as registration:
            await asyncio.sleep(0.3)  # several attempts fail meanwhile
            assert await lobby.start(port) == port
            await lobby.until(lambda: bool(lobby.renewed))
            await lobby.stop()
            lobby.leases.clear()
            async with asyncio.timeout(5):
                while registration.registered:  # the flag has no event of its own
                    await asyncio.sleep(0.01)
            renewed = len(lobby.renewed)
            await lobby.start(port)
            await lobby.until(lambda: len(lobby.renewed) > renewed)
    assert {request.service.id for request in lobby.registered} == {registration.service_id}
    events = [entry["event"] for entry in logs if entry["event"].startswith(("lobby", "registered"))]
    assert events == ["lobby_not_there_yet", "registered", "lobby_lost", "registered"]


async def test_a_lapsed_lease_is_taken_anew(lobby: FakeLobby) -> None:
    port = await lobby.start()
    async with LobbyRegistration(config(port), "imd", HERE):
        await lobby.until(lambda: bool(lobby.renewed))
        lobby.leases.clear()
        await lobby.until(lambda: len(lobby.registered) == 2)


async def test_a_refusal_is_logged_once_and_tried_again(lobby: FakeLobby) -> None:
    lobby.refusal = (grpc.StatusCode.PERMISSION_DENIED, "service_key is wrong")
    port = await lobby.start()
    with structlog.testing.capture_logs() as logs:
        async with LobbyRegistration(config(port), "imd", HERE) as registration:
            await lobby.until(lambda: len(lobby.registered) >= 3)
            assert registration.token is None
            lobby.refusal = None
            await lobby.until(lambda: bool(lobby.leases))
    refusals = [entry for entry in logs if entry["event"] == "lobby_refuses"]
    assert [entry["reason"] for entry in refusals] == ["service_key is wrong"]


async def test_other_services_are_found_and_followed(lobby: FakeLobby) -> None:
    busy = pb.Service(id="t-1", kind="trajectory", status=pb.SERVICE_STATUS_RUNNING, capacity=10, occupancy=9)
    idle = pb.Service(id="t-2", kind="trajectory", status=pb.SERVICE_STATUS_RUNNING, capacity=10, occupancy=1)
    lobby.others = [busy]
    port = await lobby.start()
    async with LobbyRegistration(config(port), "imd", HERE) as registration:
        assert registration.find("trajectory") == []
        assert (await within(registration.wait_for("trajectory"))).id == "t-1"
        lobby.events.put_nowait(pb.WatchSessionResponse(epoch="e", revision=2, service_changed=idle))
        await within(registration.changed())
        assert [service.id for service in registration.find("trajectory")] == ["t-2", "t-1"]
        assert registration.find("gateway") == []
        lobby.events.put_nowait(pb.WatchSessionResponse(epoch="e", revision=3, service_removed=busy))
        await within(registration.changed())
        assert [service.id for service in registration.find("trajectory")] == ["t-2"]


async def test_something_else_on_the_lobbys_port_hurts_nobody(garbage: tuple[bytes, ...]) -> None:
    answers = iter([*garbage, *garbage])
    attempts = 0
    enough = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == len(garbage):
            enough.set()
        writer.write(next(answers, b""))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, LobbyRegistration(config(server.sockets[0].getsockname()[1]), "imd", HERE) as registration:
        await within(enough.wait(), 30)
        assert not registration.registered


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """For what has no event of its own."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_service_keeps_the_id_it_was_given(lobby: FakeLobby) -> None:
    port = await lobby.start()
    async with LobbyRegistration(config(port, service_id="peptide-0badcafe"), "trajectory", HERE):
        await lobby.until(lambda: bool(lobby.registered))
    assert lobby.registered[0].service.id == "peptide-0badcafe"


async def test_a_service_with_a_certificate_is_found_under_tls(lobby: FakeLobby, tmp_path: Path) -> None:
    port = await lobby.start()
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem", "lobby_tls": False}
    async with LobbyRegistration(config(port, **files), "imd", HERE):
        await lobby.until(lambda: bool(lobby.registered))
    assert lobby.registered[0].service.endpoints[0].protocol == "grpcs"


async def test_why_and_how_far_is_told_from_the_start(lobby: FakeLobby) -> None:
    port = await lobby.start()
    reason, progress = "loading", 0.25
    async with LobbyRegistration(
        config(port),
        "imd",
        HERE,
        status=lambda: ServiceStatus.STARTING,
        reason=lambda: reason,
        progress=lambda: progress,
    ):
        await lobby.until(lambda: bool(lobby.renewed))
        service, renewal = lobby.registered[0].service, lobby.renewed[0]
        assert (service.status, service.reason, service.progress) == (pb.SERVICE_STATUS_STARTING, "loading", 0.25)
        assert (renewal.status, renewal.reason, renewal.progress) == (pb.SERVICE_STATUS_STARTING, "loading", 0.25)
        reason = "x" * 1000
        await lobby.until(lambda: len(lobby.renewed[-1].reason) == 200)


async def test_a_service_hears_that_it_must_drain(lobby: FakeLobby) -> None:
    lobby.lease_ttl_s = 600
    port = await lobby.start()
    async with LobbyRegistration(config(port), "imd", HERE) as registration:
        await lobby.until(lambda: bool(lobby.watched))
        assert not registration.drain_asked.is_set()
        lobby.drain = True
        itself = pb.Service(id=registration.service_id, kind="imd", status=pb.SERVICE_STATUS_DRAINING)
        lobby.events.put_nowait(pb.WatchSessionResponse(epoch="e", revision=2, service_changed=itself))
        await within(registration.drain_asked.wait())


async def test_others_of_its_kind_that_run_are_known(lobby: FakeLobby) -> None:
    running, starting, draining = pb.SERVICE_STATUS_RUNNING, pb.SERVICE_STATUS_STARTING, pb.SERVICE_STATUS_DRAINING
    lobby.others = [
        pb.Service(id="self", kind="imd", status=running),
        pb.Service(id="other", kind="imd", status=running),
        pb.Service(id="starts", kind="imd", status=starting),
        pb.Service(id="drains", kind="imd", status=draining),
        pb.Service(id="else", kind="trajectory", status=running),
    ]
    port = await lobby.start()
    async with LobbyRegistration(config(port, service_id="self"), "imd", HERE) as registration:
        await within(registration.changed())
        assert [service.id for service in registration.others_running()] == ["other"]


async def test_a_lobby_that_is_not_there_is_passed_over(lobby: FakeLobby, free_port: Callable[[], int]) -> None:
    port = await lobby.start()
    async with LobbyRegistration(config(free_port(), free_port(), port), "imd", HERE) as registration:
        await lobby.until(lambda: bool(lobby.renewed), within_s=1.0)
        assert registration.lobby == f"127.0.0.1:{port}"
    assert lobby.leases == {}


async def test_the_lease_and_the_watch_go_on_at_the_next_lobby(lobby: FakeLobby) -> None:
    other = FakeLobby()
    other.leases = lobby.leases  # one store
    first, second = await lobby.start(), await other.start()
    verifier = Told()
    try:
        with structlog.testing.capture_logs() as logs:
            async with LobbyRegistration(config(first, second), "imd", HERE, verifier) as registration:
                await lobby.until(lambda: bool(lobby.renewed and lobby.watched))
                user = pb.User(id="u-1")
                lobby.events.put_nowait(pb.WatchSessionResponse(epoch="e", revision=7, user_joined=user))
                await eventually(lambda: "u-1" in (verifier.present or ()))
                await lobby.stop()
                await other.until(lambda: len(other.renewed) >= 2)
                assert registration.registered
                await eventually(lambda: verifier.vouched == 3)  # there, out of contact, there again
                assert verifier.present == {"u-1"}
        assert [(request.epoch, request.after_revision) for request in other.watched] == [("e", 7)]
        assert len(lobby.registered) == 1 and other.registered == [] and other.leases == {}
        events = [entry["event"] for entry in logs if entry["event"].startswith(("lobby", "registered"))]
        assert events == ["registered", "lobby_lost", "lobby_found_again"]
    finally:
        await other.stop()


async def test_a_watch_that_cannot_be_resumed_begins_anew(lobby: FakeLobby, free_port: Callable[[], int]) -> None:
    port = free_port()
    await lobby.start(port)
    async with LobbyRegistration(config(port), "imd", HERE) as registration:
        await within(registration.changed())
        lobby.events.put_nowait(pb.WatchSessionResponse(epoch="before", revision=9, user_joined=pb.User(id="u")))
        await lobby.until(lambda: len(lobby.renewed) >= 2)
        await lobby.stop()
        lobby.others = [pb.Service(id="t", kind="trajectory", status=pb.SERVICE_STATUS_RUNNING)]
        await lobby.start(port)
        assert (await within(registration.wait_for("trajectory"))).id == "t"
    assert [request.epoch for request in lobby.watched] == ["", "before", ""]
    assert len(lobby.registered) == 1


async def test_the_verifier_hears_who_is_there_and_whose_tokens_are_void(lobby: FakeLobby) -> None:
    anna, bert = pb.User(id="anna"), pb.User(id="bert")
    lobby.others = [pb.Service(id="t", kind="trajectory")]
    lobby.snapshot = pb.SessionSnapshot(users=[anna], revocations=[pb.Revocation(user_id="carl", generation=2)])
    port = await lobby.start()
    verifier = Told()

    def say(revision: int, **event: Any) -> None:
        lobby.events.put_nowait(pb.WatchSessionResponse(epoch="e", revision=revision, **event))

    async with LobbyRegistration(config(port), "imd", HERE, verifier):
        await eventually(lambda: verifier.present == {"anna", "t"})
        assert verifier.revoked == [("carl", 2)]
        say(2, user_joined=bert)
        say(3, user_left=anna, reason="kicked", revocations=[pb.Revocation(user_id="anna", generation=5)])
        say(4, user_changed=bert, revocations=[pb.Revocation(user_id="bert", generation=1)])
        await eventually(lambda: verifier.present == {"bert", "t"} and len(verifier.revoked) == 3)
        assert verifier.revoked[1:] == [("anna", 5), ("bert", 1)]
        assert verifier.vouched == 1
        await lobby.stop()
        await eventually(lambda: verifier.present is None)


async def test_a_session_that_ends_is_said_once_and_asked_for_seldom(lobby: FakeLobby) -> None:
    port = await lobby.start()
    verifier = Told()
    with structlog.testing.capture_logs() as logs:
        async with LobbyRegistration(config(port), "imd", HERE, verifier) as registration:
            await lobby.until(lambda: bool(lobby.watched))
            lobby.refusal = (grpc.StatusCode.NOT_FOUND, "no session has the id 'default'")
            lobby.leases.clear()
            lobby.events.put_nowait(
                pb.WatchSessionResponse(
                    epoch="e", revision=2, session_ended=pb.Session(id="default"), reason="nobody was there"
                )
            )
            await lobby.until(lambda: len(lobby.registered) >= 5, within_s=10.0)
            assert verifier.sessions_revoked == 1 and not registration.registered
            lobby.refusal = None  # made anew
            await lobby.until(lambda: bool(lobby.leases), within_s=10.0)
    events = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert events == ["session_ended"]


async def test_a_session_that_nobody_has_made_is_said_once(lobby: FakeLobby) -> None:
    lobby.refusal = (grpc.StatusCode.NOT_FOUND, "no session has the id 'default'")
    port = await lobby.start()
    with structlog.testing.capture_logs() as logs:
        async with LobbyRegistration(config(port), "imd", HERE):
            await lobby.until(lambda: len(lobby.registered) >= 4)
    warnings = [(entry["event"], entry["reason"]) for entry in logs if entry["log_level"] == "warning"]
    assert warnings == [("session_unknown", "no session has the id 'default'")]


async def test_each_event_is_passed_on_once_it_is_known(lobby: FakeLobby) -> None:
    heard: list[tuple[str, int]] = []

    def hear(event: WatchSessionResponse) -> None:
        heard.append((event.epoch, len(registration.find("imd"))))

    lobby.others.append(pb.Service(id="other", kind="imd"))
    registration = LobbyRegistration(config(await lobby.start()), "gateway", HERE, heard=hear)
    async with registration:
        await within(registration.wait_for("imd"))
        removed = pb.WatchSessionResponse(epoch="e", revision=2, service_removed=pb.Service(id="other"))
        lobby.events.put_nowait(removed)
        while registration.find("imd"):
            await within(registration.changed())
    assert heard == [("e", 1), ("e", 0)]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_goes_on_beside_shares_the_fate_of_its_connection(lobby: FakeLobby, fails: bool) -> None:
    begun: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    over = asyncio.Event()
    running: set[int] = set()

    async def beside(stub: LobbyServiceStub, metadata: dict[str, str]) -> None:
        number = len(running)
        running.add(number)
        begun.put_nowait(metadata)
        try:
            await over.wait()
            over.clear()
            if fails:
                raise GRPCError(Status.UNAVAILABLE)
        finally:
            running.discard(number)

    async with LobbyRegistration(config(await lobby.start()), "gateway", HERE, beside=beside) as registration:
        assert await within(begun.get()) == {"authorization": "Bearer token-1"}
        over.set()
        assert await within(begun.get()) == {"authorization": "Bearer token-2"}  # of the lease that goes on
        assert running == {0} and registration.registered
    assert not running and len(lobby.registered) == 1
