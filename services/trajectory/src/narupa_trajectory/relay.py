"""Follows the frames of the service that leads, from there or from another that does, for as long as another leads."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
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
# Besides that: frames of one that has them from the leader will do.
SECOND_HAND_KEY: Final = "narupa-second-hand"
# Tells whom frames are had from that nobody watches them here, so that it need not run for this replica's sake.
UNWATCHED_KEY: Final = "narupa-unwatched"
# How often a frame is had then: what this replica would go on from should be no older, s.
UNWATCHED_INTERVAL_S: Final = 1.0
# After how long without a viewer it is so, s.
LINGER_S: Final = 2.0
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
class Upstream:
    """Another replica, as the lobby lists it.

    Attributes:
        id: Of the service.
        epoch: In which it leads; 0: it has its frames from who does.
        addresses: Where to try, in order: HOST:PORT, with `grpcs://` before it where it listens with TLS.
    """

    id: str
    epoch: int
    addresses: tuple[str, ...]


class UpstreamChannel:
    """The way to the leader, or to whom frames are had from instead.

    Attributes:
        find: Gives who will do, as it is known now, the one to try first at the front; nobody where this service leads.
        upstream: Whom there is a connection to; None while there is none.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Upstream]],
        own_id: str,
        token: Callable[[], str],
        tls: TlsConfig | None = None,
    ) -> None:
        """No connection is made yet.

        Args:
            find: As the attribute.
            own_id: This service's id.
            token: Gives this service's token, or "".
            tls: Certificates; None trusts the system's authorities.
        """
        self.find = find
        self.upstream: Upstream | None = None
        self._own_id = own_id
        self._token = token
        self._tls = tls or TlsConfig()
        self._channel: grpc.aio.Channel | None = None
        self._connecting = asyncio.Lock()
        self._left: Upstream | None = None

    def metadata(self, authorization: str | None = None) -> list[tuple[str, str]]:
        """What to send with a call: in this service's name, or in that of whoever called it."""
        token = self._token()
        own = f"Bearer {token}" if token else ""
        given = own if authorization is None else authorization
        return [(REPLICA_KEY, self._own_id), *([("authorization", given)] if given else [])]

    def suits(self, found: Sequence[Upstream]) -> bool:
        """Whether to stay with whom there is a connection to, where these will do: with any but the leader, or the first."""
        upstream = self.upstream
        return upstream is not None and upstream in found and (not upstream.epoch or upstream == found[0])

    async def connected(self) -> grpc.aio.Channel:
        """A channel to one who will do. Raises: UnavailableError when there is none, or none can be reached."""
        async with self._connecting:
            found = self.find()
            if self._channel is not None and self.suits(found):
                return self._channel
            await self.close()
            if not found:
                raise UnavailableError("no replica leads at present; try again in a moment")
            # Who was just lost comes last: the lobby may not know yet that it is gone.
            order = sorted(found, key=lambda each: each == self._left)
            places = [(each, address) for each in order for address in each.addresses]
            for number, (each, address) in enumerate(places, 1):
                channel = self._made(address)
                try:
                    async with asyncio.timeout(CONNECT_LIMIT_S):
                        ready = await _ready(channel, wait=number == len(places))
                except TimeoutError:
                    ready = False
                except BaseException:
                    await channel.close(None)
                    raise
                if ready:
                    self.upstream, self._channel, self._left = each, channel, None
                    return channel
                await channel.close(None)
            tried = ", ".join(f"{each.id} at {address}" for each, address in places)
            raise UnavailableError(f"who leads cannot be reached, nor who has its frames: {tried}")

    async def leave(self) -> None:
        """There is no connection, and the next is to another, where another will do."""
        self._left = self.upstream
        await self.close()

    async def close(self) -> None:
        """There is no connection. Idempotent."""
        channel, self._channel, self.upstream = self._channel, None, None
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
        connected: Whether a stream is open, of the leader or of who has its frames.
    """

    def __init__(
        self,
        channel: UpstreamChannel,
        show: Callable[[Relayed], None],
        lost: Callable[[], None],
        watched: Callable[[], bool] = lambda: True,
    ) -> None:
        """Nothing is followed yet.

        Args:
            channel: The way there.
            show: Gets each frame.
            lost: Called when a leader's stream that was open has broken.
            watched: Whether anybody here watches; while nobody does a few frames will do. `look` tells that it may have changed.
        """
        self.frames = RelayedFrames()
        self.connected = False
        self._apart_since = time.monotonic()
        self._channel = channel
        self._show = show
        self._lost = lost
        self._watched = watched
        self._audience = asyncio.Event()
        self._complaint = ""

    @property
    def apart_s(self) -> float:
        """For how long no stream has been open, s; 0 while one is."""
        return 0.0 if self.connected else time.monotonic() - self._apart_since

    def look(self) -> None:
        """Somebody may have begun to watch here, or nobody does any more."""
        self._audience.set()

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Follows whoever leads until cancelled. `changed` returns once another may."""
        try:
            while True:
                watched, known = self._watched(), self._channel.find()
                following = asyncio.create_task(self._follow(watched), name="relay")
                news = [
                    asyncio.create_task(self._until_to_move(known, changed), name="relay-news"),
                    asyncio.create_task(self._until_watched(not watched), name="relay-audience"),
                ]
                try:
                    await asyncio.wait((following, *news), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (following, *news):
                        task.cancel()
                    await asyncio.gather(following, *news, return_exceptions=True)
                await self._note(following)
                if all(task.cancelled() for task in news):
                    await asyncio.sleep(RETRY_S * random.uniform(0.7, 1.3))
        finally:
            self._apart()
            await self._channel.close()

    async def _until_to_move(self, known: Sequence[Upstream], changed: Callable[[], Awaitable[None]]) -> None:
        """Returns once others are to be tried than those `known`."""
        while (found := self._channel.find()) == known or self._channel.suits(found):
            await changed()

    async def _until_watched(self, watched: bool) -> None:
        """Returns once somebody watches here, or once nobody has for a while."""
        while True:
            self._audience.clear()
            if self._watched() == watched:
                if watched:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await self._audience.wait()
                if not self._audience.is_set():
                    return
                continue
            await self._audience.wait()

    async def _follow(self, watched: bool) -> None:
        channel = await self._channel.connected()
        upstream = self._channel.upstream
        assert upstream is not None, "it is connected"
        metadata = self._channel.metadata()
        if not upstream.epoch:
            metadata.append((SECOND_HAND_KEY, "yes"))
        request = pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL)
        if not watched:
            metadata.append((UNWATCHED_KEY, "yes"))
            request = pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_LATEST, frame_interval_s=UNWATCHED_INTERVAL_S)
        call: Any = channel.unary_stream(_PATH, pb.SubscribeFramesRequest.SerializeToString, None)(
            request, metadata=metadata
        )
        self.frames.begin()
        try:
            async with contextlib.aclosing(_responses(call)) as responses:
                async for response in responses:
                    if not self.connected:
                        self.connected, self._complaint = True, ""
                        log.info("relay_follows", service=upstream.id, leads=bool(upstream.epoch), watched=watched)
                    if (relayed := self.frames.take(response)) is not None:
                        self._show(relayed)
        except Exception:
            if self.connected and upstream.epoch:
                self._lost()
            raise
        finally:
            call.cancel()
            self._apart()

    def _apart(self) -> None:
        if self.connected:
            self.connected, self._apart_since = False, time.monotonic()

    async def _note(self, following: asyncio.Task[None]) -> None:
        """Says once why nobody can be followed, and looks for another, where another will do."""
        failure = None if following.cancelled() else following.exception()
        if failure is None:
            return
        if not isinstance(failure, (grpc.aio.AioRpcError, UnavailableError, InvalidArgumentError)):
            raise failure
        reason = failure.details() if isinstance(failure, grpc.aio.AioRpcError) else str(failure)
        if reason != self._complaint:
            self._complaint = reason or ""
            log.info("relay_waits", reason=reason)
        if (upstream := self._channel.upstream) is not None and not upstream.epoch:
            await self._channel.leave()


async def _ready(channel: grpc.aio.Channel, wait: bool) -> bool:
    """Whether there is a connection, at the latest when one was refused, unless that is to `wait` for the next attempt."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not wait:
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True


async def _responses(call: Any) -> AsyncGenerator[bytes, None]:
    while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        yield response
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise UnavailableError(f"the stream was ended: {await call.details()}")
