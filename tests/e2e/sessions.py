"""Real sessions for the end-to-end tests: what a user starts in a terminal, and what there is to see of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from narupa_client import CurrentFrame, Endpoint, Service
from narupa_client.lobby import list_services
from narupa_shared.errors import NarupaError
from narupa_shared.testing.ports import unused_port

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT.parent / "shared" / "data"
NARUPA: Final = str(Path(sys.executable).with_name("narupa"))
KINDS: Final = ("gateway", "imd", "trajectory")
# Outer limits, for machines that are busy with other things; what is promised is asserted where it is tested.
START_LIMIT_S: Final = 90.0
LIMIT_S: Final = 30.0
ANY_PORT: Final = tuple(f"--{port}-port=0" for port in ("trajectory", "imd", "gateway", "websocket"))
_MARK: Final = "NARUPA_TEST_SESSION"


async def until(condition: Callable[[], object], what: str, within_s: float = START_LIMIT_S) -> None:
    """Returns once `condition` is true; fails after `within_s`, and says that it was not `what`."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


def real_input(name: str) -> str:
    """The path of a real OpenMM input; the test is skipped where the inputs are not at hand."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"there is no {name} in {DATA}")
    return str(path)


class Running:
    """A program and every process that came of it, found again by a mark in their environment.

    Attributes:
        pid: Of the program itself.
        log: The file with its standard error.
    """

    def __init__(self, arguments: Sequence[str], log: Path, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env={**_environment(), **environment, _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def written(self) -> str:
        """What it has written so far, on both of its outputs."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, within_s: float = START_LIMIT_S) -> None:
        """`text` was written."""
        self.wait_until(lambda: text in self.written(), repr(text), within_s)

    def wait_until(self, look: Callable[[], bool], what: str, within_s: float = START_LIMIT_S) -> None:
        """`look` has returned true, while the program ran."""
        deadline = time.monotonic() + within_s
        while not look():
            assert self._process.poll() is None, f"ended with {self._process.returncode}: {self.written()}"
            assert time.monotonic() < deadline, f"no {what} after {within_s:g} s: {self.written()}"
            time.sleep(0.02)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(number)

    def ended(self, within_s: float) -> int:
        """Its exit status."""
        return self._process.wait(within_s)

    def processes(self) -> list[psutil.Process]:
        """All that is alive of it, those included that lost their parent."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def process(self, module: str) -> psutil.Process:
        """The one process that runs `python -m module`."""
        (found,) = [process for process in self.processes() if _runs(process, module)]
        return found

    def gone(self, within_s: float) -> float:
        """Nothing is alive of it; returns how long that took, s."""
        started = time.monotonic()
        while left := self.processes():
            commands = [_command(process) for process in left]
            assert time.monotonic() - started < within_s, f"left after {within_s:g} s: {commands}"
            time.sleep(0.02)
        return time.monotonic() - started

    def end(self) -> None:
        """Whatever is left of it has been killed. Idempotent."""
        for _ in range(3):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._process.kill()
        self._process.wait(LIMIT_S)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _runs(process: psutil.Process, module: str) -> bool:
    command = _command(process)
    return "-m" in command and command[command.index("-m") + 1] == module


class RunningSession(Running):
    """A `narupa session`.

    Attributes:
        lobby: HOST:PORT of its lobby.
    """

    def __init__(self, log: Path, *arguments: str, lobby: str | None = None, **environment: str) -> None:
        self.lobby = lobby or f"127.0.0.1:{unused_port()}"
        ports = ("--lobby", self.lobby, *ANY_PORT)
        super().__init__((NARUPA, "session", *ports, *arguments), log, **environment)

    def ready(self) -> None:
        """It has said how to take part."""
        self.wait_for("Ctrl-C ends the session.")

    async def services(self) -> dict[str, Service]:
        """What is registered at its lobby, by kind."""
        return {service.kind: service for service in await list_services(Endpoint.parse(self.lobby))}

    async def address(self, kind: str) -> str:
        """HOST:PORT of a service."""
        return str((await self.services())[kind].endpoints[0])

    async def websocket(self) -> str:
        """Where NanoVer clients connect."""
        gateway = (await self.services())["gateway"]
        return f"ws://{gateway.endpoints[0].host}:{gateway.metadata['ws']}"

    async def whole(self, within_s: float = LIMIT_S) -> None:
        """Every service is registered, running, and has a process."""
        async with asyncio.timeout(within_s):
            while not await self._is_whole():
                await asyncio.sleep(0.1)

    async def _is_whole(self) -> bool:
        try:
            status = {kind: service.status for kind, service in (await self.services()).items()}
        except NarupaError:
            return False
        return status == dict.fromkeys(KINDS, "running")


@contextlib.contextmanager
def session(folder: Path, *arguments: str, **options: str) -> Iterator[RunningSession]:
    """A session that is ready; whatever happens, nothing is left of it."""
    running = RunningSession(folder / f"session-{uuid.uuid4().hex[:6]}.log", *arguments, **options)
    try:
        running.ready()
        yield running
    finally:
        running.end()


def narupa(*arguments: str, lobby: str = "", within_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """The `narupa` command, run to its end."""
    return subprocess.run(
        (NARUPA, *arguments),
        cwd=ROOT,
        env=_environment(lobby),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


async def narupa_soon(*arguments: str, lobby: str = "", within_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """As `narupa`, while other things go on."""
    process = await asyncio.create_subprocess_exec(
        NARUPA,
        *arguments,
        cwd=ROOT,
        env=_environment(lobby),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within_s):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, output.decode(), errors.decode())


def _environment(lobby: str = "") -> dict[str, str]:
    """This process's environment, with nothing in it that would lead a program to another session than `lobby`'s."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NARUPA_")}
    clean["NARUPA_GATEWAY_DISCOVERY"] = "false"
    return clean | ({"NARUPA_LOBBY": lobby} if lobby else {})


def watched(running: RunningSession, frames: int) -> list[dict[str, Any]]:
    """What `narupa watch --json` prints."""
    done = narupa("watch", "--json", "--frames", str(frames), lobby=running.lobby, within_s=START_LIMIT_S)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def first(
    frames: AsyncIterator[CurrentFrame],
    condition: Callable[[CurrentFrame], object] = lambda _: True,
    within_s: float = LIMIT_S,
) -> CurrentFrame:
    """The first of `frames` that meets the condition."""
    last: CurrentFrame | None = None
    try:
        async with asyncio.timeout(within_s):
            async for frame in frames:
                last = frame
                if condition(frame):
                    return frame
    except TimeoutError:
        seen = "no frame came" if last is None else f"the last was {last.index}: {dict(last.values)}"
        raise AssertionError(f"not within {within_s:g} s; {seen}") from None
    raise AssertionError("the frames ended")


def pulled(frame: CurrentFrame) -> bool:
    """Whether users' forces and their energy are in the frame."""
    return bool(len(frame.user_forces.indices) and frame.user_energy)


def at_rest(frame: CurrentFrame) -> bool:
    """Whether users' forces are said to be none, and their energy to be 0."""
    arrays = frame.arrays
    return not len(arrays["forces.user.index"]) and not len(arrays["forces.user.sparse"]) and frame.user_energy == 0


def complaint(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """The one line on standard error of a command that failed, which holds all of `words` and no traceback."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:")]
    assert len(said) == 1, done.stderr
    missing = [word for word in words if word not in said[0]]
    assert not missing, f"{missing} not in {said[0]!r}"
    return said[0]
