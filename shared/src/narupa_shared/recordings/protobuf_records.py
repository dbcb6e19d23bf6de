"""`.traj` and `.state`: frames and changes of the state as the gRPC services of NanoVer sent them, each with its time.

Of version 2, little-endian: a number that tells the format, the version, and then records of a time in microseconds (128 bits), a
length (64 bits) and a message. A file whose last record is not complete is read up to that.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import IO, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.frames import Frame, decode_compat_response, encode_compat, response_compat
from narupa_shared.gen.narupa.protocol.state import state_service_pb2
from narupa_shared.recordings.recording import (
    MAX_ITEMS,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    UNKNOWN_INDEX,
    Contents,
    Moment,
    OpenRecording,
    StateChange,
    elapsed,
    refused,
    told,
)
from narupa_shared.structs import from_struct, to_struct

MAGIC: Final = 6661355757386708963
VERSION: Final = 2
FRAMES_SUFFIX: Final = ".traj"
STATE_SUFFIX: Final = ".state"
_HEAD: Final = struct.Struct("<QQ")
_RECORD: Final = struct.Struct("<QQQ")  # low and high half of the time, and the length
_INDEX_TAG: Final = 0x08  # how a message begins that tells its frame's index


def is_record_file(path: Path) -> bool:
    """Whether the file begins as these do. Raises: OSError."""
    with path.open("rb") as file:
        return file.read(8) == struct.pack("<Q", MAGIC)


class _Records:
    """One file: where its records are, and when."""

    def __init__(self, path: Path, with_index: bool) -> None:
        """
        Raises:
            InvalidArgumentError: it is no such file, or of another version.
        """
        self.path = path
        offsets, lengths, indices, times = array("q"), array("q"), array("q"), array("d")
        self._file: IO[bytes] = path.open("rb")
        try:
            size = path.stat().st_size
            at = self._skip_head()
            while at + _RECORD.size <= size:
                self._file.seek(at)
                low, high, length = _RECORD.unpack(self._file.read(_RECORD.size))
                at += _RECORD.size
                if at + length > size:
                    break
                where = f"record {len(times)}"
                if high or low >= 2**63:
                    raise refused(path, where, f"time {low + (high << 64)}", "must be microseconds, below 2^63")
                if length > MAX_MESSAGE_BYTES:
                    raise refused(path, where, f"{length} bytes", f"at most {MAX_MESSAGE_BYTES} are read")
                if len(times) == MAX_MESSAGES:
                    raise refused(path, where, "one more", f"at most {MAX_MESSAGES} records are read")
                offsets.append(at)
                lengths.append(length)
                times.append(float(low))
                indices.append(_index_in(self._file.read(min(length, 6))) if with_index else UNKNOWN_INDEX)
                at += length
        except BaseException:
            self._file.close()
            raise
        self.times_us: NDArray[np.float64] = np.maximum.accumulate(np.frombuffer(times, np.float64))
        self.indices: NDArray[np.int64] = np.frombuffer(indices, np.int64)
        self._offsets, self._lengths = offsets, lengths

    def read(self, number: int) -> bytes:
        self._file.seek(self._offsets[number])
        data = self._file.read(self._lengths[number])
        if len(data) < self._lengths[number]:
            raise refused(self.path, f"record {number}", f"{len(data)} bytes", "the file has become shorter")
        return data

    def close(self) -> None:
        self._file.close()

    def _skip_head(self) -> int:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size or (numbers := _HEAD.unpack(head))[0] != MAGIC:
            raise refused(self.path, "the head", head[:8].hex(), "is not that of a NanoVer .traj or .state file")
        if numbers[1] != VERSION:
            raise refused(self.path, "the version", numbers[1], f"only version {VERSION} is read")
        return _HEAD.size


def _index_in(head: bytes) -> int:
    """The frame's index in the first bytes of a message; 0 where there is none, as the format has it."""
    if not head or head[0] != _INDEX_TAG:
        return 0
    index = shift = 0
    for byte in head[1:]:
        index |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return index
    return UNKNOWN_INDEX


