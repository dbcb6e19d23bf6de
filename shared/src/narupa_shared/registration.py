"""A service's place at the lobby: registered for as long as it runs, whenever the lobby is there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from narupa_shared.auth import TokenVerifier
from narupa_shared.config import ServiceConfig
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.placement import preference
from narupa_shared.sdk.narupa.lobby.v1 import (
    DeregisterServiceRequest,
    Endpoint,
    LobbyServiceStub,
    PublicKey,
    RegisterServiceRequest,
    RenewLeaseRequest,
    Service,
    ServiceStatus,
    WatchSessionRequest,
    WatchSessionResponse,
)

log = structlog.get_logger(__name__)

CALL_LIMIT_S: Final = 2.0
DEREGISTER_LIMIT_S: Final = 1.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 2.0
# The lease is renewed this many times in its life, so that one lost renewal costs nothing.
RENEWALS_PER_LEASE: Final = 3
SHORTEST_BEAT_S: Final = 0.1

# All that a remote call may end with; anything else is a fault of ours and is not hidden.
REMOTE_ERRORS: Final = (GRPCError, ProtocolError, StreamTerminatedError, OSError, TimeoutError, InvalidArgumentError)


class Listening(Protocol):
    """Where a service listens (`narupa_shared.daemon.Bound`)."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class LobbyRegistration:
    """Keeps a service registered at the lobby, its verifier's keys current, and the session's other services at hand.

    An `async with`: entering returns at once, whether or not the lobby is there; leaving deregisters. While it is open
    the service registers with back-off for ever, always with the same id, and renews its lease. A lobby that goes away
    and comes back needs no attention.
    """

    def __init__(
        self,
        config: ServiceConfig,
        kind: str,
        bound: Listening,
        verifier: TokenVerifier | None = None,
        load: Callable[[], float] = lambda: 0.0,
        metadata: Callable[[], dict[str, str]] = dict,
        status: Callable[[], ServiceStatus] = lambda: ServiceStatus.RUNNING,
        capacity: int = 0,
    ) -> None:
        """Nothing is sent until the registration is entered.

        Args:
            config: Says where the lobby is, the session, the service key and what to advertise.
            kind: Kind of service, such as "imd".
            bound: Where the service listens.
            verifier: Trusts the lobby's public keys from the first registration on.
            load: Asked at each renewal for the present number of subscribers.
            metadata: Asked at each renewal for facts for people; an empty one leaves the last in place.
            status: Asked at each renewal.
            capacity: Subscribers that the service takes; 0 means no stated limit.
        """
        self.service_id = f"{kind}-{uuid.uuid4().hex[:12]}"
        self._config = config
        self._kind = kind
        self._bound = bound
        self._verifier = verifier
        self._load = load
        self._metadata = metadata
        self._status = status
        self._capacity = capacity
        self._token: str | None = None
        self._lease_id = ""
        self._services: dict[str, Service] = {}
        self._changed = asyncio.Event()
        self._report = asyncio.Event()
        self._retry_s = FIRST_RETRY_S
        self._complaint = ""
        self._registered = False
        self._registering = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def token(self) -> str | None:
        """The token with which this service calls others; None until the lobby has given one."""
        return self._token

    @property
    def registered(self) -> bool:
        """Whether the lobby answered the last time it was asked."""
        return self._registered

    def report_now(self) -> None:
        """Status, load and metadata reach the lobby at once instead of with the next renewal."""
        self._report.set()

    def find(self, kind: str) -> list[Service]:
        """The session's services of `kind`, the one to try first at the front; while the lobby is away, the last known."""
        found = [service for service in self._services.values() if service.kind == kind]
        return sorted(found, key=lambda each: (*preference(each.status, each.occupancy, each.capacity), each.id))

    async def wait_for(self, kind: str) -> Service:
        """The service of `kind` to try first, as soon as there is one."""
        while not (found := self.find(kind)):
            await self.changed()
        return found[0]

    async def changed(self) -> None:
        """Returns once any service of the session has come, changed or gone."""
        await self._changed.wait()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._keeper = self._tasks.create_task(self._keep_registered(), name=f"registration of {self.service_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        # A registration that is under way would leave a lease whose id nobody knows.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEREGISTER_LIMIT_S):
                await self._registering.acquire()
        self._keeper.cancel()
        try:
            if isinstance(error, asyncio.CancelledError):  # perhaps by the group, whose own failure it then raises
                await self._tasks.__aexit__(kind, error, trace)
            else:  # what was raised within leaves as it is, and not in a group
                await self._tasks.__aexit__(None, None, None)
        finally:
            await self._deregister()

    async def _keep_registered(self) -> None:
        while True:
            # A task for each attempt: grpclib cancels the task in which a call is under way when it loses the connection,
            # and hides a cancellation that comes at that moment. Neither may reach this loop.
            attempt = asyncio.create_task(self._stay_connected(), name=f"connection of {self.service_id} to the lobby")
            try:
                await asyncio.wait({attempt})
            finally:
                attempt.cancel()
                await asyncio.wait({attempt})
                failure = None if attempt.cancelled() else attempt.exception()
            self._note_failure(_remote_error(failure))
            # Jitter keeps the services of a session from coming back in step.
            await asyncio.sleep(self._retry_s * random.uniform(0.5, 1.0))
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)

    async def _stay_connected(self) -> None:
        """Registers, then renews and watches over one connection until either fails; they share its fate."""
        async with self._lobby() as stub:
            async with self._registering:
                lease_ttl_s = await self._register(stub)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew(stub, lease_ttl_s))
                tasks.create_task(self._watch(stub))

    @contextlib.asynccontextmanager
    async def _lobby(self) -> AsyncIterator[LobbyServiceStub]:
        host, _, port = self._config.lobby.rpartition(":")
        channel = Channel(host.strip("[]"), int(port))
        try:
            yield LobbyServiceStub(channel)
        finally:
            channel.close()

    async def _register(self, stub: LobbyServiceStub) -> float:
        key = self._config.service_key
        self._report.clear()
        reply = await stub.register_service(
            RegisterServiceRequest(
                session_id=self._config.session_id,
                service_key=key.get_secret_value() if key else "",
                service=Service(
                    id=self.service_id,
                    kind=self._kind,
                    status=self._status(),
                    endpoints=await self._endpoints(),
                    capacity=self._capacity,
                    occupancy=self._load(),
                    metadata=self._metadata(),
                ),
            ),
            timeout=CALL_LIMIT_S,
        )
        self._lease_id = reply.lease_id
        self._token = reply.token
        self._trust(reply.public_keys)
        log.info("registered", lobby=self._config.lobby, service=self.service_id, lease_ttl_s=reply.lease_ttl_s)
        self._registered = True
        self._complaint = ""
        self._retry_s = FIRST_RETRY_S
        return reply.lease_ttl_s

    async def _renew(self, stub: LobbyServiceStub, lease_ttl_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(SHORTEST_BEAT_S, lease_ttl_s / RENEWALS_PER_LEASE)):
                    await self._report.wait()
            self._report.clear()
            reply = await stub.renew_lease(
                RenewLeaseRequest(
                    lease_id=self._lease_id, status=self._status(), occupancy=self._load(), metadata=self._metadata()
                ),
                timeout=min(CALL_LIMIT_S, lease_ttl_s),
            )
            self._token = reply.token or self._token
            self._trust(reply.public_keys)
            lease_ttl_s = reply.lease_ttl_s

    async def _watch(self, stub: LobbyServiceStub) -> None:
        responses = stub.watch_session(
            WatchSessionRequest(session_id=self._config.session_id),
            metadata={"authorization": f"Bearer {self._token}"},
        )
        async for response in responses:
            self._apply(response)
        raise GRPCError(Status.UNAVAILABLE, "the lobby ended the watch")

    def _apply(self, response: WatchSessionResponse) -> None:
        if response.snapshot is not None:
            self._services = {service.id: service for service in response.snapshot.services}
        elif response.service_changed is not None:
            self._services[response.service_changed.id] = response.service_changed
        elif response.service_removed is not None:
            self._services.pop(response.service_removed.id, None)
        else:
            return
        self._changed.set()
        self._changed = asyncio.Event()

    def _trust(self, keys: list[PublicKey]) -> None:
        if self._verifier is not None:
            self._verifier.trust((key.key_id, key.key) for key in keys)

    async def _endpoints(self) -> list[Endpoint]:
        addresses = self._config.advertise or (f"{await self._reachable_host()}:{self._bound.port}",)
        parts = (address.rpartition(":") for address in addresses)
        return [Endpoint(protocol="grpc", host=host.strip("[]"), port=int(port)) for host, _, port in parts]

    async def _reachable_host(self) -> str:
        """The listening address; for a wildcard, this machine's address on the way to the lobby."""
        if self._bound.host.strip("[]") not in ("0.0.0.0", "::"):
            return self._bound.host
        host, _, port = self._config.lobby.rpartition(":")
        loop = asyncio.get_running_loop()
        # A datagram socket finds the way without sending anything.
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(host.strip("[]"), int(port))
        )
        try:
            return str(transport.get_extra_info("sockname")[0])
        finally:
            transport.close()

    def _note_failure(self, error: BaseException) -> None:
        """Logs once when the lobby goes and once for each new reason of a refusal; not at each attempt."""
        was_registered, self._registered = self._registered, False
        if isinstance(error, GRPCError) and error.status is Status.NOT_FOUND and was_registered:
            log.info("lease_lapsed", lobby=self._config.lobby, service=self.service_id)
            return
        refused = isinstance(error, GRPCError) and error.status is not Status.UNAVAILABLE
        reason = (error.message if isinstance(error, GRPCError) else str(error)) or type(error).__name__
        complaint = reason if refused else "unreachable"
        if complaint == self._complaint:
            return
        self._complaint = complaint
        event = "lobby_refuses" if refused else "lobby_lost" if was_registered else "lobby_not_there_yet"
        log.warning(event, lobby=self._config.lobby, reason=reason)

    async def _deregister(self) -> None:
        if not self._lease_id:
            return
        try:
            async with self._lobby() as stub:
                await stub.deregister_service(
                    DeregisterServiceRequest(lease_id=self._lease_id), timeout=DEREGISTER_LIMIT_S
                )
        except REMOTE_ERRORS as error:
            log.info("not_deregistered", lobby=self._config.lobby, reason=str(error) or type(error).__name__)
        self._lease_id = ""


def _remote_error(failure: BaseException | None) -> BaseException:
    """The remote error that ended a connection; raises `failure` when it has another cause."""
    error = failure
    while isinstance(error, BaseExceptionGroup):
        others = error.split(REMOTE_ERRORS)[1]
        if others is not None:
            raise others
        error = error.exceptions[0]
    if error is None:
        return ConnectionError("connection lost")
    if not isinstance(error, REMOTE_ERRORS):
        raise error
    return error
