"""Frames in memory, and their two wire forms: the native one and that of existing clients.

Arrays go to the wire and come from it as memory, never item by item. Both forms are maps, so that the serialised forms of
two frames, concatenated, are their merge: a topology is encoded once, and put in front of any later frame for a late joiner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from narupa_shared import frame_keys
from narupa_shared.errors import InvalidArgumentError, shown
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.gen.narupa.wire import frame_pb2 as wire
from narupa_shared.position_codec import PositionDecoder

Array = NDArray[np.float32] | NDArray[np.uint32] | list[str]
Value = float | str | bool
# A piece of something serialised; memory is of single bytes.
Part = bytes | memoryview

_FLOAT: Final = np.dtype("<f4")
_INDEX: Final = np.dtype("<u4")
# From this many on, texts that are often the same are written once each.
MANY_TEXTS: Final = 256


@dataclass(slots=True)
class Frame:
    """Named values and arrays of one instant.

    Attributes:
        index: 0 tells the reader to drop everything it had; it then counts up.
        values: Numbers, texts and truth values by key.
        arrays: float32 or uint32 arrays of any shape, or lists of texts, by key.
    """

    index: int = 0
    values: dict[str, Value] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, items: Mapping[str, Any]) -> Self:
        """A frame of `items`, each put among values or arrays by its type."""
        frame = cls(index)
        for key, item in items.items():
            if isinstance(item, (np.ndarray, list)):
                frame.arrays[key] = item
            else:
                frame.values[key] = item
        return frame

    @property
    def nbytes(self) -> int:
        """About how much memory its arrays take, bytes."""
        return sum(array.nbytes for array in self.arrays.values() if not isinstance(array, list))

    def merged(self, newer: Frame) -> Frame:
        """This frame overlaid with `newer`; one of index 0 drops everything older, and the 0 survives."""
        if newer.index == 0:
            return newer
        merged = self.overlaid(newer)
        merged.index = 0 if self.index == 0 else newer.index
        return merged

    def overlaid(self, newer: Frame) -> Frame:
        """`newer`, with what it lacks taken from this frame."""
        return Frame(newer.index, {**self.values, **newer.values}, {**self.arrays, **newer.arrays})


def encode_v1(frame: Frame) -> bytes:
    """The serialised `narupa.trajectory.v1.Frame`, index included."""
    return b"".join(parts_v1(frame))


def parts_v1(frame: Frame) -> list[Part]:
    """What `encode_v1` puts in a row, with the arrays' own memory in it."""
    message = v1.Frame(index=frame.index)
    _set_values(message.values, frame.values)
    parts: list[Part] = []
    for key, array in frame.arrays.items():
        if isinstance(array, list):
            item = message.arrays[key]
            item.dtype = v1.DTYPE_STRING
            item.shape.append(len(array))
            texts = {text: number for number, text in enumerate(dict.fromkeys(array))}
            if len(array) >= MANY_TEXTS and len(array) >= 2 * len(texts):
                item.data = np.fromiter(map(texts.__getitem__, array), _INDEX, len(array)).tobytes()
                array = list(texts)
            item.strings.extend(array)
        else:
            floats = array.dtype.kind == "f"
            memory = memory_of(array, _FLOAT if floats else _INDEX)
            kind = v1.Array(dtype=v1.DTYPE_FLOAT32 if floats else v1.DTYPE_UINT32, shape=array.shape)
            before = kind.SerializeToString() + _head(v1.Array.DATA_FIELD_NUMBER, memory.nbytes)
            parts += _entry(v1.Frame.ARRAYS_FIELD_NUMBER, key, before, memory)
    return [message.SerializeToString(), *parts]


def encode_positions(message: bytes, count: int) -> bytes:
    """The serialised `narupa.trajectory.v1.Frame` that has nothing but the positions of `count` particles, in a message of
    the position codec."""
    frame = v1.Frame()
    item = frame.arrays[frame_keys.POSITIONS]
    item.dtype = v1.DTYPE_POSITIONS
    item.shape.extend((count, 3))
    item.data = message
    return frame.SerializeToString()


