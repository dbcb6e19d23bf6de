"""Wiring of the imd service."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final
from urllib.parse import quote

import grpc.aio

from narupa_imd import command_servicer, compat, servicer, state_servicer
from narupa_imd.commands import ImdCommands
from narupa_imd.config import ImdConfig
from narupa_imd.keeping import Keeping
from narupa_imd.metrics import published_metrics
from narupa_imd.session import ImdSession
from narupa_imd.state import Limits
from narupa_imd.streams import Streams
from narupa_imd.watching import Watching
from narupa_shared.auth import TokenVerifier
from narupa_shared.compat_commands import SERVICE_NAMES as COMMAND_NAMES
from narupa_shared.compat_commands import CompatCommandServicer
from narupa_shared.connections import Connections
from narupa_shared.daemon import Bound
from narupa_shared.draining import Drain
from narupa_shared.errors import UnavailableError
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import ServiceStatus
from narupa_shared.stores.opening import store_of
from narupa_shared.stores.store import Store

# Nobody reads far back in the log: two imd services that follow each other are a moment apart.
KEPT_COMMITS: Final = 200


class ImdApp:
    """One imd service: its session, its two gRPC edges, and its link to the lobby."""

    def __init__(self, config: ImdConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self.verifier = TokenVerifier(config.session_id)
        self.service_names: Sequence[str] = (
            *(edge.SERVICE.full_name for edge in (servicer, state_servicer, command_servicer)),
            *compat.SERVICE_NAMES,
            *COMMAND_NAMES,
        )
        self.streams = Streams()
        self.session = ImdSession(
            clock,
            epoch=uuid.uuid4().hex,
            on_change=self.streams.wake,
            limits=Limits(keys=config.max_keys, total_bytes=config.max_state_bytes),
            updates_per_s=config.updates_per_s,
            update_burst=config.update_burst,
            bytes_per_s=config.bytes_per_s,
            byte_burst=config.byte_burst,
        )
        self.keeping = Keeping(self.session, _store(config))
        self.connections = Connections(self.session, clock)
        self.watching = Watching(self.session, self.streams, config)
        self.commands = ImdCommands(self.session, clock, config.command_answer_s)
        self._drain: Drain | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        session, connections, streams = self.session, self.connections, self.streams
        servicer.InteractionServicer(session, connections, streams, self._config).add_to(server)
        state_servicer.StateServicer(session, self.keeping, connections, streams, self.watching).add_to(server)
        command_servicer.CommandServicer(session, self.commands, connections, streams).add_to(server)
        compat.CompatStateServicer(session, self.keeping, connections, self.watching).add_to(server)
        CompatCommandServicer(self.commands).add_to(server)

    @contextlib.asynccontextmanager
    async def running(self, bound: Bound) -> AsyncIterator[None]:
        registration = LobbyRegistration(
            self._config,
            "imd",
            bound,
            self.verifier,
            load=lambda: float(self.connections.streams),
            metadata=self._metadata,
            status=lambda: ServiceStatus.DRAINING if self._drain and self._drain.active else ServiceStatus.RUNNING,
        )
        self._drain = Drain(registration, lambda: self.connections.streams, self._config.drain_move_s)
        with published_metrics(self.session, self.watching, self.keeping):
            async with self.keeping.running(), registration:
                looking = asyncio.create_task(self.connections.run(), name="connections")
                try:
                    yield
                finally:
                    looking.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await looking

    async def until_end(self, stop: asyncio.Event) -> None:
        assert self._drain is not None, "the app runs"
        await self._drain.until_end(stop)

    def _metadata(self) -> dict[str, str]:
        kind = self._config.store.partition(":")[0]
        if self.keeping.trouble:
            return {"state": f"cannot be kept: {self.keeping.trouble[:200]}"}
        return {"state": "not kept" if kind == "memory" else f"kept in {kind}"}

    async def drain(self) -> None:
        self.streams.drain(UnavailableError("the imd service is stopping; join the session again"))


def _store(config: ImdConfig) -> Store | None:
    """What keeps the shared state; None when nothing is to be kept."""
    if config.store == "memory":
        return None
    # A session's id may be any text, a file's name may not.
    name = f"imd-{quote(config.session_id, safe='')}"
    return store_of(config.store, name=name, state_dir=config.state_dir, kept_commits=KEPT_COMMITS)
