"""How an engine process is started and ended, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from narupa_shared import errors
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_trajectory.engine.channel import FrameMemory, Message, packed, read_message, unjsoned, unnamed_memory
from narupa_trajectory.sources.catalogue import SourceSpec
from narupa_trajectory.sources.source import SourceInfo

STOP_LIMIT_S: Final = 1.0


@dataclass(slots=True)
class EngineSettings:
    """What the engine is told at its start, and again at every restart."""

    source: str
    playing: bool
    frame_interval_s: float
    steps_per_frame: int | None
    velocities: bool
    checkpoint_interval_s: float
    on_blow_up: Literal["stop", "resume"] = "stop"
    energy_share: float = 0.01  # of the engine's time, for reading energies
    own_pace: bool = True  # a recording is played as fast as it says itself
    after: tuple[str, int] | None = None  # a recording of this run begins after this frame


@dataclass(slots=True)
class Request:
    """A command on its way: its answer, and what is to be done the moment it comes."""

    answer: asyncio.Future[bytes]
    on_done: Callable[[], None] | None


@dataclass(slots=True)
class Engine:
    """One running engine process and the connection to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    memory: FrameMemory
    info: SourceInfo
    topology: dict[str, Any]
    replies: dict[int, Request] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    def send(self, header: Message) -> None:
        if not self.writer.is_closing():
            self.writer.write(packed(header))


@dataclass(slots=True)
class EngineProcess:
    """An engine process on its way: nothing runs in it yet.

    Attributes:
        source: The spec that it has loaded, or is to load.
    """

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    memory: int  # descriptor
    source: str

    async def dispose(self) -> None:
        """It has ended, and nothing of it is left. Idempotent."""
        self.writer.close()
        await end_process(self.process, at_once=True)
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1


async def start_engine(
    settings: EngineSettings, checkpoint: bytes, limit_s: float, starting: Callable[[str, float], None]
) -> Engine:
    """An engine process that has loaded its source and, where given, gone on from a checkpoint.

    `starting` is told what it does meanwhile, and how far it is.

    Raises:
        NarupaError: the source cannot be loaded; the text is the engine's own.
        UnavailableError: the engine died or did not answer in time.
    """
    return await begun(await _spawned(settings.source), settings, checkpoint, limit_s, starting)


async def start_waiting(settings: EngineSettings, limit_s: float) -> EngineProcess:
    """An engine process that has loaded its source, and waits for `begun`. Raises as `start_engine`."""
    engine = await _spawned(settings.source)
    await _heard(engine, settings, b"", "waiting", limit_s, lambda text, progress: None)
    return engine


async def begun(
    engine: EngineProcess,
    settings: EngineSettings,
    checkpoint: bytes,
    limit_s: float,
    starting: Callable[[str, float], None],
) -> Engine:
    """What `start_engine` makes, of a process that is there already. Raises as that; then the process is gone."""
    starting("starting the engine process", 0.0)
    header, block = await _heard(engine, settings, checkpoint, "loaded", limit_s, starting)
    info = SourceInfo(**{name: header[name] for name in SourceInfo.__dataclass_fields__})
    try:
        memory = FrameMemory.attach(engine.memory, info.particle_count)
    except BaseException:
        await engine.dispose()
        raise
    os.close(engine.memory)
    return Engine(engine.process, engine.reader, engine.writer, memory, info, unjsoned(block))


async def _spawned(source: str) -> EngineProcess:
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
    except BaseException:
        os.close(descriptor)
        raise
    return EngineProcess(process, reader, writer, descriptor, source)


async def _heard(
    engine: EngineProcess,
    settings: EngineSettings,
    checkpoint: bytes,
    event: Literal["waiting", "loaded"],
    limit_s: float,
    starting: Callable[[str, float], None],
) -> tuple[Message, bytes]:
    """The engine's message of this event, once it has these settings; when none comes, the engine is gone."""
    spec = asdict(SourceSpec.parse(settings.source))
    told = {**asdict(settings), "source": spec, "waits": event == "waiting"}
    try:
        engine.writer.write(packed(told, checkpoint))
        async with asyncio.timeout(limit_s):
            header, block = await read_message(engine.reader)
            while header["event"] == "starting":
                starting(header["text"], header["progress"])
                header, block = await read_message(engine.reader)
        if header["event"] == "failed":
            raise domain_error(header["kind"], header["text"])
    except BaseException as error:
        await engine.dispose()
        if isinstance(error, asyncio.IncompleteReadError):
            how = ending(engine.process)
            raise UnavailableError(f"the engine died while loading {settings.source}: {how}") from None
        if isinstance(error, TimeoutError):
            raise UnavailableError(f"the engine did not load {settings.source} within {limit_s:g} s") from None
        raise
    return header, block


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


def domain_error(kind: str, text: str) -> NarupaError:
    """The domain error that the engine process reported by its class name."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, NarupaError):
        error = known.__new__(known)
        Exception.__init__(error, text)
        return error
    return InvalidArgumentError.__new__(InvalidArgumentError, text) if kind == "ValueError" else UnavailableError(text)


def ending(process: asyncio.subprocess.Process) -> str:
    """How a process ended, in words."""
    status = process.returncode
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"was killed by {name}"
    return f"ended with status {status}"
