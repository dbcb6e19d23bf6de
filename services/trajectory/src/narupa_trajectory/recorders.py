"""Never faster than the slowest recorder: the simulation waits for who is sent every frame and is slow to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from narupa_shared.errors import QuotaError
from narupa_shared.fanout import Broadcaster
from narupa_shared.subscriptions import Subscription

log = structlog.get_logger(__name__)


class Recorders:
    """Has the engine wait while a subscriber of every frame is far behind, where that is wanted.

    Otherwise, and for one that reads nothing at all for `patience_s`, falling too far behind ends the subscriber's stream.

    Attributes:
        waiting: Whether the engine waits now.
    """

    def __init__(self, broadcaster: Broadcaster, hold: Callable[[bool], None], wanted: bool, patience_s: float) -> None:
        """
        Args:
            broadcaster: Whose subscribers are looked at.
            hold: Has the engine wait, or go on.
            wanted: Whether it is to wait for anybody.
            patience_s: How long for one that reads nothing, s.
        """
        self._broadcaster = broadcaster
        self._hold = hold
        self._wanted = wanted
        self._patience_s = patience_s
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = False

    @property
    def wanted(self) -> bool:
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._wanted = wanted
        self.look()

    def look(self) -> None:
        """To be called once a frame is published, and when a reader has caught up."""
        slow = [each for each in self._broadcaster.subscriptions if each.far_behind] if self._wanted else []
        if bool(slow) == self.waiting:
            return
        self.waiting = bool(slow)
        self._hold(self.waiting)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if slow:
            log.info("waiting_for_recorders", recorders=len(slow))
            self._look_later(slow)

    def close(self) -> None:
        """Nobody is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self, slow: list[Subscription]) -> None:
        taken = {each: each.taken for each in slow}
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._give_up, taken)

    def _give_up(self, taken: dict[Subscription, int]) -> None:
        """Who has read nothing since is not waited for."""
        self._timer = None
        for subscription, count in taken.items():
            if subscription.taken == count and subscription in self._broadcaster.subscriptions:
                self._broadcaster.left_behind += 1
                self._broadcaster.unsubscribe(subscription)
                subscription.end(
                    QuotaError(
                        f"subscriber has read no frame for {self._patience_s:g} s, and everybody waited for it; "
                        "subscribe to the latest frames, or read faster"
                    )
                )
        self.look()
        if self.waiting:
            self._look_later([each for each in self._broadcaster.subscriptions if each.far_behind])