def encode_compat(frame: Frame) -> bytes:
    """The serialised `FrameData` of existing clients; the index stands outside it."""
    return b"".join(parts_compat(frame))


def parts_compat(frame: Frame) -> list[Part]:
    """What `encode_compat` puts in a row, with the memory of arrays of floats in it."""
    message = wire.FrameData()
    _set_values(message.values, frame.values)
    parts: list[Part] = []
    for key, array in frame.arrays.items():
        if isinstance(array, list):
            strings = message.arrays[key].string_values
            strings.values.extend(array)
            strings.SetInParent()
        elif array.dtype.kind == "f":
            memory = memory_of(array, _FLOAT)
            before = _head(wire.PackedFloats.VALUES_FIELD_NUMBER, memory.nbytes)
            around = _head(wire.ValueArray.FLOAT_VALUES_FIELD_NUMBER, len(before) + memory.nbytes)
            parts += _entry(wire.FrameData.ARRAYS_FIELD_NUMBER, key, around + before, memory)
        else:
            indices = message.arrays[key].index_values
            indices.values.extend(array.ravel().tolist())  # type: ignore[arg-type]
            indices.SetInParent()
    return [message.SerializeToString(), *parts]


def decode_v1(data: bytes) -> Frame:
    """The frame in a serialised `narupa.trajectory.v1.Frame`. Arrays share the message's memory and are read-only.

    Raises:
        InvalidArgumentError: not such a message, or an array whose data does not fill its shape.
    """
    try:
        return frame_from_v1(v1.Frame.FromString(data))
    except DecodeError as error:
        raise InvalidArgumentError("frame", f"{len(data)} bytes", f"is not a frame: {error}") from None


def decode_frame_response_v1(data: bytes, positions: PositionDecoder | None = None) -> Frame:
    """The frame in a serialised response of SubscribeFrames, GetFrame or GetFrames (all carry it in field 1). As `decode_v1`;
    where a view with a precision was asked for, `positions` has read all responses before it.

    Raises:
        FailedPreconditionError: the positions refer to others than those read last.
    """
    try:
        return frame_from_v1(v1.SubscribeFramesResponse.FromString(data).frame, positions)
    except DecodeError as error:
        raise InvalidArgumentError("frame response", f"{len(data)} bytes", f"is not one: {error}") from None


def decode_compat(data: bytes, index: int = 0) -> Frame:
    """The frame in a serialised `FrameData`; arrays that are known to be rows of vectors or pairs get that shape.

    Raises:
        InvalidArgumentError: not such a message.
    """
    try:
        message = wire.FrameData.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError("frame", f"{len(data)} bytes", f"is not a FrameData: {error}") from None
    frame = Frame(index, _values(message.values))
    for key, item in message.arrays.items():
        match item.WhichOneof("values"):
            case "float_values":
                frame.arrays[key] = _shaped(key, np.frombuffer(item.float_values.values, _FLOAT))
            case "index_values":
                frame.arrays[key] = _shaped(key, np.array(item.index_values.values, _INDEX))
            case _:
                frame.arrays[key] = list(item.string_values.values)
    return frame


def decode_compat_response(data: bytes) -> Frame:
    """The frame in a serialised `GetFrameResponse` of existing services. Raises as `decode_compat`."""
    try:
        message = wire.GetFrameResponse.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError("frame response", f"{len(data)} bytes", f"is not one: {error}") from None
    return decode_compat(message.frame.SerializeToString(), message.frame_index)


def response_v1(*frame: Part) -> bytes:
    """The serialised response of SubscribeFrames, GetFrame or GetFrames around a serialised frame, given in parts."""
    return b"".join((b"\x0a" + varint(size_of(frame)), *frame))


