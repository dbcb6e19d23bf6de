"""What is wrong with a spec, told so that whoever wrote it can mend it at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from narupa_shared.errors import NarupaError, shown

Path = tuple[str | int, ...]

_SECRETS: Final = frozenset({"password", "join_code"})
MAX_PROBLEMS_PER_FILE: Final = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file.

    Attributes:
        file: Name of the file in the catalogue.
        line: Where in it, from 1; 0 when it concerns the whole file.
        field: Such as `resources.memory` or `inputs[0]`; empty when it concerns no field.
        reason: What is wrong, with the value, and what would be right.
    """

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{place}: {self.field} {self.reason}" if self.field else f"{place}: {self.reason}"


class SpecError(NarupaError):
    """A text is no spec.

    Attributes:
        line: Where, from 1; 0 when unknown.
        field: The field, or empty.
        reason: As in `Problem`.
    """

    def __init__(self, line: int, field: str, reason: str) -> None:
        self.line = line
        self.field = field
        self.reason = reason
        super().__init__(f"line {line}: {field} {reason}")


def field_name(path: Path) -> str:
    """`path` as people write it: `inputs[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text if len(text) <= 120 else f"{text[:117]}..."


def explained(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """For each thing that pydantic found wrong: where, and what is wrong in words that need no knowledge of pydantic."""
    found = []
    for item in error.errors()[:MAX_PROBLEMS_PER_FILE]:
        path: Path = item["loc"]
        found.append((path, _reason(item["type"], path, item["msg"], item.get("input"), model)))
    # A list whose only item is wrong counts as too short besides, which would mislead.
    return [
        (path, reason)
        for path, reason in found
        if not path or not any(len(other) > len(path) and other[: len(path)] == path for other, _ in found)
    ]


def _reason(kind: str, path: Path, message: str, value: Any, model: type[BaseModel]) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is not known{_suggestion(str(path[-1]), _fields(model, path[:-1]))}"
    if not path:  # of the whole, which is too long to show
        return message.removeprefix("Value error, ")
    given = "***" if str(path[0]) in _SECRETS else shown(value)
    return f"is {given}: {message.removeprefix('Value error, ')}"


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for part in path:
        inner = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)


def _suggestion(name: str, known: Sequence[str]) -> str:
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
