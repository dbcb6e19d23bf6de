"""That freed memory between what stays goes back to the operating system."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from narupa_shared import freed_memory

# In a process of its own, whose heap nobody else has shaped: every other block is freed, and none of them is at the end.
HOLES = """
import sys
from narupa_shared.freed_memory import give_back

def private_kb():
    lines = open("/proc/self/smaps_rollup").readlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

blocks = [bytes([number % 251 + 1]) * 20_000 for number in range(1000)]
del blocks[::2]
before = private_kb()
give_back()
print(before - private_kb())
"""


@pytest.mark.skipif(freed_memory._trim is None, reason="this C library gives nothing back when it is asked")
def test_holes_are_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=30)
    assert int(ran.stdout) > 500 * 12


async def test_it_is_done_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done = asyncio.Event()
    times = iter(range(3))
    monkeypatch.setattr(freed_memory, "give_back", lambda: done.set() if next(times) == 2 else None)
    async with freed_memory.given_back(0.001), asyncio.timeout(5):
        await done.wait()


def test_where_the_c_library_has_no_such_call_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_trim", None)
    freed_memory.give_back()
