"""The MessagePack messages of NanoVer, on WebSockets and in recordings: frames, changes of the shared state, commands.

Arrays go in and out as memory, never item by item. What is read here comes from strangers: a message says how much of what
it holds before it is unpacked, and is refused when that is more than its reader allows.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, QuotaError
from narupa_shared.frames import Array, Frame, Part, Value, memory_of

FRAME_INDEX: Final = "frame.index"
# Lists and maps of a message may have this many items together: unpacked, each takes up to a hundred times its one byte.
MAX_ITEMS: Final = 1_000_000
MAX_KEY: Final = 256
MAX_FRAME_KEYS: Final = 1024

_FLOATS: Final = np.dtype("<f4")
_INDICES: Final = np.dtype("<u4")
_BYTES: Final = np.dtype("u1")
# How arrays are packed: the type of their items on the wire. The rest goes as plain lists.
_PACKED: Final[Mapping[str, np.dtype[Any]]] = {
    keys.POSITIONS: _FLOATS,
    keys.VELOCITIES: _FLOATS,
    "particle.forces": _FLOATS,
    "particle.forces.system": _FLOATS,
    keys.BOX: _FLOATS,
    keys.USER_SPARSE: _FLOATS,
    keys.USER_INDEX: _INDICES,
    keys.RESIDUES: _INDICES,
    keys.RESIDUE_CHAINS: _INDICES,
    keys.BOND_PAIRS: _INDICES,
    keys.ELEMENTS: _BYTES,
    keys.BOND_ORDERS: _BYTES,
    "particle.colors": _BYTES,
}
# Lists of numbers, an empty one of which does not tell.
_FLOAT_LISTS: Final = frozenset((keys.INTERACTION_ENERGIES, keys.INTERACTION_WORK, keys.INTERACTION_FORCES))
_WHOLE_NUMBERS: Final = frozenset((keys.PARTICLE_COUNT, keys.RESIDUE_COUNT, keys.CHAIN_COUNT, keys.COUNTER))
_ROWS: Final = {**keys.ROWS, "particle.colors": 4}
# From this size on a packed array is a part of its own.
_OF_ITS_OWN: Final = 4096
# What stands before bytes of any number (bin 32).
_BINARY: Final = struct.Struct(">BI")


# Frames.


def packed_items(frame: Frame, index: int | None = None) -> dict[str, Any]:
    """The frame as NanoVer has it: values, and arrays as memory or lists; `index` (the frame's own) is one of its keys."""
    items: dict[str, Any] = {FRAME_INDEX: frame.index if index is None else index}
    for key, value in frame.values.items():
        items[key] = int(value) if key in _WHOLE_NUMBERS and _is_number(value) else value
    for key, array in frame.arrays.items():
        dtype = _PACKED.get(key)
        if isinstance(array, list):
            items[key] = array
        elif dtype is None:
            items[key] = array.ravel().tolist()
        elif dtype is _BYTES:
            items[key] = memory_of(np.rint(array).clip(0, 255), dtype)
        else:
            items[key] = memory_of(array, dtype)
    return items


def frame_message(frame: Frame, index: int | None = None) -> bytes:
    """The message that carries the frame, under another index where one is given."""
    return b"".join(frame_parts(frame, index))


def frame_parts(frame: Frame, index: int | None = None) -> list[Part]:
    """What `frame_message` puts in a row, with the memory of large packed arrays in it, and few parts besides."""
    items = packed_items(frame, index)
    packer = msgpack.Packer()
    parts: list[Part] = []
    small = [packer.pack_map_header(1), packer.pack("frame"), packer.pack_map_header(len(items))]
    for key, item in items.items():
        small.append(packer.pack(key))
        if not isinstance(item, memoryview):
            small.append(packer.pack(item))
            continue
        small.append(_BINARY.pack(0xC6, item.nbytes))
        if item.nbytes < _OF_ITS_OWN:
            small.append(item)
        else:
            parts += (b"".join(small), item)
            small = []
    return [*parts, b"".join(small)]


def frame_of(packed: object, default_index: int = 1) -> Frame:
    """The frame that a message carries. Arrays share the message's memory and are read-only.

    Args:
        packed: What stands under `frame` in a message.
        default_index: The index of a frame that tells none.

    Raises:
        InvalidArgumentError: it is no map of names to values and arrays of the types that these keys have.
    """
    if not isinstance(packed, Mapping):
        raise InvalidArgumentError("frame", _kind(packed), "must be a map of keys and their values")
    if len(packed) > MAX_FRAME_KEYS:
        raise InvalidArgumentError("frame", f"{len(packed)} keys", f"at most {MAX_FRAME_KEYS} are taken")
    frame = Frame(default_index)
    for key, item in packed.items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
            raise InvalidArgumentError("frame", _kind(key), f"keys are texts of 1 to {MAX_KEY} characters")
        if key == FRAME_INDEX:
            frame.index = _index(item)
        elif key in _PACKED:
            frame.arrays[key] = _unpacked_array(key, item)
        elif isinstance(item, (list, tuple)):
            frame.arrays[key] = _plain_array(key, item)
        else:
            frame.values[key] = _value(key, item)
    return frame


def _index(item: object) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 2**63:
        raise InvalidArgumentError(FRAME_INDEX, _kind(item), "must be a whole number of 0 or more")
    return item


def _unpacked_array(key: str, item: object) -> Array:
    dtype = _PACKED[key]
    if isinstance(item, (bytes, bytearray)):
        if len(item) % dtype.itemsize:
            raise InvalidArgumentError(key, f"{len(item)} bytes", f"must be items of {dtype.itemsize} bytes each")
        flat: NDArray[Any] = np.frombuffer(item, dtype)
    elif isinstance(item, (list, tuple)):
        flat = _numbers(key, item)
        whole = (flat >= 0) & (flat < 2**32) & (flat == np.rint(flat))
        if dtype is not _FLOATS and not whole.all():
            raise InvalidArgumentError(key, "numbers", "must be whole numbers from 0 to 2**32 - 1")
    else:
        raise InvalidArgumentError(key, _kind(item), "must be an array, packed as bytes")
    width = _ROWS.get(key, 1)
    if flat.size % width:
        raise InvalidArgumentError(key, f"{flat.size} numbers", f"must be rows of {width}")
    kept = _FLOATS if dtype is _FLOATS or key == keys.BOND_ORDERS else _INDICES
    array: NDArray[Any] = flat.astype(kept, copy=False)
    return array.reshape(-1, width) if width > 1 else array


def _plain_array(key: str, items: list[object] | tuple[object, ...]) -> Array:
    if all(isinstance(item, str) for item in items) and (items or key not in _FLOAT_LISTS):
        return list(items)  # type: ignore[arg-type]  # looked at just now
    flat = _numbers(key, items).astype(_FLOATS)
    width = _ROWS.get(key, 1)
    return flat.reshape(-1, width) if width > 1 and flat.size % width == 0 else flat


def _numbers(key: str, items: list[Any] | tuple[Any, ...]) -> NDArray[np.float64]:
    try:
        flat = np.array(items, np.float64)
    except (ValueError, TypeError, OverflowError):
        flat = np.zeros((0, 0))
    if flat.ndim != 1:
        raise InvalidArgumentError(key, "a list", "must be a flat list of numbers, or of texts")
    return flat


def _value(key: str, item: object) -> Value:
    if isinstance(item, (str, bool)):
        return item
    if _is_number(item):
        return float(item)  # type: ignore[arg-type]
    raise InvalidArgumentError(key, _kind(item), "must be a number, a text, true or false, or a list of them")


def _is_number(item: object) -> bool:
    if isinstance(item, int):
        return not isinstance(item, bool) and abs(item) < 2**63
    return isinstance(item, float)


# The shared state.


def state_message(updates: Mapping[str, Any], removals: Iterable[str] = ()) -> bytes:
    """The message that carries a change of the shared state: keys with their new values, and keys that are gone."""
    return bytes(msgpack.packb({"state": {"updates": dict(updates), "removals": list(removals)}}))


def state_change_of(packed: object) -> tuple[dict[str, Any], list[str]]:
    """The updates and removals in what stands under `state` in a message; either may be missing.

    Raises:
        InvalidArgumentError: it is no such map. What the values may be, their owner says.
    """
    if not isinstance(packed, Mapping):
        raise InvalidArgumentError("state", _kind(packed), "must be a map with updates and removals")
    updates, removals = packed.get("updates"), packed.get("removals")
    updates = {} if updates is None else updates
    removals = [] if removals is None else removals
    if not isinstance(updates, Mapping) or not all(isinstance(key, str) for key in updates):
        raise InvalidArgumentError("state.updates", _kind(updates), "must be a map of keys and their new values")
    if not isinstance(removals, (list, tuple)) or not all(isinstance(key, str) for key in removals):
        raise InvalidArgumentError("state.removals", _kind(removals), "must be a list of keys")
    return dict(updates), list(removals)


# Messages of any kind.


def message(items: Mapping[str, Any]) -> bytes:
    """The message that carries `items`, which are of plain types.

    Raises:
        InvalidArgumentError: an item is not of a type that MessagePack has.
    """
    try:
        return bytes(msgpack.packb(dict(items)))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError("message", ", ".join(items), f"cannot be packed: {error}") from None


def unpacked(data: bytes, max_items: int = MAX_ITEMS) -> dict[str, Any]:
    """The map that a message is.

    Args:
        data: The message. Whoever received it has limited its length.
        max_items: Most items that its lists and maps may have together.

    Raises:
        InvalidArgumentError: it is not MessagePack, or no map with texts for keys.
        QuotaError: it has too many items.
    """
    left = max_items

    def count(items: Any) -> Any:
        nonlocal left
        left -= len(items)
        if left < 0:
            raise QuotaError(f"a message has more than {max_items} items; send less at once")
        return items

    def counted_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        return dict(count(pairs))

    try:
        whole = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=max_items,
            max_map_len=max_items,
            list_hook=count,
            object_pairs_hook=counted_map,
            ext_hook=_no_extension,
        )
    except QuotaError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        # Truncated, trailing bytes, invalid UTF-8, nested too deep, keys that are none.
        reason = f"is no MessagePack map: {str(error)[:200] or type(error).__name__}"
        raise InvalidArgumentError("message", f"{len(data)} bytes", reason) from None
    except msgpack.exceptions.UnpackException as error:
        reason = f"is no MessagePack map: {str(error)[:200] or type(error).__name__}"
        raise InvalidArgumentError("message", f"{len(data)} bytes", reason) from None
    if not isinstance(whole, dict) or not all(isinstance(key, str) for key in whole):
        raise InvalidArgumentError("message", _kind(whole), "must be a map with frame, state or command")
    return whole


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"it has an extension type ({code}), which nobody here reads")


def _kind(item: object) -> str:
    """What an item is, in a few words that are safe to show."""
    if item is None or isinstance(item, (bool, int)) or (isinstance(item, float) and math.isfinite(item)):
        return str(item)[:40]
    return f"a {type(item).__name__}"
