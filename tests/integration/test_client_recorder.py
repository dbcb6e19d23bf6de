"""Recording a session against small services on real sockets: what is in the file, and everything going wrong."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import narupa_client
from narupa_client import recorder as recorder_module
from narupa_client.recorder import RecordingStoppedError
from narupa_client.session import Session
from narupa_client.testing import FakeImd, FakeTrajectory
from narupa_shared.errors import AlreadyExistsError, QuotaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import DiskFile, NanoverZipReader
from narupa_shared.recordings.recording import Moment
from narupa_shared.testing.waiting import until


def whole(run: str = "one", index: int = 0) -> Frame:
    arrays: dict[str, Any] = {
        "particle.positions": np.zeros((3, 3), np.float32),
        "particle.names": ["C", "O", "N"],
    }
    return Frame(index, {"particle.count": 3.0, "system.simulation.run": run}, arrays)


def moving(index: int) -> Frame:
    positions = np.full((3, 3), index, np.float32)
    return Frame(index, {"system.simulation.time": index * 0.5}, {"particle.positions": positions})


@pytest.fixture
async def trajectory() -> AsyncIterator[FakeTrajectory]:
    async with FakeTrajectory() as trajectory:
        trajectory.publish(whole())
        yield trajectory


@pytest.fixture
async def imd() -> AsyncIterator[FakeImd]:
    async with FakeImd() as imd:
        imd.state["scene"] = [1.0, 2.0]
        yield imd


@pytest.fixture
async def session(trajectory: FakeTrajectory, imd: FakeImd) -> AsyncIterator[Session]:
    async with narupa_client.open(trajectory=trajectory.address, imd=imd.address) as session:
        yield session


def moments_in(path: Path) -> list[Moment]:
    with NanoverZipReader(path) as reader:
        return list(reader)


def state_after(moments: list[Moment]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for moment in moments:
        if moment.state:
            state = moment.state.applied(state)
    return state


async def test_it_has_every_frame_and_the_state(tmp_path: Path, trajectory: FakeTrajectory, session: Session) -> None:
    path = tmp_path / "run.nanover.zip"
    async with session.record(path) as recorder:
        await until(lambda: recorder.frames == 1)
        await session.state.update({"avatar.a": {"name": "Ada"}})
        for index in range(1, 101):
            trajectory.publish(moving(index))
        await session.state.update({"note": "hello"}, remove=["scene"])
        await until(lambda: recorder.frames == 101)
        await until(lambda: "scene" not in recorder._state)
        assert not recorder.over
    first, *later = moments_in(path)
    assert first.frame is not None
    assert first.frame.index == 0
    assert first.frame.arrays["particle.names"] == ["C", "O", "N"]
    assert first.state is not None
    assert first.state.updates["scene"] == [1.0, 2.0]
    frames = [moment.frame for moment in later if moment.frame is not None]
    assert [frame.index for frame in frames] == list(range(1, 101))
    assert all(set(frame.arrays) == {"particle.positions"} for frame in frames)
    assert all((frame.arrays["particle.positions"] == frame.index).all() for frame in frames)
    assert state_after([first, *later]) == {"avatar.a": {"name": "Ada"}, "note": "hello"}
    times = [moment.time_s for moment in (first, *later)]
    assert times[0] == 0.0
    assert times == sorted(times)
    assert recorder.runs == 1
    assert recorder.notices == []


async def test_after_a_lost_connection_it_goes_on(
    tmp_path: Path, trajectory: FakeTrajectory, imd: FakeImd, session: Session
) -> None:
    path = tmp_path / "run.nanover.zip"
    async with session.record(path) as recorder:
        await until(lambda: recorder.frames == 1)
        trajectory.publish(moving(1))
        await until(lambda: recorder.frames == 2)
        await trajectory.stop()
        await imd.stop()
        await until(lambda: recorder.trouble)
        imd.forget()
        imd.state["other"] = 1.0
        trajectory.publish(whole("two", index=17))
        await trajectory.start()
        await imd.start()
        await until(lambda: recorder.frames == 3)
        await until(lambda: recorder._state == {"other": 1.0})
    moments = moments_in(path)
    assert [moment.frame.index for moment in moments if moment.frame] == [0, 1, 0]
    another = [moment.frame for moment in moments if moment.frame][-1]
    assert another.arrays["particle.names"] == ["C", "O", "N"]
    assert state_after(moments) == {"other": 1.0}
    assert recorder.runs == 2


async def test_without_a_state_or_without_frames(
    tmp_path: Path, trajectory: FakeTrajectory, imd: FakeImd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "FIRST_WAIT_S", 0.1)
    nobody = "127.0.0.1:1"
    path = tmp_path / "a.nanover.zip"
    async with narupa_client.open(trajectory=trajectory.address, imd=nobody) as one, one.record(path) as recorder:
        await until(lambda: recorder.frames == 1)
    (moment,) = moments_in(tmp_path / "a.nanover.zip")
    assert moment.frame is not None
    assert "shared state has not come" in recorder.notices[0]
    path = tmp_path / "b.nanover.zip"
    async with narupa_client.open(trajectory=nobody, imd=imd.address) as two, two.record(path) as recorder:
        await until(lambda: recorder.size)
    (moment,) = moments_in(tmp_path / "b.nanover.zip")
    assert moment.frame is None
    assert state_after([moment]) == {"scene": [1.0, 2.0]}


async def test_one_that_is_too_slow_for_every_frame_says_so_and_goes_on(
    tmp_path: Path, trajectory: FakeTrajectory, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    frames = session.frames

    def some(interval_s: float = 0.0, mode: Any = "latest", **options: Any) -> Any:
        modes.append(mode)
        if mode == "all":

            class Overrun:
                trouble = None

                async def __aenter__(self) -> Overrun:
                    return self

                async def __aexit__(self, *_: object) -> None: ...

                def __aiter__(self) -> Overrun:
                    return self

                async def __anext__(self) -> Any:
                    raise QuotaError("the reader fell too far behind")

            return Overrun()
        return frames(interval_s, mode, **options)

    monkeypatch.setattr(session, "frames", some)
    async with session.record(tmp_path / "run.nanover.zip") as recorder:
        await until(lambda: recorder.frames == 1)
        assert modes == ["all", "latest"]
        assert "frames are skipped" in recorder.notices[0]


async def test_a_full_disk_ends_it_with_a_reason_and_a_file_that_can_be_played(
    tmp_path: Path, trajectory: FakeTrajectory, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.nanover.zip"
    full = False
    write_at = DiskFile.write_at

    def limited(self: DiskFile, offset: int, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_at(self, offset, data)

    monkeypatch.setattr(DiskFile, "write_at", limited)
    with pytest.raises(RecordingStoppedError, match=r"the disk is full.*run\.nanover\.zip can be played"):
        async with session.record(path) as recorder:
            await until(lambda: recorder.frames == 1)
            trajectory.publish(moving(1))
            await until(lambda: recorder.frames == 2)
            await until(lambda: len(moments_in(path)) == 2)
            full = True
            trajectory.publish(moving(2))
            await recorder.wait()
    assert [moment.frame.index for moment in moments_in(path) if moment.frame] == [0, 1]


async def test_a_file_that_is_there_is_left_alone(tmp_path: Path, session: Session) -> None:
    path = tmp_path / "run.nanover.zip"
    path.write_text("precious")
    with pytest.raises(AlreadyExistsError, match="overwrite"):
        async with session.record(path):
            pass
    assert path.read_text() == "precious"
    with pytest.raises(RecordingStoppedError, match="No such file"):
        async with session.record(tmp_path / "no" / "folder.nanover.zip"):
            pass
    async with session.record(path, overwrite=True) as recorder:
        await until(lambda: recorder.frames == 1)
    assert len(moments_in(path)) == 1
