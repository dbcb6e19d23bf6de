"""One file to another: which formats they have, and the way of frames and states from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from narupa_client.conversion import atoms, molecules
from narupa_shared import frame_keys as keys
from narupa_shared.errors import AlreadyExistsError, InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.opening import is_recording, open_recording
from narupa_shared.recordings.protobuf_records import FRAMES_SUFFIX, STATE_SUFFIX, ProtobufRecordWriter
from narupa_shared.recordings.recording import Moment, StateChange
from narupa_shared.subsets import Subset

ZIP_SUFFIX: Final = ".zip"
# Wall-clock time between frames of a file that has no such times, s.
FRAME_INTERVAL_S: Final = 1 / 30


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames are taken over, and of which particles.

    Attributes:
        start: The first frame.
        stop: The frame before which to stop; None takes all.
        stride: Every how many frames one is taken.
        select: A selection of particles as MDAnalysis writes them; empty for all.
        topology: What the particles are, where the input does not say.
        state: Where the state of a `.traj` recording is; None looks beside it.
        overwrite: Whether files that are there may be.
    """

    start: int = 0
    stop: int | None = None
    stride: int = 1
    select: str = ""
    topology: Path | None = None
    state: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("start", self.start, 0), ("stop", self.stop, 0), ("stride", self.stride, 1)):
            if value is not None and value < least:
                raise InvalidArgumentError(f"--{name}", value, f"must be {least} or more")

    def takes(self, number: int) -> bool:
        return number >= self.start and (number - self.start) % self.stride == 0 and not self.ended(number)

    def ended(self, number: int) -> bool:
        return self.stop is not None and number >= self.stop


@dataclass(slots=True)
class Converted:
    """What was written.

    Attributes:
        files: All that there is now.
        frames: How many frames they have.
        states: How many changes of the shared state.
        notices: What the output cannot hold, in sentences.
    """

    files: list[Path] = field(default_factory=list)
    frames: int = 0
    states: int = 0
    notices: list[str] = field(default_factory=list)


def convert(source: Path, target: Path, wanted: Wanted | None = None) -> Converted:
    """What is wanted of `source` is in `target`; the endings of their names tell the formats. One frame is in memory at a time.

    Raises:
        InvalidArgumentError: a file, an option, or what is in the file is wrong.
        AlreadyExistsError: there is an output, and it is not to be overwritten.
        FailedPreconditionError: a library that a format needs is not installed.
        OSError: something cannot be written.
    """
    wanted = wanted or Wanted()
    if source.resolve() == target.resolve():
        raise InvalidArgumentError("output", str(target), "is the input; choose another name")
    if not source.is_file():
        raise InvalidArgumentError("input", str(source), "there is no such file")
    if wanted.state is not None and not is_recording(source):
        raise InvalidArgumentError("--state", str(wanted.state), "only a .traj recording of a session has one apart")
    converted = Converted()
    with ExitStack() as stack:
        moments = _moments(source, wanted, stack)
        sink = _sink(target, wanted, converted, stack)
        for moment in _chosen(moments, wanted):
            sink.write(moment)
            converted.frames += moment.frame is not None
            converted.states += moment.state is not None
        sink.finish()
    if not converted.frames and not converted.states:
        raise InvalidArgumentError("input", str(source), "has none of the frames that are wanted")
    return converted


def _moments(source: Path, wanted: Wanted, stack: ExitStack) -> Iterable[Moment]:
    """All that is in the input; a file without sessions' times has a frame every thirtieth of a second."""
    if is_recording(source):
        if wanted.topology is not None:
            raise InvalidArgumentError("--topology", str(wanted.topology), f"{source.name} says what its particles are")
        return stack.enter_context(open_recording(source, wanted.state))
    if source.suffix.lower() in atoms.READ and wanted.topology is None:
        frames: Iterator[Frame] = atoms.read_atoms(source)
    else:
        topology = wanted.topology
        beside = source.with_suffix(".pdb")
        if topology is None and source.suffix.lower() in molecules.BARE and beside.is_file():
            topology = beside
        _, frames = molecules.read_molecules(source, topology)
    return (Moment(number * FRAME_INTERVAL_S, frame) for number, frame in enumerate(frames))


def _chosen(moments: Iterable[Moment], wanted: Wanted) -> Iterator[Moment]:
    """The frames that are wanted, each with what is new since the one before it; time starts with the first of them."""
    gathered = _Gathered()
    only_states = not _has_frames(moments)
    known: dict[str, Any] = {}
    began: float | None = None
    subset: Subset | None = None
    number = -1
    for moment in moments:
        frame, change = None, moment.state
        if change is not None:
            known = change.applied(known)
        if moment.frame is not None:
            number += 1
            if wanted.ended(number):
                break
            gathered.add(moment.frame)
            if wanted.takes(number):
                frame = gathered.taken()
        if began is None:
            if frame is None and not only_states:
                continue
            began = moment.time_s
            change = StateChange(known) if known else None
        if frame is not None and wanted.select:
            if subset is None or frame.index == 0:
                subset = Subset(molecules.selected(gathered.whole, wanted.select), gathered.whole)
                frame = subset.of_topology(frame)
            else:
                frame = subset.of(frame)
        if frame is not None or change is not None:
            yield Moment(moment.time_s - began, frame, change)


class _Gathered:
    """What frames that were read say together.

    Attributes:
        whole: All that is known.
    """

    def __init__(self) -> None:
        self.whole = Frame()
        self._since: Frame | None = None
        self._first = True

    def add(self, frame: Frame) -> None:
        if self._first:
            frame = Frame(0, frame.values, frame.arrays)
        self._first = False
        self.whole = self.whole.merged(frame)
        self._since = frame if self._since is None else self._since.merged(frame)

    def taken(self) -> Frame:
        """What is new since the last that was taken; of index 0 where another run has begun."""
        assert self._since is not None, "a frame was added"
        taken, self._since = self._since, None
        return taken


