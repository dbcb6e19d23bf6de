"""How a gateway's first process looks after the others, which are small programs here."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence, Set
from pathlib import Path

import psutil
import pytest

from narupa_gateway import workers
from narupa_gateway.workers import supervised

LIMIT_S = 30.0
# Notes that it runs, in a file of its own, and waits for the end of its standard input or a signal.
STAYS = "import os, sys; open(sys.argv[1] + f'/{os.getpid()}', 'w').close(); sys.stdin.read()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STAYS}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BACK_OFF_S", (0.0,))


def program(folder: Path, *codes: str) -> workers.Command:
    """Worker 1 runs the first code, and so on."""

    def command(number: int) -> Sequence[str]:
        return (sys.executable, "-c", codes[number - 1], str(folder))

    return command


async def running(folder: Path, count: int, but: Set[int] = frozenset()) -> set[int]:
    """The ids of the processes that have said so, besides those, once they are so many."""
    async with asyncio.timeout(LIMIT_S):
        while len(found := {int(path.name) for path in folder.iterdir()} - but) < count:
            await asyncio.sleep(0.01)
    return found


async def ended(task: asyncio.Task[int]) -> int:
    async with asyncio.timeout(LIMIT_S):
        return await task


async def test_one_that_dies_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(supervised(program(tmp_path, STAYS, STAYS), 2, 5.0, stop))
    first = await running(tmp_path, 2)
    killed = min(first)
    os.kill(killed, signal.SIGKILL)
    (fresh,) = await running(tmp_path, 1, but=first)
    assert psutil.pid_exists(fresh)
    assert all(psutil.pid_exists(pid) for pid in first - {killed})
    stop.set()
    assert await ended(task) == 0
    assert not any(psutil.pid_exists(pid) for pid in first | {fresh})


async def test_a_signal_ends_all(tmp_path: Path) -> None:
    task = asyncio.create_task(supervised(program(tmp_path, STAYS, STAYS), 2, 5.0, asyncio.Event()))
    pids = await running(tmp_path, 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await ended(task) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(supervised(program(tmp_path, DEAF, STAYS), 2, 0.2, stop))
    pids = await running(tmp_path, 2)
    stop.set()
    assert await ended(task) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_wrong_setting_ends_all(tmp_path: Path) -> None:
    task = asyncio.create_task(supervised(program(tmp_path, STAYS, "raise SystemExit(2)"), 2, 5.0, asyncio.Event()))
    assert await ended(task) == 2


async def test_one_that_was_asked_to_go_is_not_started_again(tmp_path: Path) -> None:
    went, stays, stop = tmp_path / "went", tmp_path / "stays", asyncio.Event()
    for folder in (went, stays):
        folder.mkdir()
    leaves = STAYS.replace("sys.stdin.read()", "sys.exit(0)")

    def command(number: int) -> Sequence[str]:
        return program(went, leaves)(1) if number == 1 else program(stays, STAYS)(1)

    task = asyncio.create_task(supervised(command, 2, 5.0, stop))
    (pid,) = await running(went, 1)
    await running(stays, 1)
    async with asyncio.timeout(LIMIT_S):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
    assert not task.done()
    stop.set()
    assert await ended(task) == 0
    assert len(list(went.iterdir())) == 1


async def test_when_all_have_been_asked_to_go_it_ends(tmp_path: Path) -> None:
    task = asyncio.create_task(supervised(program(tmp_path, "", ""), 2, 5.0, asyncio.Event()))
    assert await ended(task) == 0


async def test_it_gives_up_when_all_keep_failing_and_not_when_one_does(tmp_path: Path) -> None:
    fails = STAYS.replace("sys.stdin.read()", "sys.exit(1)")
    task = asyncio.create_task(supervised(program(tmp_path, fails, fails), 2, 5.0, asyncio.Event()))
    assert await ended(task) == 1
    before = {int(path.name) for path in tmp_path.iterdir()}
    assert len(before) >= 2 * workers.HOPELESS - 1

    stop = asyncio.Event()
    task = asyncio.create_task(supervised(program(tmp_path, fails, STAYS), 2, 5.0, stop))
    await running(tmp_path, workers.HOPELESS + 3, but=before)
    assert not task.done()
    stop.set()
    assert await ended(task) == 0
