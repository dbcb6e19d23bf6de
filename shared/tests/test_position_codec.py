"""Positions on the wire: never further off than half a step, never garbage, and nothing that a stranger sends does harm."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError
from narupa_shared.position_codec import Kind, PositionDecoder, PositionEncoder, PositionHeader

Positions = NDArray[np.float32]


def thermal(count: int, frames: int, spread_nm: float = 0.01, seed: int = 1) -> list[Positions]:
    """Frames of particles in a box of 5 nm that move at random."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 5, (count, 3))
    moves = rng.normal(0, spread_nm, (frames - 1, count, 3))
    return [each.astype(np.float32) for each in (start, *(start + np.cumsum(moves, axis=0)))]


def bound(given: Positions, precision_nm: float) -> NDArray[np.float64]:
    """The largest error allowed for each coordinate: half a step, and the rounding to float32."""
    return precision_nm / 2 + (np.abs(given.astype(np.float64)) + precision_nm) * 1.001 * 2**-24


def assert_close(got: Positions, given: Positions, precision_nm: float) -> None:
    assert got.dtype == np.float32
    assert got.shape == given.shape
    odd = ~np.isfinite(given)
    np.testing.assert_array_equal(got[odd], given[odd])
    error = np.abs(got[~odd].astype(np.float64) - given[~odd])
    assert (error <= bound(given[~odd], precision_nm)).all()


def kinds(messages: list[bytes]) -> list[Kind]:
    return [PositionHeader.parse(message).kind for message in messages]


coordinates = st.one_of(
    st.floats(-20, 20, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 0.0005, -0.0005, 0.0015, 2147483.0, -2147484.0, 2147485.0, 3e38, math.inf, math.nan]),
)
any_positions = st.integers(0, 5).flatmap(
    lambda count: arrays.arrays(np.float32, (count, 3), elements=st.floats(-20, 20, width=32) | coordinates)
)
precisions = st.sampled_from([1e-6, 1e-4, 0.001, 0.003, 0.01, 1.0])


@given(st.lists(st.tuples(any_positions, st.booleans()), min_size=1, max_size=8), precisions)
def test_no_coordinate_is_further_off_than_half_a_step(
    frames: list[tuple[Positions, bool]], precision_nm: float
) -> None:
    encoder, decoder = PositionEncoder(precision_nm), PositionDecoder()
    for number, (positions, key) in enumerate(frames):
        message = encoder.encode(positions, key=key)
        assert PositionHeader.parse(message).number == number
        assert_close(decoder.decode(message), positions, precision_nm)


@given(
    arrays.arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32)),
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=6),
)
def test_jumps_across_the_box_cost_no_accuracy(start: Positions, jumps: list[float]) -> None:
    encoder, decoder = PositionEncoder(), PositionDecoder()
    decoder.decode(encoder.encode(start))
    for jump in jumps:
        moved = start.copy()
        moved[1] += np.float32(jump)
        message = encoder.encode(moved)
        assert PositionHeader.parse(message).kind == Kind.CHANGE
        assert_close(decoder.decode(message), moved, 0.001)


def test_errors_do_not_add_up() -> None:
    encoder, decoder = PositionEncoder(), PositionDecoder()
    start = np.array([[0.0, 1.0, -2.0]], np.float32)
    for frame in range(2000):
        positions = start + np.float32(0.00037) * np.float32(frame)
        assert_close(decoder.decode(encoder.encode(positions)), positions, 0.001)


def test_steps_are_multiples_of_the_precision_whatever_came_before() -> None:
    frames = thermal(50, 20)
    encoder, decoder = PositionEncoder(), PositionDecoder()
    for frame in frames:
        alone = PositionDecoder().decode(PositionEncoder().encode(frame))
        np.testing.assert_array_equal(decoder.decode(encoder.encode(frame)), alone)


