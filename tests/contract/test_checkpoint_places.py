"""Wherever checkpoints lie, in a folder or an object store: whole or not at all, each leader's own, and the newest is found."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import structlog.testing

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.testing.ports import unused_port
from narupa_shared.testing.s3_server import S3Server
from narupa_trajectory import checkpoint_shelf, checkpoint_store
from narupa_trajectory.checkpoint_shelf import FolderShelf, Shelf, shelf_at
from narupa_trajectory.checkpoint_store import Checkpoints, Saved

LIMIT_S = 30.0
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

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


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def _in_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of a store that is found, and asked, by what the environment says."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket()}/of/narupa"


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> str:
    if request.param == "s3":
        return _in_s3(s3, monkeypatch)
    return {"folder": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{uuid4().hex}"}[request.param]


@pytest.fixture
def shelf(place: str) -> Shelf:
    return shelf_at(place, "s", "g", LIMIT_S)


@pytest.fixture
def kept(shelf: Shelf) -> Checkpoints:
    return Checkpoints(shelf)


def epochs(shelf: Shelf) -> list[int]:
    """Of what lies there, in order."""
    return sorted(int(name[:16]) for name in shelf.sizes())


def test_what_is_put_there_is_there_whole_until_it_is_removed(shelf: Shelf) -> None:
    assert shelf.sizes() == {}
    with pytest.raises(FileNotFoundError):
        shelf.read("a.b-1")
    shelf.remove("a.b-1")
    large = bytes(range(256)) * 40_000
    shelf.write("a.b-1", b"old")
    shelf.write("a.b-1", large)
    shelf.write("c", b"")
    assert shelf.sizes() == {"a.b-1": len(large), "c": 0}
    assert shelf.read("a.b-1") == large
    shelf.remove("a.b-1")
    assert shelf.sizes() == {"c": 0}


def test_what_one_replica_writes_every_other_sees_at_once(place: str, shelf: Shelf) -> None:
    other = shelf_at(place, "s", "g", LIMIT_S)
    for name in ("1", "2"):
        assert name not in other.sizes()
        shelf.write(name, b"x")
        assert name in other.sizes()
    shelf.remove("1")
    assert list(other.sizes()) == ["2"]


def test_groups_and_sessions_are_apart_whatever_their_names(place: str) -> None:
    names = [("..", "g"), ("a/b", "g"), ("a", "b/g"), ("a%2Fb", "g"), (".", ".."), ("ünïcode *?", "g"), ("s", "g")]
    shelves = [shelf_at(place, *each, LIMIT_S) for each in names]
    for number, each in enumerate(shelves):
        each.write("x", str(number).encode())
    assert [each.read("x") for each in shelves] == [str(number).encode() for number in range(len(names))]


def test_what_was_written_is_read(kept: Checkpoints, shelf: Shelf) -> None:
    assert kept.newest(10) is None
    kept.write(SAVED)
    assert kept.newest(4) == SAVED
    assert kept.newest(3) is None  # nobody goes on from what is of its own epoch, or later
    assert len(shelf.sizes()) == 1


def test_of_one_leaders_the_last_counts_and_is_all_that_is_left(kept: Checkpoints, shelf: Shelf) -> None:
    for time_ps in (1.0, 2.0, 3.0):
        kept.write(replace(SAVED, time_ps=time_ps))
    found = kept.newest(4)
    assert found is not None and found.time_ps == 3.0
    assert len(shelf.sizes()) == 1


def test_a_stale_leader_neither_supersedes_nor_removes_a_newer_ones(kept: Checkpoints, shelf: Shelf) -> None:
    newer = replace(SAVED, epoch=4, time_ps=2.0)
    kept.write(newer)
    stale = Checkpoints(shelf)
    for _ in range(3):
        stale.write(replace(SAVED, time_ps=9.0))
    assert kept.newest(5) == newer
    assert epochs(shelf) == [3, 4]


def test_a_write_that_was_given_up_and_arrives_late_supersedes_nothing(kept: Checkpoints, shelf: Shelf) -> None:
    kept.write(replace(SAVED, time_ps=1.0))
    (late,) = shelf.sizes()
    data = shelf.read(late)
    kept.write(SAVED)
    shelf.write(late, data)
    assert kept.newest(9) == SAVED
    kept.write(replace(SAVED, time_ps=3.0))
    assert len(shelf.sizes()) == 1  # and goes with the next


def test_who_begins_again_in_the_same_epoch_goes_on_counting(kept: Checkpoints, shelf: Shelf) -> None:
    for time_ps in (1.0, 2.0):
        kept.write(replace(SAVED, time_ps=time_ps))
    again = Checkpoints(shelf)
    again.write(replace(SAVED, time_ps=3.0))
    found = kept.newest(9)
    assert found is not None and found.time_ps == 3.0


def test_what_is_damaged_is_passed_over(kept: Checkpoints, shelf: Shelf) -> None:
    kept.write(SAVED)
    kept.write(replace(SAVED, epoch=4))
    name = max(shelf.sizes())
    shelf.write(name, shelf.read(name)[:-1])
    with structlog.testing.capture_logs() as logs:
        assert kept.newest(5) == SAVED
    assert [entry["file"] for entry in logs] == [name]


def test_what_says_another_epoch_than_its_name_is_passed_over(kept: Checkpoints, shelf: Shelf) -> None:
    shelf.write(f"{7:016d}-{1:012d}.checkpoint", SAVED.to_bytes())
    shelf.write("something-else", b"x")
    assert kept.newest(8) is None


def test_a_leader_that_made_no_checkpoint_of_the_run_leaves_that_of_the_one_before(kept: Checkpoints) -> None:
    kept.write(replace(SAVED, index_limit=5000))
    kept.write(replace(SAVED, epoch=4, block=b"", time_ps=None, playing=False, index_limit=2000))
    found = kept.newest(5)
    assert found is not None
    assert (found.block, found.time_ps, found.playing, found.index_limit) == (SAVED.block, 1.25, False, 5000)


def test_another_runs_checkpoint_is_no_part_of_it(kept: Checkpoints) -> None:
    kept.write(SAVED)
    reset = replace(SAVED, epoch=4, run_id="r2", block=b"", time_ps=None, index_limit=1000)
    kept.write(reset)
    assert kept.newest(5) == reset


def test_old_epochs_go_once_a_newer_one_has_a_checkpoint(kept: Checkpoints, shelf: Shelf) -> None:
    for epoch in range(1, 8):
        kept.write(replace(SAVED, epoch=epoch))
    assert epochs(shelf) == [5, 6, 7]
    kept.write(replace(SAVED, epoch=8, block=b""))
    assert epochs(shelf) == [5, 6, 7, 8]


def test_what_is_too_large_is_neither_written_nor_read(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write(SAVED)
    monkeypatch.setattr(checkpoint_store, "MAX_BYTES", 4)
    monkeypatch.setattr(checkpoint_store, "MAX_HEADER", 4)
    with pytest.raises(InvalidArgumentError, match="at most 4"):
        kept.write(SAVED)
    assert kept.newest(9) is None


def test_a_folder_is_cleared_of_the_remains_of_killed_writers(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    old, new = tmp_path / ".1.dead.part", tmp_path / ".2.beef.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    shelf.write("x", b"whole")
    assert not old.exists()
    assert new.exists()  # somebody may be writing it
    assert Checkpoints(shelf).newest(9) is None


def test_an_object_store_that_refuses_says_why_and_no_secret(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    _in_s3(s3, monkeypatch)
    kept = Checkpoints(shelf_at("s3://no-such-bucket/x", "s", "g", LIMIT_S))
    with pytest.raises(OSError, match="bucket does not exist") as caught:
        kept.write(SAVED)
    assert not any(s3.environment[name] in str(caught.value) for name in SECRETS)


def test_no_key_is_logged_even_for_debugging(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-tests")
    caplog.set_level("DEBUG")
    kept = Checkpoints(shelf_at(_in_s3(s3, monkeypatch), "s", "g", LIMIT_S))
    kept.write(SAVED)
    assert kept.newest(9) == SAVED
    assert "of-tests" not in caplog.text
    assert "AWS4-HMAC" not in caplog.text


def test_an_object_store_that_is_away_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port()}")
    for name in SECRETS:
        monkeypatch.setenv(name, "x")
    shelf = checkpoint_shelf.shelf_at("s3://bucket", "s", "g", 0.3)
    began = time.monotonic()
    with pytest.raises(OSError):
        shelf.write("x", b"y")
    assert time.monotonic() - began < LIMIT_S
