"""One session: its users, its services, and the log of who and what came and went."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from narupa_lobby import metrics
from narupa_lobby.leases import Leases
from narupa_lobby.services import Service
from narupa_lobby.watch import EventLog, Watcher
from narupa_shared.errors import InvalidArgumentError, NotFoundError, QuotaError

log = structlog.get_logger(__name__)

MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class User:
    """A user as others see them. Two may have the same name; never the same id."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class UserJoined:
    user: User


@dataclass(frozen=True, slots=True)
class UserLeft:
    user: User


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """The service is new, or has another status, load, endpoint or fact."""

    service: Service


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    service: Service


SessionEvent = UserJoined | UserLeft | ServiceChanged | ServiceRemoved


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a session takes, and how long it waits (s)."""

    user_lease_s: float = 30.0
    rejoin_grace_s: float = 2.0
    service_lease_s: float = 3.0
    max_users: int = 500
    max_services: int = 200
    max_watchers: int = 2000
    history_events: int = 1000


class Session:
    """Owns who and what is in one session; each change has a revision in `events`."""

    def __init__(self, id: str, name: str, epoch: str, limits: Limits, presence: Leases) -> None:
        self.id = id
        self.name = name
        self.users: dict[str, User] = {}
        self.events: EventLog[SessionEvent] = EventLog(epoch, limits.history_events)
        self._services: dict[str, Service] = {}
        self._limits = limits
        self._presence = presence
        self._watches: dict[str, int] = {}  # open watch streams by user id

    def services(self, kind: str = "") -> list[Service]:
        """The services of `kind` (of every kind when empty), by kind and then the one to try first at the front."""
        found = (service for service in self._services.values() if not kind or service.kind == kind)
        return sorted(found, key=lambda service: service.order)

    def service(self, service_id: str) -> Service | None:
        return self._services.get(service_id)

    def add_user(self, user_id: str, name: str) -> User:
        """A new user is here, and leaves after `user_lease_s` unless they watch.

        Raises:
            InvalidArgumentError: `name` is not 1 to 64 printable characters.
            QuotaError: the session is full.
        """
        stripped = name.strip()
        if not stripped or len(stripped) > MAX_NAME or not stripped.isprintable():
            raise InvalidArgumentError("user_name", name, f"needs 1 to {MAX_NAME} printable characters")
        if len(self.users) >= self._limits.max_users:
            raise QuotaError(
                f"the session {self.id!r} is full with {len(self.users)} users; try again once some have left"
            )
        user = User(user_id, stripped)
        self.users[user_id] = user
        self._presence.hold(user_id, self._limits.user_lease_s)
        revision = self.events.append(UserJoined(user))
        metrics.JOINS.labels(self.id).inc()
        self._count()
        log.info("user_joined", session=self.id, user=user.id, name=user.name, revision=revision)
        return user

    def user(self, user_id: str) -> User:
        """The user of this id, or NotFoundError."""
        if (user := self.users.get(user_id)) is None:
            raise NotFoundError("user", user_id, f"they have left the session {self.id!r}; join again")
        return user

    def touch_user(self, user_id: str) -> User:
        """The user shows life: their lease starts anew. NotFoundError when they have left."""
        user = self.user(user_id)
        if not self._watches.get(user_id):
            self._presence.hold(user_id, self._limits.user_lease_s)
        return user

    def remove_user(self, user_id: str, reason: str) -> None:
        """The user has left. Idempotent."""
        self._presence.end(user_id)
        if (user := self.users.pop(user_id, None)) is None:
            return
        revision = self.events.append(UserLeft(user))
        self._count()
        log.info("user_left", session=self.id, user=user.id, name=user.name, reason=reason, revision=revision)

    def put_service(self, service: Service) -> Service:
        """`service` is listed as given; it makes an event only when it differs from what was listed.

        Raises:
            QuotaError: it is new, and the session takes no more.
        """
        before = self._services.get(service.id)
        if before is None and len(self._services) >= self._limits.max_services:
            raise QuotaError(f"the session {self.id!r} has {len(self._services)} services already and takes no more")
        if service != before:
            service = replace(service, metadata=dict(service.metadata))
            self._services[service.id] = service
            self.events.append(ServiceChanged(service))
            self._count()
        return service

    def remove_service(self, service_id: str) -> Service | None:
        """The service is no longer listed; returns what it was. Idempotent."""
        service = self._services.pop(service_id, None)
        if service is not None:
            self.events.append(ServiceRemoved(service))
            self._count()
        return service

    def start_watch(self, user_id: str | None, epoch: str, after_revision: int) -> Watcher[SessionEvent]:
        """A watcher of this session, for `end_watch`; a user is present for as long as one of theirs is open.

        Raises:
            InvalidArgumentError: a revision without its epoch.
            NotFoundError: the user has left.
            NoLongerKeptError: the epoch has passed, or the revision is not kept.
            QuotaError: the session takes no more watchers.
        """
        if after_revision and not epoch:
            raise InvalidArgumentError(
                "epoch", epoch, "needs the epoch that came with after_revision; or leave out both"
            )
        if user_id is not None:
            self.user(user_id)
        if self.events.watcher_count >= self._limits.max_watchers:
            raise QuotaError(
                f"the session {self.id!r} has {self.events.watcher_count} watchers already and takes no more"
            )
        watcher = self.events.resume(epoch, after_revision) if epoch else self.events.watch()
        if user_id is not None:
            self._watches[user_id] = self._watches.get(user_id, 0) + 1
            self._presence.end(user_id)
        self._count()
        return watcher

    def end_watch(self, user_id: str | None, watcher: Watcher[SessionEvent]) -> None:
        """The watch is over; a user with no other leaves after `rejoin_grace_s`."""
        watcher.close()
        if user_id is not None:
            self._watches[user_id] -= 1
            if not self._watches[user_id]:
                del self._watches[user_id]
                if user_id in self.users:
                    self._presence.hold(user_id, self._limits.rejoin_grace_s)
        self._count()

    def _count(self) -> None:
        metrics.USERS.labels(self.id).set(len(self.users))
        metrics.SERVICES.labels(self.id).set(len(self._services))
        metrics.WATCHERS.labels(self.id).set(self.events.watcher_count)
