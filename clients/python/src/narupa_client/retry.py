"""How the client comes back after a service went away."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final

from narupa_shared.errors import NarupaError, UnauthenticatedError, UnavailableError

# What passes by itself: the service comes back, or has yet to hear of the lobby's new key.
PASSING: Final = (UnavailableError, UnauthenticatedError)
# An attempt that lasted this long was a connection; the time to give up counts anew from its end.
_SETTLED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Whether and for how long to try again.

    Attributes:
        reconnect: Whether to try again at all once a connection was lost.
        give_up_after_s: Longest time without a connection before the error is raised, s; None never gives up.
        first_delay_s: Wait before the first new attempt, s; it doubles with each.
        max_delay_s: Longest wait between two attempts, s.
    """

    reconnect: bool = True
    give_up_after_s: float | None = 60.0
    first_delay_s: float = 0.1
    max_delay_s: float = 1.0


class Attempts:
    """The bookkeeping of one stream's attempts to stay connected."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._delay_s = policy.first_delay_s
        self._down_since: float | None = None
        self._started = time.monotonic()

    def started(self) -> None:
        """An attempt begins."""
        self._started = time.monotonic()

    def succeeded(self) -> None:
        """The connection stands: something arrived on it."""
        self._down_since = None
        self._delay_s = self._policy.first_delay_s

    async def pause_after(self, error: NarupaError) -> None:
        """Waits before the next attempt.

        Raises:
            NarupaError: `error` itself where there is to be no other attempt; UnavailableError once it took too long.
        """
        if not self._policy.reconnect or not isinstance(error, PASSING):
            raise error
        now = time.monotonic()
        if now - self._started > _SETTLED_S:
            self.succeeded()
        if self._down_since is None:
            self._down_since = now
        limit = self._policy.give_up_after_s
        if limit is not None and now - self._down_since >= limit:
            raise UnavailableError(f"gave up after {limit:g} s: {error}") from error
        await asyncio.sleep(self._delay_s * random.uniform(0.8, 1.2))
        self._delay_s = min(2 * self._delay_s, self._policy.max_delay_s)