def test_it_is_whole_first_then_changes_and_whole_when_asked_or_when_the_count_is_another() -> None:
    a, b = thermal(10, 2)
    encoder = PositionEncoder()
    messages = [
        encoder.encode(a),
        encoder.encode(b),
        encoder.encode(a, key=True),
        encoder.encode(b),
        encoder.encode(b[:9]),
    ]
    assert kinds(messages) == [Kind.WHOLE, Kind.CHANGE, Kind.WHOLE, Kind.CHANGE, Kind.WHOLE]
    headers = [PositionHeader.parse(message) for message in messages]
    assert [(each.number, each.reference) for each in headers] == [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4)]
    assert [each.particles for each in headers] == [10, 10, 10, 10, 9]
    assert {each.precision_nm for each in headers} == {0.001}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 3e38, -2147484.0])
def test_what_cannot_be_counted_in_steps_is_sent_as_it_is(odd: float) -> None:
    a, b = thermal(5, 2)
    broken = b.copy()
    broken[2, 1] = odd
    encoder, decoder = PositionEncoder(), PositionDecoder()
    messages = [encoder.encode(a), encoder.encode(broken), encoder.key_frame(), encoder.encode(b)]
    assert kinds(messages) == [Kind.WHOLE, Kind.EXACT, Kind.EXACT, Kind.WHOLE]
    decoded = [decoder.decode(message) for message in messages]
    np.testing.assert_array_equal(decoded[1], broken)
    assert_close(decoded[3], b, 0.001)


def test_a_late_joiner_begins_with_the_last_frame_whole_and_goes_on_with_everybody() -> None:
    frames = thermal(200, 6)
    encoder, early, late = PositionEncoder(), PositionDecoder(), PositionDecoder()
    for frame in frames[:4]:
        seen = early.decode(encoder.encode(frame))
    np.testing.assert_array_equal(late.decode(encoder.key_frame()), seen)
    assert encoder.key_frame() is encoder.key_frame()
    for frame in frames[4:]:
        message = encoder.encode(frame)
        assert PositionHeader.parse(message).kind == Kind.CHANGE
        np.testing.assert_array_equal(late.decode(message), early.decode(message))


def test_there_is_no_whole_frame_before_the_first() -> None:
    with pytest.raises(FailedPreconditionError, match="no positions"):
        PositionEncoder().key_frame()


def test_a_reader_that_missed_a_message_says_so_until_a_whole_one_comes() -> None:
    frames = thermal(20, 5)
    encoder, decoder = PositionEncoder(), PositionDecoder()
    messages = [encoder.encode(frame) for frame in frames]
    with pytest.raises(FailedPreconditionError, match="message 0, and none has been read"):
        decoder.decode(messages[1])
    decoder.decode(messages[0])
    with pytest.raises(FailedPreconditionError, match="message 1, and the last one read is 0"):
        decoder.decode(messages[2])
    decoder.decode(messages[1])  # nothing was lost by the refusal
    with pytest.raises(FailedPreconditionError):
        decoder.decode(messages[1])
    assert_close(decoder.decode(encoder.key_frame()), frames[-1], 0.001)


def test_after_exact_positions_there_is_nothing_to_build_on() -> None:
    a, b = thermal(3, 2)
    encoder, decoder = PositionEncoder(), PositionDecoder()
    whole, change = encoder.encode(a), encoder.encode(b)
    decoder.decode(whole)
    decoder.decode(PositionEncoder().encode(np.full((3, 3), np.nan, np.float32)))
    with pytest.raises(FailedPreconditionError):
        decoder.decode(change)


def test_numbers_begin_anew_after_the_last() -> None:
    a, b = thermal(3, 2)
    encoder, decoder = PositionEncoder(first=2**32 - 1), PositionDecoder()
    decoder.decode(encoder.encode(a))
    message = encoder.encode(b)
    assert (PositionHeader.parse(message).number, PositionHeader.parse(message).reference) == (0, 2**32 - 1)
    assert_close(decoder.decode(message), b, 0.001)


