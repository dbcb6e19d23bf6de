"""A small lobby, and several over one memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from narupa_client.testing.servers import Context, FakeServer, token_of
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc

Message = Any
_OPERATOR_HEADER = "narupa-operator-key"


class LobbyMemory:
    """What lobbies over one store share."""

    def __init__(self) -> None:
        self.users: dict[str, lobby_pb2.User] = {}
        self.services: dict[str, lobby_pb2.Service] = {}
        self.simulations: dict[str, list[lobby_pb2.Service]] = {}
        self.sessions: dict[str, lobby_pb2.Session] = {
            "default": lobby_pb2.Session(id="default", name="default", join_role=lobby_pb2.ROLE_PARTICIPANT)
        }
        self.invites: dict[str, lobby_pb2.Invite] = {}
        self.known: dict[str, lobby_pb2.User] = {}
        self.kicked: set[str] = set()
        self.answered: dict[str, str] = {}
        self.events: list[lobby_pb2.WatchSessionResponse] = []
        self.epoch = 1
        self.serial = itertools.count(1)
        self.news = asyncio.Condition()


class FakeLobby(FakeServer, lobby_pb2_grpc.LobbyServiceServicer):
    """A lobby whose one session has people and services, without signatures; tokens are plain text."""

    def __init__(self, beside: FakeLobby | None = None) -> None:
        """
        Args:
            beside: A lobby to share the memory of.
        """
        super().__init__()
        self.memory: LobbyMemory = beside.memory if beside else LobbyMemory()
        self.join_code = ""
        self.operator_key = ""
        """Whoever shows it may do everything; while it is set, others must be hosts for that."""
        self.role = lobby_pb2.ROLE_HOST
        """Of who joins without an invite."""
        self.joins = 0
        self.unanswered = 0
        """How many of the next joins are made without an answer that arrives."""
        self.token_life_s = 3600.0

    @property
    def users(self) -> dict[str, lobby_pb2.User]:
        """Who is here, by token."""
        return self.memory.users

    @property
    def services(self) -> dict[str, lobby_pb2.Service]:
        """What is registered, by id."""
        return self.memory.services

    def _add_to(self, server: grpc.aio.Server) -> None:
        lobby_pb2_grpc.add_LobbyServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    async def add_service(self, kind: str, *addresses: str, id: str = "", status: int = 3, load: float = 0.0) -> None:
        """A service of this kind is registered with these HOST:PORT endpoints."""
        service = lobby_pb2.Service(id=id or kind, kind=kind, status=status, occupancy=load)  # type: ignore[arg-type]
        for address in addresses:
            host, _, port = address.rpartition(":")
            service.endpoints.add(protocol="grpc", host=host, port=int(port))
        await self.change_service(service)

    async def change_service(self, service: lobby_pb2.Service) -> None:
        """The service is registered, and is so from now on."""
        self.services[service.id] = service
        await self._tell(service_changed=service)

    async def remove_service(self, id: str) -> None:
        """The service is registered no more."""
        await self._tell(service_removed=self.services.pop(id))

    def add_simulation(self, name: str, *course: lobby_pb2.Service) -> None:
        """The catalogue has a simulation, which passes through these states one by one when it is started."""
        self.memory.simulations[name] = list(course)

    async def vanish(self, user_id: str) -> None:
        """The lobby takes the user for vanished."""
        await self._remove(user_id, "vanished")

    def forget(self) -> None:
        """Every user, service and revision is lost, as by a restart without a store."""
        self.users.clear()
        self.services.clear()
        self.memory.known.clear()
        self.memory.events.clear()
        self.memory.epoch += 1

    def forget_history(self) -> None:
        """Earlier revisions can no longer be resumed from; everything else is kept."""
        self.memory.epoch += 1

    async def _tell(self, **event: Any) -> None:
        memory = self.memory
        async with memory.news:
            memory.events.append(
                lobby_pb2.WatchSessionResponse(epoch=str(memory.epoch), revision=len(memory.events) + 1, **event)
            )
            memory.news.notify_all()

    async def _remove(self, user_id: str, reason: str) -> None:
        gone = [token for token, user in self.users.items() if user.id == user_id]
        for token in gone:
            user = self.users.pop(token)
            await self._tell(user_left=user, reason=reason)

    async def _host(self, context: Context) -> None:
        """Ends the call unless it is an operator's or a host's, where that matters here."""
        if not self.operator_key:
            return
        headers: dict[str, Any] = dict(context.invocation_metadata() or ())
        user = self.users.get(token_of(context))
        if headers.get(_OPERATOR_HEADER) == self.operator_key or (user and user.role == lobby_pb2.ROLE_HOST):
            return
        if user is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "there is no token")
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this needs the role host")

    async def Join(self, request: lobby_pb2.JoinRequest, context: Context) -> lobby_pb2.JoinResponse:
        memory = self.memory
        role = self.role
        known = memory.known.get(request.rejoin_token)
        if request.rejoin_token in memory.kicked:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this user was removed from the session")
        if request.session_id and request.session_id not in memory.sessions:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no session has the id {request.session_id!r}")
        if request.invite:
            if request.invite not in memory.invites:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the invite is void")
            role = memory.invites[request.invite].role
        elif known is None and request.join_code != self.join_code:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the join code is wrong")
        token = memory.answered.get(request.request_id, "") if request.request_id else ""
        if token not in self.users:
            self.joins += 1
            number = next(memory.serial)
            user = known or lobby_pb2.User(id=f"user-{number}", name=request.user_name, role=role)
            token = f"token-{number}"
            self.users[token] = memory.known[token] = user
            memory.answered[request.request_id] = token
            await self._tell(user_joined=user)
        if self.unanswered:
            self.unanswered -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut")
        return lobby_pb2.JoinResponse(
            session_id=request.session_id or "default",
            user=self.users[token],
            token=token,
            token_expires_in_s=self.token_life_s,
            services=self.services.values(),
            revision=len(memory.events),
        )

    async def Leave(self, request: Message, context: Context) -> lobby_pb2.LeaveResponse:
        user = self.users.pop(token_of(context), None)
        if user is not None:
            await self._tell(user_left=user, reason="left")
        return lobby_pb2.LeaveResponse()

    async def RenewToken(self, request: Message, context: Context) -> lobby_pb2.RenewTokenResponse:
        user = self.users.pop(token_of(context), None)
        if user is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is unknown here")
        token = f"token-{next(self.memory.serial)}"
        self.users[token] = self.memory.known[token] = user
        return lobby_pb2.RenewTokenResponse(token=token, token_expires_in_s=self.token_life_s, role=user.role)

    async def KickUser(self, request: lobby_pb2.KickUserRequest, context: Context) -> lobby_pb2.KickUserResponse:
        await self._host(context)
        self.memory.kicked |= {token for token, user in self.memory.known.items() if user.id == request.user_id}
        await self._remove(request.user_id, f"kicked: {request.reason}")
        return lobby_pb2.KickUserResponse()

    async def SetUserRole(
        self, request: lobby_pb2.SetUserRoleRequest, context: Context
    ) -> lobby_pb2.SetUserRoleResponse:
        await self._host(context)
        found = [user for user in self.users.values() if user.id == request.user_id]
        if not found:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no user has the id {request.user_id!r}")
        found[0].role = request.role
        await self._tell(user_changed=found[0])
        return lobby_pb2.SetUserRoleResponse(user=found[0])

    async def SetGuestRole(
        self, request: lobby_pb2.SetGuestRoleRequest, context: Context
    ) -> lobby_pb2.SetGuestRoleResponse:
        await self._host(context)
        session = self.memory.sessions[request.session_id or "default"]
        session.ClearField("guest_role")
        if request.HasField("guest_role"):
            session.guest_role = request.guest_role
        await self._tell(session_changed=session)
        return lobby_pb2.SetGuestRoleResponse(session=session)

    async def CreateSession(
        self, request: lobby_pb2.CreateSessionRequest, context: Context
    ) -> lobby_pb2.CreateSessionResponse:
        await self._host(context)
        spec = request.spec
        session = lobby_pb2.Session(
            id=f"session-{next(self.memory.serial)}",
            name=spec.name,
            max_users=spec.max_users or 8,
            join_role=spec.join_role or lobby_pb2.ROLE_PARTICIPANT,
            template=request.template,
            has_password=bool(spec.password),
            guest_role=spec.guest_role if spec.HasField("guest_role") else None,
        )
        self.memory.sessions[session.id] = session
        reply = lobby_pb2.CreateSessionResponse(session=session, join_code=spec.join_code or "ABCD2345")
        if request.host_name:
            reply.host.user.CopyFrom(lobby_pb2.User(id="user-host", name=request.host_name, role=lobby_pb2.ROLE_HOST))
            reply.host.token = "token-host"
        return reply

    async def ListSessions(self, request: Message, context: Context) -> lobby_pb2.ListSessionsResponse:
        await self._host(context)
        return lobby_pb2.ListSessionsResponse(sessions=self.memory.sessions.values())

    async def GetSession(self, request: lobby_pb2.GetSessionRequest, context: Context) -> lobby_pb2.GetSessionResponse:
        await self._host(context)
        session = self.memory.sessions.get(request.session_id or "default")
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no session has the id {request.session_id!r}")
        users = self.users.values() if session.id == "default" else ()
        return lobby_pb2.GetSessionResponse(session=session, join_code=self.join_code, users=users)

    async def EndSession(self, request: lobby_pb2.EndSessionRequest, context: Context) -> lobby_pb2.EndSessionResponse:
        await self._host(context)
        session = self.memory.sessions.pop(request.session_id, None)
        if session is not None and session.id == "default":
            self.users.clear()
            await self._tell(session_ended=session, reason="ended by the operator")
        return lobby_pb2.EndSessionResponse()

    async def CreateInvite(
        self, request: lobby_pb2.CreateInviteRequest, context: Context
    ) -> lobby_pb2.CreateInviteResponse:
        await self._host(context)
        number = next(self.memory.serial)
        invite = lobby_pb2.Invite(
            id=f"invite-{number}",
            role=request.role or lobby_pb2.ROLE_PARTICIPANT,
            uses_left=request.uses or 1,
            expires_at=time.time() + (request.expires_in_s or 86400),
        )
        self.memory.invites[f"secret-{number}"] = invite
        return lobby_pb2.CreateInviteResponse(invite=invite, secret=f"secret-{number}")

    async def ListInvites(self, request: Message, context: Context) -> lobby_pb2.ListInvitesResponse:
        await self._host(context)
        return lobby_pb2.ListInvitesResponse(invites=self.memory.invites.values())

    async def RevokeInvite(
        self, request: lobby_pb2.RevokeInviteRequest, context: Context
    ) -> lobby_pb2.RevokeInviteResponse:
        await self._host(context)
        kept = {secret: item for secret, item in self.memory.invites.items() if item.id != request.invite_id}
        self.memory.invites = kept
        return lobby_pb2.RevokeInviteResponse()

    async def ListServices(self, request: Message, context: Context) -> lobby_pb2.ListServicesResponse:
        return lobby_pb2.ListServicesResponse(services=self.services.values())

    async def ListSimulations(self, request: Message, context: Context) -> lobby_pb2.ListSimulationsResponse:
        await self._host(context)
        return lobby_pb2.ListSimulationsResponse(
            simulations=[
                lobby_pb2.Simulation(
                    name=name,
                    title=f"{name}, as a title",
                    kind="trajectory",
                    launcher="local",
                    status=lobby_pb2.SERVICE_STATUS_AVAILABLE,
                )
                for name in self.memory.simulations
            ],
            templates=["tutorial"],
            problems=["broken.yaml:3: engine is 'opnemm': use openmm or ase"],
        )

    async def StartService(
        self, request: lobby_pb2.StartServiceRequest, context: Context
    ) -> lobby_pb2.StartServiceResponse:
        await self._host(context)
        course = self.memory.simulations.get(request.simulation)
        if not course:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no simulation has the id {request.simulation!r}")
        await self.change_service(course[0])
        for later in course[1:]:
            await self.change_service(later)
        return lobby_pb2.StartServiceResponse(service=course[0])

    async def StopService(
        self, request: lobby_pb2.StopServiceRequest, context: Context
    ) -> lobby_pb2.StopServiceResponse:
        await self._host(context)
        service = self._copy(request.service_id, lobby_pb2.SERVICE_STATUS_STOPPED)
        service.reason = "stopped by a user"
        await self.change_service(service)
        return lobby_pb2.StopServiceResponse(service=service)

    async def DrainService(
        self, request: lobby_pb2.DrainServiceRequest, context: Context
    ) -> lobby_pb2.DrainServiceResponse:
        await self._host(context)
        service = self._copy(request.service_id, lobby_pb2.SERVICE_STATUS_DRAINING)
        await self.change_service(service)
        return lobby_pb2.DrainServiceResponse(service=service)

    def _copy(self, id: str, status: lobby_pb2.ServiceStatus) -> lobby_pb2.Service:
        service = lobby_pb2.Service()
        service.CopyFrom(self.services[id])
        service.status = status
        return service

    async def GetServiceLog(
        self, request: lobby_pb2.GetServiceLogRequest, context: Context
    ) -> lobby_pb2.GetServiceLogResponse:
        await self._host(context)
        return lobby_pb2.GetServiceLogResponse(lines=self.services[request.service_id].log_tail)

    async def RotateKeys(self, request: Message, context: Context) -> lobby_pb2.RotateKeysResponse:
        await self._host(context)
        return lobby_pb2.RotateKeysResponse(public_keys=[lobby_pb2.PublicKey(key_id="key-2")])

    async def WatchSession(
        self, request: lobby_pb2.WatchSessionRequest, context: Context
    ) -> AsyncIterator[lobby_pb2.WatchSessionResponse]:
        memory = self.memory
        token = token_of(context)
        if token:
            if token not in self.users:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is unknown here")
        else:
            await self._host(context)
        if request.epoch and request.epoch != str(memory.epoch):
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "this epoch has passed")
        sent = request.after_revision
        if not request.epoch:
            sent = len(memory.events)
            yield lobby_pb2.WatchSessionResponse(
                epoch=str(memory.epoch),
                revision=sent,
                snapshot=lobby_pb2.SessionSnapshot(
                    session=memory.sessions["default"], users=self.users.values(), services=self.services.values()
                ),
            )
        while True:
            async with memory.news:
                while len(memory.events) <= sent:
                    await memory.news.wait()
            event = memory.events[sent]
            sent += 1
            yield event
            if event.WhichOneof("event") == "session_ended":
                return
