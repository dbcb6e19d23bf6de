"""Membership of a session: joining, staying, knowing who and what is there, coming back as the same user."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from narupa_client.address import SessionAddress
from narupa_client.connection import Endpoint
from narupa_client.lobby_connection import LobbyConnection
from narupa_client.place import FORGOTTEN, KICKED, RENEW_AGAIN_S, RENEW_AT, Admission, Place, removed, session_over
from narupa_client.records import Service, User, service_of, user_of
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.placement import preference
from narupa_shared.tls import TlsConfig

_UP: Final = ("running", "starting", "unhealthy")
# Replicas with loads of the same multiple of this are as good as each other.
_ALIKE: Final = 10.0


class LobbyMembership(Place):
    """A user's place in a session, kept until `leave`, with a connection to the lobby and a watch of the session of its own.

    While the lobby is away, or the next one is looked for, everything last known stays; then the watch resumes where it
    was.
    """

    def __init__(self, address: SessionAddress, admission: Admission, tls: TlsConfig | None = None) -> None:
        """
        Raises:
            InvalidArgumentError: the operator key has characters that cannot be sent.
        """
        if admission.service_token is None:  # what a gateway was told is not a secret of those for whom it speaks
            admission = replace(
                admission,
                invite=admission.invite or address.invite,
                join_code=admission.join_code or address.join_code,
            )
        lobby = LobbyConnection(address.lobbies, lambda: self.token, admission.operator_key, tls)
        super().__init__(lobby, admission, address.session_id)
        self._token_age = asyncio.Event()
        self._epoch = ""
        self._revision = 0
        self._users: Mapping[str, User] = {}
        self._services: dict[str, Service] = {}
        self._last_endpoints: dict[str, tuple[Endpoint, ...]] = {}

    @property
    def users(self) -> Mapping[str, User]:
        return self._users

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

    def start(self, scope: TaskScope) -> None:
        """Presence, news and token are kept up by tasks of `scope`."""
        scope.spawn(self._keep_watching(), "narupa-lobby-watch")
        scope.spawn(self._keep_token_fresh(), "narupa-token")

    async def leave(self) -> None:
        """The lobby knows that we left, if it can be reached; the connection is closed."""
        await super().leave()
        self.lobby.close()

    def _welcomed(self, reply: v1.JoinResponse) -> None:
        self._users = {**self._users, reply.user.id: user_of(reply.user)}
        self._services = {}
        for service in reply.services:
            self._take_service(service)

    def _token_aged(self) -> None:
        self._token_age.set()

    def _take_service(self, message: v1.Service) -> None:
        service = service_of(message)
        self._services[service.id] = service
        if service.endpoints and service.status in _UP:
            self._last_endpoints[service.kind] = service.endpoints

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
                self._end(removed(str(error)))
                return
            except FORGOTTEN as error:
                # It knows the session, the user or the token no more; where it forgot all, its revisions start over as well.
                self._epoch, self._revision = "", 0
                problem = await self._back(token) or error
            except UnavailableError as error:
                self.lobby.turn()
                problem = error
            except NarupaError as error:
                problem = error
            if self.ended is None:
                await attempts.pause_after(UnavailableError(str(problem)))

    async def _watch(self, attempts: Attempts) -> None:
        request = v1.WatchSessionRequest(
            session_id=self.session_id, epoch=self._epoch, after_revision=self._revision if self._epoch else 0
        )
        async with self.lobby.watch(request) as events:
            async for event in events:
                attempts.succeeded()
                self._take_event(event)
                self._epoch, self._revision = event.epoch, event.revision
                if self.ended is not None:
                    return

    def _take_event(self, event: v1.WatchSessionResponse) -> None:
        users = dict(self._users)
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
                if event.user_left.id == self.user_id and event.reason.startswith(KICKED):
                    self._end(removed(event.reason))
            case "service_changed":
                self._take_service(event.service_changed)
            case "service_removed":
                self._services.pop(event.service_removed.id, None)
            case "session_ended":
                self._end(session_over(event.reason))
        self._users = users
        self._changed()
        me = users.get(self.user_id or "")
        if me is None and self.ended is None:
            raise NotFoundError("user", str(self.user_id), "the lobby has let this one go; joining again")
        if me is not None:
            self._another_role(me.role)

    async def _keep_token_fresh(self) -> None:
        while self.ended is None:
            self._token_age.clear()
            if not self._token_stale:
                # A new token, from wherever, starts the wait anew.
                try:
                    async with asyncio.timeout(RENEW_AT * self._token_life_s if self._token_life_s > 0 else None):
                        await self._token_age.wait()
                    continue
                except TimeoutError:
                    pass
            try:
                await self.renew(self.token)
            except NarupaError:  # the next attempt comes well before it expires, or the watch joins again
                left = self._token_life_s * (1 - RENEW_AT)
                self._token_life_s = RENEW_AGAIN_S if self._token_stale else max(left, RENEW_AGAIN_S)
                self._token_stale = False


def _order(service: Service) -> tuple[object, ...]:
    status = v1.ServiceStatus.Value(f"SERVICE_STATUS_{service.status.upper()}")
    return service.kind, *preference(status, service.load, service.capacity), service.id
