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
from narupa_gateway.delays import FrameDelays
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame
from narupa_shared.published import Form, Topology
from narupa_shared.subscriptions import Mode, Subscription

log = structlog.get_logger(__name__)

# What a newcomer is shown at once; an older frame only if no newer one comes within the second time, s.
FRESH_S: Final = 0.2
STALE_AFTER_S: Final = 1.0
# After how long without the trajectory service its viewers are told, s.
TELL_AFTER_S: Final = 2.0
_LOOK_EVERY_S: Final = 1.0
_RETRY_S: Final = 0.5
# An array that has not changed for so long is no longer sent with every frame, s.
SETTLED_AFTER_S: Final = 1.0

Demand = tuple[Mode, float]


class RunTopology(Topology):
    """One of which it turns out only with the second frame what belongs to it."""

    def settle(self, items: Mapping[str, Any]) -> None:
        """These items of the first frame are what does not change."""
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
        self.delayed: Callable[[float], None] = lambda delay_s: None
        self._delays = FrameDelays()
        self.trouble = ""
        self._changed = asyncio.Event()
        self._fetched: Mode | None = None  # which frames come at present
        self._topology: Topology | None = None
        self._first = False  # whether the current frame is the first of its run
        self._moving: dict[str, float] = {}  # keys outside the topology, with when they changed last
        self._behind: set[Subscription] = (
            set()
        )  # who was not due the current frame, and shall have it unless another comes
        self._current: CurrentFrame | None = None
        self._received_at = -math.inf
        self._told = False  # whether viewers know of the present trouble
        self._was_told = False  # whether they were told of any in this run

    @property
    def frame_age_s(self) -> float:
        """How long ago the last frame came, s; infinity before the first."""
        return self._clock() - self._received_at

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
        # Whoever wants every frame must not begin with one that is followed by a gap.
        held = mode == "all" and self._fetched != "all"
        subscription = self.broadcaster.subscribe(form, mode, interval_s, STALE_AFTER_S if aged or held else 0.0)
        subscription.held = held
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
                    await asyncio.wait(
                        (arriving, changing), timeout=self._look_after_s(), return_when=asyncio.FIRST_COMPLETED
                    )
                    if arriving.done():
                        frame, arriving = arriving.result(), None
                        begun = self._begin(mode)
                        if again and self._repeats(frame):
                            self._current = frame
                            self._show_current(begun)
                        else:
                            self._take(frame, again)
                        again = False
                    else:
                        self._catch_up()
                        self._tell_of_trouble(upstream)
                    if changing.done():
                        self._changed.clear()
                        changing = asyncio.ensure_future(self._changed.wait())
                        if self._demand() != demand and (self._demand() is not None or await self._still_unwanted()):
                            return
            finally:
                self._fetched = None
                for waiting in (arriving, changing):
                    if waiting is not None:
                        waiting.cancel()
                        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, NarupaError):
                            await waiting

    def _begin(self, mode: Mode) -> set[Subscription]:
        """From now on these frames come; returns whose streams begin with the first of them."""
        begun: set[Subscription] = set()
        if self._fetched != mode:
            self._fetched = mode
            begun = {each for each in self.broadcaster.subscriptions if each.held and mode == "all"}
            for subscription in begun:
                subscription.held = False
        return begun

    def _repeats(self, frame: CurrentFrame) -> bool:
        """Whether everybody has `frame`, or is to have it, but those who have just begun."""
        current = self._current
        return (
            current is not None and not self._told and current.index == frame.index and not _other_run(current, frame)
        )

    def _show_current(self, begun: set[Subscription]) -> None:
        self.received += 1
        self.trouble, self._received_at = "", self._clock()
        if self.broadcaster.current is not None:
            for subscription in begun:
                subscription.offer(self.broadcaster.current, self._received_at, urgent=False)

    async def _still_unwanted(self) -> bool:
        """Whether nobody has subscribed again after a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while self._demand() is None:
                    self._changed.clear()
                    await self._changed.wait()
        return self._demand() is None

    def _take(self, frame: CurrentFrame, again: bool) -> None:
        """Everybody gets what `frame` has that may be new to them; `again`: it is the first of a new subscription."""
        before, now = self._current, self._clock()
        self.received += 1
        self._time(frame, now)
        self.trouble = ""
        if before is None or self._topology is None or _other_run(before, frame):
            self._topology, self._first = RunTopology({}), True
            self._moving = dict.fromkeys((*frame.values, *frame.arrays), now)
            self._was_told = False
        else:
            # What comes next shares the objects of `frame`, not those of the subscription before.
            shown = _carried_over(before, frame) if again else frame
            self._topology, self._first = self._settled(self._topology, before, shown, now), False
        self._told = False
        if math.isfinite(self._received_at):
            spacing = min(now - self._received_at, 1.0)
            self.broadcaster.producer_interval_s += 0.1 * (spacing - self.broadcaster.producer_interval_s)
        self._current, self._received_at = frame, now
        self._publish(frame, self._topology)

    def _time(self, frame: CurrentFrame, now: float) -> None:
        sent_at = frame.values.get(keys.TIMESTAMP)
        if isinstance(sent_at, float) and math.isfinite(sent_at):
            run = tuple(frame.values.get(key) for key in (keys.RUN, keys.COUNTER, keys.EPOCH))
            self.delayed(self._delays.delay(run, sent_at, now))

    def _settled(self, topology: Topology, before: CurrentFrame, frame: CurrentFrame, now: float) -> Topology:
        """The topology with what does not change any more, which newcomers get before a frame, and everybody else once.

        Whoever skips frames misses those in which a key changed. So it is in all that follow, until it is in the topology.
        """
        pairs = ((before.values, frame.values), (before.arrays, frame.arrays))
        changed = {key: now for old, new in pairs for key, item in new.items() if old.get(key) is not item}
        self._moving |= changed
        items: dict[str, Any] = {**frame.values, **frame.arrays}
        if self._first and isinstance(topology, RunTopology):
            # Whoever has been sent anything was sent the first frame, whole.
            still = [key for key in self._moving if key not in changed and key in items]
            topology.settle({key: items[key] for key in still})
        else:
            still = [key for key, then in self._moving.items() if key in frame.arrays and now - then > SETTLED_AFTER_S]
            topology = topology.with_added({key: items[key] for key in still}) if still else topology
        for key in still:
            del self._moving[key]
        return topology

    def _publish(self, frame: CurrentFrame, topology: Topology, trouble: str = "") -> None:
        items: dict[str, Any] = {**frame.values, **frame.arrays}
        sent = {key: items[key] for key in self._moving if key in items}
        if trouble:
            sent[keys.EXCEPTION] = trouble
        elif self._was_told:
            # Who was told of a trouble must also be told that it is over.
            sent[keys.EXCEPTION] = str(frame.values.get(keys.EXCEPTION, ""))
        published = self.broadcaster.publish(Frame.of(frame.index, sent), topology, self._clock(), urgent=bool(trouble))
        waiting = (each for each in self.broadcaster.subscriptions if each.mode == "latest")
        self._behind = {each for each in waiting if each.accepted is not published}

    def _catch_up(self) -> None:
        """Who was not due the current frame when it came has it now, as no other has come."""
        now, current = self._clock(), self.broadcaster.current
        due = {each for each in self._behind if each.due_at() <= now}
        self._behind -= due
        for subscription in due & self.broadcaster.subscriptions:
            if current is not None:
                subscription.offer(current, now, urgent=True)

    def _look_after_s(self) -> float:
        """How long to wait for a frame before looking at who waits, and why."""
        soonest = min((each.due_at() for each in self._behind), default=math.inf)
        return min(max(soonest - self._clock(), 0.0), _LOOK_EVERY_S)

    def _tell_of_trouble(self, upstream: Upstream[CurrentFrame]) -> None:
        """Viewers hear why no frames come, once that has lasted."""
        trouble = upstream.trouble or ""
        if trouble and self.trouble and self._clock() - self._received_at > TELL_AFTER_S and not self._told:
            log.warning("trajectory_away", reason=trouble)
            if self._current is not None and self._topology is not None:
                self._told = self._was_told = True
                said = f"the simulation cannot be reached at present: {trouble}"
                self._publish(self._current, self._topology, said)
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
