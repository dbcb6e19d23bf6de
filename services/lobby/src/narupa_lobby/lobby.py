"""The owner of all that the lobby knows: sessions, leases, and the tokens it has given out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import structlog

from narupa_lobby import metrics
from narupa_lobby.access import Access
from narupa_lobby.leases import Leases
from narupa_lobby.services import Service, ServiceStatus, check_load, check_metadata, check_service
from narupa_lobby.session import Limits, Session, SessionEvent, User
from narupa_lobby.watch import Watcher
from narupa_shared.auth import Identity, Role, TokenSigner
from narupa_shared.errors import NotFoundError, UnauthenticatedError, UnavailableError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and when it ends (s since the Unix epoch)."""

    token: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A service's hold on its place. `id` is a secret: whoever knows it may renew or end the lease."""

    id: str
    session_id: str
    service_id: str
    grant: Grant


class Lobby:
    """All state of the lobby, on one thread; synchronous, and never waits."""

    def __init__(
        self,
        signer: TokenSigner,
        access: Access,
        limits: Limits,
        *,
        session_id: str = "default",
        token_ttl_s: float = 3600.0,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """A lobby with one session.

        Args:
            signer: Signs the tokens.
            access: Who may come in.
            limits: How much each session takes.
            session_id: Id of the session that exists from the start, and that an unset id means.
            token_ttl_s: How long a token is good for, s.
            clock: Monotonic, s; leases run on it.
            wall_clock: s since the Unix epoch; tokens expire by it.
            new_id: Ids that cannot be guessed.
        """
        self.signer = signer
        self.limits = limits
        self._access = access
        self._default_session_id = session_id
        self._token_ttl_s = token_ttl_s
        self._wall_clock = wall_clock
        self._new_id = new_id
        self._leases: dict[str, Lease] = {}
        self._lease_of: dict[tuple[str, str], str] = {}  # by session and service id
        self._service_deadlines = Leases(clock)
        self._presence = Leases(clock)
        self._session_of_user: dict[str, str] = {}
        self._draining = False
        self._sessions = {session_id: Session(session_id, session_id, new_id(), limits, self._presence)}

    @property
    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    def session(self, session_id: str) -> Session:
        """The session of this id; the one that was there first when it is empty. NotFoundError when there is none."""
        session_id = session_id or self._default_session_id
        if (session := self._sessions.get(session_id)) is None:
            raise NotFoundError("session", session_id, f"this lobby has {', '.join(map(repr, self._sessions))}")
        return session

    def join(self, session_id: str, name: str, join_code: str) -> tuple[Session, User, Grant]:
        """A new user is in the session, with a token.

        Raises:
            PermissionDeniedError: the lobby is closed and the join code is not right.
            NotFoundError: no such session.
            InvalidArgumentError: the name is empty, too long or not printable.
            QuotaError: the session is full.
        """
        self._refuse_while_draining()
        self._access.admit_user(join_code)
        session = self.session(session_id)
        user = session.add_user(self._new_id(), name)
        self._session_of_user[user.id] = session.id
        return session, user, self._grant(session, user.id, user.name, "participant")

    def seconds_left(self, grant: Grant) -> float:
        """How long the token is still good for, s."""
        return max(0.0, grant.expires_at - self._wall_clock())

    def leave(self, identity: Identity) -> None:
        """The user is gone. Idempotent."""
        self._remove_user(identity.user_id, "left")

    def renew_token(self, identity: Identity) -> Grant:
        """A new token for a user who is still here, or NotFoundError."""
        session = self.session(identity.session_id)
        user = session.touch_user(identity.user_id)
        return self._grant(session, user.id, user.name, identity.role)

    def register(self, session_id: str, service_key: str, service: Service) -> Lease:
        """`service` is listed for `service_lease_s`; an earlier lease of the same service id ends.

        Raises:
            PermissionDeniedError: the lobby is closed and the service key is not right.
            NotFoundError: no such session.
            InvalidArgumentError: a field of `service` is malformed or out of range.
            QuotaError: the session takes no more services.
        """
        self._refuse_while_draining()
        self._access.admit_service(service_key)
        session = self.session(session_id)
        check_service(service)
        service = session.put_service(replace(service, id=service.id or self._new_id()))
        if older := self._lease_of.get((session.id, service.id)):
            self._forget(older)
        lease = Lease(self._new_id(), session.id, service.id, self._service_grant(session, service))
        self._leases[lease.id] = lease
        self._lease_of[session.id, service.id] = lease.id
        self._service_deadlines.hold(lease.id, self.limits.service_lease_s)
        log.info("service_registered", session=session.id, service=service.id, kind=service.kind, again=bool(older))
        return lease

    def renew_lease(
        self, lease_id: str, status: ServiceStatus | None, load: float, metadata: Mapping[str, str]
    ) -> Lease:
        """The lease runs anew; status and metadata change where given. The token is new once half its life is over.

        Raises:
            NotFoundError: the lease has lapsed or ended.
            InvalidArgumentError: load or metadata is out of range. The lease is not renewed.
        """
        check_load("occupancy", load)
        check_metadata("metadata", metadata)
        if (lease := self._leases.get(lease_id)) is None:
            raise NotFoundError("lease", "", "it has lapsed or ended; register again")
        session = self.session(lease.session_id)
        service = session.service(lease.service_id)
        assert service is not None, "a lease and its service end together"
        if status is not None and status is not service.status:
            log.info(
                "service_status", session=session.id, service=service.id, kind=service.kind, status=status.name.lower()
            )
        service = session.put_service(
            replace(service, status=status or service.status, load=load, metadata=metadata or service.metadata)
        )
        self._service_deadlines.hold(lease_id, self.limits.service_lease_s)
        if lease.grant.expires_at - self._wall_clock() < self._token_ttl_s / 2:
            lease = replace(lease, grant=self._service_grant(session, service))
            self._leases[lease_id] = lease
        return lease

    def deregister(self, lease_id: str) -> None:
        """The lease has ended and its service is not listed. Idempotent."""
        self._remove_service(lease_id, "service_deregistered")

    @contextlib.contextmanager
    def watching(
        self, session_id: str, identity: Identity | None, epoch: str, after_revision: int
    ) -> Iterator[tuple[Session, Watcher[SessionEvent]]]:
        """The session and its events while this is open; a user with a token is present meanwhile.

        Raises:
            NotFoundError: no such session, or the user has left.
            UnauthenticatedError: the token is for another session.
            NoLongerKeptError: the epoch has passed, or the revision is not kept.
            QuotaError: the session takes no more watchers.
        """
        self._refuse_while_draining()
        session = self.session(session_id)
        check_session(identity, session)
        user_id = identity.user_id if identity and identity.role != "service" else None
        watcher = session.start_watch(user_id, epoch, after_revision)
        try:
            yield session, watcher
        finally:
            session.end_watch(user_id, watcher)

    def expire(self) -> None:
        """Whoever and whatever has not shown life in time is gone. To be called a few times per second."""
        for lease_id in self._service_deadlines.lapsed():
            self._remove_service(lease_id, "service_lapsed")
        for user_id in self._presence.lapsed():
            self._remove_user(user_id, "vanished")

    def drain(self) -> None:
        """Every watch ends, and nobody can come in."""
        self._draining = True
        for session in self._sessions.values():
            session.events.end(UnavailableError("the lobby is stopping; try again once it is back"))

    def _refuse_while_draining(self) -> None:
        if self._draining:
            raise UnavailableError("the lobby is stopping; try again once it is back")

    def _remove_user(self, user_id: str, reason: str) -> None:
        if session_id := self._session_of_user.pop(user_id, None):
            self._sessions[session_id].remove_user(user_id, reason)

    def _remove_service(self, lease_id: str, event: str) -> None:
        if (lease := self._leases.get(lease_id)) is None:
            return
        self._forget(lease_id)
        service = self._sessions[lease.session_id].remove_service(lease.service_id)
        if event == "service_lapsed":
            metrics.LEASES_LAPSED.labels(lease.session_id).inc()
        log.info(event, session=lease.session_id, service=lease.service_id, kind=service.kind if service else None)

    def _forget(self, lease_id: str) -> None:
        lease = self._leases.pop(lease_id)
        del self._lease_of[lease.session_id, lease.service_id]
        self._service_deadlines.end(lease_id)

    def _service_grant(self, session: Session, service: Service) -> Grant:
        return self._grant(session, service.id, service.kind, "service")

    def _grant(self, session: Session, subject: str, name: str, role: Role) -> Grant:
        expires_at = self._wall_clock() + self._token_ttl_s
        return Grant(self.signer.sign(Identity(subject, name, session.id, role, expires_at)), expires_at)


def check_session(identity: Identity | None, session: Session) -> None:
    """A caller with a token may see `session`, or UnauthenticatedError."""
    if identity is not None and identity.session_id != session.id:
        raise UnauthenticatedError(
            f"the token is for the session {identity.session_id!r}, not for {session.id!r}; join that one first"
        )
