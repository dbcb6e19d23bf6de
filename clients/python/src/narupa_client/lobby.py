"""What a lobby does for its operator and for the hosts of its sessions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from narupa_client.address import SessionAddress, session_link
from narupa_client.connection import Endpoint
from narupa_client.lobby_connection import LobbyConnection
from narupa_client.membership import LobbyMembership
from narupa_client.place import Admission
from narupa_client.records import (
    Catalogue,
    CreatedSession,
    Invite,
    Service,
    SessionDetails,
    SessionFacts,
    User,
    catalogue_of,
    guest_role_number,
    invite_of,
    role_number,
    service_of,
    session_of,
    user_of,
)
from narupa_client.retry import RetryPolicy
from narupa_client.subscription import Deliver, Subscription
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    FailedPreconditionError,
    NoLongerKeptError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.tls import TlsConfig

# The lobby waits for a started service no longer than this at its door.
_START_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class LobbyEvent:
    """Something that happened in a session.

    Attributes:
        kind: "snapshot", "user_joined", "user_left", "user_changed", "service_changed", "service_removed",
            "session_changed" or "session_ended".
        users: The user that it is about; everybody, for a snapshot.
        services: The service that it is about; every one, for a snapshot.
        session: The session as it is, where that is what changed; None otherwise.
        reason: Of leaving or ending.
        epoch: Changes when revisions start over.
        revision: Grows by one with each event.
    """

    kind: str
    users: tuple[User, ...]
    services: tuple[Service, ...]
    session: SessionFacts | None
    reason: str
    epoch: str
    revision: int


class Lobby:
    """A lobby, as far as the caller may use it; `open_lobby` and `Session.lobby` make one.

    Methods take a session's id; without it they are about the one that this object was opened for. Each raises
    PermissionDeniedError where the caller's role is too low, UnavailableError where no lobby answers, and NotFoundError
    where there is no such session.
    """

    def __init__(
        self, connection: LobbyConnection, scope: TaskScope, session_id: str = "", member: LobbyMembership | None = None
    ) -> None:
        self._lobby = connection
        self._scope = scope
        self.session_id = session_id
        self.member = member
        """Ourselves as a user of the session; None where we came without joining, or through `Session.lobby`."""

    @property
    def heard(self) -> bool:
        """Whether any lobby was reached so far."""
        return bool(self._lobby.address)

    def link(self, session_id: str = "", *, invite: str = "", join_code: str = "") -> str:
        """What to send to who shall join: an address of the session, with the secret of an invite or the join code in it."""
        session_id = session_id or self.session_id or "default"
        return session_link(self._lobby.addresses, session_id, invite=invite, join_code=join_code)

    async def sessions(self) -> list[SessionFacts]:
        """Every session for an operator, and at an open lobby; otherwise the caller's."""
        reply = await self._lobby.call("ListSessions", v1.ListSessionsRequest(), v1.ListSessionsResponse)
        return [session_of(item) for item in reply.sessions]

    async def session(self, session_id: str = "") -> SessionDetails:
        """One session and its people, with its join code where we may know it."""
        request = v1.GetSessionRequest(session_id=session_id or self.session_id)
        reply = await self._lobby.call("GetSession", request, v1.GetSessionResponse)
        return SessionDetails(session_of(reply.session), tuple(map(user_of, reply.users)), reply.join_code)

    async def users(self, session_id: str = "") -> list[User]:
        """Everybody in the session."""
        return list((await self.session(session_id)).users)

    async def create_session(
        self,
        name: str = "",
        *,
        template: str = "",
        host_name: str = "",
        join_role: str = "",
        max_users: int = 0,
        max_services: int = 0,
        idle_timeout_s: float | None = None,
        join_code: str = "",
        password: str = "",
        simulations: Sequence[str] = (),
        guest_role: str = "",
    ) -> CreatedSession:
        """A new session. What is unset is as the template has it, and then as the lobby does.

        Args:
            name: 1 to 64 characters.
            host_name: Of a first user, who hosts it; unset: nobody joins.
            join_role: Of who joins with the join code or the password.
            idle_timeout_s: The session ends when nobody was in it for so long, s; 0 for never.
            join_code: 6 to 64 characters; unset: the lobby makes one.
            password: 8 to 128 characters; joining then needs it instead of the code.
            simulations: Names in the catalogue, started with the session.
            guest_role: As for `set_guest_role`; empty is unset.

        Raises:
            InvalidArgumentError: naming what is wrong. NotFoundError: no such template or simulation.
            QuotaError: the lobby takes no more sessions.
        """
        spec = v1.SessionSpec(
            name=name,
            join_role=role_number(join_role, "join_role"),
            max_users=max_users,
            max_services=max_services,
            join_code=join_code,
            password=password,
            simulations=simulations,
            guest_role=guest_role_number(guest_role),
        )
        if idle_timeout_s is not None:
            spec.idle_timeout_s = idle_timeout_s
        request = v1.CreateSessionRequest(
            template=template, spec=spec, host_name=host_name, request_id=uuid.uuid4().hex
        )
        reply = await self._lobby.call("CreateSession", request, v1.CreateSessionResponse)
        host = user_of(reply.host.user) if reply.HasField("host") else None
        return CreatedSession(session_of(reply.session), reply.join_code, host, reply.host.token)

    async def end_session(self, session_id: str) -> None:
        """Everybody has left, started services stop, tokens and invites are void. Idempotent."""
        request = v1.EndSessionRequest(session_id=session_id)
        await self._lobby.call("EndSession", request, v1.EndSessionResponse)

    async def kick(self, user_id: str, reason: str = "", session_id: str = "") -> None:
        """The user is removed, and cannot come back as the same one.

        Raises:
            NotFoundError: no such user.
        """
        request = v1.KickUserRequest(session_id=session_id or self.session_id, user_id=user_id, reason=reason)
        await self._lobby.call("KickUser", request, v1.KickUserResponse)

    async def set_role(self, user_id: str, role: str, session_id: str = "") -> User:
        """The user is a viewer, participant or host from now on.

        Raises:
            NotFoundError: no such user. FailedPreconditionError: it would leave users but no host.
        """
        request = v1.SetUserRoleRequest(
            session_id=session_id or self.session_id, user_id=user_id, role=role_number(role)
        )
        return user_of((await self._lobby.call("SetUserRole", request, v1.SetUserRoleResponse)).user)

    async def set_guest_role(self, role: str | None, session_id: str = "") -> SessionFacts:
        """Clients that can carry no token come in as this from now on, through a gateway; those who are in stay what they are.

        Args:
            role: viewer, participant or host; "none" lets nobody in so; None leaves it to gateways that are open
                themselves, which then let them in as whatever the lobby lets everybody be.

        Raises:
            InvalidArgumentError: there is no such role.
        """
        request = v1.SetGuestRoleRequest(
            session_id=session_id or self.session_id, guest_role=guest_role_number(role, "role")
        )
        return session_of((await self._lobby.call("SetGuestRole", request, v1.SetGuestRoleResponse)).session)

    async def create_invite(
        self, role: str = "", *, uses: int = 0, expires_in_s: float = 0.0, session_id: str = ""
    ) -> Invite:
        """An invite, with its secret, which nobody can ask for again.

        Args:
            role: Unset is the session's `join_role`.
            uses: How many may join with it; unset is 1.
            expires_in_s: How long it works, s; unset is a day.

        Raises:
            InvalidArgumentError: naming what is wrong. QuotaError: the session has too many.
        """
        request = v1.CreateInviteRequest(
            session_id=session_id or self.session_id, role=role_number(role), uses=uses, expires_in_s=expires_in_s
        )
        # Made twice, one of them would be left over.
        reply = await self._lobby.call("CreateInvite", request, v1.CreateInviteResponse, repeat=False)
        return invite_of(reply.invite, reply.secret)

    async def invites(self, session_id: str = "") -> list[Invite]:
        """Those that still work, without their secrets."""
        request = v1.ListInvitesRequest(session_id=session_id or self.session_id)
        reply = await self._lobby.call("ListInvites", request, v1.ListInvitesResponse)
        return [invite_of(item) for item in reply.invites]

    async def revoke_invite(self, invite_id: str, session_id: str = "") -> None:
        """The invite lets nobody in any more. Idempotent."""
        request = v1.RevokeInviteRequest(session_id=session_id or self.session_id, invite_id=invite_id)
        await self._lobby.call("RevokeInvite", request, v1.RevokeInviteResponse)

    async def services(self, kind: str = "", session_id: str = "") -> list[Service]:
        """What runs, or started and stopped, by kind and then the one to use first at the front."""
        request = v1.ListServicesRequest(session_id=session_id or self.session_id, kind=kind)
        reply = await self._lobby.call("ListServices", request, v1.ListServicesResponse)
        return [service_of(item) for item in reply.services]

    async def simulations(self, session_id: str = "") -> Catalogue:
        """What the catalogue offers, started or not, and what is wrong in it."""
        request = v1.ListSimulationsRequest(session_id=session_id or self.session_id)
        return catalogue_of(await self._lobby.call("ListSimulations", request, v1.ListSimulationsResponse))

    async def start(self, simulation: str, session_id: str = "") -> Service:
        """The simulation of this name starts, or runs already; `started` waits for it.

        Raises:
            NotFoundError: the catalogue has none of this name. QuotaError: the session takes no more services.
        """
        request = v1.StartServiceRequest(session_id=session_id or self.session_id, simulation=simulation)
        reply = await self._lobby.call("StartService", request, v1.StartServiceResponse, timeout_s=_START_TIMEOUT_S)
        return service_of(reply.service)

    async def started(
        self,
        simulation: str,
        *,
        within_s: float = 120.0,
        progress: Callable[[Service], object] = lambda _: None,
        session_id: str = "",
    ) -> Service:
        """The simulation of this name runs.

        Args:
            within_s: How long to wait for it, s; it goes on starting after that.
            progress: Told of every change on the way.

        Raises:
            NotFoundError, QuotaError: as `start`.
            FailedPreconditionError: it stopped instead; the text says why.
            UnavailableError: it does not run after `within_s`.
        """
        service = await self.start(simulation, session_id)
        progress(service)
        if service.status == "running":
            return service
        try:
            async with asyncio.timeout(within_s), self.watch(session_id) as events:
                async for event in events:
                    for seen in event.services:
                        if seen.id != service.id:
                            continue
                        if event.kind == "service_removed":
                            raise FailedPreconditionError(f"{simulation} was stopped before it ran")
                        service = seen
                        progress(service)
                        if service.status == "running":
                            return service
                        if service.status == "stopped":
                            raise FailedPreconditionError(
                                f"{simulation} did not start: {service.reason or 'the lobby does not say why'}"
                            )
        except TimeoutError:
            raise UnavailableError(
                f"{simulation} does not run after {within_s:g} s: it is {service.status}"
                + (f" ({service.reason})" if service.reason else "")
            ) from None
        raise UnavailableError(f"the session ended while {simulation} started")

    async def stop(self, service_id: str, session_id: str = "") -> Service:
        """The service drains and stops. Idempotent.

        Raises:
            NotFoundError: no such service. FailedPreconditionError: the lobby did not start it.
        """
        request = v1.StopServiceRequest(session_id=session_id or self.session_id, service_id=service_id)
        return service_of((await self._lobby.call("StopService", request, v1.StopServiceResponse)).service)

    async def drain(self, service_id: str, session_id: str = "") -> Service:
        """The service takes no new subscribers, and those it has move to another of its kind. Idempotent.

        Raises:
            NotFoundError: no such service.
        """
        request = v1.DrainServiceRequest(session_id=session_id or self.session_id, service_id=service_id)
        return service_of((await self._lobby.call("DrainService", request, v1.DrainServiceResponse)).service)

    async def log(self, service_id: str, lines: int = 0, session_id: str = "") -> list[str]:
        """The last lines that a started service wrote; unset is 50 of them, and the most is 1000.

        Raises:
            NotFoundError: no such service, or the lobby did not start it.
        """
        request = v1.GetServiceLogRequest(session_id=session_id or self.session_id, service_id=service_id, lines=lines)
        return list((await self._lobby.call("GetServiceLog", request, v1.GetServiceLogResponse)).lines)

    async def rotate_keys(self, *, revoke: bool = False) -> list[str]:
        """Tokens are signed with a new key. Returns the ids of the keys in use.

        Args:
            revoke: Whether every token there was is void, as after a theft of keys; members then come back as new users.
        """
        reply = await self._lobby.call("RotateKeys", v1.RotateKeysRequest(revoke=revoke), v1.RotateKeysResponse)
        return [key.key_id for key in reply.public_keys]

    def watch(self, session_id: str = "", *, policy: RetryPolicy | None = None) -> Subscription[LobbyEvent]:
        """Every event of the session, the first a snapshot of it; the last says that the session has ended.

        Close the iterator (or use it in `async with`) to stop early. After a lost connection it resumes where it was, at
        any of the lobbies; where that is no longer kept, another snapshot follows.
        """
        epoch, revision = "", 0
        over = False

        async def follow(deliver: Deliver[LobbyEvent]) -> None:
            nonlocal epoch, revision, over
            request = v1.WatchSessionRequest(
                session_id=session_id or self.session_id, epoch=epoch, after_revision=revision
            )
            try:
                async with self._lobby.watch(request) as events:
                    async for message in events:
                        event = event_of(message)
                        over = over or event.kind == "session_ended"
                        await deliver(event)
                        epoch, revision = event.epoch, event.revision
            except NoLongerKeptError:
                if not epoch:
                    raise
                epoch, revision = "", 0
                await follow(deliver)
            except UnavailableError:
                self._lobby.turn()
                raise

        return Subscription(
            self._scope,
            "narupa-lobby-events",
            follow,
            mode="all",
            policy=policy or RetryPolicy(),
            renew=self._renew,
            over=lambda: over,
        )

    async def _renew(self) -> None:
        if self.member is not None:
            await self.member.renew(self.member.token)


