"""The records of a ZIP archive of stored entries, as bytes, and the arithmetic of their checksums. No I/O.

Layouts are those of PKWARE's APPNOTE.TXT, with ZIP64 fields where a number does not fit into 32 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END_64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_SIZES_64: Final = struct.Struct("<2H2Q")

LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ZIP64_VERSION: Final = 45
_MADE_ON_UNIX: Final = 3 << 8 | _ZIP64_VERSION
# Sizes and checksum of the entry stand in the directory alone: they were not known when its header was written.
_SIZES_FOLLOW: Final = 1 << 3
_REGULAR_FILE: Final = 0o100644 << 16
_FULL: Final = 0xFFFFFFFF
_ZIP64_EXTRA: Final = 1
_DAY: Final = 1 << 5 | 1  # 1 January 1980, the first that the format knows
_POLYNOMIAL: Final = 0xEDB88320


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry, uncompressed.

    Attributes:
        name: Of ASCII letters.
        header_at: Where its local header begins.
        size: Of its data, bytes.
        crc: CRC-32 of its data.
        settled: Whether its local header has these numbers too.
    """

    name: bytes
    header_at: int
    size: int = 0
    crc: int = 0
    settled: bool = False

    @property
    def data_at(self) -> int:
        """Where its data begins."""
        return self.header_at + header_size(self.name)

    @property
    def flags(self) -> int:
        return 0 if self.settled else _SIZES_FOLLOW


def header_size(name: bytes) -> int:
    """Of the local header of an entry of this name, bytes."""
    return LOCAL.size + len(name) + _SIZES_64.size


def local_header(entry: StoredEntry) -> bytes:
    """The record before the entry's data; with room for sizes of 64 bits whether they are needed or not."""
    size, crc = (entry.size, entry.crc) if entry.settled else (0, 0)
    head = LOCAL.pack(
        LOCAL_SIGNATURE,
        _ZIP64_VERSION,
        entry.flags,
        0,
        0,
        _DAY,
        crc,
        _FULL,
        _FULL,
        len(entry.name),
        _SIZES_64.size,
    )
    return head + entry.name + _SIZES_64.pack(_ZIP64_EXTRA, _SIZES_64.size - 4, size, size)


def directory(entries: list[StoredEntry], at: int) -> bytes:
    """The central directory that lies at `at`, and the records that end the archive."""
    listed = b"".join(_listed(entry) for entry in entries)
    count, size = len(entries), len(listed)
    tail = b""
    if at >= _FULL:
        end_at = at + size
        tail += _END_64.pack(
            b"PK\x06\x06", _END_64.size - 12, _MADE_ON_UNIX, _ZIP64_VERSION, 0, 0, count, count, size, at
        )
        tail += _LOCATOR_64.pack(b"PK\x06\x07", 0, end_at, 1)
    return listed + tail + _END.pack(b"PK\x05\x06", 0, 0, count, count, size, min(at, _FULL), 0)


def _listed(entry: StoredEntry) -> bytes:
    large = [number for number in (entry.size, entry.size, entry.header_at) if number >= _FULL]
    extra = struct.pack(f"<2H{len(large)}Q", _ZIP64_EXTRA, 8 * len(large), *large) if large else b""
    size = min(entry.size, _FULL)
    return (
        _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_ON_UNIX,
            _ZIP64_VERSION,
            entry.flags,
            0,
            0,
            _DAY,
            entry.crc,
            size,
            size,
            len(entry.name),
            len(extra),
            0,
            0,
            0,
            _REGULAR_FILE,
            min(entry.header_at, _FULL),
        )
        + entry.name
        + extra
    )


def joined_crc(first: int, second: int, second_size: int) -> int:
    """The CRC-32 of two pieces of data, one behind the other, from that of each and the size of the second in bytes.

    A CRC is a polynomial's remainder: what stands in front of n more bytes is multiplied by x to the power of 8 n.
    """
    power, square = 1 << 31, 1 << 23  # 1, and x to the power of 8: the highest bit is the lowest power
    while second_size:
        if second_size & 1:
            power = _product(square, power)
        square = _product(square, square)
        second_size >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """Of two polynomials over bits, modulo that of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
