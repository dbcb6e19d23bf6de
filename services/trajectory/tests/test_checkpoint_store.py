"""Checkpoints that replicas leave to each other: none that cannot be trusted, and nobody waits for where they are kept."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory import checkpoint_store
from narupa_trajectory.checkpoint_shelf import FolderShelf, ObjectShelf, shelf_at
from narupa_trajectory.checkpoint_store import CheckpointKeeper, Checkpoints, Saved

LIMIT_S = 20.0

SAVED = Saved(
    epoch=3,
    source="demo:nanotube",
    run_id="r1",
    counter=0,
    index_limit=1100,
    playing=True,
    frame_interval_s=1 / 30,
    own_pace=True,
    steps_per_frame=None,
    time_ps=1.25,
    block=b"\x00checkpoint\xff",
)


@pytest.fixture
def folder(tmp_path: Path) -> Checkpoints:
    return Checkpoints(FolderShelf(tmp_path))


def _file(**change: Any) -> bytes:
    header = {**asdict(replace(SAVED, block=b"")), **change}
    del header["block"]
    text = json.dumps(
        {"bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", **header}
    )
    return checkpoint_store._HEAD.pack(checkpoint_store.MAGIC, checkpoint_store.VERSION, len(text)) + text.encode()


def test_the_helper_of_these_tests_makes_what_can_be_read() -> None:
    assert Saved.from_bytes(_file()) == replace(SAVED, block=b"")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1}, {"epoch": 1.5}, {"epoch": True}, {"counter": "1"}, {"index_limit": 2**60}, {"playing": 1},
        {"source": 7}, {"run_id": None}, {"steps_per_frame": 0}, {"frame_interval_s": -1}, {"frame_interval_s": float("nan")},
        {"time_ps": "1"}, {"time_ps": float("inf")}, {"more": 1}, {"sha256": ""}, {"bytes": 3},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_say_nonsense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Saved.from_bytes(_file(**change))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    good = SAVED.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    bad = good[:at] + bytes([value]) + good[at + 1 :]
    try:
        read = Saved.from_bytes(bad)
    except InvalidArgumentError:
        return
    assert read.block == SAVED.block  # a letter of the header may be another; the checkpoint may not


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        Saved.from_bytes(data)


async def test_what_is_overtaken_while_the_disk_is_busy_is_left_out(folder: Checkpoints) -> None:
    async with CheckpointKeeper(folder) as keeper:
        for time_ps in (1.0, 2.0, 3.0):
            keeper.offer(replace(SAVED, time_ps=time_ps))
        await keeper.flush()
        assert keeper.written == 1
        found = await keeper.newest(9)
    assert found is not None
    assert found.time_ps == 3.0


async def test_a_disk_that_fails_is_told_of_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_store, "RETRY_S", 0.01)
    blocked = tmp_path / "session-s"
    blocked.write_text("a file where a folder should be")
    clock = FakeClock()
    async with CheckpointKeeper(Checkpoints(shelf_at(str(tmp_path), "s", "g", 10.0)), clock=clock) as keeper:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                keeper.offer(SAVED)
                await keeper.flush()
            assert await keeper.newest(9) is None
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [
            ("checkpoint_not_written", "warning"),
            ("checkpoints_not_read", "error"),
        ]
        assert keeper.failure
        assert keeper.kept_age_s == math.inf
        blocked.unlink()
        running = asyncio.create_task(keeper.run())
        async with asyncio.timeout(LIMIT_S):  # without anything new being offered
            while not keeper.written:
                await asyncio.sleep(0.01)
        assert not keeper.failure
        clock.advance(3.0)
        assert keeper.kept_age_s == 3.0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_keeper_that_is_stopped_finishes_its_write(folder: Checkpoints) -> None:
    async with CheckpointKeeper(folder) as keeper:
        running = asyncio.create_task(keeper.run())
        keeper.offer(SAVED)
        while keeper._offered is not None:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await keeper.newest(9) == SAVED


class StuckShelf(FolderShelf):
    """One whose first write does not come back until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go = threading.Event()

    def write(self, name: str, data: bytes) -> None:
        self.go.wait()
        super().write(name, data)


async def test_a_store_that_does_not_answer_holds_up_nobody_and_what_it_does_late_is_superseded(tmp_path: Path) -> None:
    shelf = StuckShelf(tmp_path)
    async with CheckpointKeeper(Checkpoints(shelf), 0.05) as keeper:
        try:
            with structlog.testing.capture_logs() as logs:
                for time_ps in (1.0, 2.0, 3.0):
                    keeper.offer(replace(SAVED, time_ps=time_ps))
                    await keeper.flush()
                assert await keeper.newest(9) is None
            assert [entry["event"] for entry in logs] == ["checkpoint_not_written", "checkpoints_not_read"]
            assert "0.05 s" in keeper.failure
            assert sum(thread.name == "checkpoints" for thread in threading.enumerate()) == 1
        finally:
            shelf.go.set()
        async with asyncio.timeout(LIMIT_S):
            while not keeper.written:
                await keeper.flush()
        found = None
        async with asyncio.timeout(LIMIT_S):
            while found is None:
                found = await keeper.newest(9)
    assert found.time_ps == 3.0


@pytest.mark.parametrize(
    "place", ["s3://key:hush@bucket/x", "s3://bucket/x?secret=hush", "s3://bucket#hush", "file::s3://hush"]
)
def test_a_place_says_no_more_than_where_it_is_and_what_is_too_much_is_not_repeated(place: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"checkpoint_dir.*environment") as caught:
        shelf_at(place, "s", "g", 1.0)
    assert "hush" not in str(caught.value)


def test_a_place_on_another_machine_or_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="three slashes"):
        shelf_at("file://machine/x", "s", "g", 1.0)
    with pytest.raises(InvalidArgumentError, match="no store"):
        shelf_at("nosuch://x", "s", "g", 1.0)


def test_a_url_of_a_folder_is_that_folder(tmp_path: Path) -> None:
    spaced = tmp_path / "a b%"
    shelf = shelf_at(spaced.as_uri(), "s", "g", 1.0)
    assert isinstance(shelf, FolderShelf)
    assert shelf.path == spaced / "session-s" / "group-g"


def test_what_a_store_says_is_given_on_without_keys_and_signatures() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Refusing(MemoryFileSystem):  # type: ignore[misc]
        def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
            raise RuntimeError(f"403 for AKIA{'X' * 16} at http://store/x?X-Signature=abc with {'s3cr+t/' * 6}")

    shelf = ObjectShelf("memory://refusing", ("s",), 1.0)
    shelf._store = Refusing()
    with pytest.raises(OSError, match="RuntimeError: 403 for") as caught:
        shelf.write("a", b"")
    assert not any(part in str(caught.value) for part in ("AKIA", "abc", "s3cr"))
