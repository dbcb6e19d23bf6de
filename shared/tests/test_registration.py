"""A service's registration against a lobby that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
import structlog.testing

from narupa_shared.auth import Identity, TokenSigner, TokenVerifier
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import Bound
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import ServiceStatus

Result = TypeVar("Result")

HERE = Bound("127.0.0.1", 38812)
SIGNER = TokenSigner.generate()


class FakeLobby(lobby_pb2_grpc.LobbyServiceServicer):
    """Remembers what services say, and fails when told to.

    Attributes:
        registered: What RegisterService was asked for, in order.
        renewed: What RenewLease was asked for, in order.
        leases: Leases that are alive.
        others: Services that a watch finds at its start.
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
            token="token-1",
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        if request.lease_id not in self.leases:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such lease")
        self.renewed.append(request)
        self._something.set()
        key_id, key = SIGNER.public_key
        return pb.RenewLeaseResponse(
            lease_ttl_s=self.lease_ttl_s, public_keys=[pb.PublicKey(key_id=key_id, key=key)], token="token-2"
        )

    async def DeregisterService(
        self, request: pb.DeregisterServiceRequest, context: Any
    ) -> pb.DeregisterServiceResponse:
        self.leases.pop(request.lease_id, None)
        return pb.DeregisterServiceResponse()

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Any
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        yield pb.WatchSessionResponse(epoch="e", revision=1, snapshot=pb.SessionSnapshot(services=self.others))
        while True:
            yield await self.events.get()


@pytest.fixture
async def lobby() -> AsyncIterator[FakeLobby]:
    lobby = FakeLobby()
    yield lobby
    await lobby.stop()


def config(port: int, **settings: Any) -> ServiceConfig:
    return ServiceConfig(lobby=f"127.0.0.1:{port}", **settings)


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
