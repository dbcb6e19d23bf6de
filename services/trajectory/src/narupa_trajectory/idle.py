"""A simulation that nobody watches pauses itself, and goes on for the next who does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from narupa_shared.errors import NarupaError
from narupa_trajectory.playback import Playback

log = structlog.get_logger(__name__)

# An engine that did not answer is asked again after this time, s.
RETRY_S: Final = 1.0


class IdlePause:
    """Pauses `playback` once it has had no subscriber for some time. What users pause stays paused."""

    def __init__(self, playback: Playback, after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`after_s` is how long nobody must have watched, s; 0 never pauses."""
        self._playback = playback
        self._after_s = after_s
        self._clock = clock
        self._unwatched_since: float | None = None
        self._woken = asyncio.Event()
        playback.on_audience.append(self._woken.set)

    async def look(self) -> float | None:
        """What is due now has been done; returns the time until something may be due again, s (None: not by itself).

        Raises:
            NarupaError: the engine did not do as it was asked.
        """
        playback = self._playback
        if playback.watched:
            self._unwatched_since = None
            if playback.idle:
                await playback.end_idle()
                log.info("simulation_resumed", reason="somebody watches again")
            return None
        if playback.idle or not playback.playing:
            self._unwatched_since = None
            return self._after_s
        now = self._clock()
        if self._unwatched_since is None:
            self._unwatched_since = now
        left_s = self._unwatched_since + self._after_s - now
        if left_s > 0:
            return left_s
        self._unwatched_since = None
        await playback.begin_idle()
        log.info("simulation_paused", reason=f"nobody has watched for {self._after_s:g} s")
        return self._after_s

    async def run(self) -> None:
        """Looks whenever something may be due, until cancelled."""
        if not self._after_s:
            return
        while True:
            self._woken.clear()
            try:
                wait_s = await self.look()
            except NarupaError as error:
                log.debug("idle_not_changed", reason=str(error))
                wait_s = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
