"""Fan-out of frames: every frame is encoded once per wire form, however many subscribe, and nobody waits for anybody.

A subscriber in latest mode has a slot for one frame: a newer one replaces it. A subscriber in all-frames mode has a bounded
queue; when that is full its stream ends with an error instead of growing. The producer asks `next_due` when anybody wants
another frame, and makes none before.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Literal

from narupa_shared.errors import NarupaError, QuotaError
from narupa_shared.frames import Frame, encode_compat, encode_v1, response_compat, response_v1
from narupa_shared.nanover_messages import frame_message

# Native gRPC, existing clients' gRPC, and NanoVer's WebSocket messages.
Form = Literal["v1", "compat", "nanover"]
Mode = Literal["latest", "all"]

# An all-frames subscriber that is this many frames, or bytes of frames, behind is ended.
MAX_QUEUED: Final = 256
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024


class Topology:
    """What does not change from frame to frame between one load or reset and the next, encoded when first needed.

    Attributes:
        frame: All of it.
        added: What has been put over it since it was new, which is all that a reader of it lacks.
        base: The one that it was made of by adding; itself where nothing was added.
    """

    def __init__(self, items: Mapping[str, Any], base: Topology | None = None) -> None:
        """`items` as they are, or over those of `base`."""
        given = Frame.of(0, items)
        self.base: Topology = self if base is None else base.base
        self.added: Frame = Frame() if base is None else base.added.overlaid(given)
        self.frame: Frame = given if base is None else base.frame.overlaid(given)
        self._encoded: dict[Form, bytes] = {}

    def with_added(self, items: Mapping[str, Any]) -> Topology:
        """One that readers of this get without starting over."""
        return Topology(items, self)

    def encoded(self, form: Form) -> bytes:
        if form not in self._encoded:
            if self.base is self:
                self._encoded[form] = _ENCODERS[form](self.frame)
            else:
                self._encoded[form] = self.base.encoded(form) + self.encoded_added(form)
        return self._encoded[form]

    def encoded_added(self, form: Form) -> bytes:
        return _ENCODERS[form](self.added)


_ENCODERS: Final[Mapping[Form, Callable[[Frame], bytes]]] = {
    "v1": encode_v1,
    "compat": encode_compat,
    "nanover": frame_message,
}


class PublishedFrame:
    """One frame on its way to every subscriber, with each wire form made at most once."""

    __slots__ = ("_changing", "_counter", "_whole", "frame", "topology")

    def __init__(self, frame: Frame, topology: Topology, counter: Callable[[], None]) -> None:
        self.frame = frame
        self.topology = topology
        self._changing: dict[Form, bytes] = {}
        self._whole: dict[tuple[Form, int], bytes] = {}
        self._counter = counter

    def body(self, form: Form) -> bytes:
        """The serialised frame without its topology."""
        if form not in self._changing:
            self._counter()
            self._changing[form] = _ENCODERS[form](self.frame)
        return self._changing[form]

    def response(self, form: Form) -> bytes:
        """The stream's response that carries what changes with time."""
        key = (form, -1)
        if key not in self._whole:
            body = self.body(form)
            if form == "compat":
                body = response_compat(self.frame.index, body)
            self._whole[key] = response_v1(body) if form == "v1" else body
        return self._whole[key]

    def grown_response(self, form: Form) -> bytes:
        """The response for who has the topology, but not what was added to it."""
        key = (form, -2)
        if key not in self._whole:
            if form == "nanover":
                self._counter()
                self._whole[key] = frame_message(self.topology.added.overlaid(self.frame))
            else:
                body = self.topology.encoded_added(form) + self.body(form)
                self._whole[key] = response_v1(body) if form == "v1" else response_compat(self.frame.index, body)
        return self._whole[key]

    def whole_response(self, form: Form, restart: bool) -> bytes:
        """The response that carries everything; with `restart` its index is 0, which tells the reader to start over."""
        index = 0 if restart else self.frame.index
        key = (form, index)
        if key not in self._whole:
            if (
                form == "nanover"
            ):  # maps of MessagePack say their length first, so they are not merged by standing in a row
                self._counter()
                self._whole[key] = frame_message(self.topology.frame.overlaid(self.frame), index)
                return self._whole[key]
            # The later of two merged frames wins, so the index stands behind everything else.
            body = self.topology.encoded(form) + self.body(form)
            if form == "v1":
                whole = response_v1(body + (b"\x08\x00" if restart else b""))
            else:
                whole = response_compat(index, body)
            self._whole[key] = whole
        return self._whole[key]


