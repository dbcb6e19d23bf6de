"""Child processes that are kept running, and that never outlive their parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

# A daemon's way to say that an input or setting is wrong: starting it again would end the same.
BAD_INPUT_STATUS: Final = 2
# Ends without ever having been healthy that are taken for a fault that stays.
_HOPELESS: Final = 3
_SETTLED_S: Final = 30.0
_FIRST_DELAY_S: Final = 0.3
_LONGEST_DELAY_S: Final = 10.0
_LINE_LIMIT: Final = 1024 * 1024
_KEPT_LINES: Final = 20

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and as what to speak of it.

    Attributes:
        name: The service's kind.
        arguments: The command line.
        environment: Added to this process's own.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class ServiceEndedError(Exception):
    """A service ended for good.

    Attributes:
        status: What the whole command should end with.
    """

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class Child:
    """One program, started again with back-off whenever it ends without having been asked to."""

    def __init__(self, program: Program, say: Callable[[str], None], relay: Callable[[str], None]) -> None:
        """
        Args:
            say: Told in a sentence what happens to the program.
            relay: Given each line that it writes.
        """
        self.program = program
        self.healthy = False
        """Set by whoever finds that it works; it then counts as having once started."""
        self._say = say
        self._relay = relay
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)

    async def run(self) -> None:
        """Runs the program until cancelled.

        Raises:
            ServiceEndedError: it ends by status 2, or again and again before it was ever healthy.
        """
        delay_s, failures = _FIRST_DELAY_S, 0
        while True:
            started = time.monotonic()
            status = await self._once()
            if status == BAD_INPUT_STATUS:
                raise ServiceEndedError(self._last_words(status), BAD_INPUT_STATUS)
            if time.monotonic() - started > _SETTLED_S:
                delay_s = _FIRST_DELAY_S
            failures += 1
            if not self.healthy and failures >= _HOPELESS:
                raise ServiceEndedError(self._last_words(status), 1)
            self._say(f"{self.program.name} ended ({_how(status)}); starting it again")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def stop(self, grace_s: float) -> None:
        """It has ended: asked to, or after `grace_s` killed with all of its group. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                self._say(f"{self.program.name} does not end; killing it")
        self._kill_group(process)
        await process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self._process = None

    async def _once(self) -> int:
        parent = os.getpid()
        process = await asyncio.create_subprocess_exec(
            *self.program.arguments,
            env={**os.environ, **self.program.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT,
            process_group=0,  # so that Ctrl-C reaches us alone, and the whole group can be ended
            preexec_fn=lambda: _die_with(parent),
        )
        self._process = process
        assert process.stdout is not None
        self._reader = asyncio.create_task(self._read(process.stdout), name=f"narupa-log-{self.program.name}")
        status = await process.wait()
        self._kill_group(process)  # what a crash left behind, such as an engine
        await asyncio.wait([self._reader], timeout=1.0)
        return status

    def _kill_group(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            self._last_lines.append(text)
            self._relay(text)

    def _last_words(self, status: int) -> str:
        lines = [line for line in self._last_lines if line.strip()]
        told = [line for line in lines if line.startswith((f"narupa-{self.program.name}:", "configuration:"))]
        text = "; ".join(told[-3:]) or (lines[-1] if lines else _how(status))
        text = text.removeprefix(f"narupa-{self.program.name}: ")
        return f"{self.program.name} cannot run: {text}"


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _die_with(parent: int) -> None:
    """In a new child: it gets SIGTERM when its parent ends, however that happens (on Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
