"""The trajectory service's ear at the imd service: which interactions act now.

Whenever imd is gone, silent or restarted, every force is released at once, and the link is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.interaction_messages import interaction_of
from narupa_shared.interactions import Interaction
from narupa_shared.recordings.recording import StateChange
from narupa_shared.tls import TlsConfig
from narupa_shared.tls_diagnosis import why_cut
from narupa_trajectory.replayed_state import ReplayedState

log = structlog.get_logger(__name__)

RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 2.0
# Heard from no more for this many heartbeats, imd counts as gone.
HEARTBEATS_LOST: Final = 3
FIRST_MESSAGE_LIMIT_S: Final = 3.0
# Stands before the HOST:PORT of an imd service that listens with TLS.
TLS_SCHEME: Final = "grpcs://"


@dataclass(frozen=True, slots=True)
class Report:
    """What imd is told about the simulation."""

    particle_count: int = 0
    velocity_reset_available: bool = False
    simulation_counter: int = 0
    simulation_name: str = ""
    simulation_index: int = 0


class ImdLink:
    """Follows imd's interactions for as long as `run` runs."""

    def __init__(
        self,
        find: Callable[[], Awaitable[Sequence[str]]],
        token: Callable[[], str],
        apply: Callable[[Sequence[Interaction]], None],
        tls: TlsConfig | None = None,
        leads: Callable[[], tuple[str, int]] = lambda: ("", 0),
        superseded: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is followed yet.

        Args:
            find: Gives addresses to try in order: HOST:PORT, with `grpcs://` before it where imd listens with TLS.
            token: Gives the service's token, or "".
            apply: Gets all that act now.
            tls: Certificates for those addresses; None trusts the system's authorities.
            leads: Gives the group that this service leads, and in which epoch; "" and 0 of one that stands alone.
            superseded: Called when imd has heard from a later leader of the group.
        """
        self._leads = leads
        self._superseded = superseded
        self._find = find
        self._tls = tls or TlsConfig()
        self._complaint = ""
        self._token = token
        self._apply = apply
        self._report = Report()
        self._reported = asyncio.Event()
        self._interactions: dict[str, Interaction] = {}
        self._ended: dict[str, str] = {}  # reasons by id, until imd has ended them too
        self._untold: dict[str, str] = {}
        self._replayed = ReplayedState()
        self.connected = False

    def report(self, report: Report) -> None:
        """imd learns of another system, now or when it is reached."""
        self._report = report
        self._reported.set()

    def end(self, id: str, reason: str) -> None:
        """Interaction `id` acts no more, and imd learns why, now or when it is reached."""
        if self.connected and id not in self._interactions:
            return  # imd has ended it meanwhile
        self._ended[id] = reason
        self._tell_ended(id, reason)

    def replay(self, change: StateChange) -> None:
        """imd learns what a recording says of the shared state, now or when it is reached."""
        if self._replayed.changed(change):
            self._reported.set()

    def _tell_ended(self, id: str, reason: str) -> None:
        self._untold[id] = reason
        self._reported.set()

    async def run(self) -> None:
        """Follows imd until cancelled."""
        retry = RETRY_S
        while True:
            for address in await self._find():
                try:
                    await self._follow(address)
                except (grpc.aio.AioRpcError, TimeoutError, InvalidArgumentError) as error:
                    if _code_of(error) is grpc.StatusCode.FAILED_PRECONDITION:
                        self._superseded()
                    reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                    if self.connected:
                        reason = reason or "no sign of life"
                        log.warning("imd_lost", address=address, reason=reason, released=len(self._interactions))
                        retry = RETRY_S
                    elif problem := await self._problem(address, error):
                        if problem != self._complaint:
                            log.warning("imd_not_reached", address=address, reason=problem)
                        self._complaint = problem
                finally:
                    self.connected = False
                    self._release()
            await asyncio.sleep(retry * random.uniform(0.8, 1.2))
            retry = min(retry * 1.5, MAX_RETRY_S)

    def _release(self) -> None:
        if self._interactions:
            self._interactions.clear()
            self._apply(())

    async def _tell(self, call: Any) -> None:
        """imd is told the newest report and what has ended, now and at each change, until cancelled or the call is over."""
        self._untold = dict(self._ended)
        self._replayed.forget_told()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                self._reported.clear()
                report = self._report
                ended, self._untold = self._untold, {}
                replayed = self._replayed.next_message()
                group, epoch = self._leads()
                await call.write(
                    imd_pb2.FollowInteractionsRequest(
                        particle_count=report.particle_count,
                        velocity_reset_available=report.velocity_reset_available,
                        simulation_counter=report.simulation_counter,
                        simulation_name=report.simulation_name,
                        simulation_index=report.simulation_index,
                        ended=[imd_pb2.EndedInteraction(id=id, reason=reason) for id, reason in ended.items()],
                        replayed=replayed,
                        group=group,
                        epoch=epoch,
                    )
                )
                if not self._replayed.waiting:
                    await self._reported.wait()

    async def _follow(self, address: str) -> None:
        options = [("grpc.keepalive_time_ms", 2000), ("grpc.keepalive_timeout_ms", 1500), ("grpc.enable_http_proxy", 0)]
        async with self._channel(address, options) as channel:
            stub: Any = imd_pb2_grpc.InteractionServiceStub(channel)  # type: ignore[no-untyped-call]
            token = self._token()
            metadata = [("authorization", f"Bearer {token}")] if token else []
            call = stub.FollowInteractions(metadata=metadata)
            telling = asyncio.create_task(self._tell(call), name="imd-reports")
            limit_s = FIRST_MESSAGE_LIMIT_S
            try:
                while True:
                    async with asyncio.timeout(limit_s):
                        response: Any = await call.read()
                    if response is grpc.aio.EOF:  # type: ignore[attr-defined]
                        raise TimeoutError
                    if not self.connected:
                        self.connected = True
                        self._complaint = ""
                        log.info("imd_found", address=address)
                    limit_s = HEARTBEATS_LOST * max(response.heartbeat_s, 0.1)
                    self._take(response)
            finally:
                telling.cancel()
                call.cancel()
                await asyncio.wait({telling})

    def _channel(self, address: str, options: list[tuple[str, int]]) -> grpc.aio.Channel:
        if not address.startswith(TLS_SCHEME):
            return grpc.aio.insecure_channel(address, options=options)
        target = address.removeprefix(TLS_SCHEME)
        return grpc.aio.secure_channel(target, self._tls.channel_credentials(), options=options)

    async def _problem(self, address: str, error: Exception) -> str:
        """What somebody has to set right before imd can be reached; empty when it may just not be there yet."""
        if isinstance(error, InvalidArgumentError):
            return str(error)
        if not isinstance(error, grpc.aio.AioRpcError):
            return ""
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return error.details() or error.code().name
        host, _, port = address.removeprefix(TLS_SCHEME).rpartition(":")
        context = self._tls.context() if address.startswith(TLS_SCHEME) else None
        return await why_cut(host.strip("[]"), int(port), context, self._tls.cert is not None)

    def _take(self, response: imd_pb2.FollowInteractionsResponse) -> None:
        if response.whole:
            self._interactions.clear()
        for id in response.removed:
            self._interactions.pop(id, None)
            self._ended.pop(id, None)
        for message in response.set:
            try:
                self._interactions[message.id] = interaction_of(message)
            except InvalidArgumentError as error:
                log.warning("interaction_refused", id=message.id, reason=str(error))
                self._interactions.pop(message.id, None)
                self._tell_ended(message.id, f"the simulation refuses it: {error}")
        if response.whole:
            self._ended = {id: reason for id, reason in self._ended.items() if id in self._interactions}
        if response.whole or response.set or response.removed:
            self._apply([item for id, item in self._interactions.items() if id not in self._ended])


def _code_of(error: Exception) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.aio.AioRpcError) else None


def address_of(host: str, port: int, protocol: str) -> str:
    """An endpoint, as the lobby lists it, in the form that `ImdLink` takes."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{TLS_SCHEME}{address}" if protocol == "grpcs" else address
