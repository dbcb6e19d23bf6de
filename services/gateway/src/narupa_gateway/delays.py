"""How late frames come, where the clocks at both ends need not agree."""

from __future__ import annotations

import math
from typing import Final

# The fastest frame is looked for among those of the last one or two of these, s: clocks that drift by 50 parts in a million
# are 6 ms apart in the longest of them.
WINDOW_S: Final = 60.0


class FrameDelays:
    """How much longer each frame was on its way than the fastest of late."""

    def __init__(self) -> None:
        self._run: object = None
        self._least = self._least_before = math.inf
        self._until = -math.inf

    def delay(self, run: object, sent_at: float, now: float) -> float:
        """The delay of a frame of `run` that was sent at `sent_at`, by the sender's clock, and came at `now`, by one's own, s.

        Another run may be timed by another clock, and begins anew.
        """
        if run != self._run:
            self._run, self._least, self._until = run, math.inf, -math.inf
            self._least_before = math.inf
        if now >= self._until:
            self._least_before, self._least, self._until = self._least, math.inf, now + WINDOW_S
        self._least = min(self._least, now - sent_at)
        return now - sent_at - min(self._least, self._least_before)
