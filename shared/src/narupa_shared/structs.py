"""Plain dictionaries to `google.protobuf.Struct` and back: shared state, command arguments, free properties.

Numbers are floats on this wire, and infinities are legal on it (an interaction's `max_force` uses one). NaN passes through
here as well; whoever gives the values a meaning refuses it.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value

from narupa_shared.errors import InvalidArgumentError

MAX_DEPTH: Final = 16
MAX_ITEMS: Final = 500_000


def to_struct(values: Mapping[str, Any], name: str = "struct") -> Struct:
    """A Struct with the content of `values`: None, bool, real numbers, str, lists (or tuples, arrays) and maps of these.

    Args:
        values: What to convert; integers become floats.
        name: What the caller calls `values`, for error messages.

    Raises:
        InvalidArgumentError: a value of another type, a key that is no text, or nesting deeper than `MAX_DEPTH`.
    """
    struct = Struct()
    fields = struct.fields
    for key, value in values.items():
        _put(fields[_key(key, name)], value, name, key, 1)
    return struct


def from_struct(
    struct: Struct, name: str = "struct", max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS
) -> dict[str, Any]:
    """The content of `struct` as plain Python values; every number is a float, an unset value is None.

    Args:
        struct: What came from outside.
        name: What the caller calls `struct`, for error messages.
        max_depth: Deepest nesting of maps and lists accepted; a flat Struct has depth 1.
        max_items: Most values accepted, counted over all levels.

    Raises:
        InvalidArgumentError: nested too deeply, or too many values.
    """
    left = [max_items, max_items]
    return {key: _take(value, name, key, max_depth - 1, left) for key, value in struct.fields.items()}


def _key(key: object, name: str) -> str:
    if not isinstance(key, str):
        raise InvalidArgumentError(f"a key of {name}", key, "keys are text")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"a key of {name}", key, "is not valid Unicode") from None
    return key


def _put(target: Value, value: Any, name: str, key: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"{name}[{key!r}]", "a nested value", f"nest at most {MAX_DEPTH} levels")
    kind = type(value)
    if kind is float:
        target.number_value = value
    elif kind is bool:
        target.bool_value = value
    elif kind is str:
        try:
            target.string_value = value
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"{name}[{key!r}]", value, "is not valid Unicode") from None
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]  # the enum's only member
    elif kind is list or kind is tuple:
        target.list_value.SetInParent()
        add = target.list_value.values.add
        for item in value:
            _put(add(), item, name, key, depth + 1)
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        fields = target.struct_value.fields
        for inner, item in value.items():
            _put(fields[_key(inner, f"{name}[{key!r}]")], item, name, key, depth + 1)
    elif isinstance(value, numbers.Real):
        try:
            target.number_value = float(value)
        except OverflowError:
            raise InvalidArgumentError(f"{name}[{key!r}]", value, "is too large for a number") from None
    elif isinstance(value, str):
        _put(target, str(value), name, key, depth)
    elif hasattr(value, "tolist"):  # a numpy array or scalar
        _put(target, value.tolist(), name, key, depth)
    else:
        raise InvalidArgumentError(f"{name}[{key!r}]", value, f"a {kind.__name__} cannot be sent")


def _take(value: Value, name: str, key: str, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise InvalidArgumentError(f"{name}[{key!r}]", "a large value", f"at most {left[1]} values at once")
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind is None or kind == "null_value":
        return None
    if depth <= 0:
        raise InvalidArgumentError(f"{name}[{key!r}]", "a nested value", "is nested too deeply")
    if kind == "list_value":
        return [_take(item, name, key, depth - 1, left) for item in value.list_value.values]
    return {inner: _take(item, name, key, depth - 1, left) for inner, item in value.struct_value.fields.items()}


def whole_number(data: Struct, name: str) -> int | None:
    """The argument `name` in a request's data as an index, or None when it is not there.

    Raises:
        InvalidArgumentError: not a whole number of 0 or more.
    """
    value = from_struct(data, "data").get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, float) or not 0 <= value < 2**53 or value != int(value):
        raise InvalidArgumentError(f"data.{name}", value, "must be a whole number of 0 or more")
    return int(value)
