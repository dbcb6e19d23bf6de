"""What may be a key and a value of the shared state."""

from __future__ import annotations

import math
from typing import Any, Final

from narupa_shared.errors import InvalidArgumentError

MAX_KEY_LENGTH: Final = 256
MAX_DEPTH: Final = 16

_NUMBERS: Final = {float, int}


def checked_key(key: object) -> str:
    """`key`, which is 1 to 256 printable characters.

    Raises:
        InvalidArgumentError: it is not.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidArgumentError(
            "key", key, f"a key of the shared state is 1 to {MAX_KEY_LENGTH} printable characters"
        )
    return key


def checked_size(key: str, value: Any, depth: int = MAX_DEPTH) -> int:
    """The size of `value` on the wire in bytes, within a few, once every part of it is known to be fit for the state.

    Raises:
        InvalidArgumentError: NaN, nested too deeply, or not a JSON-like value.
    """
    kind = type(value)
    if kind is float:
        if math.isnan(value):
            raise InvalidArgumentError(key, value, "holds NaN; every number must be one")
        return 11
    if kind is str:
        return 4 + (len(value) if value.isascii() else len(value.encode()))
    if kind is bool or value is None:
        return 4
    if kind is int:
        return 11
    if depth <= 1 and kind in (list, dict):
        raise InvalidArgumentError(key, "a nested value", f"nest at most {MAX_DEPTH - 1} lists or maps")
    if kind is list:
        kinds = set(map(type, value))
        if kinds <= _NUMBERS:
            if float in kinds and any(map(math.isnan, value)):
                raise InvalidArgumentError(key, value, "holds NaN; every number must be one")
            return 6 + 11 * len(value)
        return 6 + sum(checked_size(key, item, depth - 1) for item in value)
    if kind is dict:
        size = 6
        for name, item in value.items():
            if type(name) is not str:
                raise InvalidArgumentError(key, name, "names in a map are text")
            size += 8 + len(name.encode()) + checked_size(key, item, depth - 1)
        return size
    raise InvalidArgumentError(key, value, f"a {kind.__name__} cannot be shared")
