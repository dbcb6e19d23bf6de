"""What a test left behind: threads, child processes, TCP sockets and asyncio tasks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeVar

T = TypeVar("T")

# Started once by a library and kept, by design, until the interpreter ends.
# Of grpcio its poller; of fsspec the event loop that all stores share, and the thread on which that looks up names.
LASTING_THREADS: Final = ("pytest_timeout", "_poll_wrapper", "fsspecIO", "asyncio_0")
LASTING_CHILDREN: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

# How long threads, processes and sockets may take to go once a test is over, s.
GRACE_S: Final = 3.0


@dataclass(frozen=True)
class Holdings:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread] = frozenset()
    children: frozenset[int] = frozenset()
    sockets: frozenset[str] = frozenset()

    @classmethod
    def now(cls) -> Self:
        return cls(frozenset(threading.enumerate()), child_pids(), socket_inodes())


@dataclass
class Leaks:
    """Compares what is held with what was held `before`."""

    before: Holdings = field(default_factory=Holdings.now)

    def wait(self, grace_s: float = GRACE_S) -> list[str]:
        """One line per leak once `grace_s` has passed, or an empty list as soon as there is none."""
        deadline = time.monotonic() + grace_s
        while (found := self.found()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def found(self) -> list[str]:
        threads = [
            f"thread {thread.name!r}"
            for thread in threading.enumerate()
            if thread not in self.before.threads and not _named(thread.name, LASTING_THREADS)
        ]
        children = [
            f"child process {pid}: {command[:200]}"
            for pid in child_pids() - self.before.children
            if (command := command_of(pid)) and not _named(command, LASTING_CHILDREN)
        ]
        fresh = socket_inodes() - self.before.sockets
        sockets = [f"TCP socket {text}" for inode, text in tcp_sockets().items() if inode in fresh] if fresh else []
        return threads + children + sockets


async def leftover_tasks(before: set[asyncio.Task[object]], grace_s: float = 1.0) -> list[str]:
    """One line per task of the running loop that is not in `before` and does not end within `grace_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    while True:
        left = {task for task in asyncio.all_tasks() if task not in before and task is not asyncio.current_task()}
        if not left or loop.time() > deadline:
            return [f"task {task.get_name()!r}: {task.get_coro()!r}" for task in left]
        await asyncio.sleep(0.005)


def child_pids() -> frozenset[int]:
    """The children of this process that still run or were never waited for."""
    return frozenset(int(pid) for text in _lines_of_threads("children") for pid in text.split())


def command_of(pid: int) -> str:
    """The command line of a process; empty when it is gone or only waits to be reaped."""
    if command := _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip():
        return command
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return "(being started)" if state and state[0] not in "ZX" else ""


def socket_inodes() -> frozenset[str]:
    """The inodes of every socket this process has open."""
    found = set()
    for name in _entries(Path("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - a socket's link has no path
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return frozenset(found)


def tcp_sockets() -> dict[str, str]:
    """Inode to description of every TCP socket that listens or is connected, of all processes."""
    states = {"01": "connected", "0A": "listening"}
    found = {}
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for line in _read(Path(table)).splitlines()[1:]:
            parts = line.split()
            if len(parts) > 9 and parts[3] in states:
                ports = [int(end.rpartition(":")[2], 16) for end in parts[1:3]]
                found[parts[9]] = f"{states[parts[3]]}, local port {ports[0]}, remote port {ports[1]}"
    return found


def _named(text: str, names: tuple[str, ...]) -> bool:
    return any(name in text for name in names)


def _lines_of_threads(name: str) -> list[str]:
    return [_read(Path(f"/proc/self/task/{thread}/{name}")) for thread in _entries(Path("/proc/self/task"))]


def _entries(folder: Path) -> list[str]:
    return _quietly(lambda: os.listdir(folder), [])  # noqa: PTH208 - names, not paths


def _read(path: Path) -> str:
    return _quietly(path.read_text, "")


def _quietly(get: Callable[[], T], otherwise: T) -> T:
    """What `get` gives; `otherwise` where the platform has no such file, or the process has just gone."""
    try:
        return get()
    except OSError:
        return otherwise