class Subscription:
    """One subscriber's place; iterate `responses` to get its serialised responses."""

    def __init__(self, broadcaster: Broadcaster, form: Form, mode: Mode, interval_s: float) -> None:
        self._broadcaster = broadcaster
        self.form = form
        self.mode = mode
        self.interval_s = interval_s
        self._next_tick = -math.inf
        self.slot: PublishedFrame | None = None
        self._queue: deque[PublishedFrame] = deque()
        self._queued_bytes = 0
        self._seen: Topology | None = None
        self._error: NarupaError | None = None
        self._offered = False
        self.held = False  # whether frames pass it by, for the time being
        self._ready = asyncio.Event()

    def offer(self, published: PublishedFrame, now: float, urgent: bool) -> None:
        """Called once per frame, by the producer."""
        if self.held:
            return
        self._offered = True
        if self.mode == "all":
            size = len(published.response(self.form))
            if len(self._queue) >= MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES:
                self.end(
                    QuotaError(
                        f"subscriber is {len(self._queue)} frames behind, the limit for a stream of every frame; "
                        "subscribe to the latest frames, or read faster"
                    )
                )
                return
            self._queue.append(published)
            self._queued_bytes += size
        else:
            fresh_start = self._seen is not None and published.topology is not self._seen
            # A frame a little early is the frame meant: the producer's clock and the grid never agree exactly.
            if not urgent and not fresh_start and now < self.due_at() - 0.25 * self.interval_s:
                return
            self.slot = published
            # Everyone with the same interval is due at the same ticks, so that one snapshot serves them all.
            if now > 0:
                self._next_tick = (math.floor(now / self.interval_s + 0.3) + 1) * self.interval_s
        self._ready.set()

    def offer_first(self, published: PublishedFrame) -> None:
        """`published` is the first frame, unless there has been one; it is held no more."""
        self.held = False
        if not self._offered and self._error is None:
            self.offer(published, -math.inf, urgent=True)

    def due_at(self) -> float:
        """When the next frame is due (time.monotonic); minus infinity: as soon as there is one."""
        # Frames that come about as often as they are asked for are all meant; picking among them would only lose some.
        paced_alike = self.interval_s < 1.5 * self._broadcaster.producer_interval_s
        return -math.inf if paced_alike else self._next_tick

    def end(self, error: NarupaError) -> None:
        """The stream ends with `error` as soon as its reader looks."""
        self._error = error
        self._ready.set()

    async def responses(self) -> AsyncIterator[bytes]:
        """The responses: a whole one first and after each load or reset, otherwise what changes with time, with what has been
        added to the topology in front of it once.

        Raises:
            QuotaError: this subscriber of every frame fell too far behind.
            NarupaError: what `end` was given.
        """
        while True:
            await self._ready.wait()
            if self._error:
                raise self._error
            published = self._take()
            if published is None:
                self._ready.clear()
                self._broadcaster.wanted()
                continue
            self._broadcaster.sent += 1
            seen, self._seen = self._seen, published.topology
            if seen is published.topology:
                yield published.response(self.form)
            elif seen is not None and seen.base is published.topology.base:
                yield published.grown_response(self.form)
            else:
                yield published.whole_response(self.form, restart=seen is not None)

    def _take(self) -> PublishedFrame | None:
        if self._queue:
            published = self._queue.popleft()
            self._queued_bytes -= len(published.response(self.form))
            return published
        newest, self.slot = self.slot, None
        return newest


class Broadcaster:
    """The current frame and everyone who wants the next."""

    def __init__(self, wanted: Callable[[], None]) -> None:
        """`wanted` is called whenever `next_due` may have become earlier."""
        self.wanted = wanted
        self.subscriptions: set[Subscription] = set()
        self.current: PublishedFrame | None = None
        self.producer_interval_s = 0.0  # wall-clock time between the producer's frames; 0: as fast as it can
        self.encoded = 0
        self.sent = 0
        self._drained: NarupaError | None = None

    def publish(self, frame: Frame, topology: Topology, now: float, urgent: bool = False) -> PublishedFrame:
        """Offers `frame` to everyone who is due one, or with `urgent` to everyone."""
        published = self.current = PublishedFrame(frame, topology, self._count)
        for subscription in self.subscriptions:
            subscription.offer(published, now, urgent)
        return published

    def _count(self) -> None:
        self.encoded += 1

    def subscribe(self, form: Form, mode: Mode, interval_s: float, stale_after_s: float = 0.0) -> Subscription:
        """A new place; give it back with `unsubscribe`.

        Its first frame is the current one, when there is one. With `stale_after_s` (of a frame that has aged while nobody
        was there to want a newer) it is the next one, and the current one only if none comes within that time.
        """
        subscription = Subscription(self, form, mode, interval_s)
        if self._drained:
            subscription.end(self._drained)
        elif self.current and not stale_after_s:
            subscription.offer_first(self.current)
        elif self.current:
            asyncio.get_running_loop().call_later(stale_after_s, subscription.offer_first, self.current)
        self.subscriptions.add(subscription)
        self.wanted()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions.discard(subscription)
        self.wanted()

    def drain(self, error: NarupaError) -> None:
        """Every stream, present and later, ends with `error`."""
        self._drained = error
        for subscription in self.subscriptions:
            subscription.end(error)

    @property
    def every_frame_wanted(self) -> bool:
        return any(subscription.mode == "all" for subscription in self.subscriptions)

    def next_due(self) -> float:
        """When the next frame is due to somebody who has read the last one (time.monotonic); infinity: nobody waits."""
        waiting = (item.due_at() for item in self.subscriptions if item.mode == "latest" and item.slot is None)
        return min(waiting, default=math.inf)
