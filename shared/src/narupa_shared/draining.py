"""How a service leaves without losing its users: it says that it drains, and serves them until they have moved to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S: Final = 0.05


class Place(Protocol):
    """A service's place at the lobby (`narupa_shared.registration.LobbyRegistration`)."""

    @property
    def drain_asked(self) -> asyncio.Event: ...
    @property
    def registered(self) -> bool: ...
    def others_running(self) -> Sequence[object]: ...
    def report_now(self) -> None: ...


class Drain:
    """Decides when a service that was asked to leave ends.

    Attributes:
        active: Whether the service drains; it is then to say that its status is DRAINING.
    """

    def __init__(
        self,
        place: Place,
        subscribers: Callable[[], int],
        move_s: float,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """A drain that nobody has asked for.

        Args:
            place: The service's at the lobby.
            subscribers: Counts those who are served now.
            move_s: How long they may take to move, s.
            leave: What is to be done first of all once the service is asked to leave.
        """
        self._leave = leave
        self.active = False
        self._place = place
        self._subscribers = subscribers
        self._move_s = move_s

    async def until_end(self, stop: asyncio.Event) -> None:
        """Returns when the service is to end: after `stop`, or after the lobby asked it to drain.

        That is at once when nobody is served, or there is no other service of the kind to move to, or no lobby to tell
        them; else as soon as all have moved, and after `move_s` at the latest.
        """
        asked = await self._asked(stop)
        if self._leave is not None:
            await self._leave()
        others = self._place.others_running() if self._place.registered else ()
        subscribers = self._subscribers()
        if not (others and subscribers):
            log.info("service_leaves", asked_by=asked, subscribers=subscribers, others=len(others))
            return
        self.active = True
        self._place.report_now()
        log.info("service_drains", asked_by=asked, subscribers=subscribers, others=len(others), move_s=self._move_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._move_s):
                while self._subscribers():  # noqa: ASYNC110 - streams end by themselves, and wake nobody
                    await asyncio.sleep(LOOK_INTERVAL_S)
        left = self._subscribers()
        log.info("service_drained", moved=max(subscribers - left, 0), left=left)

    async def _asked(self, stop: asyncio.Event) -> str:
        """Who asked the service to leave, once somebody did."""
        by_lobby = asyncio.create_task(self._place.drain_asked.wait(), name="drain-asked")
        by_signal = asyncio.create_task(stop.wait(), name="stop-asked")
        try:
            await asyncio.wait({by_lobby, by_signal}, return_when=asyncio.FIRST_COMPLETED)
            return "signal" if stop.is_set() else "lobby"
        finally:
            for task in (by_lobby, by_signal):
                task.cancel()
            await asyncio.gather(by_lobby, by_signal, return_exceptions=True)
