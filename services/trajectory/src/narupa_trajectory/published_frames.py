"""Frames that clients publish: what may be in them, and what they put over, or in place of, the simulation's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError
from narupa_shared.frames import Frame
from narupa_shared.published import Topology
from narupa_shared.rates import RateLimit
from narupa_trajectory.snapshot_items import NO_FORCES

MAX_KEYS: Final = 256
MAX_KEY: Final = 128
MAX_TEXT: Final = 4096
# Of one item of a list of texts, such as an atom's name.
MAX_ITEM: Final = 256

# What only the service says of its frames. Clients that send on what they got have them, too, so they are left out quietly.
SERVICES_OWN: Final = frozenset({keys.RUN, keys.COUNTER, keys.EPOCH, keys.EXCEPTION, keys.TIMESTAMP, "frame.index"})
# What a running simulation says anew with each frame.
RUNNING: Final = frozenset(
    {
        keys.POSITIONS,
        keys.VELOCITIES,
        keys.FORCES,
        keys.SYSTEM_FORCES,
        keys.BOX,
        keys.TIME,
        keys.STEP,
        keys.KINETIC,
        keys.POTENTIAL,
        keys.ENERGY_TIME,
        keys.TEMPERATURE,
        keys.USER_WORK,
        *NO_FORCES,
    }
)
_COUNTS: Final = {keys.PARTICLE_COUNT: "N", keys.RESIDUE_COUNT: "R", keys.CHAIN_COUNT: "C"}
_NUMBERS: Final = frozenset(
    {
        keys.KINETIC,
        keys.POTENTIAL,
        keys.ENERGY_TIME,
        keys.TEMPERATURE,
        keys.TIME,
        keys.STEP,
        keys.USER_ENERGY,
        keys.USER_WORK,
    }
)
_TEXTS: Final = frozenset({keys.SIMULATION_NAME})
# Of arrays: float32 "f", uint32 "u", or texts "s"; and the shape, in which equal letters stand for equal lengths.
_ARRAYS: Final[Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
    keys.POSITIONS: ("f", ("N", 3)),
    keys.VELOCITIES: ("f", ("N", 3)),
    keys.FORCES: ("f", ("N", 3)),
    keys.SYSTEM_FORCES: ("f", ("N", 3)),
    keys.ELEMENTS: ("u", ("N",)),
    keys.NAMES: ("s", ("N",)),
    keys.RESIDUES: ("u", ("N",)),
    keys.COLORS: ("u", ("N", 4)),
    keys.RESIDUE_NAMES: ("s", ("R",)),
    keys.RESIDUE_IDS: ("s", ("R",)),
    keys.RESIDUE_CHAINS: ("u", ("R",)),
    keys.CHAIN_NAMES: ("s", ("C",)),
    keys.BOND_PAIRS: ("u", ("B", 2)),
    keys.BOND_ORDERS: ("f", ("B",)),
    keys.BOX: ("f", (3, 3)),
    keys.USER_INDEX: ("u", ("n",)),
    keys.USER_SPARSE: ("f", ("n", 3)),
    keys.INTERACTION_IDS: ("s", ("K",)),
    keys.INTERACTION_ENERGIES: ("f", ("K",)),
    keys.INTERACTION_WORK: ("f", ("K",)),
    keys.INTERACTION_FORCES: ("f", ("K", 3)),
}
_KINDS: Final = {"f": "floats", "u": "indices (unsigned integers)", "s": "texts"}
# Indices, and the letter of what they count.
_INDICES: Final = {
    keys.BOND_PAIRS: ("N", keys.PARTICLE_COUNT),
    keys.USER_INDEX: ("N", keys.PARTICLE_COUNT),
    keys.RESIDUES: ("R", keys.RESIDUE_COUNT),
    keys.RESIDUE_CHAINS: ("C", keys.CHAIN_COUNT),
}
_TOP_COLOR: Final = 255

Items = dict[str, Any]


class PublishedFrames:
    """What of the frames that clients have published is shown now. Does no input or output.

    Attributes:
        replaces: Whether the simulation's own frames are not shown.
        topology: In place of the simulation's; None while that is shown as it is.
        run_id: Of a frame that stands in place of the simulation; empty while there is none.
    """

    def __init__(self, clock: Callable[[], float], per_s: float, burst: int, max_bytes: int) -> None:
        """Nothing is shown.

        Args:
            clock: Gives seconds.
            per_s: How many frames an owner may publish a second, on average.
            burst: And how many at once.
            max_bytes: How much may be in one frame, and in what is put over another.
        """
        self._rates = RateLimit(clock, per_s, burst, "frames")
        self._max_bytes = max_bytes
        self.replaces = False
        self.topology: Topology | None = None
        self.run_id = ""

    def admit(self, owner: str) -> None:
        """`owner` may publish a frame now. Raises: QuotaError when there have been too many."""
        self._rates.spend(owner)

    def end(self) -> None:
        """The simulation's own frames are shown again."""
        self.replaces, self.topology, self.run_id = False, None, ""

    def checked(self, frame: Frame) -> Frame:
        """`frame` without what only the service says, its known arrays in their shapes.

        Raises:
            InvalidArgumentError: a key, type, shape or number is wrong; it names which.
            QuotaError: it holds too much.
        """
        values = {key: value for key, value in frame.values.items() if key not in SERVICES_OWN}
        arrays = {key: array for key, array in frame.arrays.items() if key not in SERVICES_OWN}
        if len(values) + len(arrays) > MAX_KEYS:
            raise QuotaError(f"the frame has {len(values) + len(arrays)} keys; at most {MAX_KEYS} may be published")
        for key in (*values, *arrays):
            if not 0 < len(key) <= MAX_KEY:
                raise InvalidArgumentError("frame key", key, f"must have 1 to {MAX_KEY} characters")
        for key in values.keys() & arrays.keys():
            raise InvalidArgumentError(f"frame key {key}", key, "is both a value and an array")
        found = Frame(frame.index, values, {})
        for key, value in values.items():
            _check_value(key, value)
        for key, array in arrays.items():
            found.arrays[key] = _checked_array(key, array)
        self._check_size("the frame holds", found)
        return found

    def replace(self, given: Frame, facts: Mapping[str, Any], run_id: str) -> None:
        """`given`, of index 0 and `checked`, is shown in place of the simulation.

        Args:
            given: The frame.
            facts: What the service says of it.
            run_id: A new one, in which frames that follow are counted.

        Raises:
            InvalidArgumentError: its arrays do not fit each other; nothing has changed.
        """
        sizes = check_fit(given, Frame())
        count = {keys.PARTICLE_COUNT: float(sizes["N"][0])} if "N" in sizes else {}
        self.topology = Topology({**given.values, **given.arrays, **count, **facts, keys.RUN: run_id})
        self.replaces, self.run_id = True, run_id

    def overlay(self, given: Frame, body: Frame, shown: Topology, running: bool) -> Items:
        """`given`, of another index and `checked`, is put over what is shown; returns what now changes with time in that.

        Args:
            given: The frame.
            body: What changes with time in what is shown.
            shown: The topology of that.
            running: Whether the simulation runs.

        Raises:
            FailedPreconditionError: it has keys of the simulation, which runs.
            InvalidArgumentError: its arrays do not fit each other, or what is shown.
            QuotaError: too much has been put over it.
        """
        items: Items = {**given.values, **given.arrays}
        moving = {key: item for key, item in items.items() if key in RUNNING}
        if moving and running:
            raise FailedPreconditionError(
                f"the frame has {next(iter(moving))}, which the simulation gives while it runs; pause it first "
                "(playback/pause), or publish a frame of index 0 in its place"
            )
        sizes = check_fit(given, shown.frame.overlaid(body))
        added = {key: item for key, item in items.items() if key not in RUNNING}
        if "N" in sizes and keys.PARTICLE_COUNT not in shown.frame.values:
            added[keys.PARTICLE_COUNT] = float(sizes["N"][0])
        topology = shown.with_added(added) if added else shown
        self._check_size("what is put over the frame that is shown holds", topology.added)
        present: Items = {**body.values, **body.arrays}
        if moving:
            # The forces shown last act on particles that have been put elsewhere.
            present = {**present, **NO_FORCES, **moving}
        self.topology = topology
        self.replaces = self.replaces or bool(moving)
        return present

    def _check_size(self, what: str, frame: Frame) -> None:
        if (count := len(frame.values) + len(frame.arrays)) > MAX_KEYS:
            raise QuotaError(f"{what} {count} keys; the limit is {MAX_KEYS}: publish a frame of index 0, or reset")
        if (size := sum(_sizes(frame))) > self._max_bytes:
            raise QuotaError(f"{what} {size} bytes; this service's limit is {self._max_bytes}")


