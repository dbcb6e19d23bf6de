"""Collecting frames: those that come, until there are enough, and those of a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Final

from narupa_client.frames import CurrentFrame
from narupa_client.series import FrameSeries, SeriesBuilder
from narupa_client.subscription import Subscription
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.recordings.opening import open_recording

DEFAULT_LIMIT_BYTES: Final = 2**30


class CollectingStoppedError(NarupaError):
    """Frames were collected, and then no more can be. Its text says why.

    Attributes:
        collected: The frames until then.
    """

    def __init__(self, reason: str, collected: FrameSeries) -> None:
        super().__init__(reason)
        self.collected = collected


async def collect(
    subscribe: Callable[[], Subscription[CurrentFrame]],
    *,
    frames: int | None,
    seconds: float | None,
    every: int,
    limit_bytes: int,
) -> FrameSeries:
    """The frames that come; arguments and errors as of `Session.collect`."""
    _check(frames=frames, every=every, limit_bytes=limit_bytes)
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InvalidArgumentError("seconds", seconds, "must be above 0")
    if frames is None and seconds is None:
        raise InvalidArgumentError("frames", frames, "give how many frames to collect, or for how many seconds")
    builder = SeriesBuilder(limit_bytes, frames)
    try:
        async with asyncio.timeout(seconds), subscribe() as coming:
            passed = 0
            async for frame in coming:
                if not len(builder) and not frame.values and not frame.arrays:
                    continue  # nothing is loaded yet
                if passed % every == 0:
                    builder.add(frame)
                passed += 1
                if len(builder) == frames:
                    break
            else:
                raise UnavailableError("the session was closed while frames were collected")
    except TimeoutError:
        pass
    except NarupaError as error:
        if not len(builder):
            raise
        raise CollectingStoppedError(str(error), builder.built()) from error
    return builder.built()


def read_recording(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    *,
    every: int = 1,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> FrameSeries:
    """The frames of a recording of a session, a `.nanover.zip` or `.traj`, that are of one run.

    Args:
        start: The first frame to take.
        stop: The frame before which to stop; None takes all.
        every: Take one frame of every so many.
        limit_bytes: Of the memory that they may take, about.

    Raises:
        InvalidArgumentError: it is no recording, or is damaged; or a wrong number.
        FailedPreconditionError: another run, or other particles, come between `start` and `stop`.
        QuotaError: there is no room for so many frames.
    """
    _check(every=every, limit_bytes=limit_bytes, stop=stop)
    if start < 0:
        raise InvalidArgumentError("start", start, "must be 0 or more")
    builder = SeriesBuilder(limit_bytes)
    whole: CurrentFrame | None = None
    number = -1
    with open_recording(Path(path)) as recording:
        for moment in recording:
            if moment.frame is None:
                continue
            number += 1
            if stop is not None and number >= stop:
                break
            whole = CurrentFrame.after(whole, moment.frame)
            if number < start or (number - start) % every:
                continue
            try:
                builder.add(whole)
            except FailedPreconditionError as error:
                raise FailedPreconditionError(
                    f"frame {number} of {Path(path).name}: {error}, with start and stop"
                ) from None
    return builder.built()


def _check(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise InvalidArgumentError(name, value, "must be a whole number of 1 or more")
