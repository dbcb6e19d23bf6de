"""A clock that only a test moves, and ids that a test can predict."""

from __future__ import annotations

from itertools import count


class FakeClock:
    """Returns the same time until `advance` is called; pass it wherever a `Callable[[], float]` clock is injected.

    Attributes:
        now: The present time, s.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Time has gone on by `seconds`, which may be 0 but not negative; returns the new time."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: advance({seconds})")
        self.now += seconds
        return self.now


class FakeIds:
    """Gives `<prefix>-1`, `<prefix>-2`, ...; pass it wherever a `Callable[[], str]` source of ids is injected."""

    def __init__(self, prefix: str = "id") -> None:
        self._prefix = prefix
        self._numbers = count(1)

    def __call__(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"
