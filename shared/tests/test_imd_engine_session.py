"""The engine's side of IMD: what clients ask for is taken, and whatever else comes ends the session without a trace."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.imd_engine_session import NATIVE, EngineSession, Push
from narupa_shared.imd_protocol import (
    ClientSession,
    ImdProtocolError,
    MessageType,
    SessionInfo,
    forces_message,
    header,
)

GO = header(MessageType.GO)
MOST = 5


def session(version: int = 3, particles: int = 4) -> EngineSession:
    return EngineSession(version, SessionInfo(time=True, box=True), particles, MOST)


def going(version: int = 3, particles: int = 4) -> EngineSession:
    made = session(version, particles)
    made.feed(GO)
    return made


def forces(indices: Any, vectors: Any) -> bytes:
    return forces_message(indices, vectors, NATIVE)


@pytest.mark.parametrize("version", [2, 3])
def test_the_greeting_is_understood_by_our_own_client(version: int) -> None:
    client = ClientSession(4)
    client.feed(session(version).greeting())
    assert (client.version, client.byte_order) == (version, NATIVE)
    assert client.info == (SessionInfo(time=True, box=True) if version == 3 else SessionInfo())


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 1000])
def test_requests_are_taken_however_they_are_cut(cut: int) -> None:
    given = session()
    stream = b"".join(
        (
            GO,
            header(MessageType.WAIT, 1),
            header(MessageType.TRANSMISSION_RATE, 7),
            forces([2], [[1, 2, 3]]),
            forces([0, 3], [[0, 0, 1], [4, 5, 6]]),
            header(MessageType.PAUSE),
        )
    )
    found = [given.feed(stream[at : at + cut]) for at in range(0, len(stream), cut)]
    assert sum(count for count, _ in found) == 6
    assert given.going and given.paused and not given.left and given.rate == 7 and given.pending == 0
    push = [push for _, push in found if push is not None][-1]
    assert push.indices.tolist() == [0, 3]
    np.testing.assert_array_equal(push.forces, [[0, 0, 1], [4, 5, 6]])


def test_pause_is_a_toggle_in_version_2_and_not_in_version_3() -> None:
    two, three = going(2), going(3)
    for _ in range(2):
        three.feed(header(MessageType.PAUSE))
        assert three.paused
    three.feed(header(MessageType.RESUME))
    assert not three.paused
    for paused in (True, False, True):
        two.feed(header(MessageType.PAUSE))
        assert two.paused is paused


@pytest.mark.parametrize(("value", "rate"), [(0, 1), (-3, 1), (1, 1), (50, 50)])
def test_a_rate_of_zero_is_the_default(value: int, rate: int) -> None:
    given = going()
    given.feed(header(MessageType.TRANSMISSION_RATE, value))
    assert given.rate == rate


@pytest.mark.parametrize("type", [MessageType.DISCONNECT, MessageType.KILL, MessageType.IO_ERROR])
def test_who_leaves_is_not_heard_any_more(type: MessageType) -> None:
    for each in (session(), going()):
        each.feed(header(type) + b"whatever comes then is read by nobody")
        assert each.left


def test_forces_on_one_particle_add_up_and_none_is_no_force() -> None:
    push = going().feed(forces([3, 1, 3], [[1, 0, 0], [0, 0, 0], [1, 2, 0]]))[1]
    assert push is not None
    assert push.indices.tolist() == [3]
    np.testing.assert_array_equal(push.forces, [[2, 2, 0]])
    for nothing in (forces([], []), forces([1, 2], np.zeros((2, 3))), forces([1, 1], [[1, 0, 0], [-1, 0, 0]])):
        push = going().feed(nothing)[1]
        assert push is not None and push.empty
    large = float(np.finfo(np.float32).max)
    push = going().feed(forces([0, 0], [[large, 0, 0]] * 2))[1]
    assert push is not None and np.isfinite(push.forces).all()


WRONG: dict[str, bytes] = {
    "no such type": header(17),  # type: ignore[arg-type]
    "a negative type": struct.pack(">ii", -1, 0),
    "little-endian header": struct.pack("<ii", 3, 1),
    "an engine's message": header(MessageType.COORDINATES, 4),
    "an engine's greeting": header(MessageType.HANDSHAKE, 3),
    "energies": header(MessageType.ENERGIES, 1) + bytes(40),
    "session info": header(MessageType.SESSION_INFO, 7) + bytes(7),
    "forces on too many": header(MessageType.MDCOMM, MOST + 1),
    "a negative number of forces": header(MessageType.MDCOMM, -1),
    "the largest number of forces": header(MessageType.MDCOMM, 2**31 - 1),
    "a force on a particle that is not": forces([9], [[1, 0, 0]]),
    "a force on a negative particle": forces([-1], [[1, 0, 0]]),
    "a force that is no number": forces([0], [[math.nan, 0, 0]]),
    "an infinite force": forces([0], [[0, math.inf, 0]]),
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303"),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_no_client_may_send_ends_the_session(data: bytes) -> None:
    with pytest.raises(ImdProtocolError):
        going(particles=9).feed(data)


@pytest.mark.parametrize("type", [MessageType.RESUME, MessageType.WAIT])
def test_version_2_knows_no_message_of_version_3(type: MessageType) -> None:
    with pytest.raises(ImdProtocolError, match="version 2"):
        going(2).feed(header(type))


@pytest.mark.parametrize("data", [header(MessageType.PAUSE), forces([0], [[1, 0, 0]])])
def test_nothing_may_come_before_go(data: bytes) -> None:
    with pytest.raises(ImdProtocolError, match="GO was due"):
        session().feed(data)


@given(st.lists(st.tuples(st.integers(0, 3), st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3)), max_size=MOST))
def test_a_push_is_the_sum_of_what_was_sent(sent: list[tuple[int, tuple[float, float, float]]]) -> None:
    push = going(particles=5).feed(forces([index for index, _ in sent], [vector for _, vector in sent]))[1]
    assert isinstance(push, Push)
    assert (np.diff(push.indices) > 0).all() and push.forces.any(axis=1).all()
    total = np.zeros((5, 3))
    for index, vector in sent:
        total[index] += vector
    found = np.zeros((5, 3))
    found[push.indices] = push.forces
    np.testing.assert_allclose(found, total, rtol=1e-6, atol=1e-30)


def test_ten_thousand_strings_of_hostile_bytes_end_the_session_or_wait_for_more() -> None:
    chance = random.Random(8888)
    kept = 16 * MOST + 8
    heads = [header(type, value) for type in MessageType for value in (0, 1, 3, 4, -1, 2**31 - 1)]
    ended = 0
    for number in range(10_000):
        given = session(chance.choice((2, 3))) if number % 2 else going(chance.choice((2, 3)))
        try:
            for _ in range(chance.randrange(1, 6)):
                data = chance.randbytes(chance.randrange(0, 120))
                if chance.random() < 0.7:
                    data = chance.choice(heads) + data
                given.feed(data)
                assert given.pending <= kept or given.left
        except ImdProtocolError:
            ended += 1
    assert 5_000 < ended < 10_000


@given(st.binary(max_size=300), st.integers(1, 64), st.sampled_from([2, 3]))
def test_any_bytes_are_taken_or_refused(data: bytes, cut: int, version: int) -> None:
    whole, pieces = going(version), going(version)

    def outcome(given: EngineSession, parts: list[bytes]) -> Any:
        try:
            for part in parts:
                given.feed(part)
        except ImdProtocolError as error:
            return str(error)
        return given.paused, given.rate, given.left

    cuts = [data[at : at + cut] for at in range(0, len(data), cut)]
    assert outcome(whole, [data]) == outcome(pieces, cuts)