def check_fit(given: Frame, shown: Frame) -> dict[str, tuple[int, str]]:
    """The lengths of what is known, by its letter, with the key that says so, once `given` is over `shown`.

    Raises:
        InvalidArgumentError: an array of `given`, or one that is shown with it, has another length than it must, or an
            index that is beyond what it counts.
    """
    both = shown.overlaid(given)
    new = given.values.keys() | given.arrays.keys()
    sizes: dict[str, tuple[int, str]] = {}
    stated = [(key, letter, int(float(both.values[key]))) for key, letter in _COUNTS.items() if key in both.values]
    lengths = [
        (key, letter, len(both.arrays[key]))
        for key, (_, form) in _ARRAYS.items()
        if key in both.arrays and isinstance(letter := form[0], str)
    ]
    # What is new is measured by what is there already.
    for key, letter, length in sorted([*stated, *lengths], key=lambda item: item[0] in new):
        size, said = sizes.setdefault(letter, (length, key))
        if size != length and {key, said} & new:
            reason = (
                f"has {length}, and {said} {size}: they must be as many; a frame of index 0 may show another system"
            )
            raise InvalidArgumentError(f"frame key {key}", length, reason)
    for key, (letter, counted) in _INDICES.items():
        array = both.arrays.get(key)
        size, said = sizes.get(letter, (0, counted))
        if isinstance(array, np.ndarray) and array.size and {key, said} & new and (top := int(array.max())) >= size:
            raise InvalidArgumentError(f"frame key {key}", top, f"must be below {size}, which is {said}")
    return sizes


