"""A service's place at the lobby: registered for as long as it runs, whenever the lobby is there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

import narupa_shared.closed_streams  # noqa: F401 - bounds them
from narupa_shared.auth import RETIRED_KEY_S, TokenVerifier
from narupa_shared.config import ServiceConfig, ports_of
from narupa_shared.errors import InvalidArgumentError, UnauthenticatedError, UnavailableError
from narupa_shared.roster import Roster
from narupa_shared.sdk.narupa.lobby.v1 import (
    DeregisterServiceRequest,
    Endpoint,
    LeadRequest,
    LeadResponse,
    LobbyServiceStub,
    PublicKey,
    RegisterServiceRequest,
    RenewLeaseRequest,
    RenewLeaseResponse,
    Service,
    ServiceStatus,
    WatchSessionRequest,
    WatchSessionResponse,
)
from narupa_shared.tls import client_context
from narupa_shared.tls_diagnosis import refusal, why_cut

log = structlog.get_logger(__name__)

CALL_LIMIT_S: Final = 2.0
DEREGISTER_LIMIT_S: Final = 1.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 2.0
# A session that has ended, or that nobody has made yet, is asked for less often.
LONGEST_RETRY_WITHOUT_SESSION_S: Final = 10.0
# The next of several lobbies is tried after a moment only.
NEXT_LOBBY_S: Final = 0.05
# The lease is renewed this many times in its life, so that one lost renewal costs nothing.
RENEWALS_PER_LEASE: Final = 3
SHORTEST_BEAT_S: Final = 0.1
MAX_REASON: Final = 200

SESSION_GONE: Final = "the session is gone"

# All that a remote call may end with; anything else is a fault of ours and is not hidden.
REMOTE_ERRORS: Final = (GRPCError, ProtocolError, StreamTerminatedError, OSError, TimeoutError, InvalidArgumentError)


class TlsProblemError(Exception):
    """The lobby is there, and no connection to it can be made until somebody sets something right."""


# What goes on over one connection; it is given the stub, and the metadata that say who calls.
Beside = Callable[[LobbyServiceStub, dict[str, str]], Coroutine[Any, Any, None]]


class Listening(Protocol):
    """Where a service listens (`narupa_shared.daemon.Bound`)."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class LobbyRegistration:
    """Keeps a service registered at the lobby, its verifier up to date, and the session's other services at hand.

    An `async with`: entering returns at once, whether or not a lobby is there; leaving deregisters. While it is open
    the service registers with back-off for ever, always with the same id, and renews its lease. A lobby that goes away
    and comes back needs no attention. Of several lobbies over one store any will do: when one fails, the lease is renewed
    and the watch resumed at the next.

    Attributes:
        service_id: The id of the service in its session, in this life and, when it was given one, in every other.
        drain_asked: Set once the lobby wants the service to drain.
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
        reason: Callable[[], str] = lambda: "",
        progress: Callable[[], float] = lambda: 0.0,
        group: str = "",
        heard: Callable[[WatchSessionResponse], None] = lambda _: None,
        beside: Beside | None = None,
    ) -> None:
        """Nothing is sent until the registration is entered.

        Args:
            config: Says where the lobbies are, the session, the service's id and key, what to advertise, and TLS.
            kind: Kind of service, such as "imd".
            bound: Where the service listens.
            verifier: Told of the lobby's public keys, of revocations, and who is in the session.
            load: Asked at each renewal for the present number of subscribers.
            metadata: Asked at each renewal for facts for people; an empty one leaves the last in place.
            status: Asked at each renewal.
            capacity: Subscribers that the service takes; 0 means no stated limit.
            reason: Asked at each renewal why it is not running; empty while it is.
            progress: Asked at each renewal how far its start is, 0 to 1.
            group: Which replicas it belongs to, of which one leads; empty for none.
            heard: Told of each event of the session, once `find` and the verifier know of it.
            beside: What else goes on over each connection to the lobby, for as long as that stands; when it ends or fails, so
                does the connection, and another is made.
        """
        self.service_id = config.service_id or f"{kind}-{uuid.uuid4().hex[:12]}"
        self.drain_asked = asyncio.Event()
        self._config = config
        self._kind = kind
        self._bound = bound
        self._verifier = verifier
        self._load = load
        self._metadata = metadata
        self._status = status
        self._capacity = capacity
        self._reason = reason
        self._progress = progress
        self._group = group
        self._heard = heard
        self._beside = beside
        self._stub: LobbyServiceStub | None = None
        self._lobbies = config.lobby_addresses
        self._lobby_index = 0
        self._failures = 0  # in a row; with several lobbies, some of each
        self._token: str | None = None
        self._lease_id = ""
        self._roster = Roster(config.session_id, verifier)
        self._report = asyncio.Event()
        self._retry_s = FIRST_RETRY_S
        self._complaint = ""
        self._registered = False
        self._session_gone = False
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

    @property
    def lobby(self) -> str:
        """The lobby that is called at present, HOST:PORT."""
        return self._lobbies[self._lobby_index]

    def others_running(self) -> list[Service]:
        """The session's other services of this one's kind that take subscribers now, the one to use first at the front."""
        return [
            service
            for service in self.find(self._kind)
            if service.id != self.service_id and service.status is ServiceStatus.RUNNING
        ]

    def report_now(self) -> None:
        """Status, load and metadata reach the lobby at once instead of with the next renewal."""
        self._report.set()

    async def lead(self, seen_epoch: int, timeout_s: float, *, resign: bool = False) -> LeadResponse:
        """What the lobby answers to whom leads the group, see its `Lead`.

        Args:
            seen_epoch: The highest epoch of a leader that the service has heard of.
            timeout_s: How long to wait for the answer, s.
            resign: Whether the service leads no more.

        Raises:
            UnavailableError: there is no connection to a lobby, or no answer.
        """
        if self._stub is None or not self._lease_id:
            raise UnavailableError("no lobby is connected")
        request = LeadRequest(lease_id=self._lease_id, seen_epoch=seen_epoch, resign=resign)
        # A task of its own, see `_keep_registered`.
        asking = asyncio.create_task(self._stub.lead(request, timeout=timeout_s), name="asking to lead")
        try:
            await asyncio.wait({asking})
        finally:
            asking.cancel()
            await asyncio.wait({asking})
        if asking.cancelled():
            raise UnavailableError("the connection to the lobby was lost")
        if (failure := asking.exception()) is not None:
            error = _remote_error(failure)
            raise UnavailableError(f"the lobby did not say who leads: {_reason(error)}") from error
        return asking.result()

    def find(self, kind: str) -> list[Service]:
        """The session's services of `kind`, the one to try first at the front; while the lobby is away, the last known."""
        return self._roster.find(kind)

    async def wait_for(self, kind: str) -> Service:
        """The service of `kind` to try first, as soon as there is one."""
        while not (found := self.find(kind)):
            await self.changed()
        return found[0]

    async def changed(self) -> None:
        """Returns once any service of the session has come, changed or gone."""
        await self._roster.changed()

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
            self._note_failure(await self._explained(_remote_error(failure)))
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """How long to wait before the next attempt, which is made at the next lobby."""
        self._lobby_index = (self._lobby_index + 1) % len(self._lobbies)
        self._failures += 1
        # Jitter keeps the services of a session from coming back in step.
        jitter = random.uniform(0.5, 1.0)
        if self._failures % len(self._lobbies):
            return NEXT_LOBBY_S * jitter
        pause_s = self._retry_s * jitter
        longest_s = LONGEST_RETRY_WITHOUT_SESSION_S if self._session_gone else LONGEST_RETRY_S
        self._retry_s = min(2 * self._retry_s, longest_s)
        return pause_s

    async def _stay_connected(self) -> None:
        """Registers, then renews and watches over one connection until either fails; they share its fate."""
        async with self._connected(self.lobby) as stub:
            async with self._registering:
                lease_ttl_s = await self._hold_lease(stub)
            self._stub = stub
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._renew(stub, lease_ttl_s))
                    tasks.create_task(self._watch(stub))
                    if self._beside is not None:
                        tasks.create_task(self._stay_beside(self._beside(stub, self._authorization())))
            finally:
                self._stub = None

    @contextlib.asynccontextmanager
    async def _connected(self, lobby: str) -> AsyncIterator[LobbyServiceStub]:
        host, _, port = lobby.rpartition(":")
        tls = client_context(self._config) if self._config.lobby_tls else None
        channel = Channel(host.strip("[]"), int(port), ssl=tls)
        try:
            yield LobbyServiceStub(channel)
        finally:
            channel.close()

    async def _explained(self, error: BaseException) -> BaseException:
        """`error`, or what is wrong with TLS between us and the lobby when that is its cause."""
        if isinstance(error, ssl.SSLError):
            return TlsProblemError(refusal(error))
        if self._registered or not isinstance(error, (StreamTerminatedError, ProtocolError, ConnectionError)):
            return error
        host, _, port = self.lobby.rpartition(":")
        try:
            tls = client_context(self._config) if self._config.lobby_tls else None
        except InvalidArgumentError:
            return error
        why = await why_cut(host.strip("[]"), int(port), tls, self._config.tls_cert is not None)
        return TlsProblemError(why) if why else error

    async def _hold_lease(self, stub: LobbyServiceStub) -> float:
        """The lease that the service has goes on; without one it registers. Returns how long the lease lasts, s."""
        if self._lease_id:
            try:
                lease_ttl_s = await self._renew_once(stub, CALL_LIMIT_S)
            except GRPCError as error:
                if error.status is not Status.NOT_FOUND:
                    raise
            else:
                log.info("lobby_found_again", lobby=self.lobby, service=self.service_id)
                self._settled()
                return lease_ttl_s
        return await self._register(stub)

    def _settled(self) -> None:
        self._registered = True
        self._session_gone = False
        self._complaint = ""
        self._failures = 0
        self._retry_s = FIRST_RETRY_S

    async def _register(self, stub: LobbyServiceStub) -> float:
        key = self._config.service_key
        self._report.clear()
        request = RegisterServiceRequest(
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
                reason=self._reason()[:MAX_REASON],
                progress=self._progress(),
                group=self._group,
            ),
        )
        try:
            reply = await stub.register_service(request, timeout=CALL_LIMIT_S)
        except GRPCError as error:
            self._session_gone = error.status is Status.NOT_FOUND
            raise
        self._lease_id = reply.lease_id
        self._trust(reply.public_keys)
        self._take_token(reply.token)
        log.info("registered", lobby=self.lobby, service=self.service_id, lease_ttl_s=reply.lease_ttl_s)
        self._settled()
        return reply.lease_ttl_s

    async def _renew(self, stub: LobbyServiceStub, lease_ttl_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(SHORTEST_BEAT_S, lease_ttl_s / RENEWALS_PER_LEASE)):
                    await self._report.wait()
            lease_ttl_s = await self._renew_once(stub, min(CALL_LIMIT_S, lease_ttl_s))
            self._roster.in_contact()  # the watch, which may have nothing to tell for long, is open by now

    async def _renew_once(self, stub: LobbyServiceStub, limit_s: float) -> float:
        """The lease has been renewed, and the lobby told how things are; returns how long the lease lasts now, s."""
        self._report.clear()
        try:
            reply: RenewLeaseResponse = await stub.renew_lease(
                RenewLeaseRequest(
                    lease_id=self._lease_id,
                    status=self._status(),
                    occupancy=self._load(),
                    metadata=self._metadata(),
                    reason=self._reason()[:MAX_REASON],
                    progress=self._progress(),
                ),
                timeout=limit_s,
            )
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                self._lease_id = ""
            raise
        self._trust(reply.public_keys, retired_key_s=0)  # a lobby that knows the lease has not lost its keys
        if reply.token and reply.token != self._token:
            self._take_token(reply.token)
        if reply.drain:
            self.drain_asked.set()
        return reply.lease_ttl_s

    async def _watch(self, stub: LobbyServiceStub) -> None:
        epoch, revision = self._roster.seen or ("", 0)
        request = WatchSessionRequest(session_id=self._config.session_id, epoch=epoch, after_revision=revision)
        try:
            async for response in stub.watch_session(request, metadata=self._authorization()):
                for each in (response, *response.more):
                    self._apply(each)
        except GRPCError as error:
            if error.status is Status.OUT_OF_RANGE:  # too much has happened since: the next watch begins anew
                self._roster.seen = None
            raise
        raise GRPCError(Status.UNAVAILABLE, "the lobby ended the watch")

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"}

    async def _stay_beside(self, work: Coroutine[Any, Any, None]) -> None:
        await work
        raise GRPCError(Status.UNAVAILABLE, "the lobby ended a stream")

    def _apply(self, response: WatchSessionResponse) -> None:
        self._roster.apply(response)
        if self._roster.ended:
            self._session_gone = True
            self._complaint = SESSION_GONE
        self._heard(response)
        changed = response.service_changed
        drains = changed is not None and changed.id == self.service_id and changed.status is ServiceStatus.DRAINING
        if drains and self._status() is not ServiceStatus.DRAINING:
            self.report_now()  # the answer says whether to drain

    def _trust(self, keys: list[PublicKey], retired_key_s: float = RETIRED_KEY_S) -> None:
        if self._verifier is not None:
            self._verifier.trust(((key.key_id, key.key) for key in keys), retired_key_s)

    def _take_token(self, token: str) -> None:
        self._token = token
        if self._verifier is not None:
            # By which it knows how long tokens live, and with that how long to remember who has left.
            with contextlib.suppress(UnauthenticatedError):
                self._verifier.verify(token)

    async def _endpoints(self) -> list[Endpoint]:
        addresses = self._config.advertise or (f"{await self._reachable_host()}:{self._bound.port}",)
        protocol = "grpcs" if self._config.tls_cert else "grpc"
        places = (
            (address.rpartition(":")[0].strip("[]"), port)
            for address in addresses
            for port in self._in_turn(ports_of(address))
        )
        own = socket.gethostname()
        return [Endpoint(protocol=protocol, host=own if host == "*" else host, port=port) for host, port in places]

    def _in_turn(self, ports: Sequence[int]) -> Sequence[int]:
        """`ports` from one on that differs from replica to replica, so that not everybody tries the same one first."""
        first = zlib.crc32(self.service_id.encode()) % max(len(ports), 1)
        return [*ports[first:], *ports[:first]]

    async def _reachable_host(self) -> str:
        """The listening address; for a wildcard, this machine's address on the way to the lobby."""
        if self._bound.host.strip("[]") not in ("0.0.0.0", "::"):
            return self._bound.host
        host, _, port = self.lobby.rpartition(":")
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
        self._roster.out_of_contact()
        status = error.status if isinstance(error, GRPCError) else None
        if self._session_gone:
            complaint, event = SESSION_GONE, "session_unknown"
        elif status is Status.NOT_FOUND and was_registered:
            log.info("lease_lapsed", lobby=self.lobby, service=self.service_id)
            return
        elif status is Status.OUT_OF_RANGE and was_registered:
            return  # the watch begins anew, and nothing else was lost
        elif isinstance(error, (TlsProblemError, InvalidArgumentError)):
            complaint, event = _reason(error), "lobby_not_reached"
        elif status is not None and status is not Status.UNAVAILABLE:
            complaint, event = _reason(error), "lobby_refuses"
        else:
            complaint, event = "unreachable", "lobby_lost" if was_registered else "lobby_not_there_yet"
        if complaint == self._complaint:
            return
        self._complaint = complaint
        log.warning(event, lobby=self.lobby, reason=_reason(error))

    async def _deregister(self) -> None:
        if not self._lease_id:
            return
        for _ in self._lobbies:
            try:
                async with self._connected(self.lobby) as stub:
                    await stub.deregister_service(
                        DeregisterServiceRequest(lease_id=self._lease_id), timeout=DEREGISTER_LIMIT_S
                    )
                break
            except REMOTE_ERRORS as error:
                log.info("not_deregistered", lobby=self.lobby, reason=_reason(error))
                self._lobby_index = (self._lobby_index + 1) % len(self._lobbies)
        self._lease_id = ""


def _reason(error: BaseException) -> str:
    return (error.message if isinstance(error, GRPCError) else str(error)) or type(error).__name__


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
