"""Fan-out of frames: every frame is encoded once per wire form, however many subscribe, and nobody waits for anybody.

A subscriber in latest mode has a slot for one frame: a newer one replaces it. A subscriber in all-frames mode has a bounded
queue; when that is full its stream ends with an error instead of growing. The producer asks `next_due` when anybody wants
another frame, and makes none before.

What a view shows of a frame is a frame of its own, with a topology of its own, made once for all whose views come to the same.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError
from narupa_shared.frames import Frame, encode_compat, encode_v1, response_compat, response_v1
from narupa_shared.nanover_messages import frame_message
from narupa_shared.position_chain import PositionChain, SentPositions
from narupa_shared.subsets import Subset, particle_count
from narupa_shared.views import EVERYTHING, View

# Native gRPC, existing clients' gRPC, and NanoVer's WebSocket messages.
Form = Literal["v1", "compat", "nanover"]
Mode = Literal["latest", "all"]

# An all-frames subscriber that is this many frames, or bytes of frames, behind is ended.
MAX_QUEUED: Final = 256
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
# Different views at a time, besides that of everything; of views with a precision each rate counts.
MAX_VIEWS: Final = 64

# The particles, ascending, that a selection means in a whole frame.
Select = Callable[[str, Frame], Awaitable[NDArray[np.integer[Any]]]]


class Topology:
    """What does not change from frame to frame between one load or reset and the next, encoded when first needed.

    Attributes:
        frame: All of it.
        added: What has been put over it since it was new, which is all that a reader of it lacks.
        subset: Of a view, the particles that it has; None: all.
        subsets: The particles that views come to, by what was asked for.
    """

    def __init__(self, items: Mapping[str, Any], base: Topology | None = None) -> None:
        """`items` as they are, or over those of `base`."""
        given = Frame.of(0, items)
        self._base = None if base is None else base.base  # never itself: it is to be forgotten when nobody holds it
        self.added: Frame = Frame() if base is None else base.added.overlaid(given)
        self.frame: Frame = given if base is None else base.frame.overlaid(given)
        self._encoded: dict[Form, bytes] = {}
        # Of views: what nobody watches any more is forgotten.
        self.subset: Subset | None = None
        self.subsets: WeakValueDictionary[tuple[Any, ...], Subset] = WeakValueDictionary()
        self._chains: WeakValueDictionary[tuple[float, float], PositionChain] = WeakValueDictionary()
        self._views: WeakValueDictionary[tuple[frozenset[str], Subset | None], Topology] = WeakValueDictionary()

    @property
    def base(self) -> Topology:
        """The one that it was made of by adding; itself where nothing was added."""
        return self if self._base is None else self._base

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

    def seen(self, view: View, subset: Subset | None) -> Topology:
        """What `view`, which comes to `subset` here (None: all particles), has of it; the same for all that come to the same.

        Raises:
            InvalidArgumentError: what was added is of other particles.
        """
        if subset is not None and subset.complete:
            subset = None
        if subset is None and not view.fields:
            return self
        found = self._views.get((view.fields, subset))
        if found is None:
            if self.base is self:
                frame = view.shown(self.frame if subset is None else subset.of_topology(self.frame))
                found = Topology({**frame.values, **frame.arrays})
            else:
                added = view.shown(self.added if subset is None else subset.of(self.added))
                found = self.base.seen(view, subset).with_added({**added.values, **added.arrays})
            found.subset = subset
            self._views[(view.fields, subset)] = found
        return found

    def chain(self, precision_nm: float, cadence_s: float) -> PositionChain:
        """The positions that all who read frames of this with that precision and at that rate are sent."""
        found = self._chains.get((precision_nm, cadence_s))
        if found is None:
            found = self._chains[(precision_nm, cadence_s)] = PositionChain(precision_nm)
        return found


_ENCODERS: Final[Mapping[Form, Callable[[Frame], bytes]]] = {
    "v1": encode_v1,
    "compat": encode_compat,
    "nanover": frame_message,
}


_NOTHING_MADE: Final[Mapping[Form, bytes]] = {}


class PublishedFrame:
    """One frame on its way to every subscriber, with each wire form and view made at most once.

    Attributes:
        frame: What changes with time.
        topology: What does not.
        number: Higher than those of the frames before it.
        positions: Of a view with a precision, (n, 3) float32, nm, which `frame` then lacks; readers are sent them in messages
            that depend on what they had. None otherwise.
        taken_at: When the engine took it, s, by the clock of whoever publishes; None where that is not told, or not any more.
    """

    __slots__ = (
        "_changing", "_count", "_counter", "_sent", "_views", "_whole", "frame", "number", "positions", "taken_at", "topology",
    )  # fmt: skip

    def __init__(
        self,
        frame: Frame,
        topology: Topology,
        counter: Callable[[], None],
        number: int = 0,
        made: Mapping[Form, bytes] = _NOTHING_MADE,
    ) -> None:
        """`made` are responses that carry just what changes with time and exist already."""
        self.frame = frame
        self.topology = topology
        self.number = number
        self.taken_at: float | None = None
        self.positions: NDArray[np.float32] | None = None
        self._changing: dict[Form, bytes] = {}
        self._whole: dict[tuple[Form, int, bytes], bytes] = {(form, -1, b""): each for form, each in made.items()}
        self._views: dict[tuple[Topology, bool], PublishedFrame] = {}
        self._sent: dict[PositionChain, SentPositions] = {}
        self._counter = counter
        self._count: int | None = None

    @property
    def whole(self) -> Frame:
        """The frame with its topology."""
        return self.topology.frame.overlaid(self.frame)

    @property
    def particle_count(self) -> int:
        """How many particles it is of."""
        if self._count is None:
            self._count = particle_count(self.whole)
        return self._count

    def body(self, form: Form) -> bytes:
        """The serialised frame without its topology."""
        if form not in self._changing:
            self._counter()
            self._changing[form] = _ENCODERS[form](self.frame)
        return self._changing[form]

    def response(self, form: Form, positions: bytes = b"") -> bytes:
        """The stream's response that carries what changes with time, and `positions`, of which a view has its own."""
        key = (form, -1, positions)
        if key not in self._whole:
            body = self.body(form) + positions
            if form == "compat":
                body = response_compat(self.frame.index, body)
            self._whole[key] = response_v1(body) if form == "v1" else body
        return self._whole[key]

    def grown_response(self, form: Form, positions: bytes = b"") -> bytes:
        """The response for who has the topology, but not what was added to it."""
        key = (form, -2, positions)
        if key not in self._whole:
            if form == "nanover":
                self._counter()
                self._whole[key] = frame_message(self.topology.added.overlaid(self.frame))
            else:
                body = self.topology.encoded_added(form) + self.body(form) + positions
                self._whole[key] = response_v1(body) if form == "v1" else response_compat(self.frame.index, body)
        return self._whole[key]

    def whole_response(self, form: Form, restart: bool, positions: bytes = b"") -> bytes:
        """The response that carries everything; with `restart` its index is 0, which tells the reader to start over."""
        index = 0 if restart else self.frame.index
        key = (form, index, positions)
        if key not in self._whole:
            if (
                form == "nanover"
            ):  # maps of MessagePack say their length first, so they are not merged by standing in a row
                self._counter()
                self._whole[key] = frame_message(self.topology.frame.overlaid(self.frame), index)
                return self._whole[key]
            # The later of two merged frames wins, so the index stands behind everything else.
            body = self.topology.encoded(form) + self.body(form) + positions
            if form == "v1":
                whole = response_v1(body + (b"\x08\x00" if restart else b""))
            else:
                whole = response_compat(index, body)
            self._whole[key] = whole
        return self._whole[key]

    def seen(self, view: View, subset: Subset | None) -> PublishedFrame:
        """What `view`, which comes to `subset` here (None: all particles), shows of it: a frame of its own.

        Raises:
            InvalidArgumentError: the frame is of other particles than `subset` was made of.
        """
        topology, precise = self.topology.seen(view, subset), view.precision_nm > 0
        if topology is self.topology and not precise:
            return self
        found = self._views.get((topology, precise))
        if found is None:
            frame = view.shown(self.frame if subset is None else subset.of(self.frame))
            positions: Any = frame.arrays.get(keys.POSITIONS) if precise else None
            if positions is not None:
                rest = {key: array for key, array in frame.arrays.items() if key != keys.POSITIONS}
                frame = Frame(frame.index, frame.values, rest)
            found = self._views[(topology, precise)] = PublishedFrame(frame, topology, self._counter, self.number)
            found.positions = positions
        return found

    def sent_positions(self, chain: PositionChain) -> SentPositions:
        """Its positions as `chain` has them sent."""
        assert self.positions is not None, "it is of a view with a precision, and has positions"
        if chain not in self._sent:
            self._sent[chain] = chain.sent(self.number, self.positions)
        return self._sent[chain]


