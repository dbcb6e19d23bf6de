"""Checkpoints in a folder that replicas share: whoever leads writes them, and the next leader goes on from the newest.

Each epoch has a file of its own, so that a leader that does not know yet that it is none overwrites nobody else's. A file is
replaced as a whole, and says of itself whether it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote

import structlog

from narupa_shared.errors import InvalidArgumentError

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

MAGIC: Final = b"NARUPACP"
VERSION: Final = 1
MAX_HEADER: Final = 64 * 1024
MAX_BYTES: Final = 1024 * 1024 * 1024
KEPT_EPOCHS: Final = 3
# Left behind by writers that were killed while they wrote.
STALE_S: Final = 600.0
_HEAD: Final = struct.Struct("<8sII")  # magic, version, length of the header
_NAME: Final = re.compile(r"(\d{16})\.checkpoint")


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


class CheckpointFolder:
    """The files of one group. Reads and writes block, and belong on a thread."""

    def __init__(self, root: Path, session_id: str, group: str) -> None:
        self.path = root / f"session-{quote(session_id, safe='')}" / f"group-{quote(group, safe='')}"

    def write(self, saved: Saved) -> None:
        """The file of its epoch is `saved`, and old epochs' are gone.

        Raises:
            OSError: it cannot be written.
            InvalidArgumentError: it is too large.
        """
        data = saved.to_bytes()
        self.path.mkdir(parents=True, exist_ok=True)
        aside = self.path / f".{saved.epoch:016d}.{secrets.token_hex(4)}.part"
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / f"{saved.epoch:016d}.checkpoint")
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        self._tidy(saved)

    def newest(self, before_epoch: int) -> Saved | None:
        """What the newest epoch before `before_epoch` has left that can be read; None where none has.

        Its block may be of the epoch before it, and its `index_limit` is of all epochs of its run.

        Raises:
            OSError: the folder cannot be read.
        """
        found: Saved | None = None
        for epoch in sorted((epoch for epoch in self._epochs() if epoch < before_epoch), reverse=True):
            read = self._read(epoch)
            if read is None:
                continue
            if found is None:
                found = read
            elif read.run_id == found.run_id and read.source == found.source:
                found = replace(found, index_limit=max(found.index_limit, read.index_limit))
                if not found.block:
                    found = replace(found, block=read.block, time_ps=read.time_ps)
        return found

    def _read(self, epoch: int) -> Saved | None:
        path = self.path / f"{epoch:016d}.checkpoint"
        try:
            if path.stat().st_size > MAX_BYTES + MAX_HEADER + _HEAD.size:
                raise InvalidArgumentError("checkpoint", path.name, f"is larger than {MAX_BYTES} bytes")
            saved = Saved.from_bytes(path.read_bytes())
            if saved.epoch != epoch:
                raise InvalidArgumentError("checkpoint", path.name, f"says that it is of epoch {saved.epoch}")
            return saved
        except (OSError, InvalidArgumentError) as error:
            log.warning("checkpoint_left_out", file=path.name, reason=str(error))
            return None

    def _epochs(self) -> list[int]:
        try:
            names = [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return []
        return [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]

    def _tidy(self, written: Saved) -> None:
        """Of the epochs before `written` only the newest are left, and no remains of writers that were killed."""
        if not written.block:
            return
        earlier = sorted(epoch for epoch in self._epochs() if epoch <= written.epoch)
        with contextlib.suppress(OSError):
            for epoch in earlier[:-KEPT_EPOCHS]:
                (self.path / f"{epoch:016d}.checkpoint").unlink(missing_ok=True)
            for part in self.path.glob(".*.part"):
                if time.time() - part.stat().st_mtime > STALE_S:
                    part.unlink(missing_ok=True)


class CheckpointKeeper:
    """The folder off the event loop, on a thread of its own. What a leader offers while one is written replaces what it has
    offered before.

    An `async with`: entered, it can be asked; leaving waits for what is under way.

    Attributes:
        written: How many checkpoints have been.
        failure: Why the last one was not; empty when it was.
    """

    def __init__(self, folder: CheckpointFolder) -> None:
        self.written = 0
        self.failure = ""
        self._folder = folder
        self._offered: Saved | None = None
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thread.shutdown()

    async def newest(self, before_epoch: int) -> Saved | None:
        """As `CheckpointFolder.newest`; None also where the folder cannot be read, which is logged."""
        try:
            return await self._done(lambda: self._folder.newest(before_epoch))
        except OSError as error:
            log.error("checkpoints_not_read", reason=str(error))
            return None

    def offer(self, saved: Saved) -> None:
        """To be written next, unless a newer one is offered before."""
        self._offered = saved
        self._news.set()

    async def run(self) -> None:
        """Writes what is offered until cancelled."""
        while True:
            await self._news.wait()
            await self.flush()

    async def flush(self) -> None:
        """What was offered has been written, or its failure logged."""
        async with self._turn:
            self._news.clear()
            saved, self._offered = self._offered, None
            if saved is None:
                return
            try:
                await self._done(lambda: self._folder.write(saved))
            except (OSError, InvalidArgumentError) as error:
                if str(error) != self.failure:
                    log.error("checkpoint_not_written", reason=str(error))
                self.failure = str(error)
            else:
                self.failure = ""
                self.written += 1

    async def _done(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; cancelled, it is waited for all the same."""
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            if not working.cancelled():
                working.exception()
            raise
