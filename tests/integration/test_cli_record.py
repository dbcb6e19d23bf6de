"""`narupa record` and `narupa convert`: what they print, how they end, and what is left when they are killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from narupa_client.cli.app import app
from narupa_client.cli.record import default_path, size_of
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import NarupaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipReader

LIMIT_S = 30.0


def moving(index: int) -> Frame:
    return Frame.of(index, {"particle.positions": np.full((50, 3), index, np.float32), "particle.count": 50.0})


@pytest.fixture
async def lobby() -> AsyncIterator[FakeLobby]:
    """One with a trajectory service, which publishes a hundred frames a second, and an imd service."""
    async with FakeLobby() as lobby, FakeTrajectory() as trajectory, FakeImd() as imd:
        trajectory.publish(moving(0))
        imd.state["scene"] = [1.0]
        await lobby.add_service("trajectory", trajectory.address)
        await lobby.add_service("imd", imd.address)
        async with trajectory.publishing(moving):
            yield lobby


def record_command(lobby: FakeLobby, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "narupa_client.cli", "record", "--lobby", lobby.address, *arguments]


async def recorded(lobby: FakeLobby, *arguments: str) -> tuple[int, str, str]:
    """The status, output and errors of `narupa record`."""
    process = await asyncio.create_subprocess_exec(
        *record_command(lobby, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


def check(path: Path) -> int:
    """The recording can be played; returns how many frames it has."""
    with NanoverZipReader(path) as reader:
        moments = list(reader)
    frames = [moment.frame for moment in moments if moment.frame]
    assert frames[0].index == 0
    assert moments[0].state is not None
    assert moments[0].state.updates == {"scene": [1.0]}
    numbers = [float(frame.arrays["particle.positions"][0, 0]) for frame in frames]  # type: ignore[call-overload]
    assert numbers == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))
    return len(frames)


async def test_it_records_for_some_seconds_and_overwrites_only_if_told(lobby: FakeLobby, tmp_path: Path) -> None:
    path = tmp_path / "run.nanover.zip"
    status, out, errors = await recorded(lobby, str(path), "--seconds", "0.7")
    assert status == 0, errors
    frames = check(path)
    assert f"{path}: {frames} frames" in out
    status, _, errors = await recorded(lobby, str(path), "--seconds", "0.1")
    assert status == 1
    assert "exists" in errors
    assert check(path) == frames
    status, _, errors = await recorded(lobby, str(path), "--seconds", "0.7", "--force")
    assert status == 0, errors


async def test_ctrl_c_is_its_ordinary_end(lobby: FakeLobby, tmp_path: Path) -> None:
    path = tmp_path / "run.nanover.zip"
    process = await asyncio.create_subprocess_exec(
        *record_command(lobby, str(path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        await until_frames(path, 10)
        process.send_signal(signal.SIGINT)
        out, errors = await process.communicate()
    assert process.returncode == 0, errors
    frames = check(path)
    assert f"{frames} frames" in out.decode()
    assert path.stat().st_size < frames * 900 + 5000  # no hole is left in it


async def until_frames(path: Path, count: int) -> None:
    while True:
        # Whoever reads a file while it is written may take its directory and its list from two commits.
        with contextlib.suppress(NarupaError):
            if path.exists():
                with NanoverZipReader(path) as reader:
                    if len(reader) >= count:
                        return
        await asyncio.sleep(0.02)


async def test_when_it_is_killed_its_recording_can_be_played(lobby: FakeLobby, tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(3):
        path = tmp_path / f"killed-{number}.nanover.zip"
        process = await asyncio.create_subprocess_exec(
            *record_command(lobby, str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                await until_frames(path, 5)
                await asyncio.sleep(chance.uniform(0.0, 0.6))
        finally:
            process.kill()
            await process.wait()
        assert check(path) >= 5


async def test_without_a_lobby_no_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "run.nanover.zip"
    command = [sys.executable, "-m", "narupa_client.cli", "record", str(path), "--lobby", "127.0.0.1:1"]
    process = await asyncio.create_subprocess_exec(*command, "--give-up-after", "0.2", stderr=subprocess.PIPE)
    async with asyncio.timeout(LIMIT_S):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"127.0.0.1:1" in errors
    assert not path.exists()


def converted(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["convert", *arguments])


async def test_a_recording_is_converted(lobby: FakeLobby, tmp_path: Path) -> None:
    path = tmp_path / "run.nanover.zip"
    status, _, errors = await recorded(lobby, str(path), "--seconds", "0.7")
    assert status == 0, errors
    result = converted(str(path), str(tmp_path / "run.xtc"), "--stride", "2")
    assert result.exit_code == 0, result.stderr
    assert "run.pdb" in result.stdout
    assert "no shared state" in result.stderr.replace("\n", " ")
    result = converted(str(path), str(tmp_path / "run.xtc"))
    assert result.exit_code == 1
    assert "--force" in result.stderr
    result = converted(str(path), str(tmp_path / "run.png"))
    assert result.exit_code == 2


def test_names_and_sizes_for_people() -> None:
    from datetime import datetime

    assert str(default_path(datetime(2026, 3, 4, 5, 6, 7))) == "session-20260304-050607.nanover.zip"
    assert [size_of(count) for count in (12, 12_345, 5 * 10**7, 10**10)] == ["12 B", "12.3 kB", "50.0 MB", "10.0 GB"]
