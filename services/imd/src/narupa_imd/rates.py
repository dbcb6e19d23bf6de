"""How fast one connection may write."""

from __future__ import annotations

from collections.abc import Callable

from narupa_shared.errors import QuotaError


class RateLimit:
    """A token bucket per connection: `per_second` writes on average, `burst` at once."""

    def __init__(self, clock: Callable[[], float], per_second: float, burst: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}  # connection: (writes left, as of)
        self._next_sweep = burst

    def spend(self, connection: str) -> None:
        """One write is taken from the connection's account.

        Raises:
            QuotaError: nothing is left.
        """
        now = self._clock()
        left, then = self._buckets.get(connection, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        if left < 1:
            raise QuotaError(
                f"{connection} sends more than {self._per_second:g} updates per second (burst {self._burst}); send fewer"
            )
        self._buckets[connection] = (left - 1, now)
        if len(self._buckets) > self._next_sweep:
            self._sweep(now)

    def forget(self, connection: str) -> None:
        self._buckets.pop(connection, None)

    def _sweep(self, now: float) -> None:
        refill_s = self._burst / self._per_second
        self._buckets = {key: item for key, item in self._buckets.items() if now - item[1] < refill_s}
        self._next_sweep = max(self._burst, 2 * len(self._buckets))
