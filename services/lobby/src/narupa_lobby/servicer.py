"""The lobby's RPC edge: requests in, core calls, replies out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import grpc.aio
import structlog

from narupa_lobby import messages
from narupa_lobby.admission import Wish
from narupa_lobby.attempts import address_of
from narupa_lobby.launches import Launches
from narupa_lobby.lobby import Joined, Lobby
from narupa_lobby.records import Session
from narupa_lobby.registry import Report
from narupa_lobby.sessions import Spec, overlaid
from narupa_lobby.users import user_lease
from narupa_shared.auth import Caller, Identity, caller
from narupa_shared.errors import InvalidArgumentError, NarupaError, NotFoundError, UnauthenticatedError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

log = structlog.get_logger(__name__)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["LobbyService"]
SERVICE_NAME: Final = SERVICE.full_name
DEFAULT_LOG_LINES: Final = 50
MAX_LOG_LINES: Final = 1000
# Everybody in a session hears of everybody: what all its watchers get in a second is bounded by making each wait a little
# for more to send along.
MESSAGES_PER_S: Final = 1000.0
LONGEST_GAP_S: Final = 0.3
MAX_EVENTS_AT_ONCE: Final = 256

Context = grpc.aio.ServicerContext[Any, Any]


class LobbyServicer(lobby_pb2_grpc.LobbyServiceServicer):
    """`narupa.lobby.v1.LobbyService`; the proto says what each method promises, the table of access who may call it."""

    def __init__(self, lobby: Lobby, launches: Launches) -> None:
        self._lobby = lobby
        self._launches = launches

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        who = caller(context)
        wish = Wish(
            name=request.user_name,
            session_id=request.session_id,
            join_code=request.join_code,
            password=request.password,
            invite=request.invite,
            rejoin_token=request.rejoin_token,
            request_id=request.request_id,
            address=address_of(context.peer()),
            operator=_operates(who),
            gateway_of=who.identity.session_id if who.identity and who.identity.role == "service" else "",
            client_address=request.client_address,
            guest=request.guest,
            guests_welcome=request.guests_welcome,
        )
        return self._joined(await self._lobby.join(wish))

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        await self._lobby.leave(_user(caller(context)))
        return pb.LeaveResponse()

    async def RenewToken(self, request: pb.RenewTokenRequest, context: Context) -> pb.RenewTokenResponse:
        identity = _user(caller(context))
        grant, role = await self._lobby.fresh(lambda: self._lobby.renew_token(identity))
        return pb.RenewTokenResponse(
            token=grant.token, token_expires_in_s=self._lobby.seconds_left(grant), role=messages.role_name(role)
        )

    async def KickUser(self, request: pb.KickUserRequest, context: Context) -> pb.KickUserResponse:
        session = await self._meant(request.session_id, caller(context))
        await self._lobby.kick(session.id, request.user_id, request.reason)
        return pb.KickUserResponse()

    async def SetUserRole(self, request: pb.SetUserRoleRequest, context: Context) -> pb.SetUserRoleResponse:
        session = await self._meant(request.session_id, caller(context))
        if (role := messages.role_of("role", request.role)) is None:
            raise InvalidArgumentError("role", request.role, "needs one of 1 (viewer), 2 (participant), 3 (host)")
        user = await self._lobby.set_role(session.id, request.user_id, role)
        return pb.SetUserRoleResponse(user=messages.user_message(user))

    async def SetGuestRole(self, request: pb.SetGuestRoleRequest, context: Context) -> pb.SetGuestRoleResponse:
        session = await self._meant(request.session_id, caller(context))
        session = await self._lobby.set_guest_role(session.id, messages.guest_role_of("guest_role", request))
        return pb.SetGuestRoleResponse(session=messages.session_message(self._lobby.view(session)))

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        spec = self._spec(request)
        session, host = await self._lobby.create_session(spec, request.template, request.host_name, request.request_id)
        for simulation in spec.simulations or ():
            try:
                await self._launches.start(session.id, simulation)
            except NarupaError as error:  # the session is there; what does not run in it can be started again
                log.warning("simulation_not_started", session=session.id, simulation=simulation, reason=str(error))
        return pb.CreateSessionResponse(
            session=messages.session_message(self._lobby.view(session)),
            join_code=session.join_code,
            host=self._joined(host) if host else None,
        )

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        who = caller(context)
        if who.identity is None or _operates(who) or self._lobby.rules.open:
            self._lobby.session("")  # refuses while there is nothing to list yet
            found = self._lobby.state.sessions()
        else:
            found = [await self._meant("", who)]
        views = [self._lobby.view(each) for each in found]
        if who.identity is not None and not _operates(who):  # who is in other sessions is not theirs to know
            views = [each if each.id == who.identity.session_id else replace(each, hosts=()) for each in views]
        return pb.ListSessionsResponse(sessions=map(messages.session_message, views))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        who = caller(context)
        session = await self._meant(request.session_id, who)
        return pb.GetSessionResponse(
            session=messages.session_message(self._lobby.view(session)),
            join_code=session.join_code if who.role in ("host", "operator") else "",
            users=map(messages.user_message, self._lobby.state.users(session.id)),
        )

    async def EndSession(self, request: pb.EndSessionRequest, context: Context) -> pb.EndSessionResponse:
        if not request.session_id:
            raise InvalidArgumentError("session_id", "", "must be given, so that no session ends by mistake")
        who = caller(context)
        session = await self._meant(request.session_id, who)
        by = who.identity.name if who.identity else "the operator"
        await self._lobby.end_session(session.id, f"ended by {by}")
        return pb.EndSessionResponse()

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionResponse | bytes]:
        who = caller(context)

        def watch() -> Any:
            session = self._session(request.session_id, who)
            return self._lobby.watch(session.id, who.identity, request.epoch, request.after_revision)

        with contextlib.closing(await self._lobby.fresh(watch)) as watched:
            epoch = watched.events.epoch
            if not request.epoch:
                yield pb.WatchSessionResponse(
                    epoch=epoch, revision=watched.events.revision, snapshot=self._snapshot(watched.session_id, who)
                )
            while batch := await watched.watcher.batch(MAX_EVENTS_AT_ONCE):
                yield messages.joined_messages([told.message for _, told in batch])
                # Events that come close together go out together: the more watchers, the fewer messages for each.
                await asyncio.sleep(min(LONGEST_GAP_S, watched.events.watcher_count / MESSAGES_PER_S))

    async def HoldUsers(
        self, requests: AsyncIterator[pb.HoldUsersRequest], context: Context
    ) -> AsyncIterator[pb.HoldUsersResponse]:
        session = await self._meant("", caller(context))
        with contextlib.closing(self._lobby.holding()) as holding:
            async for request in requests:
                holding.end(user_lease(session.id, user_id) for user_id in request.end)
                if missing := await self._lobby.hold(holding, session.id, request.begin):
                    yield pb.HoldUsersResponse(missing=missing)

    async def CreateInvite(self, request: pb.CreateInviteRequest, context: Context) -> pb.CreateInviteResponse:
        who = caller(context)
        session = await self._meant(request.session_id, who)
        invite, secret = await self._lobby.create_invite(
            session.id,
            messages.role_of("role", request.role),
            request.expires_in_s,
            request.uses,
            who.identity.user_id if who.identity else "operator",
        )
        return pb.CreateInviteResponse(invite=messages.invite_message(invite), secret=secret)

    async def ListInvites(self, request: pb.ListInvitesRequest, context: Context) -> pb.ListInvitesResponse:
        session = await self._meant(request.session_id, caller(context))
        return pb.ListInvitesResponse(invites=map(messages.invite_message, self._lobby.list_invites(session.id)))

    async def RevokeInvite(self, request: pb.RevokeInviteRequest, context: Context) -> pb.RevokeInviteResponse:
        session = await self._meant(request.session_id, caller(context))
        await self._lobby.revoke_invite(session.id, request.invite_id)
        return pb.RevokeInviteResponse()

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        session = await self._meant(request.session_id, caller(context))
        return pb.ListServicesResponse(
            services=map(messages.service_message, self._lobby.state.services(session.id, request.kind)),
            revision=self._lobby.state.revision(session.id),
        )

    async def ListSimulations(self, request: pb.ListSimulationsRequest, context: Context) -> pb.ListSimulationsResponse:
        session = await self._meant(request.session_id, caller(context))
        found = [
            pb.Simulation(
                name=each.name, title=each.title, description=each.description, kind=each.kind,
                launcher=each.launcher, status=each.status, service_id=each.service_id,  # type: ignore[arg-type]
            )
            for each in self._launches.simulations(session.id)
        ]  # fmt: skip
        return pb.ListSimulationsResponse(
            simulations=found, templates=sorted(self._launches.templates()), problems=self._launches.problems()
        )

    async def StartService(self, request: pb.StartServiceRequest, context: Context) -> pb.StartServiceResponse:
        session = await self._meant(request.session_id, caller(context))
        service = await self._launches.start(session.id, request.simulation)
        return pb.StartServiceResponse(service=messages.service_message(service))

    async def StopService(self, request: pb.StopServiceRequest, context: Context) -> pb.StopServiceResponse:
        session = await self._meant(request.session_id, caller(context))
        service = await self._launches.stop(session.id, request.service_id)
        return pb.StopServiceResponse(service=messages.service_message(service))

    async def DrainService(self, request: pb.DrainServiceRequest, context: Context) -> pb.DrainServiceResponse:
        session = await self._meant(request.session_id, caller(context))
        await self._lobby.drain_service(session.id, request.service_id)
        service = self._lobby.service(session.id, request.service_id)
        return pb.DrainServiceResponse(service=messages.service_message(service) if service else None)

    async def GetServiceLog(self, request: pb.GetServiceLogRequest, context: Context) -> pb.GetServiceLogResponse:
        session = await self._meant(request.session_id, caller(context))
        if request.lines > MAX_LOG_LINES:
            raise InvalidArgumentError("lines", request.lines, f"takes at most {MAX_LOG_LINES}")
        lines = request.lines or DEFAULT_LOG_LINES
        return pb.GetServiceLogResponse(lines=await self._launches.log_lines(session.id, request.service_id, lines))

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Context) -> pb.RotateKeysResponse:
        return pb.RotateKeysResponse(public_keys=messages.key_messages(await self._lobby.rotate_keys(request.revoke)))

    async def RegisterService(self, request: pb.RegisterServiceRequest, context: Context) -> pb.RegisterServiceResponse:
        lease = await self._lobby.register(
            request.session_id,
            request.service_key,
            messages.service_of(request.service),
            address_of(context.peer()),
        )
        return pb.RegisterServiceResponse(
            service_id=lease.listed.service.id,
            lease_id=lease.id,
            lease_ttl_s=self._lobby.rules.service_lease_s,
            public_keys=messages.key_messages(self._lobby.tokens.ring.public_keys),
            token=lease.grant.token,
            token_expires_in_s=self._lobby.seconds_left(lease.grant),
            session_id=lease.listed.session_id,
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        report = Report(
            messages.status_of("status", request.status),
            request.occupancy,
            dict(request.metadata),
            request.reason,
            request.progress,
        )
        lease = await self._lobby.renew_lease(request.lease_id, report)
        return pb.RenewLeaseResponse(
            lease_ttl_s=self._lobby.rules.service_lease_s,
            public_keys=messages.key_messages(self._lobby.tokens.ring.public_keys),
            token=lease.grant.token,
            token_expires_in_s=self._lobby.seconds_left(lease.grant),
            drain=lease.listed.drain,
        )

    async def Lead(self, request: pb.LeadRequest, context: Context) -> pb.LeadResponse:
        if request.resign:
            await self._lobby.resign(request.lease_id)
            return pb.LeadResponse()
        found = await self._lobby.lead(request.lease_id, request.seen_epoch)
        return pb.LeadResponse(
            epoch=found.epoch,
            lease_ttl_s=self._lobby.rules.leader_lease_s,
            standbys=found.standbys,
            leader_id=found.leader_id,
            leader_epoch=found.leader_epoch,
        )

    async def DeregisterService(
        self, request: pb.DeregisterServiceRequest, context: Context
    ) -> pb.DeregisterServiceResponse:
        await self._lobby.deregister(request.lease_id)
        return pb.DeregisterServiceResponse()

    def _joined(self, joined: Joined) -> pb.JoinResponse:
        rules = self._lobby.rules
        return pb.JoinResponse(
            session_id=joined.user.session_id,
            user=messages.user_message(joined.user),
            token=joined.grant.token,
            token_expires_in_s=self._lobby.seconds_left(joined.grant),
            services=map(messages.service_message, joined.services),
            revision=joined.revision,
            user_lease_s=rules.user_lease_s,
            rejoin_grace_s=rules.rejoin_grace_s,
        )

    def _snapshot(self, session_id: str, who: Caller) -> pb.SessionSnapshot:
        state = self._lobby.state
        # Only services check tokens; in a busy session there are many that are void.
        revocations = state.revocations(session_id) if who.role == "service" else ()
        return pb.SessionSnapshot(
            session=messages.session_message(self._lobby.view(self._lobby.session(session_id))),
            users=map(messages.user_message, state.users(session_id)),
            services=map(messages.service_message, state.services(session_id)),
            revocations=messages.revocation_messages(revocations),
        )

    def _spec(self, request: pb.CreateSessionRequest) -> Spec:
        """What the request asks for, over its template; the simulations are there.

        Raises:
            NotFoundError: no such template.
            InvalidArgumentError: no such simulation.
        """
        spec = messages.spec_of(request.spec)
        if request.template:
            templates = self._launches.templates()
            if (template := templates.get(request.template)) is None:
                known = ", ".join(sorted(templates)) or "none"
                raise NotFoundError("template", request.template, f"the catalogue has {known}")
            spec = overlaid(spec, messages.template_spec(template, self._lobby.rules))
        offered = {each.name for each in self._launches.simulations("")} if spec.simulations else set()
        for index, name in enumerate(spec.simulations or ()):
            if name not in offered:
                known = ", ".join(sorted(offered)) or "none"
                raise InvalidArgumentError(f"spec.simulations[{index}]", name, f"the catalogue has {known}")
        return spec

    async def _meant(self, session_id: str, who: Caller) -> Session:
        """See `_session`; one that another lobby has just made is known, too."""
        return await self._lobby.fresh(partial(self._session, session_id, who))

    def _session(self, session_id: str, who: Caller) -> Session:
        """The session that a request means: the one it names, else the caller's, else the one that is always there.

        Raises:
            NotFoundError: there is none.
            UnauthenticatedError: the caller's token is for another.
        """
        identity = who.identity
        session = self._lobby.session(session_id or (identity.session_id if identity else ""))
        if identity is not None and identity.session_id != session.id and not _operates(who):
            raise UnauthenticatedError(
                f"the token is for the session {identity.session_id!r}, not for {session.id!r}; join that one first"
            )
        return session


def _operates(who: Caller) -> bool:
    """Whether the caller sent the operator's key."""
    return who.role == "operator" and not who.anonymous


def _user(who: Caller) -> Identity:
    if who.identity is None:
        raise UnauthenticatedError("this call needs the token that Join gave, as 'authorization: Bearer <token>'")
    return who.identity
