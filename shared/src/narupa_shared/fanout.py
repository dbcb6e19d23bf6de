"""Fan-out of frames: every frame is encoded once per wire form, however many subscribe, and nobody waits for anybody.

The producer asks `next_due` when anybody wants another frame, and makes none before.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError
from narupa_shared.frames import Frame, Part
from narupa_shared.position_chain import PositionChain
from narupa_shared.published import NOTHING_MADE, Form, PublishedFrame, Topology
from narupa_shared.subscriptions import Mode, Outlet, Subscription
from narupa_shared.subsets import Subset, particle_count
from narupa_shared.views import EVERYTHING, View

# Different views at a time, besides that of everything; of views with a precision each rate counts.
MAX_VIEWS: Final = 64

# The particles, ascending, that a selection means in a whole frame.
Select = Callable[[str, Frame], Awaitable[NDArray[np.integer[Any]]]]


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
        self._writes: list[tuple[Outlet, Sequence[Part]]] | None = None  # while a frame is being offered

    def publish(
        self,
        frame: Frame,
        topology: Topology,
        now: float,
        urgent: bool = False,
        made: Mapping[Form, bytes] = NOTHING_MADE,
        taken_at: float | None = None,
    ) -> PublishedFrame:
        """Offers `frame` to all who are due one, or with `urgent` to all. `made` and `taken_at` are of the `PublishedFrame`."""
        self._published += 1
        published = self.current = PublishedFrame(frame, topology, self._count, self._published, made)
        published.taken_at = taken_at
        writes: list[tuple[Outlet, Sequence[Part]]] = []
        self._writes = writes
        try:
            for subscription in self.subscriptions:
                subscription.offer(published, now, urgent)
        finally:
            self._writes = None
            for outlet, wrapped in writes:
                outlet.write(wrapped)
        return published

    def write(self, outlet: Outlet, wrapped: Sequence[Part]) -> None:
        """The outlet writes this: at once or, while a frame is being offered, once it has been offered to everybody. A write of a
        large frame leaves nothing in the processor's caches; between two of them everything would take several times as long.
        """
        if self._writes is None:
            outlet.write(wrapped)
        else:
            self._writes.append((outlet, wrapped))

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
