"""Simulations as processes on this machine. They outlive a lobby that is killed, and are found again by the next."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from narupa_lobby.launchers.launcher import ENVIRONMENT_PREFIX, Job, LaunchError, Seen, last_lines
from narupa_lobby.launchers.settings import LocalSettings

TAIL_BYTES: Final = 64 * 1024
POLL_S: Final = 0.05
# SIGKILL cannot be refused, but may take a moment, s.
KILL_LIMIT_S: Final = 5.0
# Start times of processes are known to about this much, s.
SAME_START_S: Final = 2.0
OWN_PREFIX: Final = "NARUPA_"
# What a service starts itself is recognised by this.
ID_VARIABLE: Final = ENVIRONMENT_PREFIX + "SERVICE_ID"


@dataclass(frozen=True, slots=True)
class _Ref:
    machine: str
    pid: int
    created: float
    name: str
    service_id: str

    @classmethod
    def parse(cls, text: str) -> _Ref:
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise LaunchError(f"{text[:80]!r} is no process of the local launcher", lasting=True) from error


class LocalLauncher:
    """Each simulation is a process in a session of its own, with a log file that only this user can read."""

    name = "local"
    outlives_lobby = False

    def __init__(self, settings: LocalSettings, log_dir: Path, program: Sequence[str] = ()) -> None:
        """Nothing is started yet.

        Args:
            settings: Where they listen, and how large logs become.
            log_dir: Folder for the logs; made when it is needed.
            program: The service's program and first arguments; by default narupa_trajectory of this Python.
        """
        self._settings = settings
        self._log_dir = log_dir
        self._program = list(program) or [sys.executable, "-m", "narupa_trajectory"]
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # by pid: only a parent learns an exit status

    async def start(self, job: Job) -> str:
        return await asyncio.to_thread(self._start, job)

    def _start(self, job: Job) -> str:
        if not job.folder.is_dir():
            raise LaunchError(f"the folder {job.folder} of the spec is gone", lasting=True)
        try:
            self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = os.open(self._log(job.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LaunchError(
                f"cannot write a log in {self._log_dir}: {error.strerror or error}", lasting=True
            ) from error
        try:
            child = subprocess.Popen(
                [*self._program, *job.arguments],
                cwd=job.folder,
                env=self._environment(job),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            what = f"cannot run {self._program[0]}: {error.strerror or error}"
            raise LaunchError(what, lasting=isinstance(error, FileNotFoundError | PermissionError)) from error
        finally:
            os.close(log)
        self._children[child.pid] = child
        created = time.time()
        with contextlib.suppress(psutil.NoSuchProcess):
            created = psutil.Process(child.pid).create_time()
        return json.dumps(asdict(_Ref(platform.node(), child.pid, created, job.name, job.service_id)))

    def _environment(self, job: Job) -> dict[str, str]:
        # The lobby's own settings and secrets are not the service's.
        inherited: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith(OWN_PREFIX)}
        # Python is not to import what happens to lie beside the inputs.
        variables = job.variables(self._settings.host or job.host, 0)
        return {**inherited, "PYTHONSAFEPATH": "1", **variables, ID_VARIABLE: job.service_id, **job.secrets}

    async def find(self, job: Job) -> str | None:
        return await asyncio.to_thread(self._find, job)

    def _find(self, job: Job) -> str | None:
        me = os.getuid()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.uids().real == me and os.getsid(process.pid) == process.pid and _is(process, job.service_id):
                    created = process.create_time()
                    return json.dumps(asdict(_Ref(platform.node(), process.pid, created, job.name, job.service_id)))
        return None

    async def look(self, ref: str) -> Seen:
        return await asyncio.to_thread(self._look, _Ref.parse(ref))

    def _look(self, ref: _Ref) -> Seen:
        if ref.machine != platform.node():
            raise LaunchError(
                f"it was started on the machine {ref.machine!r}, which this lobby does not see", lasting=False
            )
        self._cut_log(ref.name)
        child = self._children.get(ref.pid)
        if child is not None:
            code = child.poll()
            return Seen("running") if code is None else _ended(code)
        return Seen("running") if _process(ref) is not None else Seen("gone", reason="its process has ended")

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        return await asyncio.to_thread(self._log_tail, _Ref.parse(ref).name, lines)

    def _log_tail(self, name: str, lines: int) -> list[str]:
        try:
            with self._log(name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                return last_lines(file.read().decode(errors="replace"), lines)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LaunchError(f"the log cannot be read: {error.strerror or error}", lasting=False) from error

    async def stop(self, ref: str, grace_s: float) -> None:
        parsed = _Ref.parse(ref)
        if parsed.machine != platform.node():
            raise LaunchError(
                f"it runs on the machine {parsed.machine!r}, which this lobby does not see", lasting=False
            )
        self._signal(parsed, signal.SIGTERM)
        await self._ended(parsed, grace_s)
        # What did not heed the signal is in its session still, with all that it started and did not end.
        self._signal(parsed, signal.SIGKILL)
        await asyncio.to_thread(_kill_session, parsed)
        await self._ended(parsed, KILL_LIMIT_S)

    def _signal(self, ref: _Ref, number: signal.Signals) -> None:
        child = self._children.get(ref.pid)
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if child is not None:
                child.send_signal(number)
            elif (process := _process(ref)) is not None:
                process.send_signal(number)

    async def _ended(self, ref: _Ref, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while self._runs(ref) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells when another's child ends
            await asyncio.sleep(POLL_S)

    async def remove(self, ref: str) -> None:
        await self.stop(ref, 0.0)
        parsed = _Ref.parse(ref)
        child = self._children.pop(parsed.pid, None)
        if child is not None:
            child.poll()
        with contextlib.suppress(OSError):
            self._log(parsed.name).unlink(missing_ok=True)

    async def close(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # else the interpreter would warn of those that go on
        self._children.clear()

    def _runs(self, ref: _Ref) -> bool:
        child = self._children.get(ref.pid)
        return child.poll() is None if child is not None else _process(ref) is not None

    def _log(self, name: str) -> Path:
        return self._log_dir / f"{Path(name).name}.log"

    def _cut_log(self, name: str) -> None:
        """A log that has become too large keeps its last half; the service appends, so it goes on at the new end."""
        path = self._log(name)
        limit = self._settings.log_bytes
        with contextlib.suppress(OSError):
            if path.stat().st_size > limit:
                with path.open("r+b") as file:
                    file.seek(-(limit // 2), os.SEEK_END)
                    kept = file.read()
                    file.truncate(0)
                with path.open("ab") as file:
                    file.write(kept)


def _process(ref: _Ref) -> psutil.Process | None:
    """The process of `ref` if it runs; not another that has got its number since."""
    try:
        process = psutil.Process(ref.pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - ref.created) > SAME_START_S:
            return None
        return process if _is(process, ref.service_id) else None
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # another user's, so not ours
        return None


def _is(process: psutil.Process, service_id: str) -> bool:
    command = process.cmdline()
    return ("--service-id", service_id) in itertools.pairwise(command)


def _kill_session(ref: _Ref) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # A number can be used again, by others: their environment does not have the id.
            if os.getsid(process.pid) == ref.pid and process.environ().get(ID_VARIABLE) == ref.service_id:
                process.kill()


def _ended(code: int) -> Seen:
    if code < 0:
        with contextlib.suppress(ValueError):
            return Seen("ended", code, f"killed by {signal.Signals(-code).name}")
    return Seen("ended", code, f"ended with exit status {code}")