class ProtobufRecording(OpenRecording):
    """A recording in a file of frames, one of changes of the state, or both. What is at the same time is one moment."""

    def __init__(self, frames: Path | None, states: Path | None) -> None:
        """
        Raises:
            InvalidArgumentError: a file is no such file, or neither is given.
            OSError: one cannot be read.
        """
        if frames is None and states is None:
            raise InvalidArgumentError("files", None, "name a file of frames, one of states, or both")
        self.path = frames or states  # type: ignore[assignment]  # one of them is given
        self._frames = _Records(frames, with_index=True) if frames else None
        try:
            self._states = _Records(states, with_index=False) if states else None
        except BaseException:
            if self._frames:
                self._frames.close()
            raise
        self._frame_numbers, self._state_numbers = self._merge()

    def close(self) -> None:
        for records in (self._frames, self._states):
            if records:
                records.close()

    def read(self, number: int) -> Moment:
        frame = state = None
        if (record := int(self._frame_numbers[number])) >= 0:
            assert self._frames
            data = self._frames.read(record)
            try:
                frame = decode_compat_response(data)
            except NarupaError as error:
                raise told(self._frames.path, f"record {record}", error) from None
        if (record := int(self._state_numbers[number])) >= 0:
            assert self._states
            data = self._states.read(record)
            try:
                state = _change_of(data)
            except NarupaError as error:
                raise told(self._states.path, f"record {record}", error) from None
        return Moment(float(self.contents.times_s[number]), frame, state)

    def _merge(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each moment the numbers of its records, -1 where it has none; `contents` is set."""
        frame_times = self._frames.times_us if self._frames else np.empty(0)
        state_times = self._states.times_us if self._states else np.empty(0)
        times = np.concatenate([frame_times, state_times])
        of_state = np.repeat([False, True], [len(frame_times), len(state_times)])
        numbers = np.concatenate([np.arange(len(frame_times)), np.arange(len(state_times))])
        order = np.argsort(times, kind="stable")
        times, of_state, numbers = times[order], of_state[order], numbers[order]
        # A frame with a state right behind it, at the same time, is one moment with it.
        paired = np.zeros(len(times), bool)
        paired[:-1] = (times[1:] == times[:-1]) & of_state[1:] & ~of_state[:-1]
        frame_numbers = np.where(of_state, -1, numbers)
        state_numbers = np.where(of_state, numbers, -1)
        with_state = np.flatnonzero(paired)
        state_numbers[with_state] = numbers[with_state + 1]
        kept = np.ones(len(times), bool)
        kept[with_state + 1] = False
        frame_numbers, state_numbers = frame_numbers[kept], state_numbers[kept]
        indices = np.full(len(frame_numbers), UNKNOWN_INDEX, np.int64)
        has_frame = frame_numbers >= 0
        if self._frames:
            indices[has_frame] = self._frames.indices[frame_numbers[has_frame]]
        self.contents = Contents(elapsed(times[kept]), has_frame, state_numbers >= 0, indices)
        return frame_numbers, state_numbers


def _change_of(data: bytes) -> StateChange:
    try:
        message = state_service_pb2.StateUpdate.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError("state", f"{len(data)} bytes", f"is not a StateUpdate: {error}") from None
    changed = from_struct(message.changed_keys, "state", max_items=MAX_ITEMS)
    updates = {key: value for key, value in changed.items() if value is not None}
    return StateChange(updates, tuple(key for key, value in changed.items() if value is None))


class ProtobufRecordWriter:
    """Writes a recording into a file of frames, one of changes of the state, or both; what has no file is left out."""

    def __init__(self, frames: Path | None, states: Path | None, *, overwrite: bool = False) -> None:
        """
        Raises:
            OSError: a file cannot be written, or exists and is not to be overwritten.
        """
        mode = "wb" if overwrite else "xb"
        self._frames: IO[bytes] | None = frames.open(mode) if frames else None
        try:
            self._states: IO[bytes] | None = states.open(mode) if states else None
        except BaseException:
            if self._frames:
                self._frames.close()
            raise
        for file in (self._frames, self._states):
            if file:
                file.write(_HEAD.pack(MAGIC, VERSION))
        self.count = 0

    def write(self, time_s: float, frame: Frame | None = None, state: StateChange | None = None) -> None:
        """What happened at `time_s`, seconds since the start, is behind everything else.

        Raises:
            InvalidArgumentError: a value of the state that cannot be written.
            OSError: the disk is full, for instance.
        """
        if frame is not None and self._frames:
            _put(self._frames, time_s, response_compat(frame.index, encode_compat(frame)))
        if state is not None and self._states:
            changed = to_struct({**state.updates, **dict.fromkeys(state.removals)}, "state")
            _put(self._states, time_s, state_service_pb2.StateUpdate(changed_keys=changed).SerializeToString())
        self.count += 1

    def close(self) -> None:
        """Everything is in the files. Idempotent."""
        for file in (self._frames, self._states):
            if file:
                file.close()

    def __enter__(self) -> ProtobufRecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(file: IO[bytes], time_s: float, message: bytes) -> None:
    file.write(_RECORD.pack(max(0, round(time_s * 1e6)), 0, len(message)))
    file.write(message)
