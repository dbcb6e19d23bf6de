"""Background tasks with an owner: all of them end when it closes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class TaskScope:
    """Owns background tasks.

    Unlike `asyncio.TaskGroup` it neither cancels nor wraps the errors of the code that it surrounds, so that an
    `async with` over a session lets exceptions through as they are.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """`work` runs until it is done or the scope closes."""
        if self._closed:
            work.close()
            raise RuntimeError("the session is closed")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    async def aclose(self) -> None:
        """No task is left. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ended(task: asyncio.Task[Any]) -> None:
    """`task` is cancelled and over; its error, if any, is not raised here."""
    task.cancel()
    await asyncio.wait([task])
