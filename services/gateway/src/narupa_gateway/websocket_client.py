"""One NanoVer client on a WebSocket: frames and state to it; state, commands and frames from it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import structlog

from narupa_gateway.commands import ClientCommands
from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Guest
from narupa_gateway.shared_state import SharedStateCopy
from narupa_gateway.writes import GuestWrites, WaitingWrites
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.nanover_messages import frame_of, message, state_change_of, unpacked
from narupa_shared.rates import RateLimit
from narupa_shared.subscriptions import Subscription

log = structlog.get_logger(__name__)

# Why a connection is closed (RFC 6455, section 7.4.1).
GOING_AWAY: Final = 1001
MALFORMED: Final = 1007
REFUSED: Final = 1008
TRY_LATER: Final = 1013
MAX_REASON_BYTES: Final = 123

# Keys of refused writes that a client is told of together; and how many may wait for that, of which none is left out.
MAX_TOLD: Final = 1000
MAX_UNTOLD: Final = 10_000
# A client whose writes are refused is told the truth, and the log of it, no more often than this, s.
TELL_EVERY_S: Final = 1.0


# Part of what is done for a client.
Work = Callable[[], Coroutine[Any, Any, None]]


class Socket(Protocol):
    """What is needed of a WebSocket connection."""

    async def send(self, message: bytes) -> None: ...

    async def recv(self) -> bytes | str: ...

    async def follow(self, subscription: Subscription) -> None: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


def close_reason(text: str) -> str:
    """`text`, as much of it as fits into a closing message."""
    encoded = text.encode()
    if len(encoded) <= MAX_REASON_BYTES:
        return text
    return encoded[: MAX_REASON_BYTES - 3].decode(errors="ignore") + "..."


async def close(socket: Socket, code: int, reason: str) -> None:
    """The connection is closed, and the client told why."""

    async def drop() -> None:
        with contextlib.suppress(Exception):  # whatever the socket raises when it closes, or where somebody else reads
            while True:
                await socket.recv()

    # What comes still is read, or the client's own goodbye would wait behind it.
    dropping = asyncio.create_task(drop())
    try:
        await socket.close(code, close_reason(reason))
    finally:
        dropping.cancel()
        await asyncio.gather(dropping, return_exceptions=True)


class WebSocketClient:
    """Serves one client, from its joining to the end of its connection."""

    def __init__(
        self,
        socket: Socket,
        guest: Guest,
        feed: FrameFeed,
        state: SharedStateCopy,
        rates: RateLimit,
        volumes: RateLimit,
        config: GatewayConfig,
    ) -> None:
        self._socket = socket
        self._guest = guest
        self._feed = feed
        self._state = state
        self._rates = rates
        self._volumes = volumes
        self._config = config
        # Most clients only look on: what others need is made when they do.
        self._waiting: WaitingWrites | None = None
        self._commands: ClientCommands | None = None
        self._refusal: asyncio.Event | None = None
        self._tasks: dict[Work, asyncio.Task[None]] = {}
        self._over: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
        self._untold: dict[str, None] = {}
        self._logged_at = -TELL_EVERY_S
        self._refused = 0

    async def serve(self) -> None:
        """The client is served until its connection or its session ends. Raises what the socket raises when it closes."""
        for work in (self._send_frames, self._send_state, self._receive):
            self._begin(work)
        try:
            await self._ended(await self._over)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            if self._commands is not None:
                await self._commands.close()
            for limit in (self._rates, self._volumes):
                limit.forget(str(self._guest.number))

    def _begin(self, work: Work) -> None:
        """It goes on for as long as the client is served, which ends when it does. Idempotent."""
        if work not in self._tasks:
            self._tasks[work] = task = asyncio.create_task(work(), name=f"guest-{self._guest.number}")
            task.add_done_callback(self._end_with)

    def _end_with(self, task: asyncio.Task[None]) -> None:
        if not self._over.done():
            self._over.set_result(task)

    async def end(self, code: int, reason: str) -> None:
        """The connection is closed, and the client told why."""
        await close(self._socket, code, reason)

    async def _ended(self, task: asyncio.Task[None]) -> None:
        """Closes the connection for the reason that a task ended with; one that is closed already stays so."""
        error = None if task.cancelled() else task.exception()
        match error:
            case None:
                return
            case InvalidArgumentError():
                await self.end(MALFORMED, str(error))
            case UnavailableError():
                await self.end(GOING_AWAY, str(error))
            case NarupaError():
                await self.end(REFUSED, str(error))
            case _:
                raise error
        log.info("client_closed", guest=self._guest.number, reason=str(error))

    async def _send(self, items: Mapping[str, Any]) -> None:
        await self._socket.send(message(items))

    # To the client.

    async def _send_frames(self) -> None:
        subscription = self._feed.subscribe("nanover", "latest", self._config.frame_interval_s, "frame_interval_s")
        try:
            await self._socket.follow(subscription)
        finally:
            self._feed.unsubscribe(subscription)

    async def _send_state(self) -> None:
        async with contextlib.aclosing(self._state.stream("nanover", self._config.state_interval_s)) as messages:
            async for data in messages:
                await self._socket.send(data)

    # From the client.

    async def _receive(self) -> None:
        while True:
            await self._take(await self._socket.recv())

    async def _take(self, data: bytes | str) -> None:
        """A message has come.

        Raises:
            InvalidArgumentError: it is none.
            QuotaError: there are too many, or there is too much in them.
        """
        account = str(self._guest.number)
        self._rates.spend(account)
        if isinstance(data, str):
            raise InvalidArgumentError("message", "text", "messages are MessagePack, sent as binary")
        self._volumes.spend(account, len(data))
        items = unpacked(data, self._config.max_message_items)
        if "state" in items:
            await self._put(*state_change_of(items["state"]), len(data))
        if "command" in items:
            await self._command(items["command"])
        if "frame" in items:
            await self._publish(items["frame"])

    async def _command(self, said: object) -> None:
        if self._commands is None:
            self._commands = ClientCommands(self._guest, self._send, self._config.max_commands)
        await self._commands.take(said)
        if self._commands.wanted:
            self._begin(self._commands.run)

    async def _publish(self, packed: object) -> None:
        frame = frame_of(packed)
        try:
            await self._guest.session.publish_frame(frame.values, frame.arrays, index=frame.index)
        except NarupaError as error:
            self._note_refusal("frame", error)

    async def _put(self, updates: dict[str, Any], removals: list[str], size: int) -> None:
        """The write waits its turn; returns once there is room for the next."""
        if self._waiting is None:
            self._waiting = WaitingWrites()
            self._begin(self._write)
        await self._waiting.put(updates, removals, size)

    async def _write(self) -> None:
        assert self._waiting is not None, "something waits"
        writes = GuestWrites(self._guest)
        try:
            while True:
                async with self._waiting.next() as (updates, removals):
                    try:
                        await writes.write(updates, removals)
                    except NarupaError as error:
                        if ended := self._guest.ended:
                            raise ended from error
                        self._note_refusal("state", error)
                        self._refused_keys([*updates, *removals])
        finally:
            await asyncio.shield(writes.close())

    def _refused_keys(self, keys: list[str]) -> None:
        self._untold |= dict.fromkeys(keys[: MAX_UNTOLD - len(self._untold)])
        self._refusal = self._refusal or asyncio.Event()
        self._refusal.set()
        self._begin(self._tell_refused)

    async def _tell_refused(self) -> None:
        # There is no answer to a write; whoever sees the keys as they are knows.
        assert self._refusal is not None, "something was refused"
        while True:
            await self._refusal.wait()
            told = list(self._untold)[:MAX_TOLD]
            for key in told:
                del self._untold[key]
            if not self._untold:
                self._refusal.clear()
            for data in self._state.as_it_is(told):
                await self._socket.send(data)
            await asyncio.sleep(TELL_EVERY_S)

    def _note_refusal(self, what: str, error: NarupaError) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._logged_at >= TELL_EVERY_S:
            self._logged_at = now
            log.info("refused", guest=self._guest.number, what=what, refused=self._refused, reason=str(error))
