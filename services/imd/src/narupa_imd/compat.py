"""The shared state for existing Narupa and NanoVer gRPC clients, under the names they call.

Removal of a key is a null value here, and a conflict is a reply without success; otherwise these are the same operations
on the same store as in `narupa.imd.v1`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio
import structlog

from narupa_imd.keeping import Keeping
from narupa_imd.servicer import on_end
from narupa_imd.session import ImdSession
from narupa_imd.state import Writer
from narupa_imd.watching import Watching
from narupa_imd.wire import compat_updates
from narupa_shared.auth import caller
from narupa_shared.connections import Connections
from narupa_shared.errors import PermissionDeniedError
from narupa_shared.gen.nanover.protocol.state import state_service_pb2 as nanover_pb2
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as pb
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct

log = structlog.get_logger(__name__)

SERVICES: Final = tuple(module.DESCRIPTOR.services_by_name["State"] for module in (pb, nanover_pb2))
SERVICE_NAMES: Final[tuple[str, ...]] = tuple(service.full_name for service in SERVICES)
Context = grpc.aio.ServicerContext[Any, Any]


class CompatStateServicer:
    """`State` under both families' names: the messages are the same on the wire."""

    def __init__(self, session: ImdSession, keeping: Keeping, connections: Connections, watching: Watching) -> None:
        self._session = session
        self._keeping = keeping
        self._connections = connections
        self._watching = watching

    async def SubscribeStateUpdates(
        self, request: pb.SubscribeStateUpdatesRequest, context: Context
    ) -> AsyncIterator[bytes]:
        interval_s = self._watching.interval("update_interval", request.update_interval)
        with self._connections.stream(context.peer()) as hold:
            on_end(context, hold.end)
            # There is no way to say "forget what you had" to these clients.
            async for message in self._watching.messages(compat_updates, interval_s, may_restart=False):
                yield message

    async def UpdateState(self, request: pb.UpdateStateRequest, context: Context) -> pb.UpdateStateResponse:
        writer = self._writer(context, request)
        changed = from_struct(request.update.changed_keys, "changed_keys")
        updates = {key: value for key, value in changed.items() if value is not None}
        # These clients write what is held with every movement, and avatars with it, until their user lets go.
        updates = self._session.without_ended(writer, updates)
        removals = [key for key, value in changed.items() if value is None]
        try:
            await self._keeping.update(writer, updates, removals)
        except PermissionDeniedError as error:
            log.info("update_refused", peer=context.peer(), reason=str(error))
            return pb.UpdateStateResponse(success=False)
        return pb.UpdateStateResponse(success=True)

    async def UpdateLocks(self, request: pb.UpdateLocksRequest, context: Context) -> pb.UpdateLocksResponse:
        writer = self._writer(context, request)
        wanted = from_struct(request.lock_keys, "lock_keys")
        acquire_s = {key: value for key, value in wanted.items() if value is not None}
        release = [key for key, value in wanted.items() if value is None]
        try:
            self._session.state.update_locks(writer, acquire_s, release)
        except PermissionDeniedError as error:
            log.info("locks_refused", peer=context.peer(), reason=str(error))
            return pb.UpdateLocksResponse(success=False)
        return pb.UpdateLocksResponse(success=True)

    def _writer(self, context: Context, request: pb.UpdateStateRequest | pb.UpdateLocksRequest) -> Writer:
        who = caller(context)
        self._session.spend(who.peer, request.ByteSize())
        self._connections.wrote(who.peer)
        if who.identity is None and request.access_token:
            # The text is the client's secret; its digest is what others may see.
            return Writer(f"token:{hashlib.sha256(request.access_token.encode()).hexdigest()}", who.peer)
        return Writer(who.owner, who.peer)

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(service, self) for service in SERVICES])
