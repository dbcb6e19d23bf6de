"""`key=value` arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from narupa_client.cli.options import BAD_INPUT, fail


def parsed(pairs: Sequence[str], what: str = "argument", form: str = "key=value") -> dict[str, Any]:
    """The values by key; each is JSON where it reads as such, and text otherwise. A wrong pair ends the command.

    Args:
        what: A pair is called so in the error.
        form: How to write one.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            fail(f"{what} is {pair!r}: write {form}", BAD_INPUT)
        try:
            values[key] = json.loads(text)
        except (ValueError, RecursionError):
            values[key] = text
    return values


def shown(value: Any) -> str:
    """`value` as JSON for people and scripts; whole numbers, which arrive as floats, without a fraction."""
    return json.dumps(_whole(value), indent=2, ensure_ascii=False)


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value
