"""What is SQLite's own in a store: its file, its thread, and what goes wrong with disks."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.sqlite_file import VERSION, SqliteFile
from narupa_shared.stores.store import BehindError, Commit, LeaseChanges, StoreError
from narupa_shared.testing.clock import FakeClock


def a_commit(number: int, size: int = 1) -> Commit:
    return Commit(number, f"commit-{number}", {("things", f"k{number % 50}"): "v" * size})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lobby.sqlite"


@contextmanager
def disk_full() -> Iterator[None]:
    """No file of this process can grow beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_only_the_owner_may_read_the_file(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit(a_commit(1))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await store.close()
    assert modes == {"lobby.sqlite": 0o600, "lobby.sqlite-wal": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    path.chmod(0o644)
    await store.open()
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_opener_hears_which_file_is_in_use(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    second = SqliteStore(path)
    with pytest.raises(StoreError, match=rf"{path} is open in another process.*name another file"):
        await second.open()
    await store.commit(a_commit(1))
    await store.close()
    assert (await second.open()).number == 1
    await second.close()


@pytest.mark.parametrize("damage", [b"not a database, just some text" * 10, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_damaged_file_is_named_and_left_alone(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=rf"{path} is damaged.*backup"):
        await SqliteStore(path).open()
    assert path.read_bytes() == damage


async def test_damage_within_the_file_is_found_when_it_is_opened(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    for number in range(1, 40):
        await store.commit(a_commit(number, 3000))
    await store.close()
    content = bytearray(path.read_bytes())
    for at in range(8192, len(content), 4096):  # every page after the first two begins with nonsense
        content[at : at + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        await store.open()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"PRAGMA user_version = {VERSION + 1}", "newer Narupa"),
        ("DELETE FROM commits WHERE number = 2", "commits are missing"),
        ("UPDATE commits SET body = '{}' WHERE number = 2", "not a commit"),
        ("UPDATE commits SET body = 'x' WHERE number = 2", "damaged"),
        ("DROP TABLE records", "no such table"),
    ],
)
async def test_a_file_that_cannot_be_understood_is_refused(path: Path, statement: str, message: str) -> None:
    store = SqliteStore(path)
    await store.open()
    for number in range(1, 4):
        await store.commit(a_commit(number))
    await store.close()
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    with pytest.raises(StoreError, match=message):
        await store.open()


async def test_a_database_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE addresses (name TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "lobby.sqlite", Path("/proc/lobby.sqlite")):
        with pytest.raises(StoreError, match=str(path)):
            await SqliteStore(path).open()


async def test_a_full_disk_fails_commits_until_there_is_room(path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(path, clock)
    await store.open()
    await store.commit(a_commit(1), LeaseChanges(hold={"a": 10}))
    clock.advance(20)
    with disk_full():
        for _ in range(2):
            with pytest.raises(StoreError, match=rf"{path} cannot be .*the disk is full"):
                await store.commit(a_commit(2, 200_000), LeaseChanges(hold={"b": 10}, only_if_lapsed=frozenset({"a"})))
        assert await store.renew({"b": 10}) == {"b"}
        assert await store.lapsed() == ("a",)
    await store.commit(a_commit(2, 200_000))
    await store.commit(a_commit(3))
    await store.close()
    contents = await store.open()
    await store.close()
    assert [commit.number for commit in contents.log] == [1, 2, 3]


@pytest.mark.parametrize("replace", [False, True])
async def test_a_file_that_vanishes_is_not_written_on(path: Path, replace: bool) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit(a_commit(1))
    path.unlink()
    if replace:
        path.touch()
    with pytest.raises(StoreError, match=str(path)):
        await store.commit(a_commit(2))
    await store.close()


async def test_commits_that_wait_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in it, those that are refused do not spoil the others."""
    transactions, transaction, gate = 0, SqliteFile.transaction, threading.Event()

    def counted(file: SqliteFile) -> object:
        nonlocal transactions
        transactions += 1
        assert gate.wait(10)
        return transaction(file)

    monkeypatch.setattr(SqliteFile, "transaction", counted)
    store = SqliteStore(path)
    await store.open()
    turns = asyncio.create_task(store.commit(a_commit(1)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(store.commit(a_commit(number))) for number in range(2, 200)]
    late = asyncio.create_task(store.commit(Commit(150, "late", {})))
    await asyncio.sleep(0.05)  # the loop goes on while the disk does not
    assert not turns.done()
    gate.set()
    await asyncio.gather(turns, *waiting)
    with pytest.raises(BehindError):
        await late
    await store.close()
    assert transactions <= 3
    assert (await store.open()).number == 199
    await store.close()


async def test_closing_makes_what_was_asked_for_and_ends_the_thread(path: Path) -> None:
    threads = threading.active_count()
    store = SqliteStore(path)
    await store.open()
    assert threading.active_count() == threads + 1
    waiting = [asyncio.create_task(store.commit(a_commit(number))) for number in range(1, 20)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    await asyncio.gather(*waiting)
    assert threading.active_count() == threads
    assert (await store.open()).number == 19
    await store.close()


def test_a_loop_that_ends_without_closing_harms_nobody(path: Path) -> None:
    store = SqliteStore(path)

    async def abandon() -> None:
        await store.open()
        store._jobs.put(None)  # nobody hears that the thread ends: the loop may be closed first

    asyncio.run(abandon())
    thread = store._thread
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()
