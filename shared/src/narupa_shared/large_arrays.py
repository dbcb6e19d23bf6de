"""Large arrays of serialised frames, found where they lie in the message: the parser would copy each of them twice.

What is not written plainly (a field out of place, twice, or unknown where an array begins) is left to the parser, which is
also who refuses what is no frame. So a message means the same whether it is looked at here or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError

from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1

# A frame of more fields than this, and an array of more before its data, is not looked through here.
MAX_FIELDS: Final = 256
MAX_FIELDS_BEFORE: Final = 8
# From this size on an array is worth it.
LARGE_BYTES: Final = 16 * 1024
# A field's number and, as they are in this protocol, that its length comes next.
_FRAME: Final = v1.SubscribeFramesResponse.FRAME_FIELD_NUMBER << 3 | 2
_ARRAYS: Final = v1.Frame.ARRAYS_FIELD_NUMBER << 3 | 2
_KEY: Final = 1 << 3 | 2
_ARRAY: Final = 2 << 3 | 2
_DATA: Final = v1.Array.DATA_FIELD_NUMBER << 3 | 2
# Bytes of a field of a fixed size, by how it is written.
_FIXED: Final = {1: 8, 5: 4}
_LONGEST_LENGTH: Final = 4  # bytes that a length takes


class _NotPlainError(Exception):
    """The parser has to look at this message itself."""


def frame_apart(response: bytes | memoryview, large: int = LARGE_BYTES) -> tuple[v1.Frame, dict[str, memoryview]]:
    """The frame in a response of SubscribeFrames, GetFrame or GetFrames, without the data of some arrays, and those data, which
    are parts of `response`. Arrays that take fewer than `large` bytes are left in the frame.

    Raises:
        DecodeError: it is no such response.
    """
    if len(response) >= large:
        try:
            return _apart(memoryview(response), large)
        except (_NotPlainError, DecodeError, UnicodeDecodeError, IndexError):
            pass
    return v1.SubscribeFramesResponse.FromString(bytes(response)).frame, {}


def _apart(data: memoryview, large: int) -> tuple[v1.Frame, dict[str, memoryview]]:
    start, end = _sole_field(data, 0, len(data), _FRAME)
    if end != len(data):
        raise _NotPlainError
    frame, rest = v1.Frame(), list[memoryview]()
    found: dict[str, memoryview] = {}
    entries, kept = 0, start
    for number, (tag, begin, inside, after) in enumerate(_fields(data, start, end)):
        if number == MAX_FIELDS:
            raise _NotPlainError
        if tag != _ARRAYS:
            continue
        entries += 1
        if after - inside < large:
            continue
        key_start, key_end = _sole_field(data, inside, after, _KEY)
        array_start, array_end = _sole_field(data, key_end, after, _ARRAY)
        before = islice(_fields(data, array_start, array_end), MAX_FIELDS_BEFORE)
        data_begin, data_start, data_end = next((each[1:] for each in before if each[0] == _DATA), (0, 0, 0))
        if array_end != after:
            raise _NotPlainError
        if data_end != array_end:  # of texts, or what has more than one thing to say of its data
            continue
        key = str(data[key_start:key_end], "utf-8")
        frame.arrays[key].MergeFromString(bytes(data[array_start:data_begin]))
        found[key] = data[data_start:data_end]
        rest.append(data[kept:begin])
        kept = after
    rest.append(data[kept:end])
    frame.MergeFromString(b"".join(rest))
    if len(frame.arrays) != entries:  # one comes twice, and the later one is the one that holds
        raise _NotPlainError
    return frame, found


def _sole_field(data: memoryview, start: int, end: int, tag: int) -> tuple[int, int]:
    """Where what is in the field is that starts here."""
    first, _, inside, after = next(_fields(data, start, end), (0, 0, 0, 0))
    if first != tag:
        raise _NotPlainError
    return inside, after


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields from `start` to `end`: tag, where it begins, where what is in it does, and where it ends."""
    place = start
    while place < end:
        begin, tag = place, data[place]
        place += 1
        kind = tag & 7
        if tag > 0x7F or tag < 8:
            raise _NotPlainError
        if kind == 2:
            length, shift = data[place], 7
            place += 1
            if length > 0x7F:
                length &= 0x7F
                for _ in range(_LONGEST_LENGTH - 1):
                    byte = data[place]
                    place += 1
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte <= 0x7F:
                        break
                else:
                    raise _NotPlainError
            inside, place = place, place + length
        elif kind == 0:
            inside = place
            while data[place] > 0x7F:
                place += 1
            place += 1
        elif kind in _FIXED:
            inside, place = place, place + _FIXED[kind]
        else:
            raise _NotPlainError
        if place > end:
            raise _NotPlainError
        yield tag, begin, inside, place
