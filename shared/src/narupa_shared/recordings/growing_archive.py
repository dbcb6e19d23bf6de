"""A ZIP archive of two entries that grows, and is a whole archive at every instant.

Data goes into the first entry, from the front of the file on; the second entry lists what is in it. Behind both stands the
central directory, without which nothing can be read, and which an ordinary archive gets when it is closed. Here

- the directory lies far behind the data, beyond a hole that costs no space, so that data can be appended in front of it;
- the list has two places, and only the one that the present directory does *not* refer to is written;
- a commit is one write of a few hundred bytes within one sector: another directory, behind all that came before, which readers
  find first because they look from the end of the file;
- before the data reaches the list, both move further out: a directory that still refers to the old list is written there first,
  so that the file never ends in anything but a directory.

Whatever a directory refers to has been written before it, and is not touched while it is the last.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from narupa_shared.recordings.zip_records import StoredEntry, directory, header_size, joined_crc, local_header

SECTOR: Final = 512
_PAGE: Final = 4096
# How far behind the data the list is put, bytes: as far as there is data, within these bounds.
LEAST_ROOM: Final = 16 * 1024 * 1024
MOST_ROOM: Final = 4 * 1024 * 1024 * 1024
LEAST_LIST_ROOM: Final = 256 * 1024
_CHUNK: Final = 1024 * 1024
# How a MessagePack list of up to four thousand million items begins.
_LIST_HEAD: Final = struct.Struct(">BI")
_LIST_TAG: Final = 0xDD


class ArchiveFile(Protocol):
    """A file that is read and written at any place. Writing beyond its end leaves a hole of zeros."""

    def write_at(self, offset: int, data: bytes) -> None: ...

    def read_at(self, offset: int, size: int) -> bytes: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """What was written survives the machine's end."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a directory says: so much data, and a list of it in one place."""

    size: int
    crc: int
    entries_size: int
    entries_crc: int
    count: int
    list_at: int

    @property
    def list_size(self) -> int:
        return _LIST_HEAD.size + self.entries_size

    @property
    def head(self) -> bytes:
        return _LIST_HEAD.pack(_LIST_TAG, self.count)

    def directory(self, names: tuple[bytes, bytes], at: int, settled: bool = False) -> bytes:
        return directory([self.data_entry(names[0], settled), self.list_entry(names[1], settled)], at)

    def data_entry(self, name: bytes, settled: bool) -> StoredEntry:
        return StoredEntry(name, 0, self.size, self.crc, settled)

    def list_entry(self, name: bytes, settled: bool) -> StoredEntry:
        crc = joined_crc(zlib.crc32(self.head), self.entries_crc, self.entries_size)
        return StoredEntry(name, self.list_at, self.list_size, crc, settled)


@dataclass(slots=True)
class _Place:
    """One of the two places of the list: where it is, how much of it is there, and what is still to be written to it."""

    at: int
    filled: int = 0
    waiting: bytearray = field(default_factory=bytearray)


