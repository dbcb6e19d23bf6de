"""Membership of a session: joining, staying, knowing who and what is there, coming back as the same user."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from narupa_client.address import SessionAddress
from narupa_client.connection import Endpoint
from narupa_client.directory import SessionEndedError
from narupa_client.lobby_connection import LobbyConnection
from narupa_client.records import Service, User, role_name, service_of, user_of
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    InvalidArgumentError,
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.placement import preference
from narupa_shared.tls import TlsConfig

_LEAVE_TIMEOUT_S: Final = 2.0
# A token is renewed when this part of its life has passed.
_RENEW_AT: Final = 0.6
_RENEW_AGAIN_S: Final = 1.0
_FORGOTTEN: Final = (UnauthenticatedError, NotFoundError)
_UP: Final = ("running", "starting", "unhealthy")
_KICKED: Final = "kicked"
# Replicas with loads of the same multiple of this are as good as each other.
_ALIKE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What one says at the lobby's door.

    Attributes:
        user_name: What others see.
        join_code: One of the secrets is needed where the lobby is closed.
        rejoin_token: Of the user that one wants to be again.
        guest: Whether a gateway speaks for somebody who has no secret; the session's role of guests is theirs.
        guests_welcome: Whether that gateway lets in whoever reaches it.
        client_address: Where that somebody calls from, an IP address without a port; wrong secrets are counted against it.
        service_token: Gives the gateway's own token, which the lobby asks for before it heeds the three above; asked at
            each attempt, as it is renewed meanwhile. None, or nothing given, means that there is none at present.
    """

    user_name: str
    join_code: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    invite: str = field(default="", repr=False)
    operator_key: str = field(default="", repr=False)
    rejoin_token: str = field(default="", repr=False)
    guest: bool = False
    guests_welcome: bool = False
    client_address: str = ""
    service_token: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)