def test_differences_beyond_32_bits_come_back() -> None:
    near = np.array([[-2147483.0, 0, 2147483.0], [2147483.0, -2147483.0, 0]], np.float32)
    encoder, decoder = PositionEncoder(), PositionDecoder()
    for frame in (near, -near, near):
        assert_close(decoder.decode(encoder.encode(frame)), frame, 0.001)


def test_nothing_that_moves_costs_little_more_than_the_header() -> None:
    (frame,) = thermal(1000, 1)
    encoder = PositionEncoder()
    encoder.encode(frame)
    assert len(encoder.encode(frame)) == 24
    assert len(PositionEncoder().encode(np.empty((0, 3), np.float32))) == 24


def test_a_message_is_close_to_what_entropy_demands() -> None:
    frames = thermal(5000, 3, spread_nm=0.01)
    encoder = PositionEncoder()
    encoder.encode(frames[0])
    floor = (
        3 * math.log2(10 * math.sqrt(2 * math.pi * math.e)) / 8
    )  # bytes a particle, of Gaussian steps of 10 on average
    for frame in frames[1:]:
        assert floor * 0.98 < len(encoder.encode(frame)) / 5000 < floor * 1.06


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 3, 1), ()])
def test_another_shape_is_refused_and_changes_nothing(shape: tuple[int, ...]) -> None:
    encoder = PositionEncoder()
    with pytest.raises(InvalidArgumentError, match="shape"):
        encoder.encode(np.zeros(shape, np.float32))
    assert PositionHeader.parse(encoder.encode(np.zeros((1, 3), np.float32))).number == 0


@pytest.mark.parametrize("precision", [0.0, -0.001, math.nan, math.inf, 1e-9, 2.0])
def test_a_precision_out_of_range_is_refused(precision: float) -> None:
    with pytest.raises(InvalidArgumentError, match="precision_nm"):
        PositionEncoder(precision)


def message(
    planes: list[bytes],
    *,
    version: int = 1,
    kind: int = 1,
    particles: int = 2,
    number: int = 0,
    reference: int = 0,
    precision: float = 0.001,
) -> bytes:
    """A message made by hand from the description in docs/frames.md."""
    head = struct.pack("<BBBxIIId", version, kind, len(planes), particles, number, reference, precision)
    return head + b"".join(struct.pack("<I", len(plane)) for plane in planes) + b"".join(planes)


def plane(*values: int) -> bytes:
    return zstandard.compress(bytes(values))


def test_the_description_is_enough_to_write_messages() -> None:
    decoder = PositionDecoder()
    # 1.000, -0.001, 0.256 nm, and from there 0.001, 0, -0.300 nm
    whole = message([plane(0xD0, 1, 0x00, 2, 0, 0x57), plane(0x07, 0, 0x02, 0, 0, 0x02)])
    np.testing.assert_allclose(decoder.decode(whole), [[1.0, -0.001, 0.256], [1.001, -0.001, -0.044]], atol=1e-7)
    change = message([plane(2, 1, 0, 0, 0, 4)], kind=2, number=7)
    np.testing.assert_allclose(decoder.decode(change), [[1.001, -0.002, 0.256], [1.001, -0.001, -0.042]], atol=1e-7)


def test_the_description_is_enough_to_read_messages() -> None:
    frames = thermal(7, 2)
    encoder = PositionEncoder()
    steps: list[int] = [0] * 21
    for data, kind in ((encoder.encode(frames[0]), 1), (encoder.encode(frames[1]), 2)):
        version, got, count, particles, _, _, precision = struct.unpack_from("<BBBxIIId", data)
        assert (version, got, particles, precision) == (1, kind, 7, 0.001)
        start = 24 + 4 * count
        folded = [0] * 21
        for n, length in enumerate(struct.unpack_from(f"<{count}I", data, 24)):
            for place, byte in enumerate(zstandard.decompress(data[start : start + length])):
                folded[place] |= byte << 8 * n
            start += length
        for place, value in enumerate(folded):
            before = steps[place] if kind == 2 else steps[place - 3] if place >= 3 else 0
            steps[place] = before + ((value >> 1) ^ -(value & 1))
        assert start == len(data)
    np.testing.assert_allclose(np.reshape(steps, (7, 3)) * 0.001, frames[1], atol=0.00051)


