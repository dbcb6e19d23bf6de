"""The session's frames in the form of IMD: in its units, and encoded once for all clients that get the same."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.imd_engine_session import NATIVE, Push
from narupa_shared.imd_protocol import INTEGERS, Energies, SessionInfo, Time, frame_message
from narupa_shared.units import KCAL_IN_KJ, NM_IN_ANGSTROM

Vectors = NDArray[np.float32]

# Of energies on the wire, in kJ/mol; length is in A and time in ps in both versions.
ENERGY_UNIT: Final = {2: KCAL_IN_KJ, 3: 1.0}
_LARGEST: Final = float(np.finfo(np.float32).max)
_LARGEST_STEP: Final = 2**53


class WholeFrame(Protocol):
    """All that is known at one instant, in Narupa's units."""

    @property
    def values(self) -> Mapping[str, Any]: ...

    @property
    def arrays(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class System:
    """What may not change while a client is connected.

    Attributes:
        name: Of the simulation.
        particle_count: Of its particles.
        info: What each of its frames holds.
    """

    name: str
    particle_count: int
    info: SessionInfo

    @classmethod
    def of(cls, frame: WholeFrame, version: int) -> System | None:
        """That of a frame; None where it has no positions."""
        positions = vectors(frame, keys.POSITIONS)
        if positions is None or not len(positions):
            return None
        count = len(positions)
        energies = any(number(frame, key) is not None for key in (keys.POTENTIAL, keys.KINETIC))
        if version == 2:
            info = SessionInfo(energies=energies)
        else:
            info = SessionInfo(
                time=number(frame, keys.TIME) is not None,
                energies=energies,
                box=box(frame) is not None,
                velocities=vectors(frame, keys.VELOCITIES, count) is not None,
                forces=vectors(frame, keys.FORCES, count) is not None,
            )
        return cls(str(frame.values.get(keys.SIMULATION_NAME, "")), count, info)


def encoded(frame: WholeFrame, info: SessionInfo, version: int, timestep_ps: float) -> bytes:
    """The frame's messages: those of `info`, which it must have."""
    unit = ENERGY_UNIT[version]
    step = int(min(max(number(frame, keys.STEP) or 0.0, 0.0), _LARGEST_STEP))

    def energy(key: str) -> float:
        return single((number(frame, key) or 0.0) / unit)

    time = energies = None
    if info.time:
        time = Time(timestep_ps, number(frame, keys.TIME) or 0.0, step)
    if info.energies:
        kinetic, potential = energy(keys.KINETIC), energy(keys.POTENTIAL)
        temperature = single(number(frame, keys.TEMPERATURE) or 0.0)
        rest = (0.0,) * 6  # the parts of the potential energy, which frames do not tell
        energies = Energies(min(step, INTEGERS[-1]), temperature, single(kinetic + potential), potential, *rest)

    def scaled(there: bool, array: Vectors | None, factor: float) -> Vectors | None:
        if not there or array is None:
            return None
        with np.errstate(over="ignore"):  # of a simulation that has blown up
            return array * np.float32(factor)

    positions = scaled(True, vectors(frame, keys.POSITIONS), NM_IN_ANGSTROM)
    assert positions is not None
    return frame_message(
        NATIVE,
        positions,
        time=time,
        energies=energies,
        box=scaled(info.box, box(frame), NM_IN_ANGSTROM),
        velocities=scaled(info.velocities, vectors(frame, keys.VELOCITIES), NM_IN_ANGSTROM),
        forces=scaled(info.forces, vectors(frame, keys.FORCES), 1 / NM_IN_ANGSTROM / unit),
    )


def interaction(push: Push, version: int) -> dict[str, Any]:
    """The state of the interaction that a client's forces are."""
    forces = push.forces.astype(np.float64) * (ENERGY_UNIT[version] * NM_IN_ANGSTROM)
    return {
        "interaction_type": "force",
        "particles": push.indices.tolist(),
        "mass_weighted": False,
        "parameters": {"forces": forces.tolist()},
    }


def number(frame: WholeFrame, key: str) -> float | None:
    value = frame.values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def single(value: float) -> float:
    """`value` within what a float32 holds."""
    return min(max(value, -_LARGEST), _LARGEST)


def vectors(frame: WholeFrame, key: str, count: int | None = None) -> Vectors | None:
    """(n, 3); None where there are none, or not `count`."""
    array = frame.arrays.get(key)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.size % 3:
        return None
    rows = array.reshape(-1, 3)
    return None if count is not None and len(rows) != count else rows


def box(frame: WholeFrame) -> Vectors | None:
    """(3, 3), rows are the box vectors."""
    return vectors(frame, keys.BOX, 3)


class ImdFrames:
    """The newest frame, for everybody who waits for the next. A slow reader skips those that it has no time for.

    Attributes:
        count: How many there have been.
        encodings: How many have been encoded.
        ended: Why no more come; None while they do.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.count = 0
        self.encodings = 0
        self.ended: str | None = None
        self._frame: WholeFrame | None = None
        self._system: System | None = None
        self._encoded: dict[SessionInfo, bytes] = {}
        self._timestep_ps = 0.0
        self._last: tuple[float, float] | None = None  # time and step of the frame before
        self._news = asyncio.Event()

    @property
    def system(self) -> System | None:
        """That of the newest frame; None before one with positions has come."""
        return self._system

    def publish(self, frame: WholeFrame) -> None:
        """`frame` is the newest."""
        self.count += 1
        self._frame = frame
        self._encoded.clear()
        self._system = System.of(frame, self.version)
        self._note_pace(frame)
        self._wake()

    def end(self, reason: str) -> None:
        """No more frames come."""
        self.ended = reason
        self._wake()

    def encoded(self, info: SessionInfo) -> bytes:
        """The newest frame; for all who have the same `info` it is encoded once."""
        if info not in self._encoded:
            assert self._frame is not None
            self.encodings += 1
            self._encoded[info] = encoded(self._frame, info, self.version, self._timestep_ps)
        return self._encoded[info]

    async def after(self, count: int) -> None:
        """There has been a frame after the first `count`, or no more will come."""
        while self.count <= count and self.ended is None:
            await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _note_pace(self, frame: WholeFrame) -> None:
        """The length of an integration step, from one frame to the next."""
        time_ps, step = number(frame, keys.TIME), number(frame, keys.STEP)
        if time_ps is None or step is None:
            self._last = None
            return
        before, since = self._last or (0.0, 0.0)
        if step > since and time_ps > before:
            self._timestep_ps = (time_ps - before) / (step - since)
        self._last = time_ps, step
