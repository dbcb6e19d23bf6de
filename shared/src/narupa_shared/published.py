"""Frames on their way to subscribers: each encoded once for every wire form and view that somebody reads.

What a view shows of a frame is a frame of its own, with a topology of its own, made once for all whose views come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame, Part, parts_compat, parts_v1, response_compat, response_v1
from narupa_shared.nanover_messages import frame_message, frame_parts
from narupa_shared.position_chain import PositionChain, SentPositions
from narupa_shared.subsets import Subset, particle_count
from narupa_shared.views import View

# Native gRPC, existing clients' gRPC, and NanoVer's WebSocket messages.
Form = Literal["v1", "compat", "nanover"]


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
                self._encoded[form] = b"".join(_ENCODERS[form](self.frame))
            else:
                self._encoded[form] = self.base.encoded(form) + self.encoded_added(form)
        return self._encoded[form]

    def encoded_added(self, form: Form) -> bytes:
        return b"".join(_ENCODERS[form](self.added))

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


_ENCODERS: Final[Mapping[Form, Callable[[Frame], Sequence[Part]]]] = {
    "v1": parts_v1,
    "compat": parts_compat,
    "nanover": frame_parts,
}


NOTHING_MADE: Final[Mapping[Form, bytes]] = {}


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
        made: Mapping[Form, bytes] = NOTHING_MADE,
    ) -> None:
        """`made` are responses that carry just what changes with time and exist already."""
        self.frame = frame
        self.topology = topology
        self.number = number
        self.taken_at: float | None = None
        self.positions: NDArray[np.float32] | None = None
        self._changing: dict[Form, Sequence[Part]] = {}
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

    def body(self, form: Form) -> Sequence[Part]:
        """The serialised frame without its topology, in parts."""
        if form not in self._changing:
            self._counter()
            self._changing[form] = _ENCODERS[form](self.frame)
        return self._changing[form]

    def response(self, form: Form, positions: bytes = b"") -> bytes:
        """The stream's response that carries what changes with time, and `positions`, of which a view has its own."""
        key = (form, -1, positions)
        if key not in self._whole:
            self._whole[key] = self._response(form, *self.body(form), positions)
        return self._whole[key]

    def grown_response(self, form: Form, positions: bytes = b"") -> bytes:
        """The response for who has the topology, but not what was added to it."""
        key = (form, -2, positions)
        if key not in self._whole:
            if form == "nanover":
                self._counter()
                self._whole[key] = frame_message(self.topology.added.overlaid(self.frame))
            else:
                added = self.topology.encoded_added(form)
                self._whole[key] = self._response(form, added, *self.body(form), positions)
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
            parts = (self.topology.encoded(form), *self.body(form), positions)
            if form == "v1":
                whole = response_v1(*parts, b"\x08\x00" if restart else b"")
            else:
                whole = response_compat(index, *parts)
            self._whole[key] = whole
        return self._whole[key]

    def _response(self, form: Form, *parts: Part) -> bytes:
        if form == "v1":
            return response_v1(*parts)
        return response_compat(self.frame.index, *parts) if form == "compat" else b"".join(parts)

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