def _check_value(key: str, value: object) -> None:
    name = f"frame key {key}"
    if key in _ARRAYS:
        raise InvalidArgumentError(name, value, f"must be an array of {_KINDS[_ARRAYS[key][0]]}")
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise InvalidArgumentError(name, value, f"has {len(value)} characters; at most {MAX_TEXT} are allowed")
        if key in _COUNTS or key in _NUMBERS:
            raise InvalidArgumentError(name, value, "must be a number")
        return
    if key in _TEXTS:
        raise InvalidArgumentError(name, value, "must be a text")
    if isinstance(value, bool):
        if key in _COUNTS or key in _NUMBERS:
            raise InvalidArgumentError(name, value, "must be a number")
        return
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgumentError(name, value, "must be a finite number, a text or a truth value")
    if key in _COUNTS and not (0 <= value < 2**32 and value == int(value)):
        raise InvalidArgumentError(name, value, "must be a whole number of 0 or more")


def _checked_array(key: str, array: NDArray[Any] | list[str]) -> NDArray[Any] | list[str]:
    """`array`, and where the key is known in the shape that it must have."""
    name = f"frame key {key}"
    kind = "s" if isinstance(array, list) else array.dtype.kind
    if isinstance(array, list) and len(longest := max(array, key=len, default="")) > MAX_ITEM:
        raise InvalidArgumentError(name, longest, f"each text may have {MAX_ITEM} characters")
    if key in _COUNTS or key in _NUMBERS or key in _TEXTS:
        raise InvalidArgumentError(name, f"an array of {_KINDS[kind]}", "must be a single value")
    if key not in _ARRAYS:
        return array
    wanted, form = _ARRAYS[key]
    if key == keys.BOND_ORDERS and kind == "u" and isinstance(array, np.ndarray):
        array, kind = array.astype(np.float32), "f"
    if kind != wanted:
        raise InvalidArgumentError(name, f"an array of {_KINDS[kind]}", f"must be one of {_KINDS[wanted]}")
    if isinstance(array, list):
        return array
    whole = _shaped(name, array, form)
    if wanted == "f" and not np.isfinite(whole).all():
        raise InvalidArgumentError(name, "an array with NaN or infinity", "must hold finite numbers")
    if key == keys.COLORS and whole.size and (top := int(whole.max())) > _TOP_COLOR:
        raise InvalidArgumentError(name, top, f"colours are red, green, blue and alpha from 0 to {_TOP_COLOR}")
    return whole


def _shaped(name: str, array: NDArray[Any], form: tuple[str | int, ...]) -> NDArray[Any]:
    """Flat arrays, as existing clients have them, get their rows."""
    if array.ndim == 1 and len(form) == 2 and array.size % int(form[1]) == 0:
        array = array.reshape(-1, int(form[1]))
    if array.ndim != len(form) or any(
        isinstance(length, int) and length != found for length, found in zip(form, array.shape, strict=True)
    ):
        raise InvalidArgumentError(name, array.shape, f"must have the shape ({', '.join(map(str, form))})")
    return array


def _sizes(frame: Frame) -> Iterable[int]:
    """About how many bytes each item of the frame takes."""
    for key, value in frame.values.items():
        yield len(key) + (len(value) if isinstance(value, str) else 8)
    for key, array in frame.arrays.items():
        yield len(key) + (sum(map(len, array)) + 2 * len(array) if isinstance(array, list) else array.nbytes)
