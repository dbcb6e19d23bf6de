"""The session's frames: one subscription at the trajectory service, fanned out again to every client of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import structlog

from narupa_client.frames import CurrentFrame
from narupa_client.session import Session
from narupa_client.subscription import Subscription as Upstream
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.fanout import Broadcaster, Form, Mode, Subscription, Topology
from narupa_shared.frames import Frame

log = structlog.get_logger(__name__)

# What a newcomer is shown at once; an older frame only if no newer one comes within the second time, s.
FRESH_S: Final = 0.2
STALE_AFTER_S: Final = 1.0
# After how long without the trajectory service its viewers are told, s.
TELL_AFTER_S: Final = 2.0
_LOOK_EVERY_S: Final = 1.0
_RETRY_S: Final = 0.5

Demand = tuple[Mode, float]


class SettledTopology(Topology):
    """One of which it turns out only with later frames what belongs to it."""

    def settle(self, items: Mapping[str, Any]) -> None:
        """These items are what does not change; everybody has been sent the frames that brought them."""
        self.frame = self.frame.overlaid(Frame.of(0, items))
        self._encoded.clear()


class FrameFeed:
    """Who wants frames here, and the frames. Lives on the event loop's thread."""

    def __init__(
        self,
        interval_s: float,
        minimum_interval_s: float,
        linger_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is fetched before `run`, nor while nobody subscribes.

        Args:
            interval_s: Time between frames for a subscriber that names none, s.
            minimum_interval_s: Shortest such time, s.
            linger_s: How long to go on once the last subscriber has left, s.
            clock: Gives seconds.
        """
        self._interval_s = interval_s
        self._minimum_interval_s = minimum_interval_s
        self._linger_s = linger_s
        self._clock = clock
        self.broadcaster = Broadcaster(lambda: None)
        self.broadcaster.producer_interval_s = interval_s
        self.received = 0
        self.trouble = ""
        self._changed = asyncio.Event()
        self._topology: SettledTopology | None = None
        self._current: CurrentFrame | None = None
        self._received_at = -math.inf
        self._told = False

    @property
    def current(self) -> CurrentFrame | None:
        """The frame that was received last, whole."""
        return self._current

    # Who wants frames.

    def subscribe(self, form: Form, mode: Mode, interval_s: float, name: str) -> Subscription:
        """A new stream of frames. An interval of 0 means the default; a shorter one than allowed is lengthened.

        Raises:
            InvalidArgumentError: a negative or non-finite interval; `name` is the field's name.
        """
        if not (math.isfinite(interval_s) and interval_s >= 0):
            raise InvalidArgumentError(name, interval_s, "must be 0 or more seconds (0 takes the service's default)")
        interval_s = max(interval_s or self._interval_s, self._minimum_interval_s)
        aged = self._clock() - self._received_at > FRESH_S
        subscription = self.broadcaster.subscribe(form, mode, interval_s, STALE_AFTER_S if aged else 0.0)
        self._changed.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.broadcaster.unsubscribe(subscription)
        self._changed.set()

    def _demand(self) -> Demand | None:
        subscriptions = self.broadcaster.subscriptions
        if not subscriptions:
            return None
        interval_s = min(each.interval_s for each in subscriptions)
        return ("all", 0.0) if self.broadcaster.every_frame_wanted else ("latest", interval_s)

    # Fetching them.

    async def run(self, session: Session) -> None:
        """Fetches what is wanted from `session`, for as long as somebody wants it, until cancelled."""
        while True:
            self._changed.clear()
            demand = self._demand()
            if demand is None:
                await self._changed.wait()
                continue
            try:
                await self._fetch(session, demand)
            except NarupaError as error:
                # Frames were lost, which whoever wants all of them must hear.
                log.warning("frames_lost", reason=str(error))
                for subscription in list(self.broadcaster.subscriptions):
                    if subscription.mode == "all":
                        subscription.end(error)
                await asyncio.sleep(_RETRY_S)

    async def _fetch(self, session: Session, demand: Demand) -> None:
        """Publishes frames until something else is wanted. Raises: NarupaError when frames were lost."""
        mode, interval_s = demand
        again = self._current is not None
        async with session.frames(interval_s, mode, reconnect=True) as upstream:
            arriving: asyncio.Future[CurrentFrame] | None = None
            changing = asyncio.ensure_future(self._changed.wait())
            try:
                while True:
                    arriving = arriving or asyncio.ensure_future(anext(upstream))
                    await asyncio.wait((arriving, changing), timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                    if arriving.done():
                        frame, arriving = arriving.result(), None
                        self._take(frame, again)
                        again = False
                    else:
                        self._tell_of_trouble(upstream)
                    if changing.done():
                        self._changed.clear()
                        changing = asyncio.ensure_future(self._changed.wait())
                        if self._demand() != demand and (self._demand() is not None or await self._still_unwanted()):
                            return
            finally:
                for waiting in (arriving, changing):
                    if waiting is not None:
                        waiting.cancel()
                        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, NarupaError):
                            await waiting

    async def _still_unwanted(self) -> bool:
        """Whether nobody has subscribed again after a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while self._demand() is None:
                    self._changed.clear()
                    await self._changed.wait()
        return self._demand() is None

    def _take(self, frame: CurrentFrame, again: bool) -> None:
        """Everybody gets what `frame` has that the one before had not; `again`: it is the first of a new subscription."""
        before, now = self._current, self._clock()
        self.received += 1
        self.trouble = ""
        if before is None or self._topology is None or _other_run(before, frame):
            changed: Mapping[str, Any] = {**frame.values, **frame.arrays}
            self._topology = SettledTopology({})
        else:
            if again:
                frame = _carried_over(before, frame)
            changed = {
                key: item
                for old, new in ((before.values, frame.values), (before.arrays, frame.arrays))
                for key, item in new.items()
                if old.get(key) is not item
            }
            self._settle(frame, changed)
        if self._told and keys.EXCEPTION not in changed:
            # Who was told of a trouble must also be told that it is over.
            changed = {**changed, keys.EXCEPTION: str(frame.values.get(keys.EXCEPTION, ""))}
        if math.isfinite(self._received_at):
            spacing = min(now - self._received_at, 1.0)
            self.broadcaster.producer_interval_s += 0.1 * (spacing - self.broadcaster.producer_interval_s)
        self._current, self._received_at = frame, now
        self.broadcaster.publish(Frame.of(frame.index, changed), self._topology, now)

    def _settle(self, frame: CurrentFrame, changed: Mapping[str, Any]) -> None:
        """What did not change is in the topology, which newcomers get before a frame."""
        assert self._topology is not None
        known = self._topology.frame
        news = {
            key: item
            for kept, items in ((known.values, frame.values), (known.arrays, frame.arrays))
            for key, item in items.items()
            if key not in changed and kept.get(key) is not item
        }
        if news:
            self._topology.settle(news)

    def _tell_of_trouble(self, upstream: Upstream[CurrentFrame]) -> None:
        """Viewers hear why no frames come, once that has lasted."""
        trouble = upstream.trouble or ""
        if trouble and self.trouble and self._clock() - self._received_at > TELL_AFTER_S and not self._told:
            log.warning("trajectory_away", reason=trouble)
            if self._current is not None and self._topology is not None:
                self._told = True
                said = {keys.EXCEPTION: f"the simulation cannot be reached at present: {trouble}"}
                frame = Frame.of(self._current.index, said)
                self.broadcaster.publish(frame, self._topology, self._clock(), urgent=True)
        self.trouble = trouble


def _other_run(before: CurrentFrame, frame: CurrentFrame) -> bool:
    """Whether `frame` has nothing to do with the one before."""
    facts = (keys.RUN, keys.COUNTER)
    return frame.index < before.index or any(before.values.get(key) != frame.values.get(key) for key in facts)


def _carried_over(before: CurrentFrame, frame: CurrentFrame) -> CurrentFrame:
    """`frame`, with what is equal to what was there before being the same objects: it has not changed."""
    values = {key: _same(before.values.get(key), value) for key, value in frame.values.items()}
    arrays = {key: _same(before.arrays.get(key), array) for key, array in frame.arrays.items()}
    return CurrentFrame(frame.index, values, arrays)


def _same(old: Any, new: Any) -> Any:
    if type(old) is not type(new):
        return new
    equal = np.array_equal(old, new) if isinstance(new, np.ndarray) else old == new
    return old if equal else new
