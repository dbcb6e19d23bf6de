"""Wiring of the trajectory service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import grpc.aio
import structlog

from narupa_shared.auth import TokenVerifier
from narupa_shared.compat_commands import SERVICES as COMMAND_SERVICES
from narupa_shared.compat_commands import CompatCommandServicer
from narupa_shared.daemon import Bound
from narupa_shared.draining import Drain
from narupa_shared.errors import UnavailableError
from narupa_shared.registration import LobbyRegistration
from narupa_shared.rpc_services import generic_handler
from narupa_shared.sdk.narupa.lobby.v1 import ServiceStatus
from narupa_shared.tls import tls_config
from narupa_trajectory import compat, servicer
from narupa_trajectory.checkpoint_shelf import shelf_at
from narupa_trajectory.checkpoint_store import CheckpointKeeper, Checkpoints
from narupa_trajectory.commands import playback_commands
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.forwarding import Forwarding
from narupa_trajectory.idle import IdlePause
from narupa_trajectory.imd_link import ImdLink, Report, address_of
from narupa_trajectory.metrics import published_metrics
from narupa_trajectory.playback import Playback
from narupa_trajectory.relay import Upstream, UpstreamChannel
from narupa_trajectory.replica import RELAY_FROM, Replica
from narupa_trajectory.succession import Succession

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
        self.replica: Replica | None = None
        self._drain: Drain | None = None
        self._commands = playback_commands(self.playback)

    def add_to(self, server: grpc.aio.Server) -> None:
        commands = CompatCommandServicer(self._commands)
        edges = {
            servicer.SERVICE: servicer.TrajectoryServicer(self.playback, self._commands),
            **dict.fromkeys(compat.SERVICES, compat.CompatTrajectoryServicer(self.playback)),
            **dict.fromkeys(COMMAND_SERVICES, commands),
        }
        handlers = (generic_handler(service, edge) for service, edge in edges.items())
        if self._config.group:
            handlers = (Forwarding(handler, lambda: self.replica) for handler in handlers)
        server.add_generic_rpc_handlers(list(handlers))

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
            group=self._config.group,
        )
        self._drain = Drain(
            registration, lambda: len(self.playback.broadcaster.subscriptions), self._config.drain_move_s, self._resign
        )

        async def imd_addresses() -> Sequence[str]:
            if self._config.imd:
                return [self._config.imd]
            found = [end for service in registration.find("imd") for end in service.endpoints]
            return [address_of(end.host, end.port, end.protocol) for end in found]

        def token() -> str:
            return registration.token or ""

        link = ImdLink(
            imd_addresses,
            token,
            self.playback.set_interactions,
            tls_config(self._config),
            leads=lambda: (self._config.group, self.playback.epoch),
            superseded=lambda: self.replica.superseded() if self.replica else None,
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
        idle = IdlePause(self.playback, self._config.pause_when_idle_s)

        @contextlib.asynccontextmanager
        async def at_work() -> AsyncIterator[None]:
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

        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.playback.engine.close)
            stack.callback(self.playback.recorders.close)
            stack.push_async_callback(self.playback.selections.close)
            if self._config.group:
                self.replica = self._replica(registration, token, at_work, await self._keeper(stack))
            stack.enter_context(published_metrics(self.playback, self.replica))
            await stack.enter_async_context(registration)
            if self.replica is None:
                await self.playback.start()
                await stack.enter_async_context(at_work())
            else:
                await stack.enter_async_context(self.replica.running())
            yield

    async def _keeper(self, stack: contextlib.AsyncExitStack) -> CheckpointKeeper | None:
        config = self._config
        if config.checkpoint_dir is None:
            return None
        limit_s = config.checkpoint_limit_s
        # It may import a library, and look for credentials on the disk.
        shelf = await asyncio.to_thread(shelf_at, config.checkpoint_dir, config.session_id, config.group, limit_s)
        return await stack.enter_async_context(CheckpointKeeper(Checkpoints(shelf), limit_s))

    def _replica(
        self,
        registration: LobbyRegistration,
        token: Callable[[], str],
        at_work: Callable[[], AbstractAsyncContextManager[None]],
        keeper: CheckpointKeeper | None,
    ) -> Replica:
        config = self._config

        def channel(find: Callable[[], Sequence[Upstream]]) -> UpstreamChannel:
            return UpstreamChannel(find, registration.service_id, token, tls_config(config))

        return Replica(
            config.group,
            self.playback,
            Succession(self.playback),
            registration,
            channel,
            at_work,
            keeper,
            warm=config.warm_standby,
            second_hand=config.relay_from == "relays",
        )

    async def _resign(self) -> None:
        if self.replica is not None:
            await self.replica.resign()

    async def until_end(self, stop: asyncio.Event) -> None:
        assert self._drain is not None, "the app runs"
        ending = [asyncio.create_task(self._drain.until_end(stop), name="drain")]
        if self.replica is not None:
            ending.append(asyncio.create_task(self.replica.until_failed(), name="replica-failure"))
        try:
            done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def drain(self) -> None:
        error = UnavailableError("the trajectory service is stopping; join again through the lobby")
        self.playback.broadcaster.drain(error)
        self.playback.reports.drain(error)

    def _status(self) -> ServiceStatus:
        if self._drain and self._drain.active:
            return ServiceStatus.DRAINING
        if self.replica is not None and self.replica.settled and not self.replica.leads:
            return ServiceStatus.UNHEALTHY if self.replica.apart else ServiceStatus.RUNNING
        if self.playback.engine.info is None:
            return ServiceStatus.UNHEALTHY if self.playback.failed else ServiceStatus.STARTING
        return ServiceStatus.RUNNING

    def _reason(self) -> str:
        if self.replica is not None and self.replica.apart:
            return "no frames come from the replica that leads"
        if self.playback.engine.info is not None:
            return ""
        return self.playback.exception or self.playback.starting[0]

    def _metadata(self) -> dict[str, str]:
        facts = {"source": self.playback.names[self.playback.source_index] if self.playback.names else ""}
        if self._config.relay_from != "leader":
            facts[RELAY_FROM] = self._config.relay_from
        if self.playback.idle:
            facts["paused"] = f"nobody has watched for {self._config.pause_when_idle_s:g} s"
        return facts | ({"reason": self.playback.exception[:200]} if self.playback.exception else {})
