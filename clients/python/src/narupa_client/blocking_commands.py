"""Commands that a plain program provides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self

from narupa_client.loop_thread import LoopThread
from narupa_client.provided_commands import ProvidedCommand
from narupa_client.session import Session
from narupa_shared.errors import UnavailableError

# Takes the arguments as keywords.
BlockingHandler = Callable[..., Mapping[str, Any] | None]


class BlockingCommand:
    """A command that is there until `withdraw`, or until its `with` block is left.

    The handler runs in a thread of its own, one call after the other, and may use the session as any other code.
    """

    def __init__(
        self, thread: LoopThread, session: Session, name: str, handler: BlockingHandler, facts: Mapping[str, Any]
    ) -> None:
        self._thread = thread
        self._handler = handler
        self._runner: ThreadPoolExecutor | None = None
        self._command: ProvidedCommand = session.provide_command(name, self._run, **facts)

    @property
    def name(self) -> str:
        """Under which others run it."""
        return self._command.name

    @property
    def trouble(self) -> str | None:
        """As `ProvidedCommand.trouble`."""
        return self._command.trouble

    def __enter__(self) -> Self:
        self._runner = ThreadPoolExecutor(1, f"narupa-command-{self.name}")
        try:
            self._thread.call(self._command.__aenter__())
        except BaseException:
            self._runner.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.withdraw()

    def withdraw(self) -> None:
        """Nobody can run it any more; returns once a call that runs now is over. Idempotent."""
        with suppress(UnavailableError):  # the session is closed, and the command is gone with it
            self._thread.call(self._command.__aexit__())
        if self._runner is not None:
            self._runner.shutdown()

    async def _run(self, **arguments: Any) -> Mapping[str, Any] | None:
        work = partial(self._handler, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._runner, work)
