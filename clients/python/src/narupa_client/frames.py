"""Frames as a reader meets them: always whole, with names for what is in them."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from grpclib.const import Cardinality
from numpy.typing import ArrayLike, NDArray

from narupa_client.connection import CALL_TIMEOUT_S, Connection
from narupa_client.route import Route, TakeOver, followed
from narupa_client.rpc import replies
from narupa_client.subscription import Deliver, Mode
from narupa_shared import frame_keys as keys
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    NoLongerKeptError,
    UnavailableError,
)
from narupa_shared.frames import Frame, decode_frame_response_v1, encode_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.position_codec import PositionDecoder
from narupa_shared.views import EVERYTHING, View

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from MDAnalysis import Universe

_SERVICE: Final = "/narupa.trajectory.v1.TrajectoryService/"
_MODES: Final = {"latest": v1.FRAME_MODE_LATEST, "all": v1.FRAME_MODE_ALL}
# A service that is behind by no more than this many frames of the same run is waited for; at the usual rates that is a second.
_NEAR: Final = 30
# How long a replica may take to catch up with the one that drains; that one serves on for longer.
_PATIENCE_S: Final = 3.0
# Frames between the last of one service and the first of the next that are fetched for who wants all.
_LONGEST_GAP: Final = 256
# How long a service that drains may take to say how it plays.
_STATUS_S: Final = 1.0
_NO_INDICES: Final = np.zeros(0, np.uint32)
_NO_NUMBERS: Final = np.zeros(0, np.float32)
_NO_VECTORS: Final = np.zeros((0, 3), np.float32)


class UserForces(NamedTuple):
    """The forces that users exert, sparse.

    Attributes:
        indices: The particles that feel one, (n,) uint32.
        forces: What each feels, (n, 3) float32, kJ/(mol nm).
    """

    indices: NDArray[np.uint32]
    forces: NDArray[np.float32]


class InteractionAccount(NamedTuple):
    """One interaction at the instant of a frame.

    Attributes:
        energy: kJ/mol.
        work: Done on the particles since it began to act, kJ/mol.
        force: The net force on the particles, of several groups on the first, (3,) float32, kJ/(mol nm).
    """

    energy: float
    work: float
    force: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CurrentFrame:
    """Everything known at one instant, topology included. Arrays are read-only; None is what the source has not.

    Attributes:
        index: 0 for the first frame after a start, load or reset, and of another run.
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
    def particle_indices(self) -> NDArray[np.uint32]:
        """The index of each particle in the whole system, (N,) uint32: what pulls and other clients know it by.

        Counts from 0 unless only some of the particles were asked for.
        """
        indices = self.arrays.get(keys.INDICES)
        return np.arange(self.particle_count, dtype=np.uint32) if indices is None else indices

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
    def energy_time_ps(self) -> float | None:
        """Simulated time that the energies and the temperature are of, ps; None: they are of the frame's own."""
        return self._number(keys.ENERGY_TIME)

    @property
    def total_energy(self) -> float | None:
        """Potential and kinetic energy, kJ/mol, without what users add."""
        potential, kinetic = self.potential_energy, self.kinetic_energy
        return None if potential is None or kinetic is None else potential + kinetic

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

    @property
    def interactions(self) -> dict[str, InteractionAccount]:
        """Each interaction in force by its id: energy, work and net force; empty while there is none."""
        ids = self.arrays.get(keys.INTERACTION_IDS)
        energies = self.arrays.get(keys.INTERACTION_ENERGIES, _NO_NUMBERS)
        work = self.arrays.get(keys.INTERACTION_WORK, _NO_NUMBERS)
        forces = self._vectors(keys.INTERACTION_FORCES)
        if not isinstance(ids, list) or {len(energies), len(work), len(forces)} != {len(ids)}:
            return {}
        return {
            id: InteractionAccount(float(energy), float(done), force)
            for id, energy, done, force in zip(ids, energies, work, forces, strict=True)
        }

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
    def run_id(self) -> str:
        """Which run this is of; another one has nothing to do with the frames before it: not their index, time or particles.

        Live simulations have a new one with each start, load and reset; a recording has the same wherever it is played.
        """
        return str(self.values.get(keys.RUN) or "")

    @property
    def epoch(self) -> int:
        """In which the leader of several replicas made it; each new leader's is higher. 0 from a service that stands alone."""
        epoch = self._number(keys.EPOCH)
        return 0 if epoch is None or not math.isfinite(epoch) else int(epoch)

    @property
    def step(self) -> int | None:
        """Integration steps since the load or reset; of a recording, the number of its frame."""
        step = self._number(keys.STEP)
        return None if step is None or not math.isfinite(step) else int(step)

    @property
    def exception(self) -> str | None:
        """Why the engine last failed, or why there are none of the particles that were asked for; None while all is well."""
        text = self.values.get(keys.EXCEPTION)
        return str(text) if text else None

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table with a row for each particle, by its index in the whole system: what pulls know it by.

        Columns: `name`, `element` (its symbol), `residue`, `residue_id`, `chain`; `x`, `y`, `z`, nm; `vx`, `vy`, `vz`, nm/ps, if
        there are velocities; `user_force_x`, `user_force_y`, `user_force_z`, kJ/(mol nm). None is what the source has not.

        Raises:
            FailedPreconditionError: pandas is not installed.
            InvalidArgumentError: the frame does not fit itself.
        """
        from narupa_client.conversion.tables import particle_table

        return particle_table(self)

    def to_atoms(self) -> Atoms:
        """An ASE Atoms: Å, eV, amu; with its cell, momenta, energy and forces where the frame has them.

        The energy is the potential energy, without that of users; `info["time_ps"]` is the simulated time, ps.

        Raises:
            FailedPreconditionError: ASE is not installed.
            InvalidArgumentError: the frame does not fit itself.
        """
        from narupa_client.conversion.atoms import atoms_of

        atoms: Atoms = atoms_of(self.as_frame())
        return atoms

    def to_universe(self) -> Universe:
        """An MDAnalysis Universe of this one frame, as `FrameSeries.to_universe`."""
        from narupa_client.series import FrameSeries

        return FrameSeries.of([self]).to_universe()

    def as_frame(self) -> Frame:
        """The same as what services and recordings call a frame."""
        return Frame(self.index, dict(self.values), dict(self.arrays))

    def _number(self, key: str) -> float | None:
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _vectors(self, key: str) -> NDArray[np.float32]:
        array = self.arrays.get(key)
        return _NO_VECTORS if array is None or array.size % 3 else array.reshape(-1, 3)


class PositionsLostError(Exception):
    """Positions have come that build on others that have not."""


class FrameReplies:
    """The reply type of a call that answers with frames: the shared codec, in the shape that a gRPC stack wants."""

    def __init__(self) -> None:
        """For one call: positions to a precision build on those that came before."""
        self._positions = PositionDecoder()

    def FromString(self, data: bytes) -> Frame:
        try:
            return decode_frame_response_v1(data, self._positions)
        except FailedPreconditionError as error:
            raise PositionsLostError(str(error)) from None


async def follow_frames(
    connection: Connection,
    interval_s: float,
    mode: Mode,
    deliver: Deliver[CurrentFrame],
    place: v1.Place | None = None,
    view: View = EVERYTHING,
) -> None:
    """Subscribes, from `place` on where that can be, and delivers whole frames of `view` until the stream ends."""
    request = v1.SubscribeFramesRequest(
        mode=_MODES[mode], frame_interval_s=interval_s, place=place, view=view.message()
    )
    path = f"{_SERVICE}SubscribeFrames"
    current: CurrentFrame | None = None
    while True:
        reply_type: Any = FrameReplies()
        came = 0
        try:
            async with connection.stream(
                path, Cardinality.UNARY_STREAM, v1.SubscribeFramesRequest, reply_type
            ) as stream:
                await stream.send_message(request, end=True)
                async for frame in replies(stream):
                    came += 1
                    current = CurrentFrame.after(current if came > 1 else None, frame)
                    await deliver(current)
            return
        except PositionsLostError as error:
            if not came:
                raise UnavailableError(f"the trajectory service sends frames that build on nothing: {error}") from None
            # A new stream begins with a whole frame.


async def get_frame(connection: Connection | Route, index: int | None, view: View = EVERYTHING) -> CurrentFrame:
    """What `view` has of one whole frame. Raises as `Session.get_frame`."""
    reply_type: Any = FrameReplies()
    request = v1.GetFrameRequest(index=index, view=view.message())
    return CurrentFrame.after(None, await connection.call(f"{_SERVICE}GetFrame", request, reply_type, CALL_TIMEOUT_S))


def wanted_view(
    fields: Collection[str] | None,
    selection: str | None,
    particles: Sequence[int] | NDArray[np.integer[Any]] | None,
    precision_nm: float | None,
) -> View:
    """The view of these. Raises: InvalidArgumentError, as `View.of`, and for what would be nothing at all."""
    if isinstance(fields, str):
        raise InvalidArgumentError("fields", fields, "must be a list of names")
    for name, given in (("fields", fields), ("particles", particles), ("selection", selection)):
        if given is not None and not len(given):
            raise InvalidArgumentError(name, given, "names nothing; leave it out to have all")
    return View.of(
        () if fields is None else fields,
        () if particles is None else particles,
        selection or "",
        precision_nm or 0.0,
    )


def publish_request(
    values: Mapping[str, float | str | bool], arrays: Mapping[str, ArrayLike], index: int
) -> v1.PublishFrameRequest:
    """The request to show these. Raises: InvalidArgumentError, naming the key that cannot be sent."""
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 2**64:
        raise InvalidArgumentError("index", index, "must be a whole number of 0 or more")
    for key, value in values.items():
        if not isinstance(value, str | bool | numbers.Real):
            raise InvalidArgumentError(f"values[{key!r}]", value, "must be a number, a text or a truth value")
    sent = {key: value if isinstance(value, str | bool) else float(value) for key, value in values.items()}
    frame = Frame(index, sent, {key: _sendable(key, array) for key, array in arrays.items()})
    return v1.PublishFrameRequest(frame=v1.Frame.FromString(encode_v1(frame)))


def _sendable(key: str, given: ArrayLike) -> NDArray[np.float32] | NDArray[np.uint32] | list[str]:
    name = f"arrays[{key!r}]"
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InvalidArgumentError(name, given, f"is no array: {error}") from None
    if array.size == 0 and isinstance(given, list):  # which says nothing of its type
        return np.zeros(array.shape, np.float32)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind == "U" and array.ndim == 1:
        return [str(item) for item in array]
    if array.dtype.kind in "iu" and (array.size == 0 or (array.min() >= 0 and array.max() < 2**32)):
        return array.astype(np.uint32)
    raise InvalidArgumentError(name, given, "must hold floats, whole numbers from 0 to 2^32 - 1, or texts in one row")


async def follow_everywhere(
    route: Route, interval_s: float, mode: Mode, deliver: Deliver[CurrentFrame], view: View = EVERYTHING
) -> None:
    """As `follow_frames`, of whichever service is in use; one that is left hands over without a gap or a step back."""
    last: CurrentFrame | None = None
    moving: CatchUp | None = None

    async def noted(frame: CurrentFrame) -> None:
        nonlocal last
        await deliver(frame)
        last = frame

    async def follow(connection: Connection, deliver: Deliver[CurrentFrame]) -> None:
        place = await moving.place() if moving is not None and moving.connection is connection else None
        await follow_frames(connection, interval_s, mode, deliver, place, view)

    def take_over(left: Connection, connection: Connection) -> TakeOver[CurrentFrame]:
        nonlocal moving
        moving = CatchUp(left, connection, lambda: last, mode, view)
        return moving.frames_after

    await followed(route, follow, noted, take_over)


class Fence:
    """Keeps the frames of replicas in order: another may be behind the one that was lost, and a leader that was cut off may not
    know yet that it is none any more."""

    def __init__(self) -> None:
        self._last = ("", 0, 0)  # run, epoch, index

    def before(self, deliver: Deliver[CurrentFrame]) -> Deliver[CurrentFrame]:
        """`deliver`, for what is newer than all that has passed here."""

        async def admitted(frame: CurrentFrame) -> None:
            run_id, epoch, index = self._last
            again = frame.run_id == run_id and 0 < frame.index <= index
            if not frame.epoch or frame.epoch > epoch or (frame.epoch == epoch and not again):
                self._last = (frame.run_id, max(epoch, frame.epoch), frame.index)
                await deliver(frame)

        return admitted


class CatchUp:
    """Where the frames of the next service go on from those of the present one.

    - Another run is taken as it is, from its index 0 on.
    - A recording that nobody watches at the next service goes on there from where it was. Where it is watched at another
      frame already, a reader of every frame goes on at its own, at that service's pace, until somebody seeks or resets; a
      reader of the latest one is taken there.
    - A replica of the same live run is waited for until it is past the last frame that was delivered; while it is far behind,
      the present service goes on.

    Of the same run no frame is delivered twice, to a reader of every frame none is missing, and the index goes on.
    """

    def __init__(
        self,
        left: Connection,
        connection: Connection,
        last: Callable[[], CurrentFrame | None],
        mode: Mode,
        view: View = EVERYTHING,
    ) -> None:
        """
        Args:
            left: To the present service.
            connection: To the next service.
            last: The frame that was delivered last; None before the first.
            mode: Of the subscription; in "all" mode, frames between the two services are fetched.
            view: Of the subscription.
        """
        self.connection = connection
        self._left = left
        self._last = last
        self._all = mode == "all"
        self._view = view
        self._asked: int | None = None
        self._since = time.monotonic()
        self._status: v1.GetStatusResponse | None = None
        self._before: int | None = None
        self._taken_over = False
        self._apart = False
        self._level = False
        self._shift = 0

    async def place(self) -> v1.Place | None:
        """Where the reader is in its run, and how that is played; None where there is nothing to go on from."""
        place = v1.Place()
        with suppress(NarupaError):  # not worth waiting for: how it is played is then up to the next service
            status = await self._status_of(self._left, _STATUS_S)
            place.paused = status.state == v1.ENGINE_STATE_PAUSED
            place.dynamics_interval_s = status.dynamics_interval_s
        last = self._last()
        if last is None or not last.run_id or last.step is None or last.step < 0:
            return None
        place.run_id, place.frame = last.run_id, last.step
        self._asked = place.frame if place.paused else place.frame + 1
        return place

    async def frames_after(self, frame: CurrentFrame) -> Sequence[CurrentFrame] | None:
        """What to deliver once `frame` has come; None while the present service, which is far ahead, shall go on."""
        last = self._last()
        if self._level or last is None:
            self._level = True
            if frame.index == 0:
                self._shift = 0
            return [self._numbered(frame)]
        if not frame.run_id or frame.run_id != last.run_id:
            self._level = True
            self._shift = 0
            return [replace(frame, index=0)]
        if self._status is None:
            self._status = await self._status_of(self.connection, CALL_TIMEOUT_S)
            self._since = time.monotonic()
        if self._status.live or frame.step is None or last.step is None:
            return await self._replica(frame, last)
        return await self._recording(frame, frame.step, last, last.step, max(1, self._status.frame_count))

    async def _replica(self, frame: CurrentFrame, last: CurrentFrame) -> Sequence[CurrentFrame] | None:
        if frame.index > last.index:
            self._level = True
            gap = range(max(last.index + 1, frame.index - _LONGEST_GAP), frame.index) if self._all else ()
            return [*(await self._read(gap)), frame]
        self._level = time.monotonic() - self._since > _PATIENCE_S
        if self._level:
            return [frame]
        return [] if last.index - frame.index <= _NEAR else None

    async def _recording(
        self, frame: CurrentFrame, here: int, last: CurrentFrame, there: int, count: int
    ) -> Sequence[CurrentFrame]:
        """As `frames_after`; `here` and `there` are the numbers of the two frames of the `count` that go round."""
        before, self._before = self._before, here
        if before is None and self._asked is not None and here == self._asked % count:
            self._taken_over = True  # as it was asked to; what is shown meanwhile comes once more, and is left out
        moved = 0 if before is None else (here - before) % count
        if before is not None and (frame.index == 0 or (self._all and moved > 1)):
            return [self._join(frame, last)]  # somebody has moved it, for everybody
        if self._apart:
            return await self._read([(there + 1) % count], last) if moved else []
        ahead, behind = (here - there) % count, (there - here) % count
        if self._taken_over and self._all:
            again = ahead != 1
        else:
            again = not behind or (behind < ahead and (self._taken_over or behind <= _NEAR))
        if again:
            return []
        if ahead > _LONGEST_GAP and self._all:
            self._apart = True
            return []
        gap = await self._read([(there + step) % count for step in range(1, ahead)], last) if self._all else []
        return [*gap, self._join(frame, gap[-1] if gap else last)]

    def _join(self, frame: CurrentFrame, last: CurrentFrame) -> CurrentFrame:
        """From now on the reader gets what that service sends; the index goes on from `last`, unless it starts over."""
        self._level = True
        self._shift = last.index + 1 - frame.index if frame.index or self._before is None else 0
        return self._numbered(frame)

    def _numbered(self, frame: CurrentFrame) -> CurrentFrame:
        return replace(frame, index=frame.index + self._shift) if self._shift else frame

    async def _read(self, indices: Iterable[int], last: CurrentFrame | None = None) -> list[CurrentFrame]:
        """The frames of these indices, as far as they are there; numbered from `last` on, where given."""
        found: list[CurrentFrame] = []
        for index in indices:
            with suppress(NoLongerKeptError):
                frame = await get_frame(self.connection, index, self._view)
                found.append(frame if last is None else replace(frame, index=last.index + 1 + len(found)))
        return found

    async def _status_of(self, connection: Connection, timeout_s: float) -> v1.GetStatusResponse:
        return await connection.call(f"{_SERVICE}GetStatus", v1.GetStatusRequest(), v1.GetStatusResponse, timeout_s)