def event_of(message: v1.WatchSessionResponse) -> LobbyEvent:
    """The event that `message` tells of."""
    kind = message.WhichOneof("event") or ""
    users: tuple[User, ...] = ()
    services: tuple[Service, ...] = ()
    session: SessionFacts | None = None
    match kind:
        case "snapshot":
            users = tuple(map(user_of, message.snapshot.users))
            services = tuple(map(service_of, message.snapshot.services))
            session = session_of(message.snapshot.session)
        case "user_joined" | "user_left" | "user_changed":
            users = (user_of(getattr(message, kind)),)
        case "service_changed" | "service_removed":
            services = (service_of(getattr(message, kind)),)
        case "session_changed" | "session_ended":
            session = session_of(getattr(message, kind))
    return LobbyEvent(kind, users, services, session, message.reason, message.epoch, message.revision)


@asynccontextmanager
async def open_lobby(
    address: str,
    name: str = "narupa",
    *,
    session: str = "",
    join_code: str | None = None,
    password: str | None = None,
    invite: str | None = None,
    operator_key: str | None = None,
    tls: TlsConfig | None = None,
) -> AsyncIterator[Lobby]:
    """A lobby, to ask and to tell it things; with a join code, password or invite, as a user who joins for as long.

    Args:
        address: HOST:PORT of the lobby, or of several with commas between, or an invite link.
        name: What others see of us where we join.
        session: What methods are about when they are not told; unset is that of the link, or the lobby's default session.
        operator_key: The lobby's own; with it everything is allowed without joining.
        tls: Certificates; given, the lobby is spoken to over TLS.

    Raises:
        UnavailableError: the lobby cannot be reached.
        PermissionDeniedError: wrong join code, password or invite.
        NotFoundError: no such session.
        InvalidArgumentError: a bad address or key.
    """
    place = SessionAddress.parse(address)
    place = replace(place, session_id=session or place.session_id)
    admission = Admission(
        user_name=name,
        join_code=join_code or place.join_code,
        password=password or "",
        invite=invite or place.invite,
        operator_key=operator_key or "",
    )
    member = LobbyMembership(place, admission, tls)
    scope = TaskScope()
    try:
        joins = not operator_key and await _must_join(member, admission)
        if joins:
            await member.join(0)
            member.start(scope)
        yield Lobby(member.lobby, scope, member.session_id, member if joins else None)
    finally:
        try:
            await scope.aclose()
        finally:
            await member.leave()


