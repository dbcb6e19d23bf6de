"""Membership of a session: joining, staying, knowing who and what is there, coming back after the lobby was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final

from grpclib.const import Cardinality

from narupa_client.connection import Connection, Endpoint
from narupa_client.directory import Service, User
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.rpc import replies
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.placement import preference

_SERVICE: Final = "/narupa.lobby.v1.LobbyService/"
_LEAVE_TIMEOUT_S: Final = 2.0
# A token is renewed when this part of its life has passed.
_RENEW_AT: Final = 0.6
_FORGOTTEN: Final = (UnauthenticatedError, NotFoundError)


class LobbyMembership:
    """A user's place in a session, kept until `leave`.

    While the lobby is away, everything last known stays; when it is back, the watch resumes where it was. A lobby that
    forgot us is joined again by the same name, with a new user id and token.
    """

    def __init__(self, address: Endpoint, user_name: str, session_id: str = "", join_code: str = "") -> None:
        self._connection = Connection("lobby", lambda: (address,), lambda: self.token)
        self._request = v1.JoinRequest(session_id=session_id, user_name=user_name, join_code=join_code)
        self._lock = asyncio.Lock()
        self._token_age = asyncio.Event()
        self._token_life_s = 0.0
        self._epoch = ""
        self._revision = 0
        self._services: dict[str, Service] = {}
        self._last_endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self.token: str | None = None
        self.user_id: str | None = None
        self.session_id = session_id
        self.users: Mapping[str, User] = {}
        self.trouble: str | None = None
        """Why the lobby cannot be heard at present; None while it can."""

    @property
    def services(self) -> Sequence[Service]:
        return sorted(self._services.values(), key=_order)

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        """Those of the services of this kind, in their order; then where one was last, should the lobby be behind."""
        known = [endpoint for service in self.services if service.kind == kind for endpoint in service.endpoints]
        return [*known, *self._last_endpoints.get(kind, ())]

    async def join(self, wait_s: float) -> None:
        """We are in the session.

        Args:
            wait_s: How long to keep trying while the lobby cannot be reached, s.

        Raises:
            UnavailableError: the lobby cannot be reached.
            PermissionDeniedError: wrong or missing join code. NotFoundError: no such session. QuotaError: it is full.
            InvalidArgumentError: the name is empty or too long.
        """
        attempts = Attempts(RetryPolicy(give_up_after_s=None, max_delay_s=0.5))
        deadline = time.monotonic() + wait_s
        while True:
            attempts.started()
            try:
                return await self._join()
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                await attempts.pause_after(error)

    def start(self, scope: TaskScope) -> None:
        """Presence, news and token are kept up by tasks of `scope`."""
        scope.spawn(self._keep_watching(), "narupa-lobby-watch")
        scope.spawn(self._keep_token_fresh(), "narupa-token")

    async def leave(self) -> None:
        """The lobby knows that we left, if it can be reached; the connection is closed."""
        if self.token is not None:
            with suppress(NarupaError):
                await self._connection.call(f"{_SERVICE}Leave", v1.LeaveRequest(), v1.LeaveResponse, _LEAVE_TIMEOUT_S)
        self._connection.close()

    async def renew(self, refused: str | None) -> None:
        """The token is another than `refused`: renewed, or of a new membership where the lobby does not know us."""
        async with self._lock:
            if self.token != refused:
                return
            try:
                reply = await self._connection.call(
                    f"{_SERVICE}RenewToken", v1.RenewTokenRequest(), v1.RenewTokenResponse
                )
            except _FORGOTTEN:
                await self._join()
            else:
                self._take_token(reply.token, reply.token_expires_in_s)

    async def _join(self) -> None:
        # A token that this lobby does not know would be refused even here.
        reply = await self._connection.call(f"{_SERVICE}Join", self._request, v1.JoinResponse, anonymous=True)
        if not reply.user.id:
            raise UnavailableError(f"what answers at {self._connection.address} is no lobby: it gave no user")
        self.session_id = reply.session_id
        self.user_id = reply.user.id
        self.users = {**self.users, reply.user.id: User(reply.user.id, reply.user.name)}
        self._services = {}
        for service in reply.services:
            self._take_service(service)
        self._take_token(reply.token, reply.token_expires_in_s)

    def _take_token(self, token: str, life_s: float) -> None:
        self.token = token or None
        self._token_life_s = life_s
        self._token_age.set()

    def _take_service(self, message: v1.Service) -> None:
        endpoints = tuple(Endpoint(item.host, item.port) for item in message.endpoints if item.protocol in ("", "grpc"))
        status = _status(message.status)
        self._services[message.id] = Service(
            id=message.id,
            kind=message.kind,
            status=status,
            endpoints=endpoints,
            load=message.occupancy,
            capacity=message.capacity,
            metadata=dict(message.metadata),
        )
        if endpoints and status in ("running", "starting", "unhealthy"):
            self._last_endpoints[message.kind] = endpoints

    async def _keep_watching(self) -> None:
        attempts = Attempts(RetryPolicy(give_up_after_s=None, max_delay_s=2.0))
        while True:
            attempts.started()
            token = self.token
            try:
                await self._watch(attempts)
                problem: NarupaError = UnavailableError("the lobby ended the session")
            except NoLongerKeptError as error:
                self._epoch, self._revision = "", 0
                problem = error
            except _FORGOTTEN as error:
                problem = error
                try:
                    # The lobby knows the session or the user no more; its revisions start over as well.
                    self._epoch, self._revision = "", 0
                    async with self._lock:
                        if self.token == token:
                            await self._join()
                except NarupaError as refusal:
                    problem = refusal
            except NarupaError as error:
                problem = error
            self.trouble = str(problem)
            await attempts.pause_after(UnavailableError(self.trouble))

    async def _watch(self, attempts: Attempts) -> None:
        request = v1.WatchSessionRequest(
            session_id=self.session_id, epoch=self._epoch, after_revision=self._revision if self._epoch else 0
        )
        async with self._connection.stream(
            f"{_SERVICE}WatchSession", Cardinality.UNARY_STREAM, v1.WatchSessionRequest, v1.WatchSessionResponse
        ) as stream:
            await stream.send_message(request, end=True)
            async with aclosing(replies(stream)) as events:
                async for event in events:
                    attempts.succeeded()
                    self.trouble = None
                    self._take_event(event)
                    self._epoch, self._revision = event.epoch, event.revision

    def _take_event(self, event: v1.WatchSessionResponse) -> None:
        users = dict(self.users)
        match event.WhichOneof("event"):
            case "snapshot":
                users = {user.id: User(user.id, user.name) for user in event.snapshot.users}
                self._services = {}
                for service in event.snapshot.services:
                    self._take_service(service)
            case "user_joined":
                users[event.user_joined.id] = User(event.user_joined.id, event.user_joined.name)
            case "user_left":
                users.pop(event.user_left.id, None)
            case "service_changed":
                self._take_service(event.service_changed)
            case "service_removed":
                self._services.pop(event.service_removed.id, None)
        self.users = users
        if self.user_id not in users:
            raise NotFoundError("user", str(self.user_id), "the lobby has forgotten this one; joining again")

    async def _keep_token_fresh(self) -> None:
        while True:
            self._token_age.clear()
            # A new token, from wherever, starts the wait anew.
            try:
                async with asyncio.timeout(_RENEW_AT * self._token_life_s if self._token_life_s > 0 else None):
                    await self._token_age.wait()
                continue
            except TimeoutError:
                pass
            try:
                await self.renew(self.token)
            except NarupaError:  # the next attempt comes well before it expires, or the watch joins again
                self._token_life_s = max(self._token_life_s * (1 - _RENEW_AT), 1.0)


def _status(number: int) -> str:
    try:
        return v1.ServiceStatus.Name(number).removeprefix("SERVICE_STATUS_").lower()
    except ValueError:
        return "unspecified"


def _order(service: Service) -> tuple[object, ...]:
    status = v1.ServiceStatus.Value(f"SERVICE_STATUS_{service.status.upper()}")
    return service.kind, *preference(status, service.load, service.capacity), service.id


async def list_services(
    address: Endpoint, session_id: str = "", join_code: str = "", name: str = "narupa"
) -> list[Service]:
    """The services that the lobby at `address` knows, by kind and then least loaded first; joins only where it must.

    Raises:
        UnavailableError: the lobby cannot be reached.
        PermissionDeniedError: it is closed, and the join code is missing or wrong.
    """
    membership = LobbyMembership(address, name, session_id, join_code)
    try:
        try:
            reply = await membership._connection.call(
                f"{_SERVICE}ListServices", v1.ListServicesRequest(session_id=session_id), v1.ListServicesResponse
            )
            for service in reply.services:
                membership._take_service(service)
        except (UnauthenticatedError, PermissionDeniedError):
            await membership.join(0)
        return list(membership.services)
    finally:
        await membership.leave()
