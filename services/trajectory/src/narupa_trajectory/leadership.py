"""What a replica may believe of its own leadership, by its own clock. Does no input or output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# A leader stops this share of its lease before the lobby may let another begin, so that clocks need not run quite alike.
SAFETY: Final = 0.1


def unstopped_clock() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is one; `time.monotonic` may stand still."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the lobby said.

    Attributes:
        epoch: In which this replica leads; 0: it does not.
        lease_s: For which nobody else can lead, from when it was asked.
        standbys: How many others could take over.
        leader_id: Who leads, or led last.
        leader_epoch: In which epoch.
    """

    epoch: int
    lease_s: float
    standbys: int
    leader_id: str = ""
    leader_epoch: int = 0


class Tenure:
    """Whether this replica leads. A lead that is lost for want of an answer comes back with one, if nobody took it meanwhile.

    Attributes:
        epoch: The last in which this replica led, or leads; 0 before the first.
        seen: The highest epoch heard of, of any leader.
        standbys: How many others could take over, as last heard.
        answered_at: When the last answer was asked for; minus infinity before the first.
        unbroken_since: The first of the epochs that ended with `epoch` and had nobody else's in between: what this replica
            has done since then is the group's.
    """

    def __init__(self, clock: Callable[[], float] = unstopped_clock) -> None:
        self._clock = clock
        self._until = -math.inf
        self._granted = False
        self.epoch = 0
        self.seen = 0
        self.standbys = 0
        self.answered_at = -math.inf
        self.unbroken_since = 0

    @property
    def now(self) -> float:
        """By its clock, s."""
        return self._clock()

    @property
    def granted(self) -> bool:
        """Whether, by the last answer, this replica leads. Its lease may have run out since: then it is to wait."""
        return self._granted

    @property
    def holds(self) -> bool:
        """Whether this replica leads at this instant, and may let others see what it does."""
        return self._granted and (not self.standbys or self._clock() < self._until)

    @property
    def left_s(self) -> float:
        """For how long `holds` stays true without another answer, s; 0 where it is not, infinity without standbys."""
        if not self.holds:
            return 0.0
        return max(self._until - self._clock(), 0.0) if self.standbys else math.inf

    @property
    def age_s(self) -> float:
        """How long ago the last answer was asked for, s; infinity before the first."""
        return self._clock() - self.answered_at

    def answered(self, asked_at: float, answer: Answer) -> None:
        """The lobby has answered what it was asked at `asked_at`."""
        self.answered_at = max(self.answered_at, asked_at)
        self.seen = max(self.seen, answer.epoch, answer.leader_epoch)
        self.standbys = answer.standbys
        self._granted = answer.epoch > 0 and answer.epoch == self.seen
        if not self._granted:
            return
        self._until = asked_at + answer.lease_s * (1 - SAFETY)
        if not self.epoch or answer.epoch > self.epoch + 1:
            self.unbroken_since = answer.epoch
        self.epoch = answer.epoch

    def superseded(self, epoch: int) -> None:
        """Somebody leads in this epoch, as was heard from elsewhere."""
        self.seen = max(self.seen, epoch)
        self._granted = self._granted and self.epoch == self.seen

    def resigned(self) -> None:
        """This replica leads no more."""
        self._granted = False
