"""A recording of a session, played again: its frames, at the times at which they came, and its shared state.

Frames of such recordings carry what was new, so a whole frame is made of several: of those that a run begins with, and of the
last ones before it. Of a run that is played through, it is made of all.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError, NoLongerKeptError
from narupa_shared.frames import Frame
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.recordings.opening import open_recording
from narupa_shared.recordings.recording import Moment, OpenRecording, StateChange
from narupa_trajectory.sources.recorded import Moved, Pace
from narupa_trajectory.sources.recording_source import content_id
from narupa_trajectory.sources.source import Snapshot, SourceInfo, TopologyValue

log = structlog.get_logger(__name__)

# A run's topology is in its first frames; what changes with time, in each or nearly so. Frames to be looked at for either.
HEAD_FRAMES: Final = 8
TAIL_FRAMES: Final = 16
# So many changes of the state lie between two places at which all of it is kept.
STATE_STRIDE: Final = 1000
# What the service says of its own frames.
_SERVICES_OWN: Final = frozenset(
    {keys.TIMESTAMP, keys.RUN, keys.COUNTER, keys.SIMULATION_NAME, keys.STEP, keys.EXCEPTION}
)
# What changes with time, even where a recording has it once.
_CHANGING: Final = frozenset(
    {
        keys.POSITIONS,
        keys.VELOCITIES,
        keys.FORCES,
        keys.SYSTEM_FORCES,
        keys.BOX,
        keys.KINETIC,
        keys.POTENTIAL,
        keys.ENERGY_TIME,
        keys.TEMPERATURE,
        keys.TIME,
        keys.USER_ENERGY,
        keys.USER_WORK,
        keys.USER_INDEX,
        keys.USER_SPARSE,
        keys.INTERACTION_IDS,
        keys.INTERACTION_ENERGIES,
        keys.INTERACTION_WORK,
        keys.INTERACTION_FORCES,
    }
)
_NO_POSITIONS: Final = np.empty((0, 3), np.float32)


class ReplaySource:
    """Plays a recording. Nothing in it can be pulled."""

    def __init__(self, name: str, recording: OpenRecording, pace: Pace, content_id: str = "") -> None:
        """
        Raises:
            InvalidArgumentError: it has no frames, or the first cannot be read.
        """
        self._recording = recording
        self._pace = pace
        contents = recording.contents
        self._times: NDArray[np.float64] = contents.times_s
        self._frame_moments: list[int] = np.flatnonzero(contents.frames).tolist()
        if not self._frame_moments:
            raise InvalidArgumentError("input", str(recording.path), "has no frames")
        recording.read(self._frame_moments[0])
        indices = contents.indices[self._frame_moments]
        self._starts: list[int] = sorted({0, *np.flatnonzero(indices == 0).tolist()})  # frames that begin a run
        self._complained = False
        self._moment = 0
        self._number = -1
        self._whole = Frame()
        self._topology: tuple[int, dict[str, Any]] = (-1, {})
        self._told_run = -1
        self._states = StateTrack(recording)
        self._pending: StateChange | None = None
        self.seek(0)
        self._info = SourceInfo(
            name,
            self._particle_count,
            live=False,
            frame_count=len(self._frame_moments),
            content_id=content_id,
            frame_interval_s=self._frame_interval_s(),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def loops(self) -> bool:
        return self._pace.loops

    def topology(self) -> Mapping[str, TopologyValue]:
        self._told_run = self._run
        return self._topology_of(self._run)

    def take_topology(self) -> Mapping[str, TopologyValue] | None:
        return None if self._told_run == self._run else self.topology()

    def take_state(self) -> StateChange | None:
        change, self._pending = self._pending, None
        return change

    # Going on.

    def pace_s(self, interval_s: float) -> float:
        following = self._moment + 1
        if following >= len(self._times):
            return self._pace.scaled(interval_s)
        if self._pace.frame_interval_s is not None:
            frame_next = (
                self._number + 1 < len(self._frame_moments) and self._frame_moments[self._number + 1] == following
            )
            return self._pace.scaled(self._pace.frame_interval_s) if frame_next else 0.0
        return self._pace.scaled(float(self._times[following] - self._times[self._moment]))

    def move(self) -> Moved:
        if self._moment + 1 >= len(self._times):
            return "end"
        number = self._number + 1
        is_frame = number < len(self._frame_moments) and self._frame_moments[number] == self._moment + 1
        self._moment += 1
        moment = self._read(self._moment)
        if moment.state is not None:
            self._changed(self._states.went(self._moment, moment.state))
        if not is_frame:
            return "other"
        self._take(number, moment.frame)
        return "frame"

    def advance(self, steps: int) -> bool:
        if self._number + 1 >= len(self._frame_moments):
            return False
        while self.move() == "other":
            pass
        return True

    def seek(self, index: int) -> None:
        self._check(index)
        self._whole, self._number = self._assembled(index), index
        self._topology_of(self._run)
        self._rebase(self._run)
        self._moment = self._frame_moments[index]
        self._pending = StateChange(self._states.at(self._moment), whole=True)

    def seek_time(self, time_s: float) -> None:
        moment = bisect.bisect_right(self._times, time_s) - 1
        self.seek(max(0, bisect.bisect_right(self._frame_moments, moment) - 1))

    def reset(self) -> None:
        self.seek(0)

    def checkpoint(self) -> bytes:
        return b"frame %d" % self._number

    def restore(self, checkpoint: bytes) -> None:
        word, _, digits = checkpoint.partition(b" ")
        if word != b"frame" or not digits.isdigit() or len(digits) > 12 or int(digits) >= len(self._frame_moments):
            reason = f"is not of a recording of {len(self._frame_moments)} frames"
            raise InvalidArgumentError("checkpoint", checkpoint[:40], reason)
        self.seek(int(digits))

    def close(self) -> None:
        self._recording.close()

    def _frame_interval_s(self) -> float | None:
        if self._pace.frame_interval_s is not None:
            return self._pace.scaled(self._pace.frame_interval_s)
        if len(self._frame_moments) < 2:
            return None
        return self._pace.scaled(float(np.median(np.diff(self._times[self._frame_moments]))))

    # Frames.

    def snapshot(self, velocities: bool = False) -> Snapshot:
        topology = self._topology_of(self._run)
        changing = {key: item for key, item in _items(self._whole) if key in _CHANGING or topology.get(key) is not item}
        return _snapshot(self._number, self._whole, changing)

    def peek(self, index: int, velocities: bool) -> Snapshot:
        self._check(index)
        whole = self._assembled(index)
        topology = self._topology_of(self._run_of(index))
        return _snapshot(index, whole, {**topology, **dict(_items(whole))})

    @property
    def _run(self) -> int:
        return self._run_of(self._number)

    def _run_of(self, number: int) -> int:
        """The frame with which the run of frame `number` begins."""
        return self._starts[bisect.bisect_right(self._starts, number) - 1]

    @property
    def _particle_count(self) -> int:
        return int(float(self._topology_of(self._run)[keys.PARTICLE_COUNT]))

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._frame_moments):
            count = len(self._frame_moments)
            raise NoLongerKeptError(f"frame {index} is not in the recording, which has frames 0 to {count - 1}")

    def _take(self, number: int, frame: Frame | None) -> None:
        """Frame `number`, which is the next one, is where it stands."""
        if frame is not None and frame.index == 0 and number not in self._starts:
            bisect.insort(self._starts, number)
        begins = self._run_of(number) == number
        self._number = number
        if frame is not None:
            self._whole = frame if begins else self._whole.overlaid(frame)
            if not begins and any(key in self._topology[1] for key in (*frame.values, *frame.arrays)):
                self._rebase(self._topology[0])
        elif begins:
            self._whole = Frame()

    def _assembled(self, number: int) -> Frame:
        """Frame `number` with all that came before it in its run, as far as one looks."""
        start = self._run_of(number)
        if number == self._number:
            return self._whole
        wanted = [*range(start, min(start + HEAD_FRAMES, number + 1))]
        wanted += range(max(start + HEAD_FRAMES, number - TAIL_FRAMES + 1), number + 1)
        whole = Frame()
        for each in wanted:
            frame = self._read(self._frame_moments[each]).frame
            if frame is None:
                continue
            if frame.index == 0 and each not in self._starts:
                bisect.insort(self._starts, each)
                whole = Frame()
            whole = whole.overlaid(frame)
        return whole

    def _topology_of(self, run: int) -> dict[str, Any]:
        """What does not change with time in the run that begins with frame `run`."""
        if self._topology[0] != run:
            end = (
                self._starts[position]
                if (position := bisect.bisect_right(self._starts, run)) < len(self._starts)
                else None
            )
            last = min(run + HEAD_FRAMES, len(self._frame_moments) if end is None else end)
            head = Frame()
            for number in range(run, last):
                if (frame := self._read(self._frame_moments[number]).frame) is not None:
                    head = head.overlaid(frame)
            items = {key: item for key, item in _items(head) if key not in _CHANGING}
            count = items.get(keys.PARTICLE_COUNT, len(head.arrays.get(keys.POSITIONS, ())))
            self._topology = (run, {**items, keys.PARTICLE_COUNT: float(count)})
            self._rebase(run)
        return self._topology[1]

    def _rebase(self, run: int) -> None:
        """What the present frame has of the topology is the very same objects, so that it is known not to have changed."""
        if self._number >= 0 and self._run == run:
            topology = self._topology[1]
            for items in (self._whole.values, self._whole.arrays):
                for key, item in items.items():
                    if key in topology and topology[key] is not item and _equal(topology[key], item):
                        items[key] = topology[key]

    def _read(self, number: int) -> Moment:
        """What is at a moment; nothing, where it cannot be read, which is logged once."""
        try:
            moment = self._recording.read(number)
            if moment.frame is not None:
                _check_fit(moment.frame)
        except NarupaError as error:
            if not self._complained:
                self._complained = True
                log.warning("recording_damaged", reason=str(error), left_out="this, and what else cannot be read")
            return Moment(float(self._times[number]))
        return moment

    def _changed(self, change: StateChange) -> None:
        before = self._pending
        if before is None:
            self._pending = change
            return
        updates = {key: value for key, value in before.updates.items() if key not in change.removals}
        removals = {*before.removals, *change.removals} - change.updates.keys()
        self._pending = StateChange({**updates, **change.updates}, tuple(sorted(removals)), before.whole)

    # What is recorded cannot be pulled.

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """Nothing."""

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return ()

    def suspects(self) -> Sequence[str]:
        return ()


class StateTrack:
    """The shared state at any moment of a recording; all of it is kept now and then, so that going back is not far."""

    def __init__(self, recording: OpenRecording) -> None:
        self._recording = recording
        self._moments: list[int] = np.flatnonzero(recording.contents.states).tolist()
        self._kept: list[tuple[int, dict[str, Any]]] = [(0, {})]  # so many changes have led to this
        self._done = 0
        self._state: dict[str, Any] = {}

    def went(self, moment: int, change: StateChange) -> StateChange:
        """`change` was read at `moment`, which is the next one that has any; returns it."""
        self._apply(change, bisect.bisect_right(self._moments, moment))
        return change

    def at(self, moment: int) -> dict[str, Any]:
        """All of the state at `moment`, what happens then included."""
        wanted = bisect.bisect_right(self._moments, moment)
        done, state = self._kept[bisect.bisect_right(self._kept, wanted, key=lambda kept: kept[0]) - 1]
        if wanted < self._done or self._done < done:
            self._done, self._state = done, dict(state)
        while self._done < wanted:
            try:
                change = self._recording.read(self._moments[self._done]).state
            except NarupaError:
                change = None  # told when it is played
            self._apply(change or StateChange(), self._done + 1)
        return dict(self._state)

    def _apply(self, change: StateChange, done: int) -> None:
        for key in change.removals:
            self._state.pop(key, None)
        self._state.update(change.updates)
        self._done = done
        if done - self._kept[-1][0] >= STATE_STRIDE:
            self._kept.append((done, dict(self._state)))


def open_replay(path: Path, name: str, state: Path | None, pace: Pace) -> ReplaySource:
    """The recording of a session at `path`, at its first frame.

    Raises:
        InvalidArgumentError: it is none, or has no frames.
    """
    recording = open_recording(path, state)
    try:
        return ReplaySource(name, recording, pace, content_id(path, state))
    except BaseException:
        recording.close()
        raise


def _items(frame: Frame) -> list[tuple[str, Any]]:
    return [(key, item) for key, item in (*frame.values.items(), *frame.arrays.items()) if key not in _SERVICES_OWN]


def _snapshot(number: int, whole: Frame, items: Mapping[str, Any]) -> Snapshot:
    time_ps = whole.values.get(keys.TIME)
    positions: Any = whole.arrays.get(keys.POSITIONS, _NO_POSITIONS)
    return Snapshot(
        positions=positions,
        time_ps=float(time_ps) if isinstance(time_ps, (int, float)) else None,
        step=number,
        recorded=Frame.of(1, items),
    )


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.shape == two.shape and bool((one == two).all())
    return type(one) is type(two) and bool(one == two)


def _check_fit(frame: Frame) -> None:
    """Raises: InvalidArgumentError when the particles of one frame are not as many everywhere."""
    positions = frame.arrays.get(keys.POSITIONS)
    if positions is not None and not (isinstance(positions, np.ndarray) and positions.ndim == 2):
        raise InvalidArgumentError(keys.POSITIONS, len(positions), "must be rows of three numbers")
    counts: dict[str, int] = {
        key: len(frame.arrays[key]) for key in (keys.POSITIONS, keys.VELOCITIES, keys.ELEMENTS) if key in frame.arrays
    }
    if isinstance(count := frame.values.get(keys.PARTICLE_COUNT), (int, float)) and np.isfinite(count):
        counts[keys.PARTICLE_COUNT] = int(count)
    elif count is not None:
        raise InvalidArgumentError(keys.PARTICLE_COUNT, count, "must be a number")
    if len(set(counts.values())) > 1:
        raise InvalidArgumentError("frame", counts, "has different numbers of particles")
