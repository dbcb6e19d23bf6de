"""One viewer in a notebook: frames and state to it; writes and commands from it, as the user whose session it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from narupa_client.notebook.news import FrameNews, StateNews
from narupa_client.notebook.window import Window
from narupa_client.session import Session
from narupa_client.state_writer import LastingWriter
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.nanover_messages import message, state_change_of, unpacked
from narupa_shared.rates import RateLimit

Send = Callable[[Mapping[str, Any], Sequence[bytes]], None]

# Why a viewer is left (RFC 6455, section 7.4.1): it may come again, or not.
GOING_AWAY: Final = 1001
REFUSED: Final = 1008

FRAME_INTERVAL_S: Final = 1 / 30
STATE_INTERVAL_S: Final = 1 / 30
FRAMES_UNDER_WAY: Final = 4
STATES_UNDER_WAY: Final = 4
# What one viewer may send: messages and bytes per second, at once twice as many; items of a message; commands at a time.
MESSAGES_PER_S: Final = 200
BYTES_PER_S: Final = 2 * 1024 * 1024
MAX_ITEMS: Final = 100_000
MAX_COMMANDS: Final = 16
# Writes that wait for the imd service. A viewer sends few before it hears of them.
MAX_WAITING: Final = 64
# A viewer hears something at least so often, s, and is given up after nothing was heard of it for so long while it could be.
KEEPALIVE_S: Final = 5.0
SILENCE_S: Final = 120.0
# After how long without the trajectory service a viewer is told, s.
TELL_AFTER_S: Final = 2.0
_LOOK_EVERY_S: Final = 1.0
LEFT: Final = "the notebook has left the session"


class Viewer:
    """Serves one viewer for as long as `run` does. To be used on the session's event loop."""

    def __init__(
        self, session: Session, send: Send, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            session: What is seen.
            send: Sends content and buffers to the viewer, and waits for nothing.
            busy: Says whether the kernel may be kept from hearing the viewer.
            clock: Gives seconds.
        """
        self._session = session
        self._send = send
        self._busy = busy
        self._clock = clock
        self._number = 0
        self._heard = 0
        self._frames = Window(FRAMES_UNDER_WAY, clock)
        self._states = Window(STATES_UNDER_WAY, clock)
        self._state = StateNews()
        self._news = asyncio.Event()
        self._writer = LastingWriter(session.state.writer)
        self._waiting: asyncio.Queue[tuple[dict[str, Any], list[str]]] = asyncio.Queue(MAX_WAITING)
        self._commands: set[asyncio.Task[None]] = set()
        self._rates = RateLimit(clock, MESSAGES_PER_S, 2 * MESSAGES_PER_S, "messages")
        self._volumes = RateLimit(clock, BYTES_PER_S, 2 * BYTES_PER_S, "bytes")
        self._heard_at = clock()
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """The viewer is served until `end`, or until the session ends; then it is told why, and nothing is left running."""
        work = (self._send_frames(), self._follow_state(), self._send_state(), self._write(), self._watch_silence())
        tasks = {asyncio.create_task(each, name="narupa-viewer-part") for each in work}
        ending = (REFUSED, LEFT)
        self._send({"kind": "opened"}, ())
        try:
            waited: set[asyncio.Future[Any]] = {*tasks, self._end}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            ending = self._end.result() if self._end.done() else _ending(task for task in tasks if task.done())
        finally:
            for task in (running := tasks | self._commands):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            try:
                await asyncio.shield(self._writer.close())
            finally:
                code, reason = ending
                self._send({"kind": "closed", "code": code, "reason": reason}, ())

    @property
    def ended(self) -> bool:
        """Whether the viewer is left, or about to be."""
        return self._end.done()

    def end(self, code: int, reason: str) -> None:
        """The viewer is left, and told why."""
        if not self._end.done():
            self._end.set_result((code, reason))

    def take(self, content: Mapping[Any, Any], buffers: Sequence[bytes]) -> None:
        """Something has come from the viewer. One that sends what makes no sense, or too much, is left."""
        self._heard_at = self._clock()
        try:
            self._rates.spend("the view")
            if content.get("kind") == "ack":
                number = content.get("number")
                if isinstance(number, int) and self._heard < number < 2**53:
                    self._heard = number
                self._frames.acknowledge(content.get("frames"))
                self._states.acknowledge(content.get("states"))
            else:
                self._take(buffers)
        except NarupaError as error:
            self.end(REFUSED, str(error))

    # To the viewer.

    def _tell(self, what: str, data: bytes) -> None:
        # Numbered, so that the viewer knows when the notebook's server has left something out; with the number of the newest
        # acknowledgement, so that it does not send ever more of them to a kernel that hears none.
        self._number += 1
        self._send({"kind": "message", "what": what, "number": self._number, "heard": self._heard}, (data,))

    def _silent_since(self) -> float | None:
        return self._heard_at if self._busy() else None

    async def _send_frames(self) -> None:
        news = FrameNews()
        heard_at = self._clock()
        arriving: asyncio.Future[Any] | None = None
        async with self._session.frames(FRAME_INTERVAL_S) as frames:
            try:
                while True:
                    await self._frames.room(self._silent_since)
                    arriving = arriving or asyncio.ensure_future(anext(frames, None))
                    await asyncio.wait({arriving}, timeout=_LOOK_EVERY_S)
                    data: bytes | None = None
                    if arriving.done():
                        frame, arriving = arriving.result(), None
                        if frame is None:
                            return
                        heard_at = self._clock()
                        data = news.message(frame)
                    elif frames.trouble and self._clock() - heard_at > TELL_AFTER_S:
                        data = news.trouble(frames.trouble)
                    if data is not None:
                        self._frames.sent(len(data))
                        self._tell("frame", data)
            finally:
                if arriving is not None:
                    arriving.cancel()
                    await asyncio.wait({arriving})

    async def _follow_state(self) -> None:
        async with self._session.state.watch(interval_s=STATE_INTERVAL_S) as changes:
            async for change in changes:
                self._state.apply(change)
                self._news.set()

    async def _send_state(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._states.room(self._silent_since)
            if self._state.any:
                data = self._state.message()
                self._states.sent(len(data))
                self._tell("state", data)
                await asyncio.sleep(STATE_INTERVAL_S)

    async def _watch_silence(self) -> None:
        busy_at = self._clock()
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            if self._busy():
                busy_at = self._clock()
            if self._clock() - max(self._heard_at, busy_at) > SILENCE_S:
                raise UnavailableError(f"nothing was heard of this view for {SILENCE_S:g} s")
            self._tell("nothing", message({}))

    # From the viewer.

    def _take(self, buffers: Sequence[bytes]) -> None:
        if len(buffers) != 1:
            raise InvalidArgumentError("message", f"{len(buffers)} buffers", "must be one")
        data = bytes(buffers[0])
        self._volumes.spend("the view", len(data))
        items = unpacked(data, MAX_ITEMS)
        if "frame" in items:
            raise InvalidArgumentError("message", "a frame", "a view shows frames, and publishes none")
        if "state" in items:
            try:
                self._waiting.put_nowait(state_change_of(items["state"]))
            except asyncio.QueueFull:
                raise QuotaError(f"more than {MAX_WAITING} writes of the view wait") from None
        else:
            self._send({"kind": "written"}, ())
        if "command" in items:
            self._command(items["command"])

    async def _write(self) -> None:
        while True:
            updates, removals = await self._waiting.get()
            try:
                if self._session.role == "viewer":
                    raise PermissionDeniedError("changing the shared state needs the role participant")
                await self._writer.write(updates, removals)
            except NarupaError:
                if (ended := self._session.ended) is not None:
                    raise ended from None
                # A write has no answer; whoever sees the keys as they are knows.
                self._state.doubt((*updates, *removals))
                self._news.set()
            self._send({"kind": "written"}, ())

    def _command(self, said: object) -> None:
        request = said.get("request") if isinstance(said, Mapping) else None
        if not isinstance(request, Mapping):
            raise InvalidArgumentError("command", type(said).__name__, "must be a map with a request")
        if len(self._commands) >= MAX_COMMANDS:
            problem = f"{MAX_COMMANDS} commands of this view are running, which is the limit; wait for one"
            self._tell("command", message({"command": {"request": request, "exception": problem}}))
            return
        task = asyncio.create_task(self._run_command(request), name="narupa-viewer-command")
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _run_command(self, request: Mapping[str, Any]) -> None:
        try:
            name, arguments = request.get("name"), request.get("arguments") or {}
            if not isinstance(name, str) or not isinstance(arguments, Mapping):
                raise InvalidArgumentError(
                    "command.request", type(name).__name__, "must have a name, and a map of arguments"
                )
            result = await self._session.run_command(name, arguments)
        except NarupaError as error:
            answer: dict[str, Any] = {"request": request, "exception": str(error)}
        else:
            answer = {"request": request, "response": result or None}
        self._tell("command", message({"command": answer}))


def _ending(done: Iterable[asyncio.Task[None]]) -> tuple[int, str]:
    """Why the viewer is left, where one of its parts has ended. Raises what is no error of the session's."""
    for task in done:
        match task.exception():
            case None:
                continue
            case UnavailableError() as error:
                return GOING_AWAY, str(error)
            case NarupaError() as error:
                return REFUSED, str(error)
            case error:
                raise error
    return REFUSED, LEFT
