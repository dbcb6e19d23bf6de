"""Collecting the frames that come, until there are enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from numbers import Integral
from typing import Final

from narupa_client.frames import CurrentFrame
from narupa_client.series import FrameSeries, SeriesBuilder
from narupa_client.subscription import Subscription
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError

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
    for name, value in (("frames", frames), ("every", every), ("limit_bytes", limit_bytes)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise InvalidArgumentError(name, value, "must be a whole number of 1 or more")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InvalidArgumentError("seconds", seconds, "must be above 0")
    if frames is None and seconds is None:
        raise InvalidArgumentError("frames", frames, "give how many frames to collect, or for how many seconds")
    builder = SeriesBuilder(limit_bytes, frames)
    try:
        async with asyncio.timeout(seconds), subscribe() as coming:
            passed = 0
            async for frame in coming:
                if not len(builder) and not frame.particle_count:
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
