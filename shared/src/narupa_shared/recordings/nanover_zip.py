"""`.nanover.zip`: a stored ZIP with `messages.msgpack`, messages one behind the other, and `index.msgpack`, which lists them.

What is written here is a whole archive at every instant, and read by NanoVer's own tools.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import time
import zipfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgpack
import numpy as np

from narupa_shared import nanover_messages as messages
from narupa_shared.errors import AlreadyExistsError, InvalidArgumentError, NarupaError
from narupa_shared.frames import Frame
from narupa_shared.recordings.growing_archive import LEAST_LIST_ROOM, LEAST_ROOM, ArchiveFile, GrowingArchive
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
from narupa_shared.recordings.zip_records import LOCAL, LOCAL_SIGNATURE

MESSAGES_NAME: Final = "messages.msgpack"
INDEX_NAME: Final = "index.msgpack"
SUFFIX: Final = ".nanover.zip"
# What was written is in the archive after this time, whatever happens, s.
COMMIT_INTERVAL_S: Final = 0.5
MAX_INDEX_BYTES: Final = 16 * 1024 * 1024 * 1024
# Entries of the index are small maps; these bounds are far beyond.
_ENTRY_LIMITS: Final = {
    "max_str_len": 4096,
    "max_bin_len": 4096,
    "max_array_len": 1024,
    "max_map_len": 1024,
    "max_ext_len": 0,
}
_CHUNK: Final = 1024 * 1024


class DiskFile:
    """A file on disk, written and read at any place, without a buffer of this program's own."""

    def __init__(self, path: Path) -> None:
        """A new file. Raises: OSError."""
        self._file = io.FileIO(path, "x+")

    def write_at(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) or 0 :]

    def read_at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size) or b""

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class NanoverZipWriter:
    """Writes one recording. It can be opened and played at every instant, without what came in the last half second."""

    def __init__(
        self,
        file: ArchiveFile,
        clock: Callable[[], float] = time.monotonic,
        room: int = LEAST_ROOM,
        list_room: int = LEAST_LIST_ROOM,
    ) -> None:
        """A recording of nothing in `file`, which is empty; `create` makes one at a path.

        Args:
            clock: Seconds since any time.
            room: As for `GrowingArchive`, and so is `list_room`.
        """
        self._archive = GrowingArchive(file, MESSAGES_NAME.encode(), INDEX_NAME.encode(), room, list_room)
        self._clock = clock
        self._commit_at = clock() + COMMIT_INTERVAL_S
        self._last_us = 0
        self._closed = False
        self.count = 0
        """Messages so far."""

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        overwrite: bool = False,
        clock: Callable[[], float] = time.monotonic,
        room: int = LEAST_ROOM,
        list_room: int = LEAST_LIST_ROOM,
    ) -> NanoverZipWriter:
        """A recording at `path`, which is valid from the first moment on that there is a file.

        Raises:
            AlreadyExistsError: there is a file, and it is not to be overwritten.
            OSError: it cannot be written there.
        """
        if not overwrite and path.exists():
            raise AlreadyExistsError(f"{path} exists; choose another name, or overwrite it (--force)")
        draft = path.with_name(f".{path.name}.{os.getpid()}.new")
        draft.unlink(missing_ok=True)
        file = DiskFile(draft)
        try:
            writer = cls(file, clock, room, list_room)
            _put(draft, path, overwrite)
        except BaseException:
            file.close()
            draft.unlink(missing_ok=True)
            raise
        return writer

    @property
    def size(self) -> int:
        """Of all messages, bytes."""
        return self._archive.size

    def write(self, time_s: float, frame: Frame | None = None, state: StateChange | None = None) -> None:
        """What happened at `time_s`, seconds since the start, is behind everything else, and safe half a second later.

        Later means at the next call of this or of `commit`, which whoever has nothing to write calls now and then.

        Raises:
            InvalidArgumentError: neither frame nor state, or a value that MessagePack does not have.
            OSError: the disk is full, for instance. What was committed before is safe, and the recording may be closed or
                gone on with.
        """
        items: dict[str, Any] = {}
        if frame is not None:
            items["frame"] = messages.packed_items(frame)
        if state is not None:
            items["state"] = {"updates": dict(state.updates), "removals": list(state.removals)}
        if not items:
            raise InvalidArgumentError("moment", time_s, "has neither a frame nor a state")
        data = messages.message(items)
        if len(data) > MAX_MESSAGE_BYTES:
            raise InvalidArgumentError("moment", f"{len(data)} bytes", f"at most {MAX_MESSAGE_BYTES} can be read again")
        microseconds = max(round(time_s * 1e6), self._last_us)
        metadata: dict[str, Any] = {"types": list(items), "timestamp": microseconds}
        if frame is not None:
            metadata[messages.FRAME_INDEX] = frame.index
        entry = {"offset": self._archive.size, "length": len(data), "metadata": metadata}
        self._archive.append(data, msgpack.packb(entry))
        self._last_us = microseconds
        self.count += 1
        if self._clock() >= self._commit_at:
            self.commit()

    def commit(self) -> None:
        """All that was written is safe. Raises: OSError."""
        self._commit_at = self._clock() + COMMIT_INTERVAL_S
        self._archive.commit()

    def close(self) -> None:
        """The recording has all that was written, and takes no more space than that. Idempotent.

        Raises:
            OSError: it has only what was committed, or takes more space; it can be played all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._archive.commit()
        finally:
            self._archive.close()

    def __enter__(self) -> NanoverZipWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(draft: Path, path: Path, overwrite: bool) -> None:
    """The file is at `path`, in one step. Raises: AlreadyExistsError, OSError."""
    if overwrite:
        draft.replace(path)
        return
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise AlreadyExistsError(f"{path} exists; choose another name, or overwrite it (--force)") from None
    except OSError:  # a file system without such links
        draft.rename(path)
    else:
        draft.unlink()


class NanoverZipReader(OpenRecording):
    """Reads one recording, of which only the index is in memory: 33 bytes for each message."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InvalidArgumentError: it is no such archive, or its index is none; the text names the file and the entry.
            OSError: it cannot be read.
        """
        self.path = path
        self._file = path.open("rb")
        try:
            self._start, self._size = self._find_messages()
            index = _read_index(path)
            self._offsets, self._lengths = self._checked(index)
            self.contents = Contents(
                elapsed(np.frombuffer(index.times, np.float64)),
                np.frombuffer(index.frames, np.uint8).astype(bool),
                np.frombuffer(index.states, np.uint8).astype(bool),
                np.frombuffer(index.indices, np.int64),
            )
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read(self, number: int) -> Moment:
        where = f"message {number}"
        offset, length = int(self._offsets[number]), int(self._lengths[number])
        self._file.seek(self._start + offset)
        data = self._file.read(length)
        if len(data) < length:
            raise refused(self.path, where, f"{len(data)} bytes", f"the file ends before its {length} bytes")
        try:
            items = messages.unpacked(data, MAX_ITEMS)
            frame = state = None
            if items.get("frame") is not None:
                # A frame that tells no index goes on with the run.
                frame = messages.frame_of(items["frame"])
            if items.get("state") is not None:
                updates, removals = messages.state_change_of(items["state"])
                state = StateChange(updates, tuple(removals))
        except NarupaError as error:
            raise told(self.path, where, error) from None
        return Moment(float(self.contents.times_s[number]), frame, state)

    def _find_messages(self) -> tuple[int, int]:
        """Where the messages begin in the file, and how long they are together, bytes."""
        with _archive(self.path) as archive:
            info = _entry(self.path, archive, MESSAGES_NAME)
        self._file.seek(info.header_offset)
        head = self._file.read(LOCAL.size)
        if len(head) < LOCAL.size or not head.startswith(LOCAL_SIGNATURE):
            raise refused(self.path, MESSAGES_NAME, info.header_offset, "its header is not where the directory says")
        *_, name_size, extra_size = struct.unpack("<4s5H3I2H", head)
        start = info.header_offset + LOCAL.size + name_size + extra_size
        end = self.path.stat().st_size
        if start + info.file_size > end:
            raise refused(self.path, MESSAGES_NAME, f"{info.file_size} bytes", f"the file has only {end}")
        return start, info.file_size

    def _checked(self, index: _Index) -> tuple[Any, Any]:
        offsets = np.frombuffer(index.offsets, np.uint64).astype(np.int64)
        lengths = np.frombuffer(index.lengths, np.uint64).astype(np.int64)
        beyond = np.flatnonzero(offsets + lengths > self._size)
        if len(beyond):
            number = int(beyond[0])
            reason = f"{MESSAGES_NAME} has only {self._size} bytes"
            raise refused(self.path, f"entry {number} of {INDEX_NAME}", f"offset {int(offsets[number])}", reason)
        return offsets, lengths


class _Index:
    """The index, as far as it is needed, in a compact form."""

    def __init__(self) -> None:
        self.offsets, self.lengths = array("Q"), array("Q")
        self.times = array("d")
        self.frames, self.states = bytearray(), bytearray()
        self.indices = array("q")

    def add(self, entry: Any) -> None:
        """Raises: ValueError, with what is wrong and in which field."""
        if not isinstance(entry, Mapping):
            raise ValueError("it must be a map")
        self.offsets.append(_whole(entry, "offset", 2**62))
        self.lengths.append(_whole(entry, "length", MAX_MESSAGE_BYTES))
        metadata = entry.get("metadata")
        metadata = {} if metadata is None else metadata
        if not isinstance(metadata, Mapping):
            raise ValueError("its metadata must be a map")
        time = metadata.get("timestamp")
        if time is None:  # it came with the one before
            time = self.times[-1] if self.times else 0.0
        elif isinstance(time, bool) or not isinstance(time, (int, float)) or not 0 <= time < 2**63:
            raise ValueError("its timestamp must be microseconds, 0 or more")
        self.times.append(float(time))
        types = metadata.get("types")
        if types is not None and not isinstance(types, (list, tuple)):
            raise ValueError("its types must be a list of frame and state")
        self.frames.append(types is None or "frame" in types)
        self.states.append(types is None or "state" in types)
        index = metadata.get(messages.FRAME_INDEX)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 2**63:
            index = UNKNOWN_INDEX
        self.indices.append(index)


def _whole(entry: Mapping[Any, Any], field: str, most: int) -> int:
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"its {field} must be a whole number of 0 to {most}")
    return value


def _read_index(path: Path) -> _Index:
    index = _Index()
    try:
        with _archive(path) as archive:
            info = _entry(path, archive, INDEX_NAME)
            if info.file_size > MAX_INDEX_BYTES:
                raise refused(path, INDEX_NAME, f"{info.file_size} bytes", f"at most {MAX_INDEX_BYTES} are read")
            with archive.open(info) as file:
                for entry in _entries(file):
                    index.add(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise refused(path, INDEX_NAME, type(error).__name__, f"the file is damaged: {error}") from None
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        number = len(index.indices)
        raise refused(path, f"entry {number} of {INDEX_NAME}", type(error).__name__, str(error)) from None
    return index


def _entries(file: IO[bytes]) -> Iterator[Any]:
    """The items of the list that the file is. Raises: ValueError, msgpack's errors."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=8 * _CHUNK, **_ENTRY_LIMITS)
    head = file.read(5)
    count, size = _list_head(head)
    if count > MAX_MESSAGES:
        raise ValueError(f"{count} messages are too many; at most {MAX_MESSAGES} are read")
    unpacker.feed(head[size:])
    given = 0
    while given < count:
        try:
            entry = unpacker.unpack()
        except msgpack.OutOfData:
            chunk = file.read(_CHUNK)
            if not chunk:
                raise ValueError(f"the list ends after {given} of its {count} entries") from None
            unpacker.feed(chunk)
            continue
        given += 1
        yield entry


def _list_head(head: bytes) -> tuple[int, int]:
    """How many items a MessagePack list has, and how many bytes tell that. Raises: ValueError."""
    tag = head[0] if head else 0
    if tag & 0xF0 == 0x90:
        return tag & 0x0F, 1
    if tag == 0xDC and len(head) >= 3:
        return int.from_bytes(head[1:3], "big"), 3
    if tag == 0xDD and len(head) >= 5:
        return int.from_bytes(head[1:5], "big"), 5
    raise ValueError("it must be a list of entries")


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise refused(path, "the archive", str(path), f"is no ZIP file that can be read: {error}") from None
    with archive:
        yield archive


def _entry(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise refused(path, "the archive", name, "there is no such entry; is it a NanoVer recording?") from None
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise refused(path, name, "compressed", "pack it again without compression (zip -0) or encryption")
    return info
