"""Messages as strangers may send them: valid ones, spoilt in every way that a seed leads to."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import numpy as np

from narupa_shared import frame_keys as keys
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as command
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as state
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory

PULL: Final = {"position": [0.0, 0.0, 0.0], "particles": [1, 2], "interaction_type": "spring", "scale": 100.0}
VALID: Final[tuple[dict[str, Any], ...]] = (
    {"state": {"updates": {"avatar.x": {"name": "x", "components": [{"position": [1.0, 2.0, 3.0]}]}}}},
    {"state": {"updates": {"interaction.x": PULL, "update.index.x": 3}, "removals": ["scene", "interaction.y"]}},
    {"state": {"updates": {"selection.a": {"selected": {"particle_ids": list(range(50))}}}, "removals": []}},
    {"command": {"request": {"name": "commands/list", "arguments": {"a": {"b": [1, 2.5, None]}}, "id": 7}}},
    {"command": [{"register": {"name": "vr/x", "arguments": {"n": 1}, "label": "L", "icon": "I"}}]},
    {"command": {"request": {"name": "vr/x", "id": 1}, "response": {"x": 1}}},
    {"command": {"request": {"name": "vr/x", "id": 1}, "exception": "it broke"}},
    {"frame": {"frame.index": 4, keys.POSITIONS: np.zeros((9, 3), "<f4").tobytes(), keys.ELEMENTS: bytes(9), "n": 1.5}},
    {"frame": {keys.NAMES: ["C"] * 9, keys.BOND_PAIRS: np.zeros((8, 2), "<u4").tobytes()}, "state": {"updates": {}}},
)
_ODD: Final[tuple[Any, ...]] = (
    *(None, True, -1, 2**63, 2**64 - 1, -(2**63), math.nan, math.inf, -math.inf, 1e308, "", "\0", "x" * 5000, b"", b"\xff" * 33),
    *([], {}, [[]], {"": {}}, [None] * 100, ["\ud7ff"], "interaction.", "avatar.", {"request": None}, {"name": [1]}),
)  # fmt: skip


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    item: Any = 1
    for _ in range(depth):
        item = [item]
    return item


def _elsewhere(item: Any, rng: random.Random) -> Any:
    """`item` with something odd somewhere in it."""
    if rng.random() < 0.25 or not isinstance(item, dict | list) or not item:
        return rng.choice((*_ODD, nested(rng.choice((3, 20, 200)))))
    if isinstance(item, dict):
        spoilt = dict(item)
        key = rng.choice(list(spoilt))
        spoilt[rng.choice((key, key, "odd", "name"))] = _elsewhere(spoilt[key], rng)
        return spoilt
    at = rng.randrange(len(item))
    return [*item[:at], _elsewhere(item[at], rng), *item[at + 1 :]]


def spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    """`data` cut, flipped, stretched, or with a header in it that promises far more than there is."""
    at = rng.randrange(len(data))
    match rng.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 2:
            return data[:at] + rng.randbytes(rng.randrange(1, 40)) + data[at:]
        case 3:
            header = rng.choice((b"\xdf", b"\xdd", b"\xdb", b"\xc6", b"\xc9"))
            return data[:at] + header + struct.pack(">I", rng.choice((2**32 - 1, 2**31, 10**6, 70_000))) + data[at:]
        case 4:
            return data[:at] + b"\xa4\xff\xfe\xc3\x28" + data[at + 5 :]
        case 5:
            return data[:at] + b"\x91" * rng.choice((10, 600, 5000)) + data[at:]
    return rng.randbytes(rng.randrange(200))


def spoilt_messages(seed: int) -> Iterator[bytes | str]:
    """WebSocket messages, without end."""
    rng = random.Random(seed)
    while True:
        valid = rng.choice(VALID)
        if rng.random() < 0.02:
            yield rng.choice(("", "text", "{}", "\U0001f600" * 10))
        elif rng.random() < 0.5:
            try:
                yield bytes(msgpack.packb(_elsewhere(valid, rng)))
            except (ValueError, OverflowError):
                continue
        else:
            yield spoilt_bytes(bytes(msgpack.packb(valid)), rng)


def spoilt_requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """The service and method of a gRPC protocol, without its family, and a request of it, without end."""
    rng = random.Random(seed)
    while True:
        change = state.StateUpdate()
        key = rng.choice(("avatar.x", "interaction.x", "scene", "", "x" * 3000))
        change.changed_keys.fields[key].CopyFrom(_value(rng))
        run = command.CommandMessage(name=rng.choice(("commands/list", "", "x" * 3000, "no/such", "\n")))
        run.arguments.fields["x"].CopyFrom(_value(rng))
        locks = state.UpdateLocksRequest()
        locks.lock_keys.fields[rng.choice(("scene", "x"))].CopyFrom(_value(rng))
        asked = trajectory.GetFrameRequest(frame_interval=rng.choice((math.nan, -1.0, math.inf, 1e-30)))
        asked.data.fields["index"].CopyFrom(_value(rng))
        method, request = rng.choice(
            (
                ("state.State/UpdateState", state.UpdateStateRequest(update=change)),
                ("state.State/UpdateLocks", locks),
                ("command.Command/RunCommand", run),
                ("trajectory.TrajectoryService/GetFrame", asked),
            )
        )
        data = request.SerializeToString() or b"\0"
        yield method, spoilt_bytes(data, rng) if rng.random() < 0.6 else data


def _value(rng: random.Random) -> Any:
    from google.protobuf.struct_pb2 import Value

    value = Value()
    match rng.randrange(5):
        case 0:
            value.number_value = rng.choice((math.nan, math.inf, -1.0, 1e308))
        case 1:
            value.string_value = "x" * rng.choice((0, 10, 70_000))
        case 2:
            inner = value
            for _ in range(rng.choice((2, 20, 45))):
                inner = inner.list_value.values.add()
            inner.null_value = 0  # type: ignore[assignment]
        case 3:
            value.struct_value.fields["position"].number_value = math.nan
            value.struct_value.fields["particles"].list_value.values.add().number_value = -1.5
    return value
