"""A process that commits to SQLite is killed at random moments, and nothing that it was told is lost."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from narupa_shared.stores.log import KEPT_COMMITS
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import Contents

KILLS = 10

# Commits as fast as it can, in groups as several callers would, and says each number once it has been told that it is durable.
COMMITTER = """
import asyncio, sys
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import Commit, LeaseChanges

async def committing(path):
    store = SqliteStore(path)
    number = (await store.open()).number
    async def commit(number):
        changes = {("things", str(number % 100)): str(number), ("last", "number"): str(number)}
        await store.commit(Commit(number, f"commit-{number}", changes), LeaseChanges(hold={str(number % 10): 5.0}))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    while True:
        await asyncio.gather(*(commit(number + step) for step in range(1, 8)))
        number += 7

asyncio.run(committing(sys.argv[1]))
"""


async def contents_of(path: Path) -> Contents:
    store = SqliteStore(path)
    contents = await store.open()
    await store.close()
    return contents


def test_every_acknowledged_commit_survives_kill_9(tmp_path: Path) -> None:
    path, moments, epochs, acknowledged = tmp_path / "store.sqlite", random.Random(3), set(), 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline(), "the committer could not start"
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
            lines = output.read().decode().splitlines()
        process.wait()
        acknowledged = max([acknowledged, *map(int, lines)])

        contents = asyncio.run(contents_of(path))
        epochs.add(contents.epoch)
        assert contents.number >= acknowledged
        assert [commit.number for commit in contents.log] == list(range(1, contents.number + 1))[-KEPT_COMMITS:]
        state: dict[tuple[str, str], str | None] = {}
        for commit in contents.log:
            assert commit.id == f"commit-{commit.number}"
            state |= commit.changes
        assert contents.number > KEPT_COMMITS or contents.records == state
        assert contents.records["last", "number"] == str(contents.number)
    assert len(epochs) == 1 and acknowledged > KILLS
