"""Keeps one engine process running: starts it, feeds it, hears from it, and starts it again from its last checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import structlog

from narupa_shared import errors
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.channel import FrameMemory, Message, packed, read_message, unnamed_memory
from narupa_trajectory.engine.process import unjsoned
from narupa_trajectory.sources.catalogue import SourceSpec
from narupa_trajectory.sources.source import Snapshot, SourceInfo

log = structlog.get_logger(__name__)

STOP_LIMIT_S: Final = 1.0
COMMAND_LIMIT_S: Final = 30.0
# This many failures in a row, each within QUICK_S of the start before it, and the engine stays down.
QUICK_FAILURES: Final = 4
QUICK_S: Final = 10.0
BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0)


class EngineObserver(Protocol):
    """Who is told what the engine does. All calls come on the event loop and must not block."""

    def engine_starting(self, text: str, progress: float) -> None:
        """What an engine that does not run yet is doing, and how far it is, 0 to 1."""

    def engine_loaded(self, info: SourceInfo, topology: dict[str, Any], fresh: bool) -> None:
        """A source runs: newly loaded (`fresh`), or again after a failure."""

    def engine_frame(self, snapshot: Snapshot, urgent: bool) -> None:
        """A snapshot was taken; `urgent` ones go to everyone at once."""

    def engine_reset(self) -> None:
        """The source is back at its first frame; the next snapshot is of that."""

    def engine_failed(self, reason: str, retrying: bool) -> None:
        """The engine is down, and is being started again, or (not `retrying`) stays down until a load or reset."""


@dataclass(slots=True)
class EngineSettings:
    """What the engine is told at its start, and again at every restart."""

    source: str
    playing: bool
    frame_interval_s: float
    steps_per_frame: int | None
    velocities: bool
    checkpoint_interval_s: float


@dataclass(slots=True)
class Engine:
    """One running engine process and the connection to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    memory: FrameMemory
    info: SourceInfo
    topology: dict[str, Any]
    replies: dict[int, asyncio.Future[bytes]] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    def send(self, header: Message) -> None:
        if not self.writer.is_closing():
            self.writer.write(packed(header))


async def start_engine(
    settings: EngineSettings, checkpoint: bytes, limit_s: float, starting: Callable[[str, float], None]
) -> Engine:
    """An engine process that has loaded its source and, where given, gone on from a checkpoint.

    `starting` is told what it does meanwhile, and how far it is.

    Raises:
        NarupaError: the source cannot be loaded; the text is the engine's own.
        UnavailableError: the engine died or did not answer in time.
    """
    spec = SourceSpec.parse(settings.source)
    ours, theirs = socket.socketpair()
    descriptor = unnamed_memory()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "narupa_trajectory.engine.process",
                str(theirs.fileno()),
                str(descriptor),
                pass_fds=(theirs.fileno(), descriptor),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # calculators print as they like; a service's standard output stays clean
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(packed({**asdict(settings), "source": asdict(spec)}, checkpoint))
            async with asyncio.timeout(limit_s):
                starting("starting the engine process", 0.0)
                header, block = await read_message(reader)
                while header["event"] == "starting":
                    starting(header["text"], header["progress"])
                    header, block = await read_message(reader)
            if header["event"] == "failed":
                raise _error(header["kind"], header["text"])
            info = SourceInfo(**{name: header[name] for name in SourceInfo.__dataclass_fields__})
            memory = FrameMemory.attach(descriptor, info.particle_count)
            return Engine(process, reader, writer, memory, info, unjsoned(block))
        except BaseException as error:
            writer.close()
            await end_process(process, at_once=True)
            if isinstance(error, asyncio.IncompleteReadError):
                raise UnavailableError(f"the engine died while loading {settings.source}: {_ending(process)}") from None
            if isinstance(error, TimeoutError):
                raise UnavailableError(f"the engine did not load {settings.source} within {limit_s:g} s") from None
            raise
    finally:
        os.close(descriptor)


async def end_process(process: asyncio.subprocess.Process, at_once: bool = False) -> None:
    """The process, which was asked to stop or is not wanted any more, has ended."""
    if not at_once:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            # Not process.kill(): on asyncio's own loop it may collect an ended process itself, and lose its status.
            os.kill(process.pid, signal.SIGKILL)
    await process.wait()


