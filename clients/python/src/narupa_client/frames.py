"""Frames as a reader meets them: always whole, with names for what is in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from grpclib.const import Cardinality
from numpy.typing import NDArray

from narupa_client.connection import CALL_TIMEOUT_S, Connection
from narupa_client.route import Route, followed
from narupa_client.rpc import replies
from narupa_client.subscription import Deliver, Mode
from narupa_shared import frame_keys as keys
from narupa_shared.errors import NoLongerKeptError
from narupa_shared.frames import Frame, decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1

_SERVICE: Final = "/narupa.trajectory.v1.TrajectoryService/"
_MODES: Final = {"latest": v1.FRAME_MODE_LATEST, "all": v1.FRAME_MODE_ALL}
# The next service is the same run, a little behind, when it is no further behind than this.
_NEAR: Final = 30
# How long the next service may take to catch up with the one that drains; that one serves on for longer.
_PATIENCE_S: Final = 3.0
# Frames between the last of one service and the first of the next that are fetched for who wants all.
_LONGEST_GAP: Final = 256
_NO_INDICES: Final = np.zeros(0, np.uint32)
_NO_VECTORS: Final = np.zeros((0, 3), np.float32)


class UserForces(NamedTuple):
    """The forces that users exert, sparse.

    Attributes:
        indices: The particles that feel one, (n,) uint32.
        forces: What each feels, (n, 3) float32, kJ/(mol nm).
    """

    indices: NDArray[np.uint32]
    forces: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CurrentFrame:
    """Everything known at one instant, topology included. Arrays are read-only; None is what the source has not.

    Attributes:
        index: 0 for the first frame after a start, load or reset.
        values: Numbers, texts and truth values by key.
        arrays: Arrays and lists of text by key.
    """

    index: int
    values: Mapping[str, Any]
    arrays: Mapping[str, Any]

    @classmethod
    def after(cls, before: CurrentFrame | None, newer: Frame) -> CurrentFrame:
        """The whole frame once `newer` has come; one of index 0, or the first, brings everything there is."""
        if before is None or newer.index == 0:
            return cls(newer.index, newer.values, newer.arrays)
        return cls(newer.index, {**before.values, **newer.values}, {**before.arrays, **newer.arrays})

    @property
    def positions(self) -> NDArray[np.float32]:
        """(N, 3) float32, nm; no rows before the first positions came."""
        return self._vectors(keys.POSITIONS)

    @property
    def velocities(self) -> NDArray[np.float32] | None:
        """(N, 3) float32, nm/ps."""
        return self._vectors(keys.VELOCITIES) if keys.VELOCITIES in self.arrays else None

    @property
    def elements(self) -> NDArray[np.uint32] | None:
        """Atomic numbers, (N,) uint32."""
        return self.arrays.get(keys.ELEMENTS)

    @property
    def bonds(self) -> NDArray[np.uint32] | None:
        """Pairs of particle indices, (B, 2) uint32."""
        pairs = self.arrays.get(keys.BOND_PAIRS)
        return None if pairs is None else pairs.reshape(-1, 2)

    @property
    def particle_count(self) -> int:
        """N, from the frame or else from its positions."""
        count = self.values.get(keys.PARTICLE_COUNT)
        return len(self.positions) if count is None else int(count)

    @property
    def box(self) -> NDArray[np.float32] | None:
        """Box vectors as rows, (3, 3) float32, nm; None where there is no box."""
        vectors = self.arrays.get(keys.BOX)
        return vectors.reshape(3, 3) if vectors is not None and vectors.size == 9 else None

    @property
    def time_ps(self) -> float | None:
        """Simulated time, ps."""
        return self._number(keys.TIME)

    @property
    def potential_energy(self) -> float | None:
        """kJ/mol, without what users add."""
        return self._number(keys.POTENTIAL)

    @property
    def kinetic_energy(self) -> float | None:
        """kJ/mol."""
        return self._number(keys.KINETIC)

    @property
    def temperature(self) -> float | None:
        """K."""
        return self._number(keys.TEMPERATURE)

    @property
    def user_energy(self) -> float | None:
        """Energy of all interactions, kJ/mol."""
        return self._number(keys.USER_ENERGY)

    @property
    def user_work(self) -> float | None:
        """Work that users did since the start, load or reset, kJ/mol."""
        return self._number(keys.USER_WORK)

    @property
    def user_forces(self) -> UserForces:
        """The forces of users, sparse; empty while nobody pulls."""
        indices = self.arrays.get(keys.USER_INDEX, _NO_INDICES)
        forces = self._vectors(keys.USER_SPARSE)
        return UserForces(indices, forces) if len(indices) == len(forces) else UserForces(_NO_INDICES, _NO_VECTORS)

    def dense_user_forces(self) -> NDArray[np.float32]:
        """The forces of users on every particle, (N, 3) float32, kJ/(mol nm)."""
        dense = np.zeros((self.particle_count, 3), np.float32)
        indices, forces = self.user_forces
        dense[indices] = forces
        return dense

    @property
    def simulation_name(self) -> str | None:
        """What runs."""
        name = self.values.get(keys.SIMULATION_NAME)
        return str(name) if name else None

    @property
    def exception(self) -> str | None:
        """Why the engine last failed; None while all is well."""
        text = self.values.get(keys.EXCEPTION)
        return str(text) if text else None

    def _number(self, key: str) -> float | None:
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _vectors(self, key: str) -> NDArray[np.float32]:
        array = self.arrays.get(key)
        return _NO_VECTORS if array is None or array.size % 3 else array.reshape(-1, 3)


class FrameReply:
    """The reply type of every call that answers with frames: the shared codec, in the shape that a gRPC stack wants."""

    @staticmethod
    def FromString(data: bytes) -> Frame:
        return decode_frame_response_v1(data)


async def follow_frames(connection: Connection, interval_s: float, mode: Mode, deliver: Deliver[CurrentFrame]) -> None:
    """Subscribes, and delivers whole frames until the stream ends."""
    request = v1.SubscribeFramesRequest(mode=_MODES[mode], frame_interval_s=interval_s)
    reply_type: Any = FrameReply
    path = f"{_SERVICE}SubscribeFrames"
    current: CurrentFrame | None = None
    async with connection.stream(path, Cardinality.UNARY_STREAM, v1.SubscribeFramesRequest, reply_type) as stream:
        await stream.send_message(request, end=True)
        async for frame in replies(stream):
            current = CurrentFrame.after(current, frame)
            await deliver(current)


async def get_frame(connection: Connection | Route, index: int | None) -> CurrentFrame:
    """One whole frame. Raises as `Session.get_frame`."""
    reply_type: Any = FrameReply
    frame = await connection.call(f"{_SERVICE}GetFrame", v1.GetFrameRequest(index=index), reply_type, CALL_TIMEOUT_S)
    return CurrentFrame.after(None, frame)


async def follow_everywhere(route: Route, interval_s: float, mode: Mode, deliver: Deliver[CurrentFrame]) -> None:
    """As `follow_frames`, of whichever service is in use; one that is left hands over without a gap or a step back."""
    last: int | None = None

    async def noted(frame: CurrentFrame) -> None:
        nonlocal last
        await deliver(frame)
        last = frame.index

    async def follow(connection: Connection, deliver: Deliver[CurrentFrame]) -> None:
        await follow_frames(connection, interval_s, mode, deliver)

    await followed(route, follow, noted, lambda connection: CatchUp(connection, lambda: last, mode).frames_after)


class CatchUp:
    """Where the frames of the next service go on from those of the present one.

    A service of the same run, such as a replica, is waited for until it is past the last frame that was delivered; while
    it is far behind, the present one goes on. A recording that plays further behind is read from the frame after the last one on,
    as fast as that service plays. A live simulation that does not catch up is another one, and its frames are taken as
    they come.
    """

    def __init__(self, connection: Connection, last: Callable[[], int | None], mode: Mode) -> None:
        """
        Args:
            connection: To the next service.
            last: The index of the frame that was delivered last; None before the first.
            mode: Of the subscription; in "all" mode, frames between the two services are fetched.
        """
        self._connection = connection
        self._last = last
        self._fill = mode == "all"
        self._since = time.monotonic()
        self._before: int | None = None
        self._live: bool | None = None
        self._level = False

    async def frames_after(self, frame: CurrentFrame) -> Sequence[CurrentFrame] | None:
        """What to deliver once `frame` has come; None while the present service, which is far ahead, shall go on."""
        last, before, self._before = self._last(), self._before, frame.index
        if self._level or last is None:
            return [frame]
        if frame.index > last:
            self._level = True
            return [*(await self._between(last + 1, frame.index) if self._fill else ()), frame]
        if before is not None and frame.index < before:  # it started over: everybody does
            self._level = True
            return [frame]
        if self._live is None:
            status = await self._connection.call(f"{_SERVICE}GetStatus", v1.GetStatusRequest(), v1.GetStatusResponse)
            self._live = status.live
            self._since = time.monotonic()
        if not self._live:
            ahead = last + (1 if before is None else frame.index - before)
            return await self._between(ahead, ahead + 1) if ahead > last else []
        self._level = time.monotonic() - self._since > _PATIENCE_S
        if self._level:
            return [frame]
        return [] if last - frame.index <= _NEAR else None

    async def _between(self, start: int, stop: int) -> list[CurrentFrame]:
        """The frames `start` to before `stop`, as far as they are there."""
        found: list[CurrentFrame] = []
        for index in range(max(start, stop - _LONGEST_GAP), stop):
            with suppress(NoLongerKeptError):
                found.append(await get_frame(self._connection, index))
        return found
