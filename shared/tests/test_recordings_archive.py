"""An archive that grows is a whole one whatever happens: every write may be the last, and may be cut short."""

from __future__ import annotations

import io
import itertools
import random
import zipfile
import zlib

import msgpack
import pytest

from narupa_shared.recordings.growing_archive import SECTOR, GrowingArchive
from narupa_shared.recordings.zip_records import joined_crc

DATA, LIST = b"messages.msgpack", b"index.msgpack"


class Stopped(Exception):
    """The program has ended here."""


class MemoryFile:
    """A file in memory that stops after some calls; a large write may then be done in part.

    Attributes:
        content: What is in the file.
        left: How many more calls succeed.
        cut: The share of the last write that is still done, where it goes beyond one sector.
    """

    def __init__(self, left: float = float("inf"), cut: float = 0.0, full: bool = False) -> None:
        self.content = bytearray()
        self.left = left
        self.cut = cut
        self.calls = 0
        self.error: type[Exception] = OSError if full else Stopped

    def write_at(self, offset: int, data: bytes) -> None:
        if not self._may():
            within = offset // SECTOR == (offset + len(data) - 1) // SECTOR
            data = b"" if within else data[: int(len(data) * self.cut)]
            self._put(offset, data)
            raise self.error("no more")
        self._put(offset, data)

    def _put(self, offset: int, data: bytes) -> None:
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self.content[offset : offset + size])

    def truncate(self, size: int) -> None:
        if not self._may():
            raise self.error("no more")
        del self.content[size:]

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _may(self) -> bool:
        self.calls += 1
        self.left -= 1
        return self.left >= 0


def archive_in(file: MemoryFile) -> GrowingArchive:
    return GrowingArchive(file, DATA, LIST, room=900, list_room=64)


def entry_of(number: int, offset: int, data: bytes) -> bytes:
    return bytes(msgpack.packb({"offset": offset, "length": len(data), "metadata": {"number": number}}))


def data_of(number: int) -> bytes:
    return random.Random(number).randbytes(number * 37 % 700) + b"PK\x05\x06"


class Writing:
    """Appends and commits as a recorder does, and knows what must be in the archive."""

    def __init__(self) -> None:
        self.committed = 0
        self.appended = 0

    def run(self, file: MemoryFile, count: int = 40, close: bool = True) -> None:
        archive = archive_in(file)
        for number in range(count):
            data = data_of(number)
            archive.append(data, entry_of(number, archive.size, data))
            self.appended = number + 1
            if number % 3 == 2:
                archive.commit()
                self.committed = number + 1
        archive.commit()
        self.committed = count
        if close:
            archive.close()


def contents(content: bytes | bytearray) -> list[bytes]:
    """All that an archive has, checked against its checksums and its list."""
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [DATA.decode(), LIST.decode()]
        data, listed = archive.read(DATA.decode()), msgpack.unpackb(archive.read(LIST.decode()))
    assert [entry["metadata"]["number"] for entry in listed] == list(range(len(listed)))
    return [data[entry["offset"] : entry["offset"] + entry["length"]] for entry in listed]


def test_the_checksum_of_two_pieces_is_that_of_both() -> None:
    pieces = [random.Random(size).randbytes(size) for size in (0, 1, 5, 63, 4096, 100_001)]
    for first, second in itertools.product(pieces, pieces):
        assert joined_crc(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_what_was_closed_has_everything_and_no_hole() -> None:
    file = MemoryFile()
    Writing().run(file)
    everything = [data_of(number) for number in range(40)]
    assert contents(file.content) == everything
    assert len(file.content) < sum(map(len, everything)) + 40 * 60 + 400


def test_an_empty_one_is_whole() -> None:
    file = MemoryFile()
    archive = archive_in(file)
    assert contents(file.content) == []
    archive.close()
    assert contents(file.content) == []


@pytest.mark.parametrize("cut", [0.0, 0.5, 0.999])
def test_it_is_whole_when_the_program_ends_at_any_call(cut: float) -> None:
    whole = MemoryFile()
    Writing().run(whole)
    made = MemoryFile()
    archive_in(made)
    for calls in range(made.calls, whole.calls + 1):
        file, writing = MemoryFile(calls, cut), Writing()
        try:
            writing.run(file)
        except Stopped:
            assert calls < whole.calls
        found = contents(file.content)
        assert found == [data_of(number) for number in range(len(found))]
        assert writing.committed <= len(found) <= writing.appended + 1


def test_after_a_full_disk_it_goes_on_and_is_closed() -> None:
    whole = MemoryFile()
    Writing().run(whole)
    made = MemoryFile()
    archive_in(made)
    for calls in range(made.calls, whole.calls):
        file = MemoryFile(calls, 0.5, full=True)
        archive = archive_in(file)
        kept: list[bytes] = []
        for number in range(40):
            for _ in range(2):  # the disk is full for one call, and then has room again
                try:
                    data = data_of(number)
                    archive.append(data, entry_of(number, archive.size, data))
                    kept.append(data)
                    archive.commit()
                    break
                except OSError:
                    file.left = float("inf")
                    assert contents(file.content) == kept[: len(contents(file.content))]
                    if len(kept) > number:
                        archive.commit()
                        break
            assert contents(file.content) == kept
        try:
            archive.close()
        except OSError:
            file.left = float("inf")
        assert contents(file.content) == kept


def test_sizes_beyond_four_gibibytes_stand_in_the_directory() -> None:
    class Sparse(MemoryFile):
        """Forgets the data, and keeps what is beyond it."""

        base = 0

        def write_at(self, offset: int, data: bytes) -> None:
            if offset >= self.base:
                super().write_at(offset - self.base, data)

    from narupa_shared.recordings.zip_records import StoredEntry, directory, local_header

    at = 6 * 1024**3
    listed = StoredEntry(LIST, at, 5, zlib.crc32(b"hello"))
    file = Sparse()
    file.base = at
    file.write_at(at, local_header(listed) + b"hello")
    file.write_at(listed.data_at + 5, directory([StoredEntry(DATA, 0, at - 100, 1), listed], listed.data_at + 5))

    class Far(io.BytesIO):
        """The file as one of which the first bytes are a hole."""

        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(max(0, offset - at) if whence == 0 else offset, whence) + at

        def tell(self) -> int:
            return super().tell() + at

    with zipfile.ZipFile(Far(bytes(file.content))) as archive:
        assert archive.getinfo(DATA.decode()).file_size == at - 100
        assert archive.getinfo(LIST.decode()).header_offset == at
        assert archive.read(LIST.decode()) == b"hello"
