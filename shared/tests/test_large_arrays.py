"""Large arrays found in a message: whatever the bytes, the frame is the one that the parser alone makes of them, or none."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame, decode_frame_response_v1, encode_v1, response_v1, varint
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.large_arrays import LARGE_BYTES, MAX_FIELDS, frame_apart

POSITIONS = np.arange(3 * 5_000, dtype=np.float32).reshape(-1, 3)
FRAME = Frame(
    7, {"energy.kinetic": 1.5, "name": "x"}, {"particle.positions": POSITIONS, "system.box.vectors": POSITIONS[:3]}
)
TOPOLOGY = Frame(
    0, {"particle.count": 5000.0}, {"particle.elements": np.ones(5000, np.uint32), "particle.names": ["C"] * 5000}
)


def field(number: int, inside: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(inside)) + inside


def parsed(data: bytes) -> bytes | None:
    try:
        return v1.SubscribeFramesResponse.FromString(data).frame.SerializeToString(deterministic=True)
    except DecodeError:
        return None


def put_together(data: bytes, large: int = 1) -> bytes | None:
    """The frame and its arrays, of which all count as large, in one again."""
    try:
        frame, apart = frame_apart(data, large)
    except DecodeError:
        return None
    for key, memory in apart.items():
        assert not frame.arrays[key].data
        frame.arrays[key].data = bytes(memory)
    return frame.SerializeToString(deterministic=True)


def test_large_arrays_are_memory_of_the_message_and_the_rest_is_parsed() -> None:
    data = response_v1(encode_v1(TOPOLOGY), encode_v1(FRAME), b"\x08\x00")
    frame, large = frame_apart(data)
    assert large.keys() == {"particle.positions", "particle.elements"}
    for memory in large.values():
        assert np.shares_memory(np.frombuffer(memory, np.uint8), np.frombuffer(data, np.uint8))
    assert frame.index == 0 and len(frame.arrays["system.box.vectors"].data) == 36
    assert put_together(data) == parsed(data)


@pytest.mark.parametrize("kind", [bytes, memoryview, lambda data: memoryview(bytearray(data))])
@pytest.mark.parametrize("key", ["a", "ab", "abc", "abcd"])  # by which the array lies at any multiple of a byte
def test_arrays_are_aligned_and_read_only_wherever_they_lay(kind: type, key: str) -> None:
    data = kind(response_v1(encode_v1(Frame(1, {}, {key: POSITIONS}))))
    array = decode_frame_response_v1(data).arrays[key]
    assert isinstance(array, np.ndarray) and array.flags.aligned and not array.flags.writeable
    np.testing.assert_array_equal(array, POSITIONS)


def test_an_array_that_comes_twice_is_the_later_one() -> None:
    later = Frame(8, {}, {"particle.positions": POSITIONS + 1})
    small = Frame(9, {}, {"particle.positions": POSITIONS[:1]})
    for frames in ((FRAME, later), (FRAME, small), (small, FRAME)):
        data = response_v1(*map(encode_v1, frames))
        np.testing.assert_array_equal(
            decode_frame_response_v1(data).arrays["particle.positions"], frames[1].arrays["particle.positions"]
        )


def test_texts_and_frames_of_many_fields_are_left_to_the_parser() -> None:
    """Who sends a million fields shall not have them looked at one by one."""
    texts = v1.Array(dtype=v1.DTYPE_STRING, strings=["ab"] * 20_000)
    array = v1.Array(shape=[1] * 20_000, data=bytes(LARGE_BYTES))
    unpacked = field(1, b"x") + field(2, b"\x10\x01" * 20_000 + field(3, bytes(LARGE_BYTES)))
    for frame in (
        v1.Frame(arrays={"a": texts}).SerializeToString() + encode_v1(FRAME),
        v1.Frame(arrays={"a": array}).SerializeToString(),
        field(3, unpacked),
        b"\x08\x01" * MAX_FIELDS + encode_v1(FRAME),
    ):
        data = response_v1(frame)
        assert put_together(data) == parsed(data)
    assert frame_apart(data)[1] == {}
    assert frame_apart(response_v1(b"\x08\x01" * (MAX_FIELDS - 10) + encode_v1(FRAME)))[1].keys() == {
        "particle.positions"
    }


def test_data_that_does_not_fill_its_shape_is_refused() -> None:
    array = v1.Array(dtype=v1.DTYPE_FLOAT32, shape=[5_000, 3], data=bytes(2 * LARGE_BYTES))
    data = v1.SubscribeFramesResponse(frame=v1.Frame(arrays={"a": array})).SerializeToString()
    with pytest.raises(InvalidArgumentError, match=r"32768 bytes.*does not fill shape"):
        decode_frame_response_v1(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_messages_are_what_the_parser_takes_them_for(data: st.DataObject) -> None:
    few = Frame(
        3, {"a": 1.0}, {"p": np.arange(6, dtype=np.float32).reshape(2, 3), "t": ["x"], "e": np.ones(2, np.uint32)}
    )
    message = bytearray(response_v1(encode_v1(few), encode_v1(Frame(4, {}, {"q": np.zeros(40, np.float32)}))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        put = data.draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b"\x0a", b"\x12", b"\x1a", b"\x0b", b"\x80", b"\x00"]))
        )
        message[place : place + data.draw(st.integers(0, 2))] = put
    assert put_together(bytes(message)) == parsed(bytes(message))


SCRAPS = st.one_of(
    st.binary(max_size=4),
    st.builds(lambda number, value: varint(number << 3) + varint(value), st.integers(0, 17), st.integers(0, 2**64 - 1)),
    st.builds(lambda number, kind: varint(number << 3 | kind) + bytes(8), st.integers(0, 3), st.integers(0, 7)),
    st.builds(field, st.integers(0, 17), st.binary(max_size=5)),
)
ARRAYS = st.lists(st.one_of(SCRAPS, st.builds(field, st.integers(1, 4), st.binary(max_size=8))), max_size=5).map(
    b"".join
)
ENTRIES = st.lists(
    st.one_of(
        st.builds(field, st.just(1), st.sampled_from([b"", b"a", b"b", b"\xff", b"\xed\xa0\x80"])),
        st.builds(field, st.just(2), ARRAYS),
        SCRAPS,
    ),
    max_size=3,
).map(b"".join)
PLAIN = st.builds(lambda key, array: field(1, key) + field(2, array), st.sampled_from([b"", b"a", b"b"]), ARRAYS)
FRAMES = st.lists(st.one_of(st.builds(field, st.just(3), st.one_of(PLAIN, ENTRIES)), SCRAPS), max_size=4).map(b"".join)
RESPONSES = st.one_of(
    FRAMES.map(lambda frame: field(1, frame)),
    st.lists(st.one_of(FRAMES.map(lambda frame: field(1, frame)), SCRAPS), max_size=2).map(b"".join),
)


@settings(max_examples=500, deadline=None)
@given(RESPONSES)
def test_anything_else_is_what_the_parser_takes_it_for(data: bytes) -> None:
    assert put_together(data) == parsed(data)
