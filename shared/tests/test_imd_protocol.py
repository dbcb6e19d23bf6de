"""The IMD codec: what an engine sends is read in either byte order, however it is cut, and nothing else is."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.imd_protocol import (
    ByteOrder,
    ClientSession,
    Decoder,
    Energies,
    ImdParticleCountError,
    ImdProtocolError,
    MessageType,
    SessionInfo,
    Time,
    forces_message,
    frame_message,
    handshake,
    header,
    parsed_forces,
)

FULL = SessionInfo(time=True, energies=True, box=True, coordinates=True, wrapped=True, velocities=True, forces=True)
ENERGIES = Energies(7, 300.0, -10.0, -30.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
POSITIONS = np.arange(9, dtype=np.float32).reshape(3, 3)


def full_frame(order: ByteOrder, step: int = 7) -> bytes:
    return frame_message(
        order,
        POSITIONS + step,
        time=Time(0.002, 0.002 * step, step),
        energies=ENERGIES,
        box=np.diag([10.0, 11.0, 12.0]),
        velocities=POSITIONS * 2,
        forces=-POSITIONS,
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("cut", [1, 7, 8, 13, 10_000])
def test_a_session_of_version_3_is_read_however_it_is_cut(order: ByteOrder, cut: int) -> None:
    stream = handshake(3, order, FULL) + full_frame(order) + full_frame(order, 8)
    session = ClientSession(3)
    frames = [frame for at in range(0, len(stream), cut) for frame in session.feed(stream[at : at + cut])]
    assert (session.version, session.byte_order, session.info) == (3, order, FULL)
    assert len(frames) == 2
    frame = frames[1]
    assert frame.time == Time(0.002, 0.016, 8)
    assert frame.energies == ENERGIES
    np.testing.assert_array_equal(frame.positions, POSITIONS + 8)
    assert frame.box is not None and frame.velocities is not None and frame.forces is not None
    np.testing.assert_array_equal(frame.box, np.diag([10.0, 11.0, 12.0]))
    np.testing.assert_array_equal(frame.velocities, POSITIONS * 2)
    np.testing.assert_array_equal(frame.forces, -POSITIONS)
    assert frame.positions.dtype.newbyteorder("=") == np.float32


@pytest.mark.parametrize("cut", [1, 100, 333, 5000])
def test_only_the_newest_of_many_frames_is_taken_where_that_will_do(cut: int) -> None:
    stream = handshake(3, "<", FULL) + b"".join(full_frame("<", step) for step in range(100))
    session = ClientSession(3)
    frames = [frame for at in range(0, len(stream), cut) for frame in session.feed(stream[at : at + cut], newest=True)]
    steps = [frame.time.step for frame in frames if frame.time]
    assert steps == sorted(steps) and steps[-1] == 99
    assert len(frames) == 100 if cut < 256 else len(frames) <= 100 if cut < 512 else len(frames) < 20
    np.testing.assert_array_equal(frames[-1].positions, POSITIONS + 99)
    with pytest.raises(ImdParticleCountError):
        ClientSession(2).feed(stream, newest=True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_version_2_has_coordinates_and_perhaps_energies(order: ByteOrder) -> None:
    session = ClientSession(3)
    alone = session.feed(handshake(2, order) + frame_message(order, POSITIONS))
    assert session.version == 2 and len(alone) == 1
    assert alone[0].energies is None and alone[0].time is None and alone[0].box is None
    both = session.feed(frame_message(order, POSITIONS, energies=ENERGIES))
    assert both[0].energies == ENERGIES


def test_a_frame_holds_what_the_session_said_in_its_order() -> None:
    session = ClientSession(3)
    session.feed(handshake(3, "<", SessionInfo(time=True)))
    with pytest.raises(ImdProtocolError, match="COORDINATES where TIME was due"):
        session.feed(frame_message("<", POSITIONS))


def test_an_engine_without_coordinates_is_refused() -> None:
    with pytest.raises(ImdProtocolError, match="sends no coordinates"):
        ClientSession(3).feed(handshake(3, "<", SessionInfo(time=True, coordinates=False)))


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request", "no message of type 1213486160"),
        (b"\xff" * 16, "no message of type -1"),
        (header(MessageType.GO, 1), "a handshake was due, and GO came"),
        (handshake(1, "<"), "a handshake of version 1"),
        (handshake(4, ">"), "4"),
        (handshake(3, "<"), None),  # the session info is yet to come
        (handshake(3, "<") + header(MessageType.COORDINATES, 3) + bytes(36), "a session info was due"),
        (handshake(3, "<") + header(MessageType.SESSION_INFO, 8), "a session info of 8 bytes"),
        (handshake(2, "<") + header(MessageType.ENERGIES, 2**30), "1073741824 blocks"),
        (handshake(2, "<") + header(MessageType.TIME, 1) + bytes(24), "TIME in a session of version 2"),
        (handshake(2, "<") + header(MessageType.DISCONNECT), "ended the session"),
    ],
)
def test_what_is_no_imd_is_named(stream: bytes, complaint: str | None) -> None:
    session = ClientSession(3)
    if complaint is None:
        assert session.feed(stream) == [] and session.info is None
        return
    with pytest.raises(ImdProtocolError, match=complaint):
        session.feed(stream)


@pytest.mark.parametrize("count", [-1, 0, 2, 4, 2**31 - 1])
def test_another_number_of_particles_is_refused_by_its_header(count: int) -> None:
    with pytest.raises(ImdParticleCountError, match=f"sends {count} particles instead of 3") as refusal:
        ClientSession(3).feed(handshake(2, "<") + header(MessageType.COORDINATES, count))
    assert (refusal.value.sent, refusal.value.expected) == (count, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_forces_are_written_as_an_engine_reads_them(order: ByteOrder) -> None:
    session = ClientSession(3)
    session.feed(handshake(2, order))
    data = session.forces([2, 0], [[1, 2, 3], [4, 5, 6]])
    assert data == struct.pack(">ii", 6, 2) + struct.pack(f"{order}2i6f", 2, 0, 1, 2, 3, 4, 5, 6)
    decoder = Decoder(3)
    decoder.feed(data)
    (message,) = decoder.messages()
    indices, forces = parsed_forces(message, order)
    assert indices.tolist() == [2, 0] and forces.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert session.forces([], []) == struct.pack(">ii", 6, 0)


def test_more_forces_than_particles_are_refused() -> None:
    decoder = Decoder(1)
    decoder.feed(forces_message([0, 1], np.zeros((2, 3)), "<"))
    with pytest.raises(ImdParticleCountError):
        list(decoder.messages())


@pytest.mark.parametrize(("indices", "forces"), [([0], []), ([], [[1, 2, 3]])])
def test_as_many_forces_as_indices(indices: Any, forces: Any) -> None:
    with pytest.raises(ValueError, match="indices for"):
        forces_message(indices, forces, "<")


def test_pause_is_a_toggle_in_version_2_only() -> None:
    old, new = ClientSession(1), ClientSession(1)
    old.feed(handshake(2, "<"))
    new.feed(handshake(3, "<", SessionInfo()))
    assert old.pause() == old.resume() == new.pause() == struct.pack(">ii", 7, 0)
    assert new.resume() == struct.pack(">ii", 11, 0)


@given(st.binary(max_size=200), st.sampled_from([b"", handshake(2, "<"), handshake(3, ">", FULL)]))
def test_any_bytes_are_read_or_refused(data: bytes, before: bytes) -> None:
    session = ClientSession(2)
    session.feed(before)
    try:
        for frame in session.feed(data):
            assert frame.positions.shape == (2, 3)
    except ImdProtocolError:
        pass
    assert len(session._decoder._buffer) <= 200
