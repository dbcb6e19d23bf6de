"""One subscriber's place in the fan-out: a slot for the newest frame, or a bounded queue of all, and nobody waits for it.

A subscriber in latest mode has a slot for one frame: a newer one replaces it. A subscriber in all-frames mode has a bounded
queue; when that is full its stream ends with an error instead of growing.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

from narupa_shared.errors import NarupaError, QuotaError
from narupa_shared.frames import Part, size_of
from narupa_shared.position_chain import PositionChain
from narupa_shared.published import Form, PublishedFrame, Topology
from narupa_shared.subsets import Subset
from narupa_shared.views import EVERYTHING, View

if TYPE_CHECKING:
    from narupa_shared.fanout import Broadcaster

Mode = Literal["latest", "all"]

# An all-frames subscriber that is this many frames, or bytes of frames, behind is ended.
MAX_QUEUED: Final = 256
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024


class Outlet(Protocol):
    """A connection that takes responses as they are made, within the call that publishes the frame."""

    @property
    def ready(self) -> bool:
        """Whether what was written has been sent, so that the next response would not have to wait."""

    def wrapped(self, response: Sequence[Part]) -> Sequence[Part]:
        """What is to be written for a response, which is these parts in a row. They are others' as well, and stay as they are."""

    def write(self, wrapped: Sequence[Part]) -> None:
        """That is on its way. Called while `ready` only; must not wait, and raises nothing."""

    def end(self, error: NarupaError) -> None:
        """No more will come, and why."""


class Subscription:
    """One subscriber's place; iterate over it to get its serialised responses, or `pass_to` an outlet."""

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
        self.watched = True  # whether anybody looks at what it is sent
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
            response = self._parts(published)
            self._broadcaster.handed(published, size_of(response))
            self._broadcaster.write(outlet, outlet.wrapped(response))

    def _wake(self) -> None:
        if self._outlet is None:
            self._ready.set()
        else:
            self.flush()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next response: a whole one first and after each load or reset, otherwise what changes with time, with what has
        been added to the topology in front of it once.

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
            return response

    def _response(self, published: PublishedFrame) -> bytes:
        """What this reader, whose view had what `_seen` says, is sent of what its view has of a frame."""
        positions = self._positions(published)
        seen, self._seen = self._seen, published.topology
        if seen is published.topology:
            return published.response(self.form, positions)
        if seen is not None and seen.base is published.topology.base:
            return published.grown_response(self.form, positions)
        return published.whole_response(self.form, restart=seen is not None, positions=positions)

    def _parts(self, published: PublishedFrame) -> Sequence[Part]:
        """As `_response`, not joined where nobody needs that."""
        if self.form == "nanover" and self._seen is published.topology:
            return published.body(self.form)
        return (self._response(published),)

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
