"""How fast one connection, or one user, may write."""

from __future__ import annotations

from collections.abc import Callable

from narupa_shared.errors import QuotaError


class RateLimit:
    """A token bucket per writer: `per_second` writes on average, `burst` at once."""

    def __init__(self, clock: Callable[[], float], per_second: float, burst: int, what: str = "updates") -> None:
        """`what` is written, for messages; `clock` gives seconds."""
        self._what = what
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}  # writer: (writes left, as of)
        self._next_sweep = burst

    def spend(self, writer: str, amount: float = 1) -> None:
        """`amount` is taken from the writer's account, which is full at its beginning.

        Raises:
            QuotaError: less than that is left.
        """
        now = self._clock()
        left, then = self._buckets.get(writer, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        if left < amount:
            raise QuotaError(
                f"{writer} sends more than {self._per_second:g} {self._what} per second (burst {self._burst}); send fewer"
            )
        self._buckets[writer] = (left - amount, now)
        if len(self._buckets) > self._next_sweep:
            self._sweep(now)

    def forget(self, writer: str) -> None:
        self._buckets.pop(writer, None)

    def _sweep(self, now: float) -> None:
        refill_s = self._burst / self._per_second
        self._buckets = {key: item for key, item in self._buckets.items() if now - item[1] < refill_s}
        self._next_sweep = max(self._burst, 2 * len(self._buckets))
