"""What of each frame a reader wants. Two views are equal when they ask for the same, however they were put."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.position_codec import COARSEST_PRECISION_NM, FINEST_PRECISION_NM

MAX_FIELDS: Final = 64
MAX_FIELD: Final = 128
MAX_SELECTION: Final = 1000
# The group of what comes with each load.
TOPOLOGY: Final = "topology"
# Without these a reader could not tell what it has.
ALWAYS: Final = frozenset(
    {keys.PARTICLE_COUNT, keys.INDICES, keys.RUN, keys.COUNTER, keys.EPOCH, keys.STEP, keys.EXCEPTION, keys.TIMESTAMP}
)
_KNOWN: Final = frozenset(value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str))
_GROUPS: Final = frozenset(key.partition(".")[0] for key in _KNOWN)
_INDEX: Final = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class View:
    """Fields, particles and precision; `View.of` makes one, in the one form that equal ones have.

    Attributes:
        fields: Keys, and what groups of keys begin with up to a dot; empty: all.
        particles: Indices, ascending, as little-endian uint32; empty: all, or those of `selection`.
        selection: In the selection language of MDAnalysis; empty: all, or `particles`.
        precision_nm: By half of which positions may differ; 0: float32 as they are.
    """

    fields: frozenset[str] = frozenset()
    particles: bytes = b""
    selection: str = ""
    precision_nm: float = 0.0

    @classmethod
    def of(
        cls,
        fields: Collection[str] = (),
        particles: Sequence[int] | NDArray[np.integer] = (),
        selection: str = "",
        precision_nm: float = 0.0,
    ) -> Self:
        """The view of these.

        Raises:
            InvalidArgumentError: one is malformed, too long or out of its range, or both particles and a selection are given.
        """
        text = " ".join(selection.split())
        if len(text) > MAX_SELECTION:
            raise InvalidArgumentError("view.selection", text, f"has {len(text)} characters of {MAX_SELECTION}")
        if not text and selection:
            raise InvalidArgumentError("view.selection", selection, "is blank; leave it out for all particles")
        indices = _indices(particles)
        if text and indices:
            raise InvalidArgumentError("view.selection", text, "give particles or a selection, not both")
        if precision_nm and not FINEST_PRECISION_NM <= precision_nm <= COARSEST_PRECISION_NM:
            reason = f"must be {FINEST_PRECISION_NM:g} to {COARSEST_PRECISION_NM:g} nm, or 0 for float32"
            raise InvalidArgumentError("view.precision_nm", precision_nm, reason)
        return cls(_canonical_fields(fields), indices, text, float(precision_nm))

    @classmethod
    def from_message(cls, message: v1.View) -> Self:
        """The view in a request. Raises as `of`."""
        if len(message.fields) > MAX_FIELDS:
            raise InvalidArgumentError("view.fields", f"{len(message.fields)} names", f"at most {MAX_FIELDS} are taken")
        return cls.of(message.fields, np.array(message.particles, np.int64), message.selection, message.precision_nm)

    def message(self) -> v1.View | None:
        """For a request; None for everything."""
        if self == EVERYTHING:
            return None
        return v1.View(
            fields=sorted(self.fields),
            particles=self.indices().tolist(),
            selection=self.selection,
            precision_nm=self.precision_nm,
        )

    def indices(self) -> NDArray[np.uint32]:
        """`particles`, (n,)."""
        return np.frombuffer(self.particles, _INDEX)

    @property
    def of_all_particles(self) -> bool:
        """Whether neither particles nor a selection are asked for."""
        return not self.particles and not self.selection

    def shows(self, key: str) -> bool:
        """Whether frames of this view have `key`, if there is one."""
        return not self.fields or key in ALWAYS or any(group in self.fields for group in _groups(key))

    def shown(self, frame: Frame) -> Frame:
        """The fields of `frame` that this view has."""
        if not self.fields:
            return frame
        return Frame(
            frame.index,
            {key: value for key, value in frame.values.items() if self.shows(key)},
            {key: array for key, array in frame.arrays.items() if self.shows(key)},
        )


EVERYTHING: Final = View()


def _groups(key: str) -> Iterator[str]:
    """The key itself, and each group that it is in."""
    yield key
    while (end := key.rfind(".")) > 0:
        key = key[:end]
        yield key


def _canonical_fields(given: Iterable[str]) -> frozenset[str]:
    names = set(given)
    if len(names) > MAX_FIELDS:
        raise InvalidArgumentError("view.fields", f"{len(names)} names", f"at most {MAX_FIELDS} are taken")
    for name in names:
        if not 0 < len(name) <= MAX_FIELD:
            raise InvalidArgumentError("view.fields", name, f"must have 1 to {MAX_FIELD} characters")
        if name not in _GROUPS and (meant := [key for key in sorted(_KNOWN) if key.endswith(f".{name}")]):
            raise InvalidArgumentError("view.fields", name, f"is no whole key; did you mean {' or '.join(meant)}?")
    if TOPOLOGY in names:
        names = names - {TOPOLOGY} | keys.TOPOLOGY
    return frozenset(
        name
        for name in names
        if name not in ALWAYS and not any(group in names for group in _groups(name) if group != name)
    ) or frozenset(names)


def _indices(given: Sequence[int] | NDArray[np.integer]) -> bytes:
    array = np.asarray(given)
    if not array.size:
        return b""
    name = "view.particles"
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgumentError(name, given, "must be whole numbers in one row")
    if (lowest := int(array.min())) < 0 or (highest := int(array.max())) >= 2**32:
        raise InvalidArgumentError(name, lowest if lowest < 0 else highest, "indices are 0 to 2^32 - 1")
    ascending = np.unique(array)
    if len(ascending) != len(array):
        counted = np.sort(array)
        twice = int(counted[:-1][counted[1:] == counted[:-1]][0])
        raise InvalidArgumentError(name, twice, "is there more than once")
    return ascending.astype(_INDEX).tobytes()
