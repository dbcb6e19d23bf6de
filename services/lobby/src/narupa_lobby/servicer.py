"""The lobby's RPC edge: requests in, core calls, replies out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio

from narupa_lobby.lobby import Grant, Lobby, check_session
from narupa_lobby.services import Endpoint, Service, ServiceStatus, check_status
from narupa_lobby.session import ServiceChanged, ServiceRemoved, Session, SessionEvent, User, UserJoined, UserLeft
from narupa_shared.auth import Identity, caller
from narupa_shared.errors import UnauthenticatedError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["LobbyService"].full_name
# Joining and registering is how one gets a token; a lease id is a secret of its own.
PUBLIC_METHODS = frozenset(
    f"/{SERVICE_NAME}/{method}" for method in ("Join", "RegisterService", "RenewLease", "DeregisterService")
)

Context = grpc.aio.ServicerContext[Any, Any]


class LobbyServicer(lobby_pb2_grpc.LobbyServiceServicer):
    """`narupa.lobby.v1.LobbyService`; the proto says what each method promises."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        session, user, grant = self._lobby.join(request.session_id, request.user_name, request.join_code)
        return pb.JoinResponse(
            session_id=session.id,
            user=user_message(user),
            token=grant.token,
            token_expires_in_s=self._left(grant),
            services=map(service_message, session.services()),
            revision=session.events.revision,
            user_lease_s=self._lobby.limits.user_lease_s,
        )

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        self._lobby.leave(_identity(context))
        return pb.LeaveResponse()

    async def RenewToken(self, request: pb.RenewTokenRequest, context: Context) -> pb.RenewTokenResponse:
        grant = self._lobby.renew_token(_identity(context))
        return pb.RenewTokenResponse(token=grant.token, token_expires_in_s=self._left(grant))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        return pb.ListSessionsResponse(sessions=map(session_message, self._lobby.sessions))

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        session = self._lobby.session(request.session_id)
        check_session(caller(context).identity, session)
        return pb.ListServicesResponse(
            services=map(service_message, session.services(request.kind)), revision=session.events.revision
        )

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        identity = caller(context).identity
        with self._lobby.watching(request.session_id, identity, request.epoch, request.after_revision) as watched:
            session, watcher = watched
            epoch = session.events.epoch
            if not request.epoch:
                yield pb.WatchSessionResponse(
                    epoch=epoch, revision=session.events.revision, snapshot=snapshot_message(session)
                )
            async for revision, event in watcher:
                yield event_message(epoch, revision, event)

    async def RegisterService(self, request: pb.RegisterServiceRequest, context: Context) -> pb.RegisterServiceResponse:
        lease = self._lobby.register(request.session_id, request.service_key, service_of(request.service))
        return pb.RegisterServiceResponse(
            service_id=lease.service_id,
            lease_id=lease.id,
            lease_ttl_s=self._lobby.limits.service_lease_s,
            public_keys=self._public_keys(),
            token=lease.grant.token,
            token_expires_in_s=self._left(lease.grant),
            session_id=lease.session_id,
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        status = check_status("status", request.status) if request.status else None
        lease = self._lobby.renew_lease(request.lease_id, status, request.occupancy, dict(request.metadata))
        return pb.RenewLeaseResponse(
            lease_ttl_s=self._lobby.limits.service_lease_s,
            public_keys=self._public_keys(),
            token=lease.grant.token,
            token_expires_in_s=self._left(lease.grant),
        )

    async def DeregisterService(
        self, request: pb.DeregisterServiceRequest, context: Context
    ) -> pb.DeregisterServiceResponse:
        self._lobby.deregister(request.lease_id)
        return pb.DeregisterServiceResponse()

    def _left(self, grant: Grant) -> float:
        return self._lobby.seconds_left(grant)

    def _public_keys(self) -> Iterable[pb.PublicKey]:
        key_id, key = self._lobby.signer.public_key
        return [pb.PublicKey(key_id=key_id, key=key)]


def _identity(context: Context) -> Identity:
    if (identity := caller(context).identity) is None:
        raise UnauthenticatedError("this call needs the token that Join gave, as 'authorization: Bearer <token>'")
    return identity


def service_of(message: pb.Service) -> Service:
    """The service that `message` describes, unchecked but for its status; an unset status means running."""
    return Service(
        id=message.id,
        kind=message.kind,
        status=check_status("service.status", message.status) if message.status else ServiceStatus.RUNNING,
        endpoints=tuple(Endpoint(each.protocol, each.host, each.port) for each in message.endpoints),
        capacity=message.capacity,
        load=message.occupancy,
        metadata=dict(message.metadata),
    )


def service_message(service: Service) -> pb.Service:
    return pb.Service(
        id=service.id,
        kind=service.kind,
        status=f"SERVICE_STATUS_{service.status.name}",
        endpoints=[pb.Endpoint(protocol=each.protocol, host=each.host, port=each.port) for each in service.endpoints],
        capacity=service.capacity,
        occupancy=service.load,
        metadata=service.metadata,
    )


def user_message(user: User) -> pb.User:
    return pb.User(id=user.id, name=user.name)


def session_message(session: Session) -> pb.Session:
    return pb.Session(
        id=session.id, name=session.name, user_count=len(session.users), service_count=len(session.services())
    )


def snapshot_message(session: Session) -> pb.SessionSnapshot:
    return pb.SessionSnapshot(
        session=session_message(session),
        users=map(user_message, session.users.values()),
        services=map(service_message, session.services()),
    )


def event_message(epoch: str, revision: int, event: SessionEvent) -> pb.WatchSessionResponse:
    message = pb.WatchSessionResponse(epoch=epoch, revision=revision)
    match event:
        case UserJoined(user):
            message.user_joined.CopyFrom(user_message(user))
        case UserLeft(user):
            message.user_left.CopyFrom(user_message(user))
        case ServiceChanged(service):
            message.service_changed.CopyFrom(service_message(service))
        case ServiceRemoved(service):
            message.service_removed.CopyFrom(service_message(service))
    return message
