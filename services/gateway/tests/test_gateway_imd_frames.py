"""Frames in the form of IMD: the units of each version, what a session holds, and one encoding for all."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from narupa_gateway.imd_frames import ImdFrames, System, interaction
from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.imd_engine_session import NATIVE, EngineSession, Push
from narupa_shared.imd_protocol import ClientSession, SessionInfo, Time
from narupa_shared.imd_protocol import Frame as ImdFrame
from narupa_shared.interactions import Interaction

POSITIONS = np.arange(9, dtype=np.float32).reshape(3, 3)


def frame(step: int = 10, /, **changes: Any) -> Frame:
    items = {
        keys.POSITIONS: POSITIONS + step,
        keys.VELOCITIES: -POSITIONS,
        keys.FORCES: POSITIONS * 2,
        keys.BOX: np.diag([1.0, 2.0, 3.0]).astype(np.float32),
        keys.TIME: 0.002 * step,
        keys.STEP: float(step),
        keys.POTENTIAL: -41.84,
        keys.KINETIC: 20.92,
        keys.TEMPERATURE: 300.0,
        keys.SIMULATION_NAME: "argon",
    }
    changed = items | {key.replace("__", "."): value for key, value in changes.items()}
    return Frame.of(1, {key: value for key, value in changed.items() if value is not None})


def sent(frames: ImdFrames, version: int) -> ImdFrame:
    """The newest frame as a client reads it."""
    system = frames.system
    assert system is not None
    client = ClientSession(system.particle_count)
    client.feed(EngineSession(version, system.info, system.particle_count, 1).greeting())
    (read,) = client.feed(frames.encoded(system.info))
    return read


def test_version_3_has_everything_in_its_units() -> None:
    frames = ImdFrames(3)
    frames.publish(frame())
    assert frames.system == System("argon", 3, SessionInfo(True, True, True, True, False, True, True))
    read = sent(frames, 3)
    np.testing.assert_allclose(read.positions, (POSITIONS + 10) * 10)
    assert read.velocities is not None and read.forces is not None and read.box is not None
    np.testing.assert_allclose(read.velocities, -POSITIONS * 10)
    np.testing.assert_allclose(read.forces, POSITIONS * 0.2)
    np.testing.assert_allclose(read.box, np.diag([10, 20, 30]))
    assert read.time == Time(pytest.approx(0.002), pytest.approx(0.02), 10)  # type: ignore[arg-type]
    energies = read.energies
    assert energies is not None
    assert (energies.step, energies.temperature) == (10, 300)
    assert energies.potential == pytest.approx(-41.84) and energies.total == pytest.approx(-20.92)
    assert energies.bonds == energies.van_der_waals == energies.impropers == 0


def test_version_2_has_energies_in_kilocalories_and_coordinates() -> None:
    frames = ImdFrames(2)
    frames.publish(frame())
    system = frames.system
    assert system is not None and system.info == SessionInfo(energies=True)
    read = sent(frames, 2)
    np.testing.assert_allclose(read.positions, (POSITIONS + 10) * 10)
    assert read.energies is not None and read.energies.potential == pytest.approx(-10)
    assert read.velocities is None and read.box is None and read.time is None


@pytest.mark.parametrize("missing", [keys.VELOCITIES, keys.FORCES, keys.BOX, keys.TIME, keys.POTENTIAL, keys.KINETIC])
def test_what_a_simulation_lacks_is_not_announced(missing: str) -> None:
    frames = ImdFrames(3)
    frames.publish(frame(10, **{missing.replace(".", "__"): None}))
    read = sent(frames, 3)
    there = [read.velocities, read.forces, read.box, read.time, read.energies]
    expected = {keys.VELOCITIES: 4, keys.FORCES: 4, keys.BOX: 4, keys.TIME: 4}.get(missing, 5)
    assert sum(item is not None for item in there) == expected


@pytest.mark.parametrize(
    "wild",
    [
        {keys.POTENTIAL: 1e300, keys.KINETIC: 1e300},
        {keys.POTENTIAL: float("nan")},
        {keys.STEP: 1e300},
        {keys.STEP: -5.0},
        {keys.STEP: 2.0**40},
        {keys.TEMPERATURE: "hot"},
        {keys.POSITIONS: np.full((3, 3), np.inf, np.float32)},
        {keys.POSITIONS: np.full((3, 3), 1e38, np.float32)},
    ],
)
def test_a_simulation_gone_wild_is_encoded_all_the_same(wild: dict[str, Any]) -> None:
    for version in (2, 3):
        frames = ImdFrames(version)
        frames.publish(frame(**{key.replace(".", "__"): value for key, value in wild.items()}))
        sent(frames, version)


def test_frames_without_positions_are_of_no_system() -> None:
    frames = ImdFrames(3)
    for positions in (None, np.zeros((0, 3), np.float32), np.zeros(4, np.float32)):
        frames.publish(frame(particle__positions=positions))
        assert frames.system is None


def test_a_frame_is_encoded_once_for_all_who_get_the_same() -> None:
    frames = ImdFrames(3)
    frames.publish(frame())
    assert frames.system is not None
    first = frames.encoded(frames.system.info)
    assert frames.encoded(frames.system.info) is first and frames.encodings == 1
    frames.publish(frame(11))
    assert frames.encoded(frames.system.info) != first and frames.encodings == 2


def test_the_timestep_is_that_between_frames() -> None:
    frames = ImdFrames(3)
    for step, time_ps, expected in ((100, 50.0, 0.5), (110, 50.02, 0.002), (0, 0.0, 0.002), (5, 0.005, 0.001)):
        frames.publish(frame(step, system__simulation__time=time_ps))
        time = sent(frames, 3).time
        assert time is not None and time.timestep == pytest.approx(expected)


async def test_waiting_ends_with_the_next_frame_or_with_the_last() -> None:
    frames = ImdFrames(3)
    waiting = [asyncio.ensure_future(frames.after(count)) for count in (0, 1)]
    await asyncio.sleep(0)
    frames.publish(frame())
    await waiting[0]
    assert not waiting[1].done()
    frames.end("no more")
    await waiting[1]
    assert frames.ended == "no more"


@pytest.mark.parametrize(("version", "unit"), [(2, 41.84), (3, 10.0)])
def test_forces_become_an_interaction_in_our_units(version: int, unit: float) -> None:
    push = Push(np.array([1, 2], np.int32), np.array([[1, 0, 0], [0, -2, 3]], np.float32))
    made = Interaction.from_state("imd-x", interaction(push, version), particle_count=3)
    assert (made.kind, made.particles, made.mass_weighted) == ("force", (1, 2), False)
    np.testing.assert_allclose(made.parameters["forces"], push.forces * unit, rtol=1e-6)
    assert NATIVE in "<>"