class Outlet(Protocol):
    """A connection that takes responses as they are made, within the turn of the loop in which the frame comes."""

    @property
    def ready(self) -> bool:
        """Whether what was written has been sent, so that the next response would not have to wait."""

    def write(self, response: bytes) -> None:
        """The response is on its way. Called while `ready` only; must not wait, and raises nothing."""

    def end(self, error: NarupaError) -> None:
        """No more will come, and why."""


class Subscription:
    """One subscriber's place; iterate `responses` to get its serialised responses, or `pass_to` an outlet."""

    def __init__(
        self, broadcaster: Broadcaster, form: Form, mode: Mode, interval_s: float, view: View = EVERYTHING
    ) -> None:
        self._broadcaster = broadcaster
        self.form = form
        self.mode = mode
        self.interval_s = interval_s
        self.view = view
        self._next_tick = -math.inf
        self.slot: PublishedFrame | None = None
        self._queue: deque[PublishedFrame] = deque()
        self._queued_bytes = 0
        self.taken = 0  # how many frames its reader has taken
        self._read: Topology | None = None  # of the last frame taken
        self._seen: Topology | None = None  # what the view has of it
        self._subset: Subset | None = None
        self._chain: PositionChain | None = None
        self._had: int | None = None  # which of the chain's positions were sent last
        self._error: NarupaError | None = None
        self._offered = False
        self.held = False  # whether frames pass it by, for the time being
        self._ready = asyncio.Event()
        self._outlet: Outlet | None = None
        self.accepted: PublishedFrame | None = None  # the newest that it has had, or has still to be sent

    def offer(self, published: PublishedFrame, now: float, urgent: bool) -> None:
        """Called once per frame, by the producer."""
        if self.held:
            return
        self._offered = True
        if self.mode == "all":
            size = self._weight(published)
            if len(self._queue) >= MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES:
                self._broadcaster.left_behind += self._error is None
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
            fresh_start = self._read is not None and published.topology is not self._read
            # A frame a little early is the frame meant: the producer's clock and the grid never agree exactly.
            if not urgent and not fresh_start and now < self.due_at() - 0.25 * self.interval_s:
                return
            self._broadcaster.skipped += self.slot is not None
            self.slot = published
            # Everyone with the same interval is due at the same ticks, so that one snapshot serves them all.
            if now > 0:
                self._next_tick = (math.floor(now / self.interval_s + 0.3) + 1) * self.interval_s
        self.accepted = published
        self._wake()

    def offer_first(self, published: PublishedFrame) -> None:
        """`published` is the first frame, unless there has been one; it is held no more."""
        self.held = False
        if not self._offered and self._error is None:
            self.offer(published, -math.inf, urgent=True)

    def due_at(self) -> float:
        """When the next frame is due (time.monotonic); minus infinity: as soon as there is one."""
        return -math.inf if self._paced_alike else self._next_tick

    @property
    def _paced_alike(self) -> bool:
        # Frames that come about as often as they are asked for are all meant; picking among them would only lose some.
        return self.interval_s < 1.5 * self._broadcaster.producer_interval_s

    @property
    def cadence_s(self) -> float:
        """How far apart the frames are that it is due, s; 0: as the producer's are, -1: the same, and none is skipped."""
        return -1.0 if self.mode == "all" else 0.0 if self._paced_alike else self.interval_s

    def end(self, error: NarupaError) -> None:
        """The stream ends with `error` as soon as its reader looks."""
        self._error = error
        self._wake()

    def pass_to(self, outlet: Outlet) -> None:
        """Responses go to `outlet` from now on, without anybody waiting for them; `flush` is called when it is ready again.

        This is what many viewers cost the least: no task wakes up for them. For the view of everything only.
        """
        assert self.view is EVERYTHING, "a view's particles may have to be found first"
        self._outlet = outlet
        self.flush()

    def flush(self) -> None:
        """The outlet has what waits for it, as far as it is ready for it."""
        outlet = self._outlet
        if outlet is None:
            return
        if self._error is not None:
            outlet.end(self._error)
            return
        while outlet.ready:
            published = self._take()
            if published is None:
                self._broadcaster.wanted()
                return
            self._read = published.topology
            response = self._response(published)
            self._broadcaster.handed(published, len(response))
            outlet.write(response)

    def _wake(self) -> None:
        if self._outlet is None:
            self._ready.set()
        else:
            self.flush()

    async def responses(self) -> AsyncIterator[bytes]:
        """The responses: a whole one first and after each load or reset, otherwise what changes with time, with what has been
        added to the topology in front of it once.

        Raises:
            QuotaError: this subscriber of every frame fell too far behind.
            InvalidArgumentError: there are no such particles as its view names, or its selection is none or matches nothing.
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
            self._read, taken = published.topology, published
            if self.view is not EVERYTHING:
                self._subset = await self._broadcaster.subset(self.view, published, first=self._seen is None)
                published = published.seen(self.view, self._subset)
            response = self._response(published)
            self._broadcaster.handed(taken, len(response))
            yield response

    def _response(self, published: PublishedFrame) -> bytes:
        """What this reader, whose view had what `_seen` says, is sent of what its view has of a frame."""
        positions = self._positions(published)
        seen, self._seen = self._seen, published.topology
        if seen is published.topology:
            return published.response(self.form, positions)
        if seen is not None and seen.base is published.topology.base:
            return published.grown_response(self.form, positions)
        return published.whole_response(self.form, restart=seen is not None, positions=positions)

    def _positions(self, published: PublishedFrame) -> bytes:
        """The positions for this reader, serialised, where the frame itself has them not."""
        if published.positions is None:
            return b""
        chain = published.topology.base.chain(self.view.precision_nm, self.cadence_s)
        if chain is not self._chain:
            self._chain, self._had = chain, None
        sent = published.sent_positions(chain)
        had, self._had = self._had, sent.number
        return sent.message(had)

    def _weight(self, published: PublishedFrame) -> int:
        """About how many bytes it keeps in memory."""
        return len(published.response(self.form)) if self.view is EVERYTHING else published.frame.nbytes

    @property
    def far_behind(self) -> bool:
        """Whether its reader has left a good part of what may be queued."""
        return len(self._queue) > MAX_QUEUED // 16 or self._queued_bytes > MAX_QUEUED_BYTES // 4

    def _take(self) -> PublishedFrame | None:
        self.taken += 1
        if self._queue:
            published = self._queue.popleft()
            self._queued_bytes -= self._weight(published)
            return published
        newest, self.slot = self.slot, None
        return newest


class Broadcaster:
    """The current frame and everyone who wants the next.

    Attributes:
        encoded: Frames encoded, once for each form and view that somebody reads.
        sent: Responses handed to their readers.
        bytes_sent: How long those were.
        skipped: Frames that a reader of the latest did not get, as the next came before it looked.
        left_behind: Streams of every frame that were ended because their readers were too slow.
        first_handed: Called with `taken_at` of each frame that has one, when the first reader gets it.
    """

    def __init__(self, wanted: Callable[[], None], select: Select | None = None) -> None:
        """
        Args:
            wanted: Called whenever `next_due` may have become earlier.
            select: Finds the particles that a selection means, or raises InvalidArgumentError; None: views have no selections.
        """
        self.wanted = wanted
        self._select = select
        self._published = 0
        self.subscriptions: set[Subscription] = set()
        self.current: PublishedFrame | None = None
        self.producer_interval_s = 0.0  # wall-clock time between the producer's frames; 0: as fast as it can
        self.encoded = 0
        self.sent = 0
        self.bytes_sent = 0
        self.skipped = 0
        self.left_behind = 0
        self.first_handed: Callable[[float], None] = lambda taken_at: None
        self._drained: NarupaError | None = None

    def publish(
        self,
        frame: Frame,
        topology: Topology,
        now: float,
        urgent: bool = False,
        made: Mapping[Form, bytes] = _NOTHING_MADE,
        taken_at: float | None = None,
    ) -> PublishedFrame:
        """Offers `frame` to all who are due one, or with `urgent` to all. `made` and `taken_at` are of the `PublishedFrame`."""
        self._published += 1
        published = self.current = PublishedFrame(frame, topology, self._count, self._published, made)
        published.taken_at = taken_at
        for subscription in self.subscriptions:
            subscription.offer(published, now, urgent)
        return published

    def _count(self) -> None:
        self.encoded += 1

    def handed(self, published: PublishedFrame, size: int) -> None:
        """A reader has been given a response of `size` bytes, which shows `published`."""
        self.sent += 1
        self.bytes_sent += size
        if published.taken_at is not None:
            taken_at, published.taken_at = published.taken_at, None
            self.first_handed(taken_at)

    def subscribe(
        self, form: Form, mode: Mode, interval_s: float, stale_after_s: float = 0.0, view: View = EVERYTHING
    ) -> Subscription:
        """A new place; give it back with `unsubscribe`.

        Its first frame is the current one, when there is one. With `stale_after_s` (of a frame that has aged while nobody
        was there to want a newer) it is the next one, and the current one only if none comes within that time. Views with a
        precision are for the form "v1".

        Raises:
            QuotaError: there are too many different views.
        """
        subscription = Subscription(self, form, mode, interval_s, EVERYTHING if view == EVERYTHING else view)
        self._check_views(subscription)
        if self._drained:
            subscription.end(self._drained)
        elif self.current and not stale_after_s:
            subscription.offer_first(self.current)
        elif self.current:
            asyncio.get_running_loop().call_later(stale_after_s, subscription.offer_first, self.current)
        self.subscriptions.add(subscription)
        self.wanted()
        return subscription

    def _check_views(self, newcomer: Subscription) -> None:
        kinds = {_kind(item) for item in (*self.subscriptions, newcomer) if item.view is not EVERYTHING}
        if newcomer.view is not EVERYTHING and len(kinds) > MAX_VIEWS:
            raise QuotaError(
                f"{MAX_VIEWS} different views of the frames are open, which is the limit; ask for one that others have, "
                "or for everything"
            )

    async def subset(self, view: View, published: PublishedFrame, first: bool) -> Subset | None:
        """The particles of `view` in a frame; None: all of them. Found once for each topology.

        With `first` a view that there cannot be is an error; otherwise, for who has had frames of another system, it shows no
        particles, and says why.

        Raises:
            InvalidArgumentError: there are no such particles, or the selection is none or matches nothing.
        """
        if view.of_all_particles:
            return None
        subsets = published.topology.base.subsets
        asked = (view.particles, view.selection, published.particle_count)
        found = subsets.get(asked)
        if found is None:
            whole = published.whole
            indices, problem = await self._particles(view, whole)
            found = subsets.get(asked)  # for somebody else, meanwhile
        if found is None:
            key = (indices.tobytes(), asked[2], str(problem or ""))
            found = subsets[asked] = subsets.get(key) or Subset(indices, whole, problem)
            subsets[key] = found
        if first and found.problem is not None:
            raise found.problem.with_traceback(None)
        return found

    async def _particles(
        self, view: View, whole: Frame
    ) -> tuple[NDArray[np.integer[Any]], InvalidArgumentError | None]:
        """Those of `view`, or none and why."""
        count = particle_count(whole)
        if view.particles:
            indices = view.indices()
            if int(indices[-1]) < count:
                return indices, None
            return _NOBODY, InvalidArgumentError("view.particles", int(indices[-1]), f"there are {count} particles")
        if self._select is None:
            reason = "selections are not evaluated here; name particles instead"
            return _NOBODY, InvalidArgumentError("view.selection", view.selection, reason)
        try:
            found = await self._select(view.selection, whole)
        except InvalidArgumentError as error:
            return _NOBODY, error
        if not len(found):
            return found, InvalidArgumentError("view.selection", view.selection, f"matches none of {count} particles")
        return found, None

    async def whole_response(self, published: PublishedFrame, form: Form, view: View) -> bytes:
        """The response that carries everything that `view` has of a frame, complete in itself. Raises as `subset`."""
        if view == EVERYTHING:
            return published.whole_response(form, restart=False)
        seen = published.seen(view, await self.subset(view, published, first=True))
        positions = b""
        if seen.positions is not None:
            positions = PositionChain(view.precision_nm).sent(seen.number, seen.positions).message(None)
        return seen.whole_response(form, restart=False, positions=positions)

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions.discard(subscription)
        self.wanted()

    def drain(self, error: NarupaError) -> None:
        """Every stream, present and later, ends with `error`."""
        self._drained = error
        for subscription in list(self.subscriptions):
            subscription.end(error)

    @property
    def every_frame_wanted(self) -> bool:
        return any(subscription.mode == "all" for subscription in self.subscriptions)

    def next_due(self) -> float:
        """When the next frame is due to somebody who has read the last one (time.monotonic); infinity: nobody waits."""
        waiting = (item.due_at() for item in self.subscriptions if item.mode == "latest" and item.slot is None)
        return min(waiting, default=math.inf)


_NOBODY: Final = np.empty(0, np.uint32)


def _kind(subscription: Subscription) -> tuple[View, float]:
    """Equal for those who are sent the same."""
    return (subscription.view, subscription.cadence_s if subscription.view.precision_nm else 0.0)
