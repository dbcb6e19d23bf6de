"""Follows the frames of the service that leads, for as long as another does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.tls import TlsConfig
from narupa_trajectory.imd_link import TLS_SCHEME
from narupa_trajectory.relayed_frames import Relayed, RelayedFrames

log = structlog.get_logger(__name__)

# Tells a leader that a replica calls: one that does not lead refuses, so that no two relay each other.
REPLICA_KEY: Final = "narupa-replica"
RETRY_S: Final = 0.1
CONNECT_LIMIT_S: Final = 2.0
MAX_FRAME_BYTES: Final = 1024 * 1024 * 1024
_PATH: Final = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"
_OPTIONS: Final = [
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    # Of a leader that has just come up the first attempt counts, not one after gRPC's usual back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True, slots=True)
class Leader:
    """The service that leads, as the lobby lists it.

    Attributes:
        id: Of the service.
        epoch: In which it leads.
        addresses: Where to try, in order: HOST:PORT, with `grpcs://` before it where it listens with TLS.
    """

    id: str
    epoch: int
    addresses: tuple[str, ...]


class LeaderChannel:
    """The way to the leader, for frames and for calls that only it can answer."""

    def __init__(
        self, find: Callable[[], Leader | None], own_id: str, token: Callable[[], str], tls: TlsConfig | None = None
    ) -> None:
        """No connection is made yet.

        Args:
            find: Gives the leader as it is known now; None where there is none, or it is this service.
            own_id: This service's id.
            token: Gives this service's token, or "".
            tls: Certificates; None trusts the system's authorities.
        """
        self.find = find
        self._own_id = own_id
        self._token = token
        self._tls = tls or TlsConfig()
        self._leader: Leader | None = None
        self._channel: grpc.aio.Channel | None = None
        self._connecting = asyncio.Lock()

    def metadata(self, authorization: str | None = None) -> list[tuple[str, str]]:
        """What to send with a call: in this service's name, or in that of whoever called it."""
        token = self._token()
        own = f"Bearer {token}" if token else ""
        given = own if authorization is None else authorization
        return [(REPLICA_KEY, self._own_id), *([("authorization", given)] if given else [])]

    async def connected(self) -> grpc.aio.Channel:
        """A channel to the leader. Raises: UnavailableError when there is none, or it cannot be reached."""
        async with self._connecting:
            leader = self.find()
            if leader is None:
                raise UnavailableError("no replica leads at present; try again in a moment")
            if leader != self._leader:
                await self.close()
            if self._channel is not None:
                return self._channel
            for address in leader.addresses:
                channel = self._made(address)
                try:
                    async with asyncio.timeout(CONNECT_LIMIT_S):
                        await channel.channel_ready()
                except TimeoutError:
                    await channel.close(None)
                except BaseException:
                    await channel.close(None)
                    raise
                else:
                    self._leader, self._channel = leader, channel
                    return channel
            raise UnavailableError(f"the leader {leader.id} cannot be reached at {', '.join(leader.addresses)}")

    async def close(self) -> None:
        """There is no connection. Idempotent."""
        channel, self._channel, self._leader = self._channel, None, None
        if channel is not None:
            await channel.close(None)

    def _made(self, address: str) -> grpc.aio.Channel:
        if not address.startswith(TLS_SCHEME):
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        credentials = self._tls.channel_credentials()
        return grpc.aio.secure_channel(address.removeprefix(TLS_SCHEME), credentials, options=_OPTIONS)


class Relay:
    """Gives on every frame of the leader while `run` runs.

    Attributes:
        frames: What has been relayed.
        connected: Whether a leader's stream is open.
    """

    def __init__(self, leader: LeaderChannel, show: Callable[[Relayed], None], lost: Callable[[], None]) -> None:
        """Nothing is followed yet.

        Args:
            leader: The way there.
            show: Gets each frame.
            lost: Called when a stream that was open has ended.
        """
        self.frames = RelayedFrames()
        self.connected = False
        self._leader = leader
        self._show = show
        self._lost = lost
        self._complaint = ""

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Follows whoever leads until cancelled. `changed` returns once another may."""
        try:
            while True:
                following = asyncio.create_task(self._follow(), name="relay")
                waiting = asyncio.create_task(self._another(self._leader.find(), changed), name="relay-news")
                try:
                    await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (following, waiting):
                        task.cancel()
                    await asyncio.gather(following, waiting, return_exceptions=True)
                self._note(following)
                if not waiting.done() or waiting.cancelled():
                    await asyncio.sleep(RETRY_S * random.uniform(0.7, 1.3))
        finally:
            self.connected = False
            await self._leader.close()

    async def _another(self, leader: Leader | None, changed: Callable[[], Awaitable[None]]) -> None:
        """Returns once another than `leader` leads."""
        while self._leader.find() == leader:
            await changed()

    async def _follow(self) -> None:
        channel = await self._leader.connected()
        call: Any = channel.unary_stream(_PATH, pb.SubscribeFramesRequest.SerializeToString, None)(
            pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL), metadata=self._leader.metadata()
        )
        self.frames.begin()
        try:
            async with contextlib.aclosing(_responses(call)) as responses:
                async for response in responses:
                    if not self.connected:
                        self.connected, self._complaint = True, ""
                        log.info("relay_follows", leader=getattr(self._leader.find(), "id", ""))
                    if (relayed := self.frames.take(response)) is not None:
                        self._show(relayed)
        finally:
            call.cancel()
            if self.connected:
                self.connected = False
                self._lost()

    def _note(self, following: asyncio.Task[None]) -> None:
        """Says once why the leader cannot be followed."""
        failure = None if following.cancelled() else following.exception()
        if failure is None:
            return
        if not isinstance(failure, (grpc.aio.AioRpcError, UnavailableError, InvalidArgumentError)):
            raise failure
        reason = failure.details() if isinstance(failure, grpc.aio.AioRpcError) else str(failure)
        if reason != self._complaint:
            self._complaint = reason or ""
            log.info("relay_waits", reason=reason)


async def _responses(call: Any) -> AsyncGenerator[bytes, None]:
    while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        yield response
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise UnavailableError(f"the leader ended the stream: {await call.details()}")