class Supervisor:
    """Owns the engine: one at a time, restarted from the last checkpoint whenever it dies."""

    def __init__(self, observer: EngineObserver, load_limit_s: float, silence_limit_s: float) -> None:
        self._observer = observer
        self._load_limit_s = load_limit_s
        self._silence_limit_s = silence_limit_s
        self._engine: Engine | None = None
        self._settings: EngineSettings | None = None
        self._task: asyncio.Task[None] | None = None
        self._checkpoint = b""
        self._checkpoint_time_ps: float | None = None
        self._next_id = 0
        self._interactions: Sequence[Interaction] = ()
        self._interactions_unapplied = False
        self._interactions_waiting = False
        self._every = False
        self._wanted_at: float | None = None
        self._failures = 0
        self._switching = asyncio.Lock()
        self._last_time_ps: float | None = None
        self.steps_per_second = 0.0
        self.restarts = 0
        self.failure = ""

    @property
    def info(self) -> SourceInfo | None:
        """What runs, or None while nothing does."""
        return self._engine.info if self._engine else None

    @property
    def settings(self) -> EngineSettings | None:
        return self._settings

    @property
    def pid(self) -> int | None:
        """The engine's process id, for operators and tests."""
        return self._engine.process.pid if self._engine else None

    async def load(self, settings: EngineSettings) -> None:
        """`settings.source` runs from its first frame. When it cannot be loaded, what ran before goes on undisturbed.

        Raises:
            NarupaError: why it cannot be loaded.
        """
        async with self._switching:
            engine = await start_engine(settings, b"", self._load_limit_s, self._observer.engine_starting)
            await self._end()
            self._settings = settings
            self._failures = 0
            self._adopt(engine, fresh=True)

    async def close(self) -> None:
        """No engine runs. Idempotent."""
        async with self._switching:
            await self._end()

    async def command(self, do: str, **arguments: Any) -> bytes:
        """Runs a command in the engine and returns its answer.

        Raises:
            UnavailableError: no engine runs just now.
            NarupaError: the engine refused.
        """
        engine = self._engine
        if engine is None:
            raise UnavailableError(f"the engine is not running: {self.failure or 'it is starting'}")
        self._next_id += 1
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        engine.replies[self._next_id] = future
        engine.send({"do": do, "id": self._next_id, **arguments})
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                return await future
        except TimeoutError:
            raise UnavailableError(f"the engine did not answer {do} within {COMMAND_LIMIT_S:g} s") from None
        finally:
            engine.replies.pop(self._next_id, None)

    async def restart_from_start(self) -> None:
        """The present source runs again from its first frame, whatever state its engine is in."""
        if self._settings is None:
            raise UnavailableError("no source is loaded")
        await self.load(self._settings)

    def want(self, at: float) -> None:
        """The next snapshot is due at `at` (time.monotonic) or at the first frame after it."""
        if self._engine and at != self._wanted_at:
            self._wanted_at = at
            self._engine.send({"do": "want", "at": at})

    def every(self, on: bool) -> None:
        """Whether each frame is wanted."""
        if on != self._every:
            self._every = on
            if self._engine:
                self._engine.send({"do": "every", "on": on})

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """These interactions, and no others, act from the engine's next frame on. Newer calls overtake unsent ones."""
        self._interactions = interactions
        if self._interactions_unapplied:
            self._interactions_waiting = True
        else:
            self._send_interactions()

    def _send_interactions(self) -> None:
        self._interactions_waiting = False
        if self._engine is None:
            return
        self._interactions_unapplied = True
        fields = ("id", "position", "particles", "kind", "scale", "mass_weighted", "reset_velocities", "max_force")
        wanted = [{name: getattr(item, name) for name in fields} for item in self._interactions]
        self._engine.send({"do": "interactions", "set": wanted})

    def _adopt(self, engine: Engine, fresh: bool) -> None:
        self._engine = engine
        self._wanted_at = None
        self._interactions_unapplied = False
        self.failure = ""
        if fresh:
            self._checkpoint, self._checkpoint_time_ps = b"", None
        log.info(
            "engine_running", source=engine.info.name, particles=engine.info.particle_count, pid=engine.process.pid
        )
        if self._every:
            engine.send({"do": "every", "on": True})
        if self._interactions:
            self._send_interactions()
        self._observer.engine_loaded(engine.info, engine.topology, fresh)
        self._task = asyncio.create_task(self._supervise(engine), name="engine-supervisor")

    async def _end(self) -> None:
        task, self._task = self._task, None
        engine, self._engine = self._engine, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if engine:
            engine.send({"do": "stop"})
            await self._dispose(engine, at_once=False)

    async def _dispose(self, engine: Engine, at_once: bool) -> None:
        await end_process(engine.process, at_once)
        engine.writer.close()
        for future in engine.replies.values():
            if not future.done():
                future.set_exception(UnavailableError("the engine stopped before it answered"))

    async def _supervise(self, engine: Engine) -> None:
        """Hears from `engine` until it ends, then from its successors."""
        while True:
            reason, retryable = await self._listen(engine)
            self._engine = None
            self.steps_per_second = 0.0
            await self._dispose(engine, at_once=True)
            quick = time.monotonic() - engine.started_at < QUICK_S
            self._failures = self._failures + 1 if quick else 1
            reason = reason or f"the engine {_ending(engine.process)}"
            successor = await self._successor(reason) if retryable else None
            if successor is None:
                self.failure = reason
                log.error("engine_failed", reason=reason)
                self._observer.engine_failed(reason, retrying=False)
                return
            engine = successor

    async def _successor(self, reason: str) -> Engine | None:
        """The engine that goes on from the last checkpoint; None once restarting has failed too often."""
        assert self._settings is not None
        while self._failures < QUICK_FAILURES:
            at = (
                "the start"
                if self._checkpoint_time_ps is None
                else f"the checkpoint at {self._checkpoint_time_ps:.2f} ps"
            )
            self.failure = f"{reason}; restarting from {at}"
            log.warning("engine_restarting", reason=reason, checkpoint_time_ps=self._checkpoint_time_ps)
            self._observer.engine_failed(self.failure, retrying=True)
            await asyncio.sleep(BACK_OFF_S[min(self._failures - 1, len(BACK_OFF_S) - 1)])
            try:
                engine = await start_engine(
                    self._settings, self._checkpoint, self._load_limit_s, self._observer.engine_starting
                )
            except NarupaError as error:
                self._failures += 1
                reason = str(error)
                continue
            self.restarts += 1
            task = self._task
            self._adopt_again(engine)
            self._task = task
            return engine
        return None

    def _adopt_again(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted_at = None
        self._interactions_unapplied = False
        self.failure = ""
        log.info("engine_resumed", source=engine.info.name, time_ps=self._checkpoint_time_ps, pid=engine.process.pid)
        if self._every:
            engine.send({"do": "every", "on": True})
        self._send_interactions()
        self._observer.engine_loaded(engine.info, engine.topology, False)

    async def _listen(self, engine: Engine) -> tuple[str, bool]:
        """Why the engine ended ("" when it did not say), and whether it is worth another try."""
        while True:
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    header, block = await read_message(engine.reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return "", True
            except TimeoutError:
                if self._settings and not self._settings.playing:
                    continue  # a paused engine has nothing to say
                return f"the engine has made no step for {self._silence_limit_s:g} s", True
            match header["event"]:
                case "frame":
                    snapshot = engine.memory.read(header)
                    engine.send({"do": "ack", "slot": header["slot"]})
                    self._wanted_at = None
                    self._last_time_ps = snapshot.time_ps
                    self._observer.engine_frame(snapshot, header["urgent"])
                case "statistics":
                    self.steps_per_second = header["steps_per_second"]
                case "checkpoint":
                    self._checkpoint, self._checkpoint_time_ps = block, header.get("time_ps", self._last_time_ps)
                case "interactions_applied":
                    self._interactions_unapplied = False
                    if self._interactions_waiting:
                        self._send_interactions()
                case "reset":
                    self._checkpoint, self._checkpoint_time_ps = b"", None
                    self._observer.engine_reset()
                case "reply":
                    self._reply(engine, header, block)
                case "failed":
                    return header["text"], True

    def _reply(self, engine: Engine, header: Message, block: bytes) -> None:
        future = engine.replies.get(header["id"])
        if future is None or future.done():
            return
        if "error" in header:
            future.set_exception(_error(header["error"]["kind"], header["error"]["text"]))
        else:
            future.set_result(block)


def _error(kind: str, text: str) -> NarupaError:
    """The domain error that the engine process reported by its class name."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, NarupaError):
        error = known.__new__(known)
        Exception.__init__(error, text)
        return error
    return InvalidArgumentError.__new__(InvalidArgumentError, text) if kind == "ValueError" else UnavailableError(text)


def _ending(process: asyncio.subprocess.Process) -> str:
    """How a process ended, in words."""
    status = process.returncode
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"was killed by {name}"
    return f"ended with status {status}"