def response_compat(index: int, *frame: Part) -> bytes:
    """The serialised `GetFrameResponse` around a serialised FrameData, given in parts."""
    head = b"\x08" + varint(index & 0xFFFFFFFF) if index else b""
    return b"".join((head + b"\x12" + varint(size_of(frame)), *frame))


def size_of(parts: Iterable[Part]) -> int:
    """How many bytes they are together."""
    return sum(map(len, parts))


def varint(number: int) -> bytes:
    """`number` (0 or more) as protobuf writes it: seven bits a byte, lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def memory_of(array: NDArray[Any], dtype: np.dtype[Any]) -> memoryview:
    """The bytes of an array's items in their order: its own memory, where that is of this type and in one piece."""
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _entry(field: int, key: str, before: bytes, memory: memoryview) -> list[Part]:
    """An entry of a map from texts to messages, of which the value ends with `memory`."""
    name = key.encode()
    item = _head(1, len(name)) + name + _head(2, len(before) + memory.nbytes) + before
    return [_head(field, len(item) + memory.nbytes) + item, memory]


def _head(field: int, size: int) -> bytes:
    """What stands before the bytes of a field of that size."""
    return varint(field << 3 | 2) + varint(size)


def _set_values(target: Any, values: Mapping[str, Value]) -> None:
    for key, value in values.items():
        if isinstance(value, bool):
            target[key].bool_value = value
        elif isinstance(value, str):
            target[key].string_value = value
        else:
            target[key].number_value = value


def _values(source: Any) -> dict[str, Value]:
    return {
        key: getattr(value, kind) for key, value in source.items() if (kind := value.WhichOneof("kind")) in _SCALARS
    }


_SCALARS: Final = {"number_value", "string_value", "bool_value"}


def frame_from_v1(message: v1.Frame, positions: PositionDecoder | None = None) -> Frame:
    """The frame in a message, of which `positions` reads what is sent to a precision.

    Raises:
        InvalidArgumentError: an array whose data does not fill its shape, or that cannot be read.
        FailedPreconditionError: the positions refer to others than those read last.
    """
    frame = Frame(message.index, _values(message.values))
    for key, item in message.arrays.items():
        if item.dtype == v1.DTYPE_STRING:
            frame.arrays[key] = _texts(key, list(item.strings), item.data)
            continue
        shape = tuple(item.shape)
        if item.dtype == v1.DTYPE_POSITIONS:
            if positions is None:
                raise InvalidArgumentError(
                    f"frame array {key}", "DTYPE_POSITIONS", "was sent to who did not ask for it"
                )
            frame.arrays[key] = decoded = positions.decode(item.data)
            decoded.flags.writeable = False
            continue
        try:
            dtype: np.dtype[Any] = _FLOAT if item.dtype == v1.DTYPE_FLOAT32 else _INDEX
            frame.arrays[key] = np.frombuffer(item.data, dtype).reshape(shape)
        except ValueError:
            raise InvalidArgumentError(
                f"frame array {key}", f"{len(item.data)} bytes", f"does not fill shape {shown(shape)}"
            ) from None
    return frame


def _texts(key: str, texts: list[str], numbers: bytes) -> list[str]:
    """The texts, or those that stand at `numbers` among them, where there are any.

    Raises:
        InvalidArgumentError: there is none at one of them.
    """
    if not numbers:
        return texts
    try:
        listed: list[str] = np.array(texts, object)[np.frombuffer(numbers, _INDEX)].tolist()
        return listed
    except (ValueError, IndexError):
        raise InvalidArgumentError(
            f"frame array {key}", f"{len(numbers)} bytes", f"are not numbers of its {len(texts)} texts"
        ) from None


def _shaped(key: str, flat: NDArray[Any]) -> NDArray[Any]:
    width = frame_keys.ROWS.get(key)
    return flat.reshape(-1, width) if width and flat.size % width == 0 else flat
