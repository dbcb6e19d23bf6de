"""Finding what somebody names on the command line: by its id, its name, or the beginning of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from narupa_shared.errors import InvalidArgumentError

Item = TypeVar("Item")
_SHOWN = 8


def named(kind: str, text: str, items: Sequence[Item], id: Callable[[Item], str], name: Callable[[Item], str]) -> Item:
    """The one of `items` that `text` names: its id, else its name, else the beginning of either.

    Raises:
        InvalidArgumentError: none or several are named so; the text lists them.
    """
    chosen: list[Item] = []
    if text:
        matches: tuple[Callable[[Item], bool], ...] = (
            lambda item: id(item) == text,
            lambda item: name(item) == text,
            lambda item: id(item).startswith(text) or name(item).startswith(text),
        )
        for match in matches:
            chosen = [item for item in items if match(item)]
            if chosen:
                break
    if len(chosen) == 1:
        return chosen[0]
    listed = chosen or list(items)
    texts = [id(item) if name(item) in ("", id(item)) else f"{name(item)} ({id(item)})" for item in listed[:_SHOWN]]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    if chosen:
        raise InvalidArgumentError(kind, text, f"this could be {' or '.join(texts)}{more}; write more of its id")
    if not items:
        raise InvalidArgumentError(kind, text, f"there is no {kind} here")
    raise InvalidArgumentError(kind, text, f"there is none of this name or id; there are {', '.join(texts)}{more}")
