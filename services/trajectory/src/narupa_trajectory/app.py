"""Wiring of the trajectory service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc.aio
import structlog

from narupa_shared.auth import TokenVerifier
from narupa_shared.compat_commands import SERVICES as COMMAND_SERVICES
from narupa_shared.compat_commands import CompatCommandServicer
from narupa_shared.daemon import Bound
from narupa_shared.draining import Drain
from narupa_shared.errors import UnavailableError
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import ServiceStatus
from narupa_shared.tls import tls_config
from narupa_trajectory import compat, servicer
from narupa_trajectory.commands import playback_commands
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.idle import IdlePause
from narupa_trajectory.imd_link import ImdLink, Report, address_of
from narupa_trajectory.metrics import published_metrics
from narupa_trajectory.playback import Playback

log = structlog.get_logger(__name__)


class TrajectoryApp:
    """One trajectory service: its playback, its two gRPC edges, and its links to lobby and imd."""

    def __init__(self, config: TrajectoryConfig) -> None:
        self._config = config
        self.verifier = TokenVerifier(config.session_id)
        self.service_names: Sequence[str] = [
            service.full_name for service in (servicer.SERVICE, *compat.SERVICES, *COMMAND_SERVICES)
        ]
        self.playback = Playback(config)
        self._drain: Drain | None = None
        self._commands = playback_commands(self.playback)

    def add_to(self, server: grpc.aio.Server) -> None:
        edges = (
            servicer.TrajectoryServicer(self.playback, self._commands),
            compat.CompatTrajectoryServicer(self.playback),
            CompatCommandServicer(self._commands),
        )
        for edge in edges:
            edge.add_to(server)

    @contextlib.asynccontextmanager
    async def running(self, bound: Bound) -> AsyncIterator[None]:
        registration = LobbyRegistration(
            self._config,
            "trajectory",
            bound,
            self.verifier,
            load=lambda: float(len(self.playback.broadcaster.subscriptions)),
            metadata=self._metadata,
            status=self._status,
            capacity=self._config.max_subscribers,
            reason=self._reason,
            progress=lambda: self.playback.starting[1] if self._status() is ServiceStatus.STARTING else 0.0,
        )
        self._drain = Drain(
            registration, lambda: len(self.playback.broadcaster.subscriptions), self._config.drain_move_s
        )

        async def imd_addresses() -> Sequence[str]:
            if self._config.imd:
                return [self._config.imd]
            found = [end for service in registration.find("imd") for end in service.endpoints]
            return [address_of(end.host, end.port, end.protocol) for end in found]

        link = ImdLink(
            imd_addresses, lambda: registration.token or "", self.playback.set_interactions, tls_config(self._config)
        )

        def report() -> None:
            info = self.playback.info
            if info:
                playback = self.playback
                facts = (info.particle_count, info.velocity_reset_available, playback.loads)
                link.report(Report(*facts, info.name, playback.source_index))

        self.playback.on_loaded = report
        self.playback.on_ended = link.end
        self.playback.on_replayed = link.replay
        self.playback.on_status = registration.report_now
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(published_metrics(self.playback))
            stack.push_async_callback(self.playback.engine.close)
            stack.push_async_callback(self.playback.selections.close)
            await stack.enter_async_context(registration)
            await self.playback.start()
            idle = IdlePause(self.playback, self._config.pause_when_idle_s)
            tasks = [
                asyncio.create_task(link.run(), name="imd-link"),
                asyncio.create_task(idle.run(), name="idle-pause"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def until_end(self, stop: asyncio.Event) -> None:
        assert self._drain is not None, "the app runs"
        await self._drain.until_end(stop)

    async def drain(self) -> None:
        error = UnavailableError("the trajectory service is stopping; join again through the lobby")
        self.playback.broadcaster.drain(error)
        self.playback.reports.drain(error)

    def _status(self) -> ServiceStatus:
        if self._drain and self._drain.active:
            return ServiceStatus.DRAINING
        if self.playback.engine.info is None:
            return ServiceStatus.UNHEALTHY if self.playback.failed else ServiceStatus.STARTING
        return ServiceStatus.RUNNING

    def _reason(self) -> str:
        if self.playback.engine.info is not None:
            return ""
        return self.playback.exception or self.playback.starting[0]

    def _metadata(self) -> dict[str, str]:
        facts = {"source": self.playback.names[self.playback.source_index] if self.playback.names else ""}
        if self.playback.idle:
            facts["paused"] = f"nobody has watched for {self._config.pause_when_idle_s:g} s"
        return facts | ({"reason": self.playback.exception[:200]} if self.playback.exception else {})
