"""One client that speaks IMD, as the engine at the other end sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from narupa_gateway.imd_frames import ImdFrames, System, interaction
from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.imd_engine_session import EngineSession, Push
from narupa_shared.imd_protocol import GO_LIMIT_S, MessageType, header
from narupa_shared.interactions import KEY_PREFIX
from narupa_shared.rates import RateLimit

log = structlog.get_logger(__name__)

# So much of what has come is looked at in one go; the loop has others to serve.
CHUNK: Final = 16384
# How long newer forces wait for each of those taken to the session before, s: many are taken less often, lest the loop do
# little else.
PER_FORCE_S: Final = 1e-4
LEFT: Final = "it has left"
HUNG_UP: Final = "it has hung up"

Write = Callable[[Mapping[str, Any], Sequence[str]], Awaitable[None]]
Joining = Callable[[Callable[[str], None]], contextlib.AbstractAsyncContextManager[Write]]


@dataclass(frozen=True, slots=True)
class ImdLimits:
    """What is allowed of clients.

    Attributes:
        connections: At a time.
        opening: Of those, that have not joined the session yet.
        first_frame_s: How long a client waits for the first frame before it is turned away, s.
        go_s: How long it may take to say GO, s.
        partial_s: How long it may take to send the rest of a message, s.
        stall_s: How long it may leave a frame unread, s.
        silence_s: After how long without a word its forces end, s.
        writes_per_s: How often its forces are taken to the session; those between are passed over.
        most_forces: On how many particles it may push at once.
        messages_per_s: How many messages it may send on average.
        messages_burst: And at once.
    """

    connections: int = 32
    opening: int = 16
    first_frame_s: float = 4.0
    go_s: float = GO_LIMIT_S
    partial_s: float = 5.0
    stall_s: float = 30.0
    silence_s: float = 5.0
    writes_per_s: float = 30.0
    most_forces: int = 5000
    messages_per_s: float = 500.0
    messages_burst: int = 5000


class ImdClient:
    """Serves one client from its handshake to the end of its connection."""

    def __init__(
        self,
        id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        frames: ImdFrames,
        rates: RateLimit,
        limits: ImdLimits,
    ) -> None:
        """Nothing has been said.

        Args:
            id: Unique in the session; it names the interaction of the client's forces.
            reader: From the client.
            writer: To the client.
            frames: What it is to see.
            rates: Of messages, by client.
            limits: What it may.
        """
        self.id = id
        self._reader = reader
        self._writer = writer
        self._frames = frames
        self._rates = rates
        self._limits = limits
        self._ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._resumed = asyncio.Event()
        self._pushed = asyncio.Event()
        self._push: Push | None = None
        self._partial_until: float | None = None
        self._refusal = ""
        self.joined = False
        self.sent = 0

    @property
    def key(self) -> str:
        """Of its forces, in the shared state."""
        return f"{KEY_PREFIX}imd-{self.id}"

    def end(self, reason: str) -> None:
        """The client is told to go. Idempotent."""
        if not self._ending.done():
            self._ending.set_result(reason)

    async def serve(self, join: Joining) -> str:
        """Serves the client until it, or the session, has had enough; returns why. Its connection is still to be closed.

        Args:
            join: Makes the client a user of the session while it is open; it is given what to call when that is over.
        """
        greeted = False
        try:
            system = await self._system()
            session = EngineSession(self._frames.version, system.info, system.particle_count, self._limits.most_forces)
            await self._send(session.greeting())
            greeted = True
            await self._await_go(session)
            async with join(self.end) as write:
                self.joined = True
                reason = await self._attend(session, system, write)
        except NarupaError as error:
            reason = str(error)
        except OSError as error:
            reason = f"the connection was lost: {error.strerror or error}"
        finally:
            self._rates.forget(self.id)
        if greeted:
            with contextlib.suppress(OSError):
                self._writer.write(header(MessageType.DISCONNECT))
        return reason

    async def _system(self) -> System:
        """What runs. Raises: UnavailableError where nothing is known of it in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.first_frame_s):
                while self._frames.system is None and self._frames.ended is None:
                    await self._frames.after(self._frames.count)
        if self._frames.system is None:
            raise UnavailableError(self._frames.ended or "there is no frame to show")
        return self._frames.system

    async def _await_go(self, session: EngineSession) -> None:
        """The client wants to begin. Raises: UnavailableError where it does not, or not in time."""
        try:
            async with asyncio.timeout(self._limits.go_s):
                while not session.going and not session.left:
                    if not await self._hear(session):
                        raise UnavailableError(HUNG_UP)
        except TimeoutError:
            raise UnavailableError(f"it has not said GO within {self._limits.go_s:g} s") from None
        if session.left:
            raise UnavailableError(LEFT)

    async def _attend(self, session: EngineSession, system: System, write: Write) -> str:
        """Sends and receives until one of both is over; returns why."""
        work = (self._show(session, system), self._listen(session), self._pull(session, write))
        tasks = [asyncio.create_task(each, name=f"imd-client-{self.id}") for each in work]
        try:
            await asyncio.wait([*tasks, self._ending], return_when=asyncio.FIRST_COMPLETED)
            if self._ending.done():
                return self._ending.result()
            return next(task.result() for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _show(self, session: EngineSession, system: System) -> str:
        """Sends the newest frame whenever there is another one that is due."""
        frames, seen, last = self._frames, 0, 0
        while True:
            await frames.after(seen)
            if frames.ended is not None:
                return frames.ended
            if frames.system != system:
                return f"another system is shown now: {frames.system.name if frames.system else 'none'}"
            if session.paused:
                await self._resumed_or_news()
                continue
            seen = frames.count
            if not last or seen >= last + session.rate:
                last = seen
                await self._send(frames.encoded(system.info))
                self.sent += 1

    async def _resumed_or_news(self) -> None:
        """The client wants frames again, or there is another one, which may be of another system."""
        self._resumed.clear()
        waiting = [
            asyncio.ensure_future(each) for each in (self._resumed.wait(), self._frames.after(self._frames.count))
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            async with asyncio.timeout(self._limits.stall_s):
                await self._writer.drain()
        except TimeoutError:
            raise UnavailableError(f"it has read nothing for {self._limits.stall_s:g} s") from None

    async def _listen(self, session: EngineSession) -> str:
        while await self._hear(session):
            if not session.paused:
                self._resumed.set()
            if session.left:
                return LEFT
        return HUNG_UP

    async def _hear(self, session: EngineSession) -> bool:
        """Takes in what has come next; False when the client has hung up.

        Raises:
            ImdProtocolError: it is no IMD.
            QuotaError: there is too much of it.
            UnavailableError: the rest of a message is overdue.
        """
        try:
            async with asyncio.timeout_at(self._partial_until):
                data = await self._reader.read(CHUNK)
        except TimeoutError:
            raise UnavailableError(f"the rest of a message has not come for {self._limits.partial_s:g} s") from None
        if not data:
            return False
        count, push = session.feed(data)
        self._rates.spend(self.id, count)
        if not session.pending:
            self._partial_until = None
        elif count or self._partial_until is None:
            self._partial_until = asyncio.get_running_loop().time() + self._limits.partial_s
        if push is not None:
            self._push = push
            self._pushed.set()
        return True

    async def _pull(self, session: EngineSession, write: Write) -> str:
        """The client's forces act in the session as one interaction, the newest it sent, until it falls silent."""
        acting: Push | None = None
        while True:
            try:
                async with asyncio.timeout(self._limits.silence_s if acting is not None else None):
                    await self._pushed.wait()
            except TimeoutError:
                log.info("imd_forces_silent", client=self.id)
                self._push = None
            self._pushed.clear()
            push = None if self._push is None or self._push.empty else self._push
            if not same(push, acting):
                try:
                    if push is None:
                        await write({}, [self.key])
                    else:
                        await write({self.key: interaction(push, session.version)}, [])
                    acting = push
                except NarupaError as error:
                    self._note_refusal(str(error))
                    if acting is not None and push is not None:  # which it does not want any more
                        with contextlib.suppress(NarupaError):
                            await write({}, [self.key])
                    acting = None
                count = 0 if push is None else len(push.indices)
                await asyncio.sleep(max(1 / self._limits.writes_per_s, count * PER_FORCE_S))

    def _note_refusal(self, reason: str) -> None:
        """The protocol has no way to tell the client."""
        if reason != self._refusal:
            log.info("imd_forces_refused", client=self.id, reason=reason)
        self._refusal = reason


def same(one: Push | None, other: Push | None) -> bool:
    """Whether both are the same forces."""
    if one is None or other is None:
        return one is other
    return one.indices.tobytes() == other.indices.tobytes() and one.forces.tobytes() == other.forces.tobytes()
