"""Which checkpoint a simulation that has blown up goes back to."""

from __future__ import annotations

from collections import deque
from typing import Final

# A simulation blows up some steps after what made it do so: a checkpoint that it has outlived by fewer steps may be doomed.
PROVEN_AFTER_STEPS: Final = 200
KEPT: Final = 2


class GoodCheckpoints:
    """The newest checkpoints of a source, in memory: the last one, and the one before should that prove to be doomed."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)

    def keep(self, block: bytes, steps_done: int) -> None:
        """`block` was made after `steps_done` steps."""
        self._kept.append((steps_done, block))

    def newest_proven(self, steps_done: int) -> bytes | None:
        """The one to go back to from a blow-up after `steps_done` steps, or None; newer ones are forgotten."""
        while len(self._kept) > 1 and steps_done - self._kept[-1][0] < PROVEN_AFTER_STEPS:
            self._kept.pop()
        return self._kept[-1][1] if self._kept else None

    def forget_newest(self) -> None:
        """The newest one has proved to be no good."""
        if self._kept:
            self._kept.pop()

    def clear(self) -> None:
        """There are none, as the source is another or starts over."""
        self._kept.clear()