def _has_frames(moments: Iterable[Moment]) -> bool:
    contents = getattr(moments, "contents", None)
    return contents is None or bool(contents.frames.any())


class _Sink(Protocol):
    def write(self, moment: Moment) -> None: ...

    def finish(self) -> None: ...


def _sink(target: Path, wanted: Wanted, converted: Converted, stack: ExitStack) -> _Sink:
    suffix = target.suffix.lower()
    if suffix == ZIP_SUFFIX:
        writer = NanoverZipWriter.create(target, overwrite=wanted.overwrite)
        converted.files.append(target)
        return _RecordingSink(stack.enter_context(writer))
    if suffix in (FRAMES_SUFFIX, STATE_SUFFIX):
        frames = target if suffix == FRAMES_SUFFIX else None
        states = target.with_suffix(STATE_SUFFIX)
        files = [path for path in (frames, states) if path is not None]
        _check_free(files, wanted)
        converted.files += files
        return _RecordingSink(stack.enter_context(ProtobufRecordWriter(frames, states, overwrite=wanted.overwrite)))
    if suffix in atoms.WRITTEN or suffix in molecules.WRITTEN:
        topology = target.with_suffix(".pdb") if suffix in molecules.BARE else None
        files = [path for path in (target, topology) if path is not None]
        _check_free(files, wanted)
        converted.files += files
        sink = _MoleculeSink(target, topology, converted)
        stack.callback(sink.close)
        return sink
    known = sorted({".nanover.zip", FRAMES_SUFFIX, STATE_SUFFIX, *atoms.WRITTEN, *molecules.WRITTEN})
    raise InvalidArgumentError("output", str(target), f"its ending tells the format; there are {', '.join(known)}")


def _check_free(files: list[Path], wanted: Wanted) -> None:
    for path in files:
        if path.exists() and not wanted.overwrite:
            raise AlreadyExistsError(f"{path} exists; choose another name, or overwrite it with --force")


class _RecordingSink:
    """Into a recording of a session."""

    def __init__(self, writer: NanoverZipWriter | ProtobufRecordWriter) -> None:
        self._writer = writer
        self._topology: dict[str, Any] = {}

    def write(self, moment: Moment) -> None:
        self._writer.write(moment.time_s, moment.frame and self._news(moment.frame), moment.state)

    def _news(self, frame: Frame) -> Frame:
        """Without what was written before and is the very same object, such as the topology of a file's frames."""
        if frame.index == 0:
            self._topology = {**frame.values, **frame.arrays}
            return frame
        known = self._topology
        values = {key: value for key, value in frame.values.items() if known.get(key) is not value}
        arrays = {key: array for key, array in frame.arrays.items() if known.get(key) is not array}
        return Frame(frame.index, values, arrays)

    def finish(self) -> None:
        """It is closed by its owner."""


class _MoleculeSink:
    """Into a file of one system, with another beside it that says what its particles are, where it needs one."""

    def __init__(self, path: Path, topology: Path | None, converted: Converted) -> None:
        self._path, self._topology, self._converted = path, topology, converted
        self._writer: molecules.MoleculeWriter | atoms.AtomsWriter | None = None
        self._whole = Frame()
        self._held: Frame | None = None  # the first frame waits for the second, which tells the time between them
        self._held_time_ps = self._last_time_ps = 0.0
        self._states = 0

    def write(self, moment: Moment) -> None:
        self._states += moment.state is not None
        if moment.frame is None:
            return
        self._whole = moment.frame if moment.frame.index == 0 else self._whole.overlaid(moment.frame)
        frame = self._whole
        if keys.POSITIONS not in frame.arrays:
            return
        time = frame.values.get(keys.TIME)
        time_ps = float(time) if isinstance(time, (int, float)) else moment.time_s
        if self._writer is None and self._held is None:
            self._held, self._held_time_ps = frame, time_ps
            return
        self._begin(time_ps - self._held_time_ps)
        self._put(frame, time_ps)

    def finish(self) -> None:
        """Everything is in the file."""
        if self._held is not None:
            self._begin(1.0)
        if self._states:
            self._converted.notices.append(f"{self._path.name} has no shared state; a .nanover.zip has")
        if self._writer is not None:
            self._converted.notices += self._writer.notices

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _begin(self, dt_ps: float) -> None:
        if self._held is None:
            return
        first, self._held = self._held, None
        if self._topology is not None:
            topology = molecules.MoleculeWriter(self._topology, Frame(0, first.values, _still(first)), 1.0)
            topology.write(first, self._held_time_ps)
            topology.close()
        if self._path.suffix.lower() in atoms.WRITTEN:
            self._writer = atoms.AtomsWriter(self._path)
        else:
            self._writer = molecules.MoleculeWriter(self._path, first, dt_ps if dt_ps > 0 else 1.0)
        self._count = len(first.arrays[keys.POSITIONS])
        self._put(first, self._held_time_ps)

    def _put(self, frame: Frame, time_ps: float) -> None:
        assert self._writer is not None
        count = len(frame.arrays[keys.POSITIONS])
        if count != self._count:
            reason = f"has {count} particles, and those before it {self._count}; convert each with --start and --stop"
            raise InvalidArgumentError(f"frame {self._converted.frames}", self._path.name, reason)
        self._writer.write(frame, time_ps)


def _still(frame: Frame) -> dict[str, Any]:
    return {key: array for key, array in frame.arrays.items() if key not in (keys.VELOCITIES, keys.FORCES)}