class LobbyMembership:
    """A user's place in a session, kept until `leave`.

    While the lobby is away, or the next one is looked for, everything last known stays; then the watch resumes where it
    was. A lobby that let us go is joined again as the same user; one that knows nothing of us, as another by the same
    name. Being removed, and the end of the session, are final.
    """

    def __init__(self, address: SessionAddress, admission: Admission, tls: TlsConfig | None = None) -> None:
        """
        Raises:
            InvalidArgumentError: the operator key has characters that cannot be sent.
        """
        self.lobby = LobbyConnection(address.lobbies, lambda: self.token, admission.operator_key, tls)
        self.tls = tls
        self._admission = admission
        if admission.service_token is None:  # what a gateway was told is not a secret of those for whom it speaks
            self._admission = replace(
                admission,
                invite=admission.invite or address.invite,
                join_code=admission.join_code or address.join_code,
            )
        self._asked_session = address.session_id
        self._request_id = uuid.uuid4().hex
        self._rejoin_token = admission.rejoin_token
        self._joined = False
        self._lock = asyncio.Lock()
        self._token_age = asyncio.Event()
        self._token_life_s = 0.0
        self._token_stale = False
        self._epoch = ""
        self._revision = 0
        self._services: dict[str, Service] = {}
        self._last_endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._on_change: list[Callable[[], None]] = []
        self.token: str | None = None
        self.user_id: str | None = None
        self.role: str | None = None
        self.session_id = address.session_id
        self.users: Mapping[str, User] = {}
        self.ended: SessionEndedError | None = None
        self.trouble: str | None = None
        """Why the lobby cannot be heard at present; None while it can."""

    @property
    def services(self) -> Sequence[Service]:
        return sorted(self._services.values(), key=_order)

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        """Those of the services of this kind, in their order; then where one was last, should the lobby be behind."""
        known = [service for service in self.services if service.kind == kind and service.status != "stopped"]
        known.sort(key=self._choice)
        running = any(service.status == "running" for service in known)
        leaving = {item for service in known if service.status == "draining" for item in service.endpoints}
        found = [endpoint for service in known for endpoint in service.endpoints]
        found += self._last_endpoints.get(kind, ())
        return [endpoint for endpoint in found if not (running and endpoint in leaving)]

    def _choice(self, service: Service) -> tuple[object, ...]:
        """As `_order`; of replicas that are about as loaded, each user has another at the front, since loads are old news."""
        if not service.group:
            return (*_order(service)[:-1], 0.0, service.id)
        status = _order(service)[1]
        turn = random.Random(f"{self.user_id}/{service.id}").random()
        return service.kind, status, 0.0, service.load // _ALIKE, turn, service.id

    def on_change(self, changed: Callable[[], None]) -> None:
        self._on_change.append(changed)

    async def join(self, wait_s: float) -> None:
        """We are in the session.

        Args:
            wait_s: How long to keep trying while no lobby can be reached, s.

        Raises:
            UnavailableError: the lobby cannot be reached.
            PermissionDeniedError: wrong or missing secret. NotFoundError: no such session. QuotaError: it is full.
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
        if self.token is not None and self.ended is None:
            with suppress(NarupaError):
                await self.lobby.call("Leave", v1.LeaveRequest(), v1.LeaveResponse, timeout_s=_LEAVE_TIMEOUT_S)
        self.lobby.close()

    async def renew(self, refused: str | None) -> None:
        """The token is another than `refused`: renewed, or of a new membership where the lobby does not know us."""
        async with self._lock:
            if self.ended is not None:
                raise self.ended
            if self.token != refused:
                return
            try:
                reply = await self.lobby.call("RenewToken", v1.RenewTokenRequest(), v1.RenewTokenResponse)
            except _FORGOTTEN:
                await self._join()
            else:
                self._take_token(reply.token, reply.token_expires_in_s)
                self._take_role(reply.role)

    async def _join(self) -> None:
        """Joins, as the user that we were where the lobby still knows who that was. Safe to repeat after a lost answer."""
        said = self._admission
        request = v1.JoinRequest(
            session_id=self.session_id or self._asked_session,
            user_name=said.user_name,
            join_code=said.join_code,
            password=said.password,
            invite=said.invite,
            rejoin_token=self._rejoin_token,
            request_id=self._request_id,
            client_address=said.client_address,
            guest=said.guest,
            guests_welcome=said.guests_welcome,
        )
        token = self._token_to_join()
        try:
            # A token that this lobby does not know would be refused even here.
            reply = await self.lobby.call("Join", request, v1.JoinResponse, anonymous=True, token=token)
        except UnavailableError:
            raise
        except NarupaError as error:
            if token and isinstance(error, UnauthenticatedError):  # the gateway gets another once it is known again
                raise UnavailableError(f"the lobby does not know the gateway by its token yet: {error}") from error
            self._request_id = uuid.uuid4().hex
            if self._rejoin_token and isinstance(error, UnauthenticatedError | InvalidArgumentError):
                self._rejoin_token = ""  # it says nothing to this lobby
                await self._join()
                return
            if self._joined and isinstance(error, PermissionDeniedError | NotFoundError):
                self._end(f"the lobby does not let us back: {error}")
                raise self.ended or error from error
            raise
        if not reply.user.id:
            raise UnavailableError(f"what answers at {self.lobby.address} is no lobby: it gave no user")
        self._request_id = uuid.uuid4().hex
        self._joined = True
        self.session_id = reply.session_id
        self.user_id = reply.user.id
        self.users = {**self.users, reply.user.id: user_of(reply.user)}
        self._take_token(reply.token, reply.token_expires_in_s)
        self._take_role(reply.user.role)
        self._services = {}
        for service in reply.services:
            self._take_service(service)
        self._changed()

    def _token_to_join(self) -> str:
        """The gateway's, where one speaks for us; otherwise none.

        Raises:
            UnavailableError: the gateway has none at present.
        """
        if (service_token := self._admission.service_token) is None:
            return ""
        if not (token := service_token()):
            raise UnavailableError("the gateway is not registered at the lobby yet; try again in a second")
        return token

    def _take_token(self, token: str, life_s: float) -> None:
        self.token = token or None
        self._rejoin_token = token
        self._token_life_s = life_s
        self._token_stale = False
        self._token_age.set()

    def _take_role(self, number: int) -> None:
        self.role = role_name(number) or self.role

    def _take_service(self, message: v1.Service) -> None:
        service = service_of(message)
        self._services[service.id] = service
        if service.endpoints and service.status in _UP:
            self._last_endpoints[service.kind] = service.endpoints

    def _changed(self) -> None:
        for changed in self._on_change:
            changed()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = SessionEndedError(reason)
            self.trouble = reason
            self._changed()

    async def _keep_watching(self) -> None:
        attempts = Attempts(RetryPolicy(give_up_after_s=None, max_delay_s=2.0))
        while self.ended is None:
            attempts.started()
            token = self.token
            try:
                await self._watch(attempts)
                problem: NarupaError = UnavailableError("the lobby ended the watch of the session")
            except NoLongerKeptError as error:
                self._epoch, self._revision = "", 0
                problem = error
            except PermissionDeniedError as error:
                self._end(f"we were removed from the session: {error}")
                return
            except _FORGOTTEN as error:
                problem = await self._back(token) or error
            except UnavailableError as error:
                self.lobby.turn()
                problem = error
            except NarupaError as error:
                problem = error
            if self.ended is None:
                self.trouble = str(problem)
                await attempts.pause_after(UnavailableError(self.trouble))

    async def _back(self, token: str | None) -> NarupaError | None:
        """Joins again, unless somebody did since `token` was ours; returns why that failed, if it did.

        The lobby knows the session, the user or the token no more; where it forgot all, its revisions start over as well.
        """
        self._epoch, self._revision = "", 0
        try:
            async with self._lock:
                if self.token == token and self.ended is None:
                    await self._join()
        except NarupaError as error:
            return error
        return None

    async def _watch(self, attempts: Attempts) -> None:
        request = v1.WatchSessionRequest(
            session_id=self.session_id, epoch=self._epoch, after_revision=self._revision if self._epoch else 0
        )
        async with self.lobby.watch(request) as events:
            async for event in events:
                attempts.succeeded()
                self.trouble = None
                self._take_event(event)
                self._epoch, self._revision = event.epoch, event.revision
                if self.ended is not None:
                    return

    def _take_event(self, event: v1.WatchSessionResponse) -> None:
        users = dict(self.users)
        match event.WhichOneof("event"):
            case "snapshot":
                users = {user.id: user_of(user) for user in event.snapshot.users}
                self._services = {}
                for service in event.snapshot.services:
                    self._take_service(service)
            case "user_joined":
                users[event.user_joined.id] = user_of(event.user_joined)
            case "user_changed":
                users[event.user_changed.id] = user_of(event.user_changed)
            case "user_left":
                users.pop(event.user_left.id, None)
                if event.user_left.id == self.user_id and event.reason.startswith(_KICKED):
                    self._end(f"we were removed from the session: {event.reason}")
            case "service_changed":
                self._take_service(event.service_changed)
            case "service_removed":
                self._services.pop(event.service_removed.id, None)
            case "session_ended":
                self._end("the session has ended" + (f": {event.reason}" if event.reason else ""))
        self.users = users
        self._changed()
        me = users.get(self.user_id or "")
        if me is None and self.ended is None:
            raise NotFoundError("user", str(self.user_id), "the lobby has let this one go; joining again")
        if me is not None and me.role and me.role != self.role:
            # The token says what we may do.
            self.role = me.role
            self._token_stale = True
            self._token_age.set()

    async def _keep_token_fresh(self) -> None:
        while self.ended is None:
            self._token_age.clear()
            if not self._token_stale:
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
                left = self._token_life_s * (1 - _RENEW_AT)
                self._token_life_s = _RENEW_AGAIN_S if self._token_stale else max(left, _RENEW_AGAIN_S)
                self._token_stale = False


def _order(service: Service) -> tuple[object, ...]:
    status = v1.ServiceStatus.Value(f"SERVICE_STATUS_{service.status.upper()}")
    return service.kind, *preference(status, service.load, service.capacity), service.id
