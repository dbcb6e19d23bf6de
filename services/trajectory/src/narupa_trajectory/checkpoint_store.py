"""Checkpoints in a place that replicas share: whoever leads writes them, and the next leader goes on from the newest.

Each has a name of its own, with its epoch and its number in that, so that nothing is ever overwritten: neither by a leader that
does not know yet that it is none, nor by a write that was given up and arrives late. What is newest the names tell; whether it is
whole, it says itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import re
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self, TypeVar, cast

import structlog

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.checkpoint_shelf import Shelf

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

MAGIC: Final = b"NARUPACP"
VERSION: Final = 1
MAX_HEADER: Final = 64 * 1024
MAX_BYTES: Final = 1024 * 1024 * 1024
KEPT_EPOCHS: Final = 3
# How soon what could not be kept is tried again where nothing newer comes, s.
RETRY_S: Final = 2.0
_HEAD: Final = struct.Struct("<8sII")  # magic, version, length of the header
_NAME: Final = re.compile(r"(\d{16})-(\d{12})\.checkpoint")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a leader leaves to the next.

    Attributes:
        epoch: In which it led.
        source: The spec of what ran.
        run_id: `system.simulation.run` of its frames.
        counter: `system.simulation.counter` of them.
        index_limit: No frame that it published has this index or a higher one.
        playing: Whether it played.
        frame_interval_s: Wall-clock time between frames, s.
        own_pace: Whether a recording was played as fast as it says itself.
        steps_per_frame: As it was set; None for the source's own.
        time_ps: Simulated time of the checkpoint; None where it has none.
        block: The source's own checkpoint; empty before its first.
    """

    epoch: int
    source: str
    run_id: str
    counter: int
    index_limit: int
    playing: bool
    frame_interval_s: float
    own_pace: bool
    steps_per_frame: int | None
    time_ps: float | None
    block: bytes

    def to_bytes(self) -> bytes:
        """The file. Raises: InvalidArgumentError when it would be too large."""
        header = asdict(replace(self, block=b""))
        del header["block"]
        header |= {"bytes": len(self.block), "sha256": hashlib.sha256(self.block).hexdigest()}
        text = json.dumps(header, allow_nan=False).encode()
        if len(text) > MAX_HEADER or len(self.block) > MAX_BYTES:
            raise InvalidArgumentError(
                "checkpoint", f"{len(self.block)} bytes", f"at most {MAX_BYTES} can be kept for other replicas"
            )
        return _HEAD.pack(MAGIC, VERSION, len(text)) + text + self.block

    @classmethod
    def from_bytes(cls, data: bytes) -> Saved:
        """What `to_bytes` wrote.

        Raises:
            InvalidArgumentError: it is something else, of another version, or not whole.
        """
        shown = f"{len(data)} bytes"
        try:
            magic, version, length = _HEAD.unpack_from(data)
            if magic != MAGIC or length > MAX_HEADER:
                raise ValueError("it is no checkpoint of ours")
            if version != VERSION:
                raise ValueError(f"it has version {version}, and this program reads version {VERSION}")
            header = json.loads(data[_HEAD.size : _HEAD.size + length])
            block = data[_HEAD.size + length :]
            if len(block) != header.pop("bytes") or hashlib.sha256(block).hexdigest() != header.pop("sha256"):
                raise ValueError("it is not whole")
            return _checked(cls(**header, block=block))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
            raise InvalidArgumentError("checkpoint", shown, f"cannot be read ({error})") from None


def _checked(saved: Saved) -> Saved:
    for name in ("epoch", "counter", "index_limit"):
        if type(value := getattr(saved, name)) is not int or not 0 <= value < 2**53:
            raise ValueError(f"{name} is {value!r}")
    for name in ("source", "run_id"):
        if type(getattr(saved, name)) is not str:
            raise ValueError(f"{name} is no text")
    for name in ("playing", "own_pace"):
        if type(getattr(saved, name)) is not bool:
            raise ValueError(f"{name} is no truth value")
    steps, interval_s, time_ps = saved.steps_per_frame, saved.frame_interval_s, saved.time_ps
    if steps is not None and (type(steps) is not int or not 1 <= steps <= 1_000_000):
        raise ValueError(f"steps_per_frame is {steps!r}")
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float) or not 0 <= interval_s <= 3600:
        raise ValueError(f"frame_interval_s is {interval_s!r}")
    if time_ps is not None and (not isinstance(time_ps, int | float) or not math.isfinite(time_ps)):
        raise ValueError(f"time_ps is {time_ps!r}")
    return saved


def _name(epoch: int, number: int) -> str:
    return f"{epoch:016d}-{number:012d}.checkpoint"