still = plane(0, 0, 0, 0, 0, 0)
wrong: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "header"),
    "short": (message([])[:23], "header"),
    "version": (message([still], version=2), "version 2"),
    "kind": (message([still], kind=3), "kind 3"),
    "planes": (message([still] * 5), "5 planes"),
    "planes of exact": (message([still], kind=0), "kind 0"),
    "whole with a reference": (message([still], number=2), "builds on another"),
    "no precision": (message([still], precision=0.0), "precision"),
    "precision is not a number": (message([still], precision=math.nan), "precision"),
    "precision too coarse": (message([still], precision=1e9), "precision"),
    "too many": (message([], particles=101), "at most 100"),
    "exact too short": (message([], kind=0), "length"),
    "exact too long": (message([], kind=0) + bytes(25), "length"),
    "no lengths": (message([still] * 4)[:30], "lengths"),
    "truncated": (message([still])[:-1], "plane"),
    "trailing": (message([still]) + b"\0", "bytes"),
    "a plane too short": (message([plane(0, 0, 0)]), "6 bytes"),
    "a bomb": (message([zstandard.compress(bytes(1 << 26))]), "6 bytes"),
    "no zstd": (message([b"not a frame at all"]), "not zstd"),
    "an empty plane": (message([b""]), "not zstd"),
    "a size kept back": (message([zstandard.ZstdCompressor(write_content_size=False).compress(bytes(6))]), "6 bytes"),
    "two frames in a plane": (message([still + still]), "not zstd"),
    "a false size": (message([still[:5] + b"\x05" + still[6:]], particles=2), "plane"),
}


@pytest.mark.parametrize("name", wrong)
def test_what_is_no_message_is_refused_and_harms_nothing(name: str) -> None:
    data, reason = wrong[name]
    decoder = PositionDecoder(max_particles=100)
    first = decoder.decode(message([plane(2, 2, 2, 0, 0, 0)]))
    with pytest.raises(InvalidArgumentError, match=reason):
        decoder.decode(data)
    np.testing.assert_array_equal(decoder.decode(message([], kind=2, number=1)), first)


@pytest.mark.parametrize("other", [{"particles": 3}, {"precision": 0.002}])
def test_a_change_of_another_count_or_precision_is_refused(other: dict[str, Any]) -> None:
    decoder = PositionDecoder()
    decoder.decode(message([still]))
    with pytest.raises(InvalidArgumentError, match="builds"):
        decoder.decode(message([], kind=2, number=1, **other))


SAMPLES = [
    encoder.encode(frame)
    for encoder in [PositionEncoder()]
    for frame in [*thermal(3, 3), np.full((3, 3), np.inf, "f4")]
]


@settings(max_examples=300)
@given(
    st.integers(0, 3), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 200)
)
def test_damage_never_ends_in_anything_but_an_error_or_positions(
    sample: int, changes: list[tuple[int, int]], end: int
) -> None:
    decoder = PositionDecoder(max_particles=1000)
    for intact in SAMPLES[:sample]:
        decoder.decode(intact)
    data = bytearray(SAMPLES[sample])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        positions = decoder.decode(bytes(data[: end or None]))
    except NarupaError:
        return
    assert positions.dtype == np.float32
    assert positions.ndim == 2
    assert positions.shape[1] == 3
    assert len(positions) <= 1000


@given(st.binary(max_size=100))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(NarupaError):
        PositionDecoder().decode(b"\x01\x02" + data)


def test_every_prefix_of_a_message_is_refused() -> None:
    for sample, length in itertools.product(SAMPLES[::3], range(80)):
        if length < len(sample):
            with pytest.raises(InvalidArgumentError):
                PositionDecoder().decode(sample[:length])
