"""Checkpoints that replicas leave to each other: whole or not at all, each epoch's own, and none that cannot be trusted."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory import checkpoint_store
from narupa_trajectory.checkpoint_store import CheckpointFolder, CheckpointKeeper, Saved

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
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path, "s", "g")


def test_what_was_written_is_read(folder: CheckpointFolder) -> None:
    assert folder.newest(10) is None
    folder.write(SAVED)
    assert folder.newest(4) == SAVED
    assert folder.newest(3) is None  # nobody goes on from what is of its own epoch, or later
    assert [path.suffix for path in folder.path.iterdir()] == [".checkpoint"]


def test_a_stale_leader_overwrites_only_its_own(folder: CheckpointFolder) -> None:
    newer = replace(SAVED, epoch=4, time_ps=2.0)
    folder.write(newer)
    folder.write(replace(SAVED, time_ps=9.0))
    assert folder.newest(5) == newer


def test_what_is_damaged_is_passed_over(folder: CheckpointFolder) -> None:
    folder.write(SAVED)
    folder.write(replace(SAVED, epoch=4))
    path = folder.path / f"{4:016d}.checkpoint"
    path.write_bytes(path.read_bytes()[:-1])
    with structlog.testing.capture_logs() as logs:
        assert folder.newest(5) == SAVED
    assert [entry["file"] for entry in logs] == [path.name]


def test_a_file_that_says_another_epoch_than_its_name_is_passed_over(folder: CheckpointFolder) -> None:
    folder.write(SAVED)
    (folder.path / f"{3:016d}.checkpoint").rename(folder.path / f"{7:016d}.checkpoint")
    assert folder.newest(8) is None


def test_a_leader_that_made_no_checkpoint_of_the_run_leaves_that_of_the_one_before(folder: CheckpointFolder) -> None:
    folder.write(replace(SAVED, index_limit=5000))
    folder.write(replace(SAVED, epoch=4, block=b"", time_ps=None, playing=False, index_limit=2000))
    found = folder.newest(5)
    assert found is not None
    assert (found.block, found.time_ps, found.playing, found.index_limit) == (SAVED.block, 1.25, False, 5000)


def test_another_runs_checkpoint_is_no_part_of_it(folder: CheckpointFolder) -> None:
    folder.write(SAVED)
    reset = replace(SAVED, epoch=4, run_id="r2", block=b"", time_ps=None, index_limit=1000)
    folder.write(reset)
    assert folder.newest(5) == reset


def test_old_epochs_go_once_a_newer_one_has_a_checkpoint(folder: CheckpointFolder) -> None:
    for epoch in range(1, 8):
        folder.write(replace(SAVED, epoch=epoch))
    assert sorted(path.name[:16] for path in folder.path.iterdir()) == [f"{epoch:016d}" for epoch in (5, 6, 7)]
    folder.write(replace(SAVED, epoch=8, block=b""))
    assert len(list(folder.path.iterdir())) == 4


def test_remains_of_killed_writers_are_cleared(folder: CheckpointFolder) -> None:
    folder.write(SAVED)
    old, new = folder.path / ".1.dead.part", folder.path / ".2.beef.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    folder.write(replace(SAVED, epoch=4))
    assert not old.exists()
    assert new.exists()  # somebody may be writing it


def test_what_is_too_large_is_neither_written_nor_read(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(SAVED)
    monkeypatch.setattr(checkpoint_store, "MAX_BYTES", 4)
    monkeypatch.setattr(checkpoint_store, "MAX_HEADER", 4)
    with pytest.raises(InvalidArgumentError, match="at most 4"):
        folder.write(SAVED)
    assert folder.newest(9) is None


@pytest.mark.parametrize("session", ["..", "a/b", "ünïcode", "."])
def test_names_stay_within_the_folder(tmp_path: Path, session: str) -> None:
    folder = CheckpointFolder(tmp_path, session, "..")
    assert folder.path.resolve().parent.parent == tmp_path.resolve()


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


async def test_what_is_overtaken_while_the_disk_is_busy_is_left_out(folder: CheckpointFolder) -> None:
    async with CheckpointKeeper(folder) as keeper:
        for time_ps in (1.0, 2.0, 3.0):
            keeper.offer(replace(SAVED, time_ps=time_ps))
        await keeper.flush()
        assert keeper.written == 1
        found = await keeper.newest(9)
    assert found is not None
    assert found.time_ps == 3.0


async def test_a_disk_that_fails_is_told_of_once_and_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "session-s"
    blocked.write_text("a file where a folder should be")
    async with CheckpointKeeper(CheckpointFolder(tmp_path, "s", "g")) as keeper:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                keeper.offer(SAVED)
                await keeper.flush()
            assert await keeper.newest(9) is None
        assert [entry["event"] for entry in logs] == ["checkpoint_not_written", "checkpoints_not_read"]
        assert keeper.failure
        blocked.unlink()
        keeper.offer(SAVED)
        await keeper.flush()
        assert not keeper.failure
        assert keeper.written == 1


async def test_a_keeper_that_is_stopped_finishes_its_write(folder: CheckpointFolder) -> None:
    async with CheckpointKeeper(folder) as keeper:
        running = asyncio.create_task(keeper.run())
        keeper.offer(SAVED)
        while keeper._offered is not None:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await keeper.newest(9) == SAVED