class Checkpoints:
    """Those of one group. Reads and writes block, and belong on a thread."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._last = (0, 0)  # epoch and number of what was written last here

    def write(self, saved: Saved) -> None:
        """`saved` is the newest of its epoch, and what nobody needs any more is gone.

        Raises:
            OSError: it cannot be written.
            InvalidArgumentError: it is too large.
        """
        data = saved.to_bytes()
        epoch, number = self._last
        if epoch != saved.epoch:
            number = max((number for epoch, number in self._kept() if epoch == saved.epoch), default=0)
        # Counted before it is tried: one that was given up may yet arrive.
        self._last = saved.epoch, number + 1
        self._shelf.write(_name(*self._last), data)
        with contextlib.suppress(OSError):
            self._tidy(saved)

    def newest(self, before_epoch: int) -> Saved | None:
        """What the newest epoch before `before_epoch` has left that can be read; None where none has.

        Its block may be of the epoch before it, and its `index_limit` is of all epochs of its run.

        Raises:
            OSError: the place cannot be read.
        """
        found: Saved | None = None
        read_of = before_epoch
        kept = self._kept()
        for epoch, number in sorted(kept, reverse=True):
            if epoch >= read_of or (read := self._read(epoch, number, kept[epoch, number])) is None:
                continue
            read_of = epoch
            if found is None:
                found = read
            elif read.run_id == found.run_id and read.source == found.source:
                found = replace(found, index_limit=max(found.index_limit, read.index_limit))
                if not found.block:
                    found = replace(found, block=read.block, time_ps=read.time_ps)
        return found

    def _read(self, epoch: int, number: int, size: int) -> Saved | None:
        name = _name(epoch, number)
        try:
            if size > MAX_BYTES + MAX_HEADER + _HEAD.size:
                raise InvalidArgumentError("checkpoint", name, f"is larger than {MAX_BYTES} bytes")
            saved = Saved.from_bytes(self._shelf.read(name))
            if saved.epoch != epoch:
                raise InvalidArgumentError("checkpoint", name, f"says that it is of epoch {saved.epoch}")
            return saved
        except FileNotFoundError:
            return None  # its leader has written a newer one since, and removed it
        except (OSError, InvalidArgumentError) as error:
            log.warning("checkpoint_left_out", file=name, reason=str(error))
            return None

    def _kept(self) -> dict[tuple[int, int], int]:
        """Epoch and number of what is there, and its size in bytes."""
        sizes = self._shelf.sizes()
        return {(int(named[1]), int(named[2])): sizes[name] for name in sizes if (named := _NAME.fullmatch(name))}

    def _tidy(self, written: Saved) -> None:
        """Of each epoch up to that of `written` only the newest is left, and only of the newest epochs."""
        earlier = sorted(each for each in self._kept() if each <= self._last)
        newest = dict(earlier)  # the later of two of an epoch wins
        # Without a block it may need that of an epoch before it, however long ago that was.
        needed = sorted(newest)[-KEPT_EPOCHS:] if written.block else sorted(newest)
        for epoch, number in earlier:
            if epoch not in needed or number < newest[epoch]:
                self._shelf.remove(_name(epoch, number))


class CheckpointKeeper:
    """Checkpoints off the event loop, one call at a time, each for a while only. What a leader offers while one is written
    replaces what it has offered before.

    An `async with`: entered, it can be asked; leaving waits a while for what is under way.

    Attributes:
        written: How many checkpoints have been.
        failure: Why the last one was not; empty when it was.
    """

    def __init__(
        self, checkpoints: Checkpoints, limit_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is asked yet.

        Args:
            checkpoints: Of the group.
            limit_s: How long a read or a write is waited for, s.
            clock: In seconds.
        """
        self.written = 0
        self.failure = ""
        self._checkpoints = checkpoints
        self._limit_s = limit_s
        self._clock = clock
        self._written_at = -math.inf
        self._offered: Saved | None = None
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._working: asyncio.Future[Any] | None = None

    @property
    def kept_age_s(self) -> float:
        """How long ago the last checkpoint was kept, s; infinity before the first."""
        return self._clock() - self._written_at

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            await self._idle()

    async def newest(self, before_epoch: int) -> Saved | None:
        """As `Checkpoints.newest`; None also where they cannot be read, which is logged."""
        try:
            async with self._turn:
                await self._idle()
                return await self._done(lambda: self._checkpoints.newest(before_epoch))
        except OSError as error:
            log.error("checkpoints_not_read", reason=str(error))
            return None

    def offer(self, saved: Saved) -> None:
        """To be written next, unless a newer one is offered before."""
        self._offered = saved
        self._news.set()

    async def run(self) -> None:
        """Writes what is offered until cancelled; what could not be written again and again, until it is or a newer one comes."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._offered is not None else None):
                    await self._news.wait()
            await self.flush()

    async def flush(self) -> None:
        """What was offered has been written; or its failure is known, and the first of several logged."""
        async with self._turn:
            self._news.clear()
            try:
                await self._idle()
            except TimeoutError as error:
                self._failed(str(error))
                return
            saved, self._offered = self._offered, None
            if saved is None:
                return
            try:
                await self._done(lambda: self._checkpoints.write(saved))
            except OSError as error:
                self._offered = self._offered or saved
                self._failed(str(error))
            except InvalidArgumentError as error:
                self._failed(str(error))
            else:
                if self.failure:
                    log.info("checkpoints_written_again")
                self.failure = ""
                self.written += 1
                self._written_at = self._clock()

    def _failed(self, reason: str) -> None:
        if not self.failure:
            log.warning("checkpoint_not_written", reason=reason)
        self.failure = reason

    async def _idle(self) -> None:
        """No call is under way. Raises: TimeoutError when one does not come back."""
        if self._working is not None:
            await self._waited(self._working)

    async def _done(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; cancelled, it is waited for all the same. Raises: TimeoutError after a while, also."""
        self._working = working = _on_a_thread(work)
        try:
            await self._waited(working)
        except asyncio.CancelledError:
            await asyncio.wait({working}, timeout=self._limit_s)
            raise
        return working.result()

    async def _waited(self, working: asyncio.Future[Any]) -> None:
        await asyncio.wait({working}, timeout=self._limit_s)
        if not working.done():
            raise TimeoutError(f"the store did not answer within {self._limit_s:g} s")


def _on_a_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """What `work` returns or raises. A disk that never answers keeps the thread, but neither other threads nor the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(result: Result | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
            future.exception()  # whoever waited for it may have given up
        else:
            future.set_result(cast("Result", result))

    def run() -> None:
        told: tuple[Result | None, Exception | None]
        try:
            told = work(), None
        except Exception as error:
            told = None, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, *told)

    threading.Thread(target=run, name="checkpoints", daemon=True).start()
    return future
