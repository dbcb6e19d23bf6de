"""Waiting for what other tasks or processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 30.0


async def until(condition: Callable[[], object], within_s: float = LIMIT_S) -> None:
    """Returns once the condition holds.

    Raises:
        TimeoutError: it does not within so many seconds.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - whatever it looks at tells nobody
            await asyncio.sleep(0.005)
