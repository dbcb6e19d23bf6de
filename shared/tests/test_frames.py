"""The frame codec: both wire forms give back what went in, and the compat one is what protobuf itself would write."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared import frames
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.protocol.trajectory import frame_pb2, trajectory_service_pb2
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2

KEYS = st.text(min_size=1, max_size=20)
FLOATS = st.floats(width=32, allow_nan=False)
ARRAYS = st.one_of(
    st.lists(FLOATS, max_size=9).map(lambda items: np.array(items, np.float32)),
    st.lists(st.integers(0, 2**32 - 1), max_size=9).map(lambda items: np.array(items, np.uint32)),
    st.lists(st.text(max_size=5), max_size=5),
)
FRAMES = st.builds(
    Frame,
    index=st.integers(0, 2**32 - 1),
    values=st.dictionaries(KEYS, st.one_of(FLOATS, st.text(max_size=9), st.booleans()), max_size=4),
    arrays=st.dictionaries(KEYS, ARRAYS, max_size=4),
)


def same(left: Frame, right: Frame) -> bool:
    assert left.index == right.index
    assert left.values == right.values
    assert left.arrays.keys() == right.arrays.keys()
    for key, array in left.arrays.items():
        other = right.arrays[key]
        if isinstance(array, list):
            assert array == other
        else:
            assert isinstance(other, np.ndarray)
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array.ravel(), other.ravel())
    return True


@given(FRAMES)
def test_native_form_gives_back_the_frame(frame: Frame) -> None:
    assert same(frame, frames.decode_v1(frames.encode_v1(frame)))


@given(FRAMES)
def test_compat_form_gives_back_the_frame(frame: Frame) -> None:
    response = frames.response_compat(frame.index, frames.encode_compat(frame))
    assert same(frame, frames.decode_compat_response(response))


@given(FRAMES)
def test_compat_form_is_read_by_the_plain_schema(frame: Frame) -> None:
    """Existing clients declare `repeated float` where the codec declares bytes; the wire must not differ."""
    read = trajectory_service_pb2.GetFrameResponse.FromString(
        frames.response_compat(frame.index, frames.encode_compat(frame))
    )
    assert read.frame_index == frame.index
    for key, array in frame.arrays.items():
        item = read.frame.arrays[key]
        if isinstance(array, list):
            assert list(item.string_values.values) == array
        elif array.dtype.kind == "f":
            np.testing.assert_array_equal(np.array(item.float_values.values, np.float32), array)
        else:
            assert list(item.index_values.values) == array.tolist()


def test_arrays_are_encoded_in_the_order_of_their_items_however_they_lie_in_memory() -> None:
    array = np.arange(12, dtype=np.float64).reshape(3, 4).T[:, ::2]
    frame = Frame(1, {}, {"particle.positions": array.astype(np.float32), "other": array})
    for read in (frames.decode_v1(frames.encode_v1(frame)), frames.decode_compat(frames.encode_compat(frame))):
        for key in frame.arrays:
            np.testing.assert_array_equal(np.ravel(read.arrays[key]), array.ravel())


def test_parts_share_the_memory_of_arrays() -> None:
    positions = np.zeros((50, 3), np.float32)
    frame = Frame(1, {}, {"particle.positions": positions})
    for parts in (frames.parts_v1(frame), frames.parts_compat(frame)):
        shared = [np.frombuffer(part, np.uint8) for part in parts if isinstance(part, memoryview)]
        assert len(shared) == 1 and np.shares_memory(shared[0], positions)
        assert frames.size_of(parts) == len(b"".join(parts))


def test_plain_schema_is_read_by_the_codec() -> None:
    message = frame_pb2.FrameData()
    message.values["energy.kinetic"].number_value = 1.5
    message.arrays["particle.positions"].float_values.values.extend([1, 2, 3, 4, 5, 6])
    message.arrays["bond.pairs"].index_values.values.extend([0, 1])
    frame = frames.decode_compat(message.SerializeToString())
    np.testing.assert_array_equal(frame.arrays["particle.positions"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(frame.arrays["bond.pairs"], [[0, 1]])
    assert frame.values == {"energy.kinetic": 1.5}


def test_concatenated_forms_are_the_merge() -> None:
    """A late joiner gets the topology, encoded long ago, in front of the newest frame."""
    topology = Frame(0, {"particle.count": 2.0, "x": 1.0}, {"particle.elements": np.array([1, 8], np.uint32)})
    frame = Frame(7, {"x": 2.0}, {"particle.positions": np.ones((2, 3), np.float32)})
    merged = Frame(7, {**topology.values, **frame.values}, {**topology.arrays, **frame.arrays})
    assert same(merged, frames.decode_v1(frames.encode_v1(topology) + frames.encode_v1(frame)))
    assert same(merged, frames.decode_compat(frames.encode_compat(topology) + frames.encode_compat(frame), 7))


def test_merging_keeps_a_restart() -> None:
    first, second, restart = Frame(3, {"a": 1.0}), Frame(4, {"b": 2.0}), Frame(0, {"c": 3.0})
    assert first.merged(second) == Frame(4, {"a": 1.0, "b": 2.0})
    assert first.merged(restart) == restart
    assert restart.merged(second) == Frame(0, {"c": 3.0, "b": 2.0})


@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\xff\xff", b"\x12\x03abc"])
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        frames.decode_v1(garbage)
    with pytest.raises(InvalidArgumentError):
        frames.decode_compat(garbage)


def test_data_that_does_not_fill_its_shape_is_refused() -> None:
    message = trajectory_pb2.Frame()
    message.arrays["particle.positions"].dtype = trajectory_pb2.DTYPE_FLOAT32
    message.arrays["particle.positions"].shape.extend([2, 3])
    message.arrays["particle.positions"].data = b"1234"
    with pytest.raises(InvalidArgumentError, match=r"particle\.positions"):
        frames.decode_v1(message.SerializeToString())


@given(
    st.lists(st.sampled_from(["", "C", "CA", "H\u00e9", "\U0001f600"]), max_size=5).map(
        lambda few: few * (frames.MANY_TEXTS // 2)
    )
)
def test_many_texts_are_what_they_were(texts: list[str]) -> None:
    data = frames.encode_v1(Frame(1, {}, {"particle.names": texts}))
    read = frames.decode_v1(data).arrays["particle.names"]
    assert read == texts and isinstance(read, list)
    if len(texts) >= frames.MANY_TEXTS:
        written = trajectory_pb2.Frame.FromString(data).arrays["particle.names"]
        assert sorted(written.strings) == sorted(set(texts))
        assert written.shape == [len(texts)] and len(written.data) == 4 * len(texts)


def test_many_texts_that_differ_are_written_as_they_are() -> None:
    texts = [str(number) for number in range(frames.MANY_TEXTS)]
    data = frames.encode_v1(Frame(1, {}, {"residue.ids": texts}))
    assert not trajectory_pb2.Frame.FromString(data).arrays["residue.ids"].data
    assert frames.decode_v1(data).arrays["residue.ids"] == texts


@pytest.mark.parametrize("numbers", [[0, 2], [2**32 - 1], [2**31]])
def test_texts_that_are_not_there_are_refused(numbers: list[int]) -> None:
    message = trajectory_pb2.Frame()
    message.arrays["particle.names"].dtype = trajectory_pb2.DTYPE_STRING
    message.arrays["particle.names"].strings.extend(["C", "H"])
    for data in (np.array(numbers, "<u4").tobytes(), b"123"):
        message.arrays["particle.names"].data = data
        with pytest.raises(InvalidArgumentError, match=r"particle\.names"):
            frames.decode_v1(message.SerializeToString())


@given(st.integers(0, 2**63 - 1))
def test_varint_is_protobufs_own(number: int) -> None:
    assert frames.varint(number) == trajectory_pb2.Frame(index=number).SerializeToString()[1:] or number == 0
