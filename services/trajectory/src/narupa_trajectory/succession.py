"""How a replica takes over from another, halts, steps down, and shows meanwhile what another makes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Final

from narupa_shared import frame_keys as keys
from narupa_shared.errors import NarupaError
from narupa_shared.subscriptions import Subscription
from narupa_trajectory.checkpoint_store import Saved
from narupa_trajectory.playback import Playback
from narupa_trajectory.relayed_frames import Relayed

# What viewers read while their leader cannot know whether it still is one.
UNSURE: Final = "the lobby does not answer, so the simulation waits: another replica may have to go on with it"


class Succession:
    """The playback of a replica, as its part among the others wants it."""

    def __init__(self, playback: Playback, clock: Callable[[], float] = time.monotonic) -> None:
        self._playback = playback
        self._clock = clock
        self._behind: set[Subscription] = set()  # those who were not due what was relayed last
        self._catching_up: asyncio.TimerHandle | None = None

    # While it leads.

    async def lead(self, epoch: int, saved: Saved | None = None) -> None:
        """The source runs, from where another replica left it where that is known.

        Raises:
            NarupaError: it cannot be loaded.
        """
        playback = self._playback
        self._forget_behind()
        playback.epoch = epoch
        if saved is not None and saved.source in [spec.text for spec in playback.specs]:
            await playback.go_on(saved, self._relayed())
        else:
            await playback.start(self._relayed())

    def _relayed(self) -> tuple[str, int] | None:
        """The run and the step of the frame that was relayed last; None where none was."""
        current, run_id = self._playback.broadcaster.current, self._playback.run_id
        step = current.frame.values.get(keys.STEP) if current is not None else None
        return (run_id, int(step)) if isinstance(step, float) and step >= 0 and run_id else None

    async def halt(self) -> None:
        """The engine stands, until `go_on`: whether this service leads is not known. Everyone is told, and shown nothing new."""
        self._playback.explain(UNSURE)
        with contextlib.suppress(NarupaError):  # an engine that does not run stands as well
            await self._playback.engine.command("pause")

    async def go_on(self) -> None:
        """The engine goes on as it did: nobody else led meanwhile."""
        try:
            await self._playback.engine.command("play" if self._playback.advancing else "show")
        except NarupaError:  # no frame of an engine that does not run says that it is over
            self._playback.explain(self._playback.exception)

    async def leave(self) -> None:
        """The engine stands, and where it does is offered to be kept, so that the next to lead goes on just there.

        Raises:
            NarupaError: it cannot be stopped, or has no checkpoints.
        """
        await self._playback.engine.command("pause")
        self._playback.checkpoint_made(await self._playback.engine.command("checkpoint"), None)

    # While another does.

    async def follow(self) -> None:
        """No engine runs here: another service leads, and its frames are shown."""
        await self._playback.engine.close()
        self._playback.stand_down()

    @property
    def relayed_source(self) -> str:
        """The spec of what is relayed, as far as its name tells; of the first source otherwise."""
        playback = self._playback
        current = playback.broadcaster.current
        name = current.topology.frame.values.get(keys.SIMULATION_NAME) if current is not None else None
        return playback.specs[playback.names.index(str(name)) if name in playback.names else 0].text

    async def prepare(self, source: str) -> None:
        """An engine waits to take over with this source. Raises: NarupaError when it cannot be loaded."""
        index = [spec.text for spec in self._playback.specs].index(source)
        await self._playback.engine.prepare(self._playback.settings_of(index))

    def show(self, relayed: Relayed) -> None:
        """Everybody gets a frame of the service that leads: now, or as soon as they are due one if no other comes before."""
        published = self._playback.show_relayed(relayed)
        subscriptions = self._playback.broadcaster.subscriptions
        self._behind = {each for each in subscriptions if each.mode == "latest" and each.accepted is not published}
        self._catch_up_later()

    def _forget_behind(self) -> None:
        self._behind.clear()
        self._catch_up_later()

    def _catch_up_later(self) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None
        if self._behind:
            wait_s = max(min(each.due_at() for each in self._behind) - self._clock(), 0.0)
            if wait_s < math.inf:
                self._catching_up = asyncio.get_running_loop().call_later(wait_s, self._catch_up)

    def _catch_up(self) -> None:
        """Who was not due the last relayed frame when it came has it now, as no other has come."""
        now, broadcaster = self._clock(), self._playback.broadcaster
        due = {each for each in self._behind if each.due_at() <= now}
        self._behind -= due
        for subscription in due & broadcaster.subscriptions:
            if broadcaster.current is not None:
                subscription.offer(broadcaster.current, now, urgent=True)
        self._catch_up_later()
