"""Which particles a selection means: evaluated once for each system, in a process of its own (`selecting.py`)."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.frames import Array, Frame, Value, encode_v1
from narupa_shared.rates import RateLimit
from narupa_shared.subsets import particle_count
from narupa_trajectory.engine.channel import Message, packed, read_message
from narupa_trajectory.engine.connection import end_process

log = structlog.get_logger(__name__)

Indices = NDArray[np.uint32]

# What the process is told of a system. While it is the same, so are the particles that a selection means.
_FACTS: Final[tuple[str, ...]] = (
    keys.ELEMENTS,
    keys.NAMES,
    keys.RESIDUES,
    keys.RESIDUE_NAMES,
    keys.RESIDUE_IDS,
    keys.RESIDUE_CHAINS,
    keys.CHAIN_NAMES,
    keys.BOND_PAIRS,
)
_MOMENT: Final[tuple[str, ...]] = (keys.POSITIONS, keys.BOX)
# How long the process may take to start and to be told a system, s.
START_LIMIT_S: Final = 60.0
# After how long without a selection to evaluate it is ended, s.
IDLE_S: Final = 60.0
# How many selections of one system are remembered.
MAX_KNOWN: Final = 64
# How many selections that are not known yet a user may have evaluated at once, and then per second.
BURST: Final = 10
PER_S: Final = 0.5
# Libraries would reserve memory for threads that selections do not use.
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class _System:
    """What the selections of a system depend on."""

    count: int
    facts: Sequence[Any]

    def same(self, other: _System) -> bool:
        return self.count == other.count and all(map(_same, self.facts, other.facts))


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


class Selections:
    """Selections of the system that was asked about last. Lives on the event loop's thread."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit_s`: how long one selection may take, s; `clock` gives seconds."""
        self._limit_s = limit_s
        self._rates = RateLimit(clock, PER_S, BURST, "new selections")
        self._system: _System | None = None
        self._known: dict[str, asyncio.Task[Indices | NarupaError]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._worker: _Worker | None = None
        self._ending: asyncio.TimerHandle | None = None

    def admit(self, owner: str, text: str) -> None:
        """`owner` may have this selection evaluated now. Raises: QuotaError after too many that nobody has asked for yet."""
        if text and text not in self._known:
            self._rates.spend(owner)

    async def particles(self, text: str, whole: Frame) -> Indices:
        """The indices of the particles that `text` means in a whole frame, (n,) uint32, ascending.

        Raises:
            InvalidArgumentError: it is no selection, or takes too long or too much memory.
            UnavailableError: it could not be evaluated at this time.
        """
        system = _System(particle_count(whole), [whole.arrays.get(key) for key in _FACTS])
        if self._system is None or not system.same(self._system):
            self._system, self._known = system, {}
        known = self._known
        task = known.get(text)
        if task is None:
            while len(known) >= MAX_KNOWN:
                del known[next(iter(known))]
            task = known[text] = self._spawn(self._evaluated(text, whole, system))
        found = await asyncio.shield(task)
        if isinstance(found, NarupaError):
            if not isinstance(found, InvalidArgumentError) and known.get(text) is task:
                del known[text]  # another time it may be different
            raise found.with_traceback(None)
        return found

    async def close(self) -> None:
        """Nothing is evaluated any more, and the process has ended. Idempotent."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._let_go()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name="selection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _evaluated(self, text: str, whole: Frame, system: _System) -> Indices | NarupaError:
        async with self._turn:
            if self._ending is not None:
                self._ending.cancel()
                self._ending = None
            try:
                worker = await self._told(whole, system)
                try:
                    async with asyncio.timeout(self._limit_s):
                        answer, block = await worker.ask({"do": "select", "text": text})
                except TimeoutError:
                    reason = f"takes longer than {self._limit_s:g} s to evaluate; select less, or name particles"
                    raise InvalidArgumentError("view.selection", text, reason) from None
                except (asyncio.IncompleteReadError, OSError):
                    reason = "is more than can be evaluated; select less, or name particles"
                    raise InvalidArgumentError("view.selection", text, reason) from None
            except BaseException as error:
                await self._let_go()
                if not isinstance(error, NarupaError):
                    raise
                log.warning("selection_not_evaluated", reason=str(error))
                return error
            self._ending = asyncio.get_running_loop().call_later(IDLE_S, lambda: self._spawn(self._let_go_idle()))
            if answer["event"] == "refused":
                return InvalidArgumentError("view.selection", text, answer["reason"])
            return np.frombuffer(block, np.uint32)

    async def _told(self, whole: Frame, system: _System) -> _Worker:
        """A process that has been told of this system. Raises: UnavailableError."""
        try:
            async with asyncio.timeout(START_LIMIT_S):
                if self._worker is None:
                    self._worker = await _Worker.start()
                if self._worker.system is None or not system.same(self._worker.system):
                    told: dict[str, Array] = {
                        key: whole.arrays[key] for key in (*_FACTS, *_MOMENT) if key in whole.arrays
                    }
                    values: dict[str, Value] = {keys.PARTICLE_COUNT: float(particle_count(whole))}
                    await self._worker.ask({"do": "system"}, encode_v1(Frame(0, values, told)))
                    self._worker.system = system
                return self._worker
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise UnavailableError(f"selections cannot be evaluated at present: {error or 'no answer'}") from None

    async def _let_go_idle(self) -> None:
        async with self._turn:
            await self._let_go()

    async def _let_go(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()


class _Worker:
    """The process, and the connection to it.

    Attributes:
        system: What it has been told of.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.system: _System | None = None

    @classmethod
    async def start(cls) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "narupa_trajectory.selecting",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                env={**os.environ, **_ONE_THREAD},
            )
        try:
            return cls(process, *await asyncio.open_connection(sock=ours))
        except BaseException:
            await end_process(process, at_once=True)
            raise

    async def ask(self, header: Message, block: bytes = b"") -> tuple[Message, bytes]:
        """The answer. Raises: asyncio.IncompleteReadError, OSError when it has ended."""
        self._writer.write(packed(header, block))
        await self._writer.drain()
        return await read_message(self._reader)

    async def end(self) -> None:
        """It has ended."""
        self._writer.close()
        await end_process(self._process, at_once=True)
