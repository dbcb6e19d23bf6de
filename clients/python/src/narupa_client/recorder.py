"""Records a session: every frame, the shared state and its changes, into a file that can be played whatever happens."""

from __future__ import annotations

import asyncio
import errno
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from narupa_client.directory import SessionEndedError
from narupa_client.frames import CurrentFrame, wanted_view
from narupa_client.subscription import Subscription
from narupa_client.tasks import ended
from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import COMMIT_INTERVAL_S, NanoverZipWriter
from narupa_shared.recordings.recording import StateChange

if TYPE_CHECKING:
    from narupa_client.session import Session
    from narupa_client.state import StateChange as Watched

# A recording begins with frame and state together; what has not come after this time is not waited for, s.
FIRST_WAIT_S: Final = 3.0
# Least time between frames once not every one can be kept, s.
LATEST_INTERVAL_S: Final = 1 / 30


class RecordingStoppedError(NarupaError):
    """Nothing more is recorded, because the file cannot be written. What is in it can be played."""


class Recorder:
    """A recording in the making.

    Attributes:
        path: Where it is.
        frames: How many frames it has.
        runs: How many runs of a simulation: each begins with a frame of index 0.
        notices: What went wrong on the way without ending the recording, in sentences.
        on_notice: Called with each of them.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        writer: NanoverZipWriter,
        thread: ThreadPoolExecutor,
        precision: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is recorded before `start`; `recording` makes one that runs, and describes `precision`."""
        self.path = path
        self.frames = 0
        self.runs = 0
        self.notices: list[str] = []
        self.on_notice: Callable[[str], None] = lambda text: None
        self._session = session
        self._writer = writer
        self._precision = precision
        self._clock = clock
        self._thread = thread  # the only one that writes
        self._turn = asyncio.Lock()
        self._began_at: float | None = None
        self._state: dict[str, Any] = {}
        self._state_known = asyncio.Event()
        self._last: CurrentFrame | None = None
        self._subscription: Subscription[CurrentFrame] | None = None
        self._ended_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def duration_s(self) -> float:
        """Since its first moment, until it ended."""
        if self._began_at is None:
            return 0.0
        return (self._clock() if self._ended_at is None else self._ended_at) - self._began_at

    @property
    def size(self) -> int:
        """Of what was recorded, bytes."""
        return self._writer.size

    @property
    def trouble(self) -> str | None:
        """Why no frames come at present; None while they may."""
        return self._subscription.trouble if self._subscription else None

    def start(self) -> None:
        """It records from now on."""
        self._task = asyncio.create_task(self._run(), name="narupa-recording")

    @property
    def over(self) -> bool:
        """Whether nothing more is recorded; `wait` tells why."""
        return self._task is not None and self._task.done()

    async def wait(self) -> None:
        """Returns when the session is over for us, and nothing more is recorded.

        Raises:
            RecordingStoppedError: the file cannot be written.
            NarupaError: there were no frames to be had for too long.
        """
        assert self._task is not None, "it has been started"
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        tasks = [
            asyncio.create_task(work, name=f"narupa-recording-{name}")
            for name, work in (
                ("frames", self._record_frames()),
                ("state", self._record_state()),
                ("commits", self._commit_now_and_then()),
                ("beginning", self._begin_without_frames()),
            )
        ]
        frames, *others = tasks
        try:
            pending = set(tasks)
            while frames in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task  # raises what it raised
        except SessionEndedError as error:
            self._note(f"the session is over: {error}")
        finally:
            for task in (frames, *others):
                await ended(task)
            self._ended_at = self._clock()

    async def close(self) -> None:
        """The file has everything, and takes no more space than that. Idempotent.

        Raises:
            RecordingStoppedError: it lacks what came last, or is larger than need be.
        """
        if self._task is not None:
            await ended(self._task)
        await self._written(self._writer.close)

    # Frames

    async def _record_frames(self) -> None:
        try:
            async with self._session.frames(0.0, "all", precision=self._precision) as self._subscription:
                async for frame in self._subscription:
                    await self._take_frame(frame)
        except QuotaError as error:
            at = self.duration_s
            self._note(f"{error}; from {at:.1f} s on frames are skipped where this machine or its disk is too slow")
            async with self._session.frames(LATEST_INTERVAL_S, precision=self._precision) as self._subscription:
                async for frame in self._subscription:
                    await self._take_frame(frame)

    async def _take_frame(self, frame: CurrentFrame) -> None:
        if self._began_at is None and not self._state_known.is_set():
            try:
                async with asyncio.timeout(FIRST_WAIT_S):
                    await self._state_known.wait()
            except TimeoutError:
                self._note(f"the shared state has not come within {FIRST_WAIT_S:g} s; frames are recorded without it")
        recorded = news(self._last, frame)
        self._last = frame
        await self._write(recorded)
        self.frames += 1
        self.runs += recorded.index == 0

    # The state

    async def _record_state(self) -> None:
        try:
            async with self._session.state.watch() as changes:
                async for change in changes:
                    await self._take_state(change)
        except SessionEndedError:
            raise
        except RecordingStoppedError:
            raise
        except NarupaError as error:
            self._note(f"the shared state is not recorded any more: {error}")
            self._state_known.set()

    async def _take_state(self, watched: Watched) -> None:
        change = difference(self._state, watched)
        self._state = change.applied(self._state)
        self._state_known.set()
        if self._began_at is not None and (change.updates or change.removals):
            await self._write(None, change)

    async def _begin_without_frames(self) -> None:
        await self._state_known.wait()
        await asyncio.sleep(FIRST_WAIT_S)
        if self._began_at is None:
            await self._write(None, StateChange({}))

    # The file

    async def _write(self, frame: Frame | None, change: StateChange | None = None) -> None:
        async with self._turn:
            if self._began_at is None:
                self._began_at = self._clock()
                change = StateChange(self._state)
            at = self._clock() - self._began_at
            try:
                await self._written(lambda: self._writer.write(at, frame, change))
            except InvalidArgumentError as error:
                self._note(f"at {at:.1f} s something could not be recorded: {error}")

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self._written(self._writer.commit)

    async def _written(self, work: Callable[[], None]) -> None:
        """`work` is done on the thread that writes, one after the other."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            raise RecordingStoppedError(
                f"the recording ends after {self.frames} frames: {reason}; {self.path} can be played up to there"
            ) from error

    def _note(self, text: str) -> None:
        self.notices.append(text)
        self.on_notice(text)


def news(before: CurrentFrame | None, frame: CurrentFrame) -> Frame:
    """What came with `frame`; everything, with index 0, where another run begins or nothing came before."""
    another = before is None or frame.index == 0 or frame.run_id != before.run_id
    if before is None or another:
        return Frame(0, dict(frame.values), dict(frame.arrays))
    # What did not come with this frame are the very same objects. What came and is the same is recorded again: services send
    # all that changes with time in each frame, so that one can be shown without those before it.
    values = {key: value for key, value in frame.values.items() if before.values.get(key) is not value}
    arrays = {key: array for key, array in frame.arrays.items() if before.arrays.get(key) is not array}
    return Frame(frame.index, values, arrays)


def difference(state: Mapping[str, Any], watched: Watched) -> StateChange:
    """The change of `state` that somebody watching it was told, with every removal by name."""
    if not watched.whole:
        return StateChange(dict(watched.updates), watched.removals)
    updates = {key: value for key, value in watched.updates.items() if key not in state or state[key] != value}
    return StateChange(updates, tuple(key for key in state if key not in watched.updates))


@asynccontextmanager
async def recording(
    session: Session, path: Path, overwrite: bool, precision: float | None = None
) -> AsyncIterator[Recorder]:
    """A recorder that records until the end of the block; positions to a precision, nm, where that is given.

    Raises:
        InvalidArgumentError: the precision is out of its range.
        AlreadyExistsError: there is a file, and it is not to be overwritten.
        RecordingStoppedError: it cannot be written, or lacks what came last.
    """
    wanted_view(None, None, None, precision)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="narupa-recorder") as thread:
        create = functools.partial(NanoverZipWriter.create, path, overwrite=overwrite)
        try:
            writer = await asyncio.get_running_loop().run_in_executor(thread, create)
        except OSError as error:
            raise RecordingStoppedError(f"{path} cannot be written: {error.strerror or error}") from error
        recorder = Recorder(session, path, writer, thread, precision)
        try:
            recorder.start()
            yield recorder
            if recorder.over:
                await recorder.wait()
        finally:
            await _done(recorder.close())


async def _done(work: Coroutine[Any, Any, None]) -> None:
    """`work` is done, also when we are told to stop meanwhile: what is recorded is not to be lost by a second Ctrl-C."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
