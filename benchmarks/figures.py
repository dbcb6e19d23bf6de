"""Figures that benchmarks note while they run, for the table and the pictures that `python -m benchmarks` makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# The file that benchmarks append to; unset: nobody wants their figures.
FILE: Final = "NARUPA_FIGURES"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        benchmark: Whose.
        what: What was measured, and of what.
        value: How much.
        unit: Of what.
        bound: What it is to be at most, or with `at_least` at least; None: it is there to compare with.
    """

    benchmark: str
    what: str
    value: float
    unit: str = ""
    bound: float | None = None
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is within its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def asked(self) -> str:
        if self.bound is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:,g}"


def note(figure: Figure) -> None:
    """It will be in the table."""
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            print(json.dumps(asdict(figure)), file=file)


def noted(path: Path) -> Sequence[Figure]:
    """All that have been."""
    return [Figure(**json.loads(line)) for line in path.read_text().splitlines()] if path.is_file() else []
