"""How many were refused, and of which kind the reasons were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from narupa_shared.errors import NarupaError

# Those that there usually are: a count that begins at 0 shows its first refusal as an increase.
USUAL: Final = (
    "InvalidArgumentError", "NotFoundError", "PermissionDeniedError", "QuotaError", "UnavailableError",
)  # fmt: skip


class Refusals:
    """Counts of refusals by the class of the error that said why."""

    def __init__(self) -> None:
        self._counts = Counter(dict.fromkeys(USUAL, 0))

    def note(self, error: NarupaError) -> None:
        self._counts[type(error).__name__] += 1

    @property
    def total(self) -> int:
        return self._counts.total()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Each class with its count. May be called on any thread."""
        return iter(list(self._counts.items()))
