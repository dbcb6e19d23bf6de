"""The MessagePack messages of NanoVer: what goes out is what its clients unpack, and what strangers send is checked."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame
from narupa_shared.nanover_messages import (
    frame_message,
    frame_of,
    packed_items,
    state_change_of,
    state_message,
    unpacked,
)
from narupa_shared.published import Topology


def a_frame() -> Frame:
    return Frame.of(
        7,
        {
            keys.POSITIONS: np.arange(6, dtype=np.float32).reshape(2, 3),
            keys.ELEMENTS: np.array([6, 1], np.uint32),
            keys.NAMES: ["CA", "H"],
            keys.RESIDUES: np.array([0, 0], np.uint32),
            keys.BOND_PAIRS: np.array([[0, 1]], np.uint32),
            keys.BOND_ORDERS: np.array([1.0], np.float32),
            keys.BOX: np.eye(3, dtype=np.float32),
            keys.PARTICLE_COUNT: 2.0,
            keys.COUNTER: 3.0,
            keys.TIME: 0.5,
            keys.SIMULATION_NAME: "two",
            keys.INTERACTION_IDS: ["one"],
            keys.INTERACTION_ENERGIES: np.array([1.5], np.float32),
        },
    )


def test_a_frame_is_packed_as_its_clients_unpack_it() -> None:
    packed = msgpack.unpackb(frame_message(a_frame()))["frame"]
    assert packed["frame.index"] == 7
    assert packed["particle.positions"] == np.arange(6, dtype="<f4").tobytes()
    assert packed["particle.elements"] == b"\x06\x01"
    assert packed["particle.residues"] == np.zeros(2, "<u4").tobytes()
    assert packed["bond.pairs"] == np.array([0, 1], "<u4").tobytes()
    assert packed["bond.orders"] == b"\x01"
    assert packed["system.box.vectors"] == np.eye(3, dtype="<f4").tobytes()
    assert packed["particle.names"] == ["CA", "H"]
    assert packed["interaction.energies"] == [1.5]
    assert type(packed["particle.count"]) is int
    assert type(packed["system.simulation.time"]) is float
    assert packed["system.simulation.name"] == "two"


def test_a_frame_comes_back_as_it_was() -> None:
    frame = a_frame()
    again = frame_of(unpacked(frame_message(frame))["frame"])
    assert again.index == 7
    assert again.values == frame.values
    assert again.arrays.keys() == frame.arrays.keys()
    for key, array in frame.arrays.items():
        if isinstance(array, list):
            assert again.arrays[key] == array
        else:
            np.testing.assert_array_equal(again.arrays[key], array)
            assert again.arrays[key].dtype.kind == array.dtype.kind  # type: ignore[union-attr]


def test_lists_are_taken_where_bytes_are_usual() -> None:
    frame = frame_of({"particle.elements": [6, 1], "particle.positions": [0.0, 1.0, 2.0]})
    assert frame.arrays[keys.ELEMENTS].tolist() == [6, 1]  # type: ignore[union-attr]
    assert frame.arrays[keys.POSITIONS].shape == (1, 3)  # type: ignore[union-attr]
    assert frame.index == 1


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        ([], "frame"),
        ({"particle.positions": b"\0\0\0"}, "particle.positions"),
        ({"particle.positions": b"\0" * 16}, "rows of 3"),
        ({"particle.positions": 3}, "particle.positions"),
        ({"particle.elements": [-1]}, "particle.elements"),
        ({"particle.elements": [math.nan]}, "particle.elements"),
        ({"bond.pairs": [0, 2**32]}, "bond.pairs"),
        ({"bond.pairs": [[0, 1]]}, "bond.pairs"),
        ({"frame.index": -1}, "frame.index"),
        ({"frame.index": True}, "frame.index"),
        ({"frame.index": 1.5}, "frame.index"),
        ({"": 1}, "keys"),
        ({"x" * 300: 1}, "keys"),
        ({"custom": {"a": 1}}, "custom"),
        ({"custom": None}, "custom"),
        ({"custom": 2**80}, "custom"),
        ({"custom": ["a", 1]}, "custom"),
        ({str(number): 1 for number in range(1100)}, "keys"),
    ],
)
def test_a_wrong_frame_is_refused_by_name(packed: Any, named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        frame_of(packed)


def test_a_change_of_the_state_comes_back_as_it_was() -> None:
    updates = {"avatar.a": {"position": [0.0, 1.5], "name": "Ada"}, "interaction.1": {"max_force": math.inf}}
    assert state_change_of(unpacked(state_message(updates, ["scene"]))["state"]) == (updates, ["scene"])
    assert state_change_of({}) == ({}, [])
    assert state_change_of({"updates": None, "removals": None}) == ({}, [])


@pytest.mark.parametrize(
    "packed", [None, [], {"updates": []}, {"updates": {1: 2}}, {"removals": {"a": 1}}, {"removals": [1]}]
)
def test_a_wrong_change_is_refused(packed: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="state"):
        state_change_of(packed)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        b"\x81\xa1a",
        b"\xc1",
        b"\x80\x80",
        b"\x81\x01\x02",
        b"\x81\xa2\xff\xfe\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x91" * 5000,
        msgpack.packb([1, 2]),
        msgpack.packb("text"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="message"):
        unpacked(data)


def test_a_message_of_too_many_items_is_refused_while_it_is_unpacked() -> None:
    assert unpacked(msgpack.packb({"a": [0] * 90}), max_items=100) == {"a": [0] * 90}
    with pytest.raises(QuotaError, match="100 items"):
        unpacked(msgpack.packb({"a": [[0] * 30] * 4}), max_items=100)
    with pytest.raises(NarupaError):
        unpacked(msgpack.packb({"a": [0] * 101}), max_items=100)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    try:
        message = unpacked(data)
    except NarupaError:
        return
    for read in (frame_of, state_change_of):
        for value in message.values():
            with contextlib.suppress(NarupaError):
                read(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_no_value_of_a_frame_does_harm(value: Any) -> None:
    for key in (keys.POSITIONS, keys.ELEMENTS, keys.NAMES, "frame.index", "custom"):
        try:
            frame = frame_of({key: value})
        except InvalidArgumentError:
            continue
        assert set(packed_items(frame)) <= {key, "frame.index"}


async def test_all_viewers_get_the_same_bytes_and_a_newcomer_the_whole_frame() -> None:
    broadcaster = Broadcaster(lambda: None)
    topology = Topology({keys.ELEMENTS: np.array([6], np.uint32), keys.PARTICLE_COUNT: 1.0})
    first, second = (broadcaster.subscribe("nanover", "all", 1 / 30) for _ in range(2))
    positions = np.zeros((1, 3), np.float32)
    for index in range(2):
        broadcaster.publish(Frame.of(index, {keys.POSITIONS: positions + index}), topology, float(index))
    streams = (first, second)
    whole = [await anext(stream) for stream in streams]
    later = [await anext(stream) for stream in streams]
    assert whole[0] is whole[1] and later[0] is later[1]
    assert broadcaster.encoded == 3  # what changes of each frame, and the whole one, however many want them
    assert set(msgpack.unpackb(whole[0])["frame"]) == {
        "frame.index", "particle.elements", "particle.count", "particle.positions",
    }  # fmt: skip
    assert set(msgpack.unpackb(later[0])["frame"]) == {"frame.index", "particle.positions"}
