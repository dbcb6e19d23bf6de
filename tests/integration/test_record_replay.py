"""A live session is recorded and played again: frames, their times, and the shared state are the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

import narupa_client
from narupa_client.frames import CurrentFrame
from narupa_client.session import Session
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import serving
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipReader, NanoverZipWriter
from narupa_shared.recordings.recording import Moment, StateChange
from narupa_shared.testing.waiting import until
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig


@contextlib.asynccontextmanager
async def session_of(*sources: str, **settings: Any) -> AsyncIterator[Session]:
    """A trajectory and an imd service, and a client of both."""
    imd_config = ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.2)
    async with serving("imd", imd_config, ImdApp(imd_config)) as imd:
        imd_address = f"127.0.0.1:{imd.port}"
        config = TrajectoryConfig(
            port=0, lobby="127.0.0.1:1", drain_grace_s=0.2, imd=imd_address, sources=sources, **settings
        )
        async with serving("trajectory", config, TrajectoryApp(config)) as trajectory:
            address = f"127.0.0.1:{trajectory.port}"
            async with narupa_client.open(trajectory=address, imd=imd_address) as session:
                yield session


async def state_is(session: Session, wanted: dict[str, Any]) -> None:
    """Waits until the state has these values, and, for None, not these keys."""
    state: dict[str, Any] = {}
    try:
        async with asyncio.timeout(20):
            while True:
                state = await session.state.get()
                if all(state.get(key) == value for key, value in wanted.items()):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"the state is {state}, and not {wanted}") from None


def whole_frames(moments: list[Moment]) -> list[CurrentFrame]:
    current: CurrentFrame | None = None
    frames = []
    for moment in moments:
        if moment.frame is not None:
            current = CurrentFrame.after(current, moment.frame)
            frames.append(current)
    return frames


OWN = {keys.TIMESTAMP, keys.RUN, keys.COUNTER, keys.SIMULATION_NAME, keys.STEP, keys.EXCEPTION}


def same(one: CurrentFrame, two: CurrentFrame) -> None:
    for mine, other in ((one.values, two.values), (one.arrays, two.arrays)):
        assert mine.keys() - OWN == other.keys() - OWN
        for key in mine.keys() - OWN:
            if isinstance(mine[key], np.ndarray):
                np.testing.assert_array_equal(mine[key], other[key], err_msg=key)
                assert mine[key].shape == other[key].shape, key
            else:
                assert mine[key] == other[key], key


async def test_what_was_recorded_is_played_again(tmp_path: Path) -> None:
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    path = tmp_path / "run.nanover.zip"
    source = f"{tmp_path / 'ethanol.xyz'}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"
    async with session_of(source, frame_interval_s=0.02, velocities=True) as session:
        async with session.record(path) as recorder:
            await until(lambda: recorder.frames > 3)
            await session.state.update({"avatar.ada": {"name": "Ada", "components": []}, "scene": [1.0] * 10})
            async with session.pull([0], to=(0.0, 0.0, 1.0), scale=10.0):
                before = recorder.frames
                await until(lambda: recorder.frames > before + 10)
            await session.run_command("playback/reset")
            await until(lambda: recorder.runs == 2)
            await session.state.update({"note": "second"}, remove=["avatar.ada"])
            before = recorder.frames
            await until(lambda: recorder.frames > before + 5)
        assert recorder.notices == []
    with NanoverZipReader(path) as reader:
        moments = list(reader)
    recorded = whole_frames(moments)
    assert [frame.index for frame in recorded].count(0) == 2
    assert any(frame.interactions for frame in recorded)

    async with session_of(f"{path}?loop=false&speed=4", paused=True) as session:
        await session.run_command("playback/reset")
        played: list[CurrentFrame] = []
        async with session.frames(0.0, "all") as frames:
            played.append(await anext(frames))
            await session.run_command("playback/play")
            async with asyncio.timeout(30):
                async for frame in frames:
                    if frame.step != played[-1].step:
                        played.append(frame)
                    if frame.step == len(recorded) - 1:
                        break
        assert [frame.step for frame in played] == list(range(len(recorded)))
        for one, two in zip(recorded, played, strict=True):
            same(one, two)
        assert [frame.index for frame in played].count(0) >= 1
        await state_is(session, {"note": "second", "avatar.ada": None, "scene": [1.0] * 10})

        # Any one of them, and as the state was then.
        last_of_first = [frame.index for frame in recorded].index(0, 1) - 1
        await session.run_command("playback/seek", {"index": last_of_first})
        await state_is(session, {"note": None, "avatar.ada": {"name": "Ada", "components": []}})
        frame = await session.get_frame(last_of_first)
        same(recorded[last_of_first], frame)
        frame = await session.get_frame(len(recorded) - 1)
        same(recorded[-1], frame)


def two_systems(path: Path) -> Path:
    """Ten frames of two particles in a second, and as many of three in the next; the state counts along."""
    with NanoverZipWriter.create(path) as writer:
        for number in range(20):
            particles = 2 if number < 10 else 3
            items: dict[str, Any] = {"particle.positions": np.full((particles, 3), number, np.float32)}
            if number % 10 == 0:
                items |= {"particle.names": ["C"] * particles, "particle.count": float(particles)}
            frame = Frame.of(number % 10, items)
            writer.write(number * 0.1, frame, StateChange({"count": float(number)}))
    return path


async def test_another_system_begins_with_index_0_and_its_topology(tmp_path: Path) -> None:
    path = two_systems(tmp_path / "two.nanover.zip")
    async with session_of(f"{path}?speed=5", paused=True) as session:
        seen: list[CurrentFrame] = []
        async with session.frames(0.0, "all") as frames:
            await session.run_command("playback/play")
            async with asyncio.timeout(30):
                async for frame in frames:
                    seen.append(frame)
                    if len(seen) > 21 and frame.step == 12:
                        break
        for frame in seen:
            particles = 2 if (frame.step or 0) < 10 else 3
            assert frame.positions.shape == (particles, 3)
            assert frame.arrays["particle.names"] == ["C"] * particles
            assert frame.particle_count == particles
            assert (frame.positions == frame.step).all()
        starts = [frame.step for frame in seen if frame.index == 0]
        assert starts[:3] in ([0, 10, 0], [0, 0, 10])
        counters = [frame.values[keys.COUNTER] for frame in seen]
        assert counters == sorted(counters)
        assert (await session.status()).particle_count == 3


async def test_one_steps_seeks_by_time_and_stops_at_the_end(tmp_path: Path) -> None:
    path = two_systems(tmp_path / "two.nanover.zip")
    async with session_of(f"{path}?loop=false&speed=100", paused=True) as session:
        async with session.frames(0.0, "all") as frames:
            await state_is(session, {"count": 0.0})
            await session.run_command("playback/step")
            await state_is(session, {"count": 1.0})
            await session.run_command("playback/seek", {"time": 1.55})
            await state_is(session, {"count": 15.0})
            async with asyncio.timeout(10):
                async for frame in frames:
                    if frame.step == 15:
                        break
            await session.run_command("playback/play")
            await state_is(session, {"count": 19.0})
            async with asyncio.timeout(10):
                while (await session.status()).state.name != "PAUSED":
                    await asyncio.sleep(0.01)
            await session.run_command("playback/play")
            async with asyncio.timeout(10):
                async for frame in frames:
                    if frame.step == 0:
                        break
            await state_is(session, {"count": 19.0})
        for arguments in ({}, {"index": 1, "time": 1.0}):
            with pytest.raises(InvalidArgumentError, match="one of index and time"):
                await session.run_command("playback/seek", arguments)


async def test_the_replayed_state_ends_with_the_recording(tmp_path: Path) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"))
    path = two_systems(tmp_path / "two.nanover.zip")
    live = f"{tmp_path / 'water.xyz'}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"
    async with session_of(str(path), live, paused=True) as session:
        await session.run_command("playback/seek", {"index": 4})
        await state_is(session, {"count": 4.0})
        await session.run_command("playback/load", {"index": 1})
        await state_is(session, {"count": None})
        with pytest.raises(FailedPreconditionError):
            await session.run_command("playback/seek", {"time": 1.0})
        await session.run_command("playback/load", {"index": 0})
        await state_is(session, {"count": 0.0})


async def test_other_recordings_play_at_the_pace_that_is_asked_for(tmp_path: Path) -> None:
    frames = []
    for index in range(6):
        atoms = molecule("H2O")
        atoms.positions[0, 0] = index
        frames.append(atoms)
    write(tmp_path / "water.extxyz", frames)
    text = f"{tmp_path / 'water.extxyz'}?dt=0.05&loop=false"
    async with session_of(text, paused=True) as session, session.frames(0.0, "all") as subscription:
        await session.run_command("playback/play")
        steps: list[int | None] = []
        async with asyncio.timeout(10):
            async for frame in subscription:
                steps.append(frame.step)
                if frame.step == 5:
                    break
        assert sorted(set(steps), key=lambda step: step or 0) == list(range(6))
        await session.run_command("playback/seek", {"time": 0.12})
        async with asyncio.timeout(10):
            async for frame in subscription:
                if frame.step == 2:
                    break
    with pytest.raises(NarupaError, match="shared state"):
        async with session_of(f"{tmp_path / 'water.extxyz'}?state={tmp_path / 'water.extxyz'}"):
            pass