class GrowingArchive:
    """The archive in `file`, which is empty. One thread at a time."""

    def __init__(
        self,
        file: ArchiveFile,
        data_name: bytes,
        list_name: bytes,
        room: int = LEAST_ROOM,
        list_room: int = LEAST_LIST_ROOM,
    ) -> None:
        """An archive with no data and an empty list.

        Args:
            room: Least distance of the list from the data, bytes.
            list_room: Least size of each of the list's places, bytes.
        """
        self._file = file
        self._names = (data_name, list_name)
        self._data_at = header_size(data_name)
        self._head_size = header_size(list_name)
        self._least_room, self._least_list_room = room, list_room
        self._now = _Listed(0, 0, 0, 0, 0, 0)  # what has been appended
        self._kept = self._now  # what the last directory says
        self._places: list[_Place] = []
        self._present = 0  # the place that it refers to
        self._base = self._next_directory_at = 0
        self._list_room = 0
        file.write_at(0, local_header(StoredEntry(data_name, 0)))
        self._open_region(0)
        self._write_list(0)
        self._write_directory(0)

    @property
    def size(self) -> int:
        """Of the data appended so far, bytes."""
        return self._now.size

    def append(self, data: bytes, entry: bytes) -> None:
        """`data` is behind all other data, and `entry`, one MessagePack object, at the end of the list, from the next commit on.

        Raises:
            OSError: it could not be written; nothing has been appended.
        """
        now = self._now
        # Between data and list there is always room for another copy of the list: see `close`.
        list_size = self._head_size + now.list_size + len(entry)
        too_far = self._data_at + now.size + len(data) + list_size + 2 * SECTOR > self._base
        if too_far or now.list_size + len(entry) > self._list_room:
            self._move_out(len(data) + list_size)
        self._file.write_at(self._data_at + now.size, data)
        self._now = replace(
            now,
            size=now.size + len(data),
            crc=zlib.crc32(data, now.crc),
            entries_size=now.entries_size + len(entry),
            entries_crc=zlib.crc32(entry, now.entries_crc),
            count=now.count + 1,
        )
        for place in self._places:
            place.waiting += entry

    def commit(self) -> None:
        """All that was appended is in the archive, however this program ends.

        Raises:
            OSError: it could not be written; the archive is as it was, and this may be tried again.
        """
        if self._now.count == self._kept.count:
            return
        other = 1 - self._present
        self._write_list(other)
        self._write_directory(other)

    def close(self) -> None:
        """The archive has what was committed, with no hole in it, and ends behind its directory. The file is closed.

        Raises:
            OSError: it could not be written; the archive is complete, but may be as long as it was.
        """
        try:
            self._settle()
        finally:
            self._file.close()

    def _write_list(self, number: int) -> None:
        place = self._places[number]
        waiting = bytes(place.waiting)
        data_at = place.at + self._head_size
        if waiting:
            self._file.write_at(data_at + _LIST_HEAD.size + place.filled, waiting)
        self._file.write_at(data_at, self._now.head)
        place.filled += len(waiting)
        place.waiting.clear()

    def _write_directory(self, number: int) -> None:
        """One write, which makes the archive be what `_now` says, with its list at place `number`."""
        listed = replace(self._now, list_at=self._places[number].at)
        at = self._next_directory_at
        record = listed.directory(self._names, at)
        self._file.write_at(at, record)
        self._next_directory_at = _aligned(at + len(record), SECTOR)
        self._kept, self._present = listed, number

    def _open_region(self, more: int) -> None:
        """Two places of the list, and room for directories, behind everything there is."""
        now = self._now
        room = more + min(max(self._least_room, now.size), MOST_ROOM)
        self._list_room = max(self._least_list_room, 4 * now.list_size)
        self._base = _aligned(max(self._data_at + now.size + room, self._next_directory_at), _PAGE)
        stride = _aligned(self._head_size + self._list_room, _PAGE)
        self._places = [_Place(self._base), _Place(self._base + stride)]
        self._next_directory_at = self._base + 2 * stride
        if self._kept.list_at:  # the file must not end in anything else
            self._file.write_at(self._next_directory_at, self._kept.directory(self._names, self._next_directory_at))
            self._next_directory_at += SECTOR
        for place in self._places:
            self._file.write_at(place.at, local_header(StoredEntry(self._names[1], place.at)))

    def _move_out(self, more: int) -> None:
        """The list and the directory are further out, and what is between the data and them is free to be written."""
        before = self._base, self._next_directory_at, self._list_room, self._places, self._present
        waiting = self._places[self._present].waiting
        try:
            self._open_region(more)
            for place in self._places:
                self._copy_list(place.at + self._head_size)
                place.filled = self._kept.entries_size
                place.waiting += waiting
            self._write_list(0)
            self._write_directory(0)
        except BaseException:
            # Where the last directory is now, the next one goes behind it; the rest is as before.
            further = self._next_directory_at
            self._base, _, self._list_room, self._places, self._present = before
            self._next_directory_at = further
            raise

    def _copy_list(self, to: int) -> None:
        """The list, as it is kept, is at `to` as well."""
        at, left = self._kept.list_at + self._head_size, self._kept.list_size
        while left:
            chunk = self._file.read_at(at, min(left, _CHUNK))
            if not chunk:
                raise OSError("the recording was cut short by another program")
            self._file.write_at(to, chunk)
            at, to, left = at + len(chunk), to + len(chunk), left - len(chunk)

    def _settle(self) -> None:
        """All of this goes into the hole, which nothing refers to, and counts once the file is cut behind it."""
        kept = self._kept
        close_by = replace(kept, list_at=self._data_at + kept.size)
        list_entry = close_by.list_entry(self._names[1], settled=True)
        self._file.write_at(list_entry.header_at, local_header(list_entry))
        self._copy_list(list_entry.data_at)
        at = list_entry.data_at + list_entry.size
        record = close_by.directory(self._names, at, settled=True)
        self._file.write_at(at, record)
        self._file.write_at(0, local_header(close_by.data_entry(self._names[0], settled=True)))
        self._file.sync()
        self._file.truncate(at + len(record))
        self._file.sync()


def _aligned(number: int, unit: int) -> int:
    return -(-number // unit) * unit
