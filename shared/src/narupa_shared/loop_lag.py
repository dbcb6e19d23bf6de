"""How late the event loop runs what is due: the first thing to ask when a service stutters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from prometheus_client import Histogram

# Each time wakes the process, which costs one that is idle most of what it uses.
INTERVAL_S: Final = 0.1
LAG: Final = Histogram(
    "narupa_event_loop_lag_seconds",
    "How much later than asked a timer of the event loop ran.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)


@contextlib.asynccontextmanager
async def measured_loop_lag() -> AsyncIterator[None]:
    """The lag histogram is fed while this is open, ten times a second."""
    task = asyncio.create_task(_measure(), name="loop-lag")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _measure() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        LAG.observe(max(0.0, loop.time() - due))