async def _must_join(member: LobbyMembership, admission: Admission) -> bool:
    """Whether the lobby wants to know who asks; an open one does not, and lets us do more than a join code would."""
    if admission.invite or not (admission.join_code or admission.password):
        return bool(admission.invite)
    try:
        await member.lobby.call("ListSessions", v1.ListSessionsRequest(), v1.ListSessionsResponse)
    except (UnauthenticatedError, PermissionDeniedError):
        return True
    return False


async def list_services(
    address: Endpoint | SessionAddress,
    session_id: str = "",
    join_code: str = "",
    name: str = "narupa",
    admission: Admission | None = None,
    tls: TlsConfig | None = None,
) -> list[Service]:
    """The services of a session, in the order of `Lobby.services`; joins only where it must.

    Raises:
        UnavailableError: the lobby cannot be reached.
        PermissionDeniedError: it is closed, and the join code is missing or wrong.
    """
    place = address if isinstance(address, SessionAddress) else SessionAddress((address,))
    place = replace(place, session_id=session_id or place.session_id)
    member = LobbyMembership(place, admission or Admission(name, join_code), tls)
    try:
        try:
            request = v1.ListServicesRequest(session_id=place.session_id)
            reply = await member.lobby.call("ListServices", request, v1.ListServicesResponse)
            return [service_of(item) for item in reply.services]
        except (UnauthenticatedError, PermissionDeniedError):
            await member.join(0)
            return list(member.services)
    finally:
        await member.leave()
