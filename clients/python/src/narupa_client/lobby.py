"""Membership of a session: joining, staying, knowing who and what is there, coming back after the lobby was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final

import betterproto2

from narupa_client.connection import CALL_TIMEOUT_S, Connection, Endpoint
from narupa_client.directory import Service, User
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.sdk.narupa.lobby import v1

# Which status to try first; one that drains takes nobody new, but may be all there is.
_RANK: Final = {"running": 0, "unhealthy": 1, "starting": 2, "unspecified": 3, "draining": 4, "available": 5}
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
                async with self._connection.channel() as channel:
                    stub = v1.LobbyServiceStub(channel, timeout=_LEAVE_TIMEOUT_S, metadata=self._connection.metadata())
                    await stub.leave(v1.LeaveRequest())
        self._connection.close()

    async def renew(self, refused: str | None) -> None:
        """The token is another than `refused`: renewed, or of a new membership where the lobby does not know us."""
        async with self._lock:
            if self.token != refused:
                return
            try:
                async with self._connection.channel() as channel:
                    stub = v1.LobbyServiceStub(channel, timeout=CALL_TIMEOUT_S, metadata=self._connection.metadata())
                    reply = await stub.renew_token(v1.RenewTokenRequest())
            except _FORGOTTEN:
                await self._join()
            else:
                self._take_token(reply.token, reply.token_expires_in_s)

    async def _join(self) -> None:
        async with self._connection.channel() as channel:
            reply = await v1.LobbyServiceStub(channel, timeout=CALL_TIMEOUT_S).join(self._request)
        if reply.user is None:
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
        status = (v1.ServiceStatus(message.status).name or "unspecified").lower()
        self._services[message.id] = Service(
            id=message.id,
            kind=message.kind,
            status=status,
            endpoints=endpoints,
            load=message.load,
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
        async with self._connection.channel() as channel:
            stub = v1.LobbyServiceStub(channel, metadata=self._connection.metadata())
            request = v1.WatchSessionRequest(
                session_id=self.session_id, epoch=self._epoch, after_revision=self._revision if self._epoch else 0
            )
            async with aclosing(stub.watch_session(request)) as events:  # type: ignore[type-var]  # it is a generator
                async for event in events:
                    attempts.succeeded()
                    self.trouble = None
                    self._take_event(event)
                    self._epoch, self._revision = event.epoch, event.revision

    def _take_event(self, event: v1.WatchSessionResponse) -> None:
        kind, value = betterproto2.which_one_of(event, "event")
        users = dict(self.users)
        match value:
            case v1.SessionSnapshot():
                users = {user.id: User(user.id, user.name) for user in value.users}
                self._services = {}
                for service in value.services:
                    self._take_service(service)
            case v1.User() if kind == "user_joined":
                users[value.id] = User(value.id, value.name)
            case v1.User():
                users.pop(value.id, None)
            case v1.Service() if kind == "service_changed":
                self._take_service(value)
            case v1.Service():
                self._services.pop(value.id, None)
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


def _order(service: Service) -> tuple[str, int, float, str]:
    return service.kind, _RANK.get(service.status, len(_RANK)), service.load, service.id


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
            async with membership._connection.channel() as channel:
                stub = v1.LobbyServiceStub(channel, timeout=CALL_TIMEOUT_S)
                reply = await stub.list_services(v1.ListServicesRequest(session_id=session_id))
            for service in reply.services:
                membership._take_service(service)
        except (UnauthenticatedError, PermissionDeniedError):
            await membership.join(0)
        return list(membership.services)
    finally:
        await membership.leave()
