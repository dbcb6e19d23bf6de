"""An interaction: somebody pulls some particles towards (or along) a handle, by a bias potential.

The rules of what a valid interaction is live here, once; the imd service applies them to everything that comes in, and the
trajectory service to everything that imd tells it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self, cast, get_args

from narupa_shared.errors import InvalidArgumentError

PotentialKind = Literal["gaussian", "spring", "constant"]
KINDS: Final[tuple[str, ...]] = get_args(PotentialKind)
KEY_PREFIX: Final = "interaction."

DEFAULT_MAX_FORCE: Final = 20000.0
MAX_PARTICLES: Final = 100_000
MAX_ID_LENGTH: Final = 128
# Handles further out than this (nm) are unit errors, and their forces would overflow single precision.
MAX_COORDINATE: Final = 1.0e6
MAX_SCALE: Final = 1.0e9


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user's pull on some particles; always valid once made by `parse`.

    Attributes:
        id: Unique in the session; the shared-state key is `interaction.<id>`.
        position: Handle, nm, simulation space.
        particles: Indices, ascending, no duplicates, at least one.
        kind: Which bias potential.
        scale: Strength; multiplies energy and force.
        mass_weighted: Whether each particle's share of the force is proportional to its mass (in amu).
        reset_velocities: Whether the particles' velocities are redrawn from the Maxwell-Boltzmann distribution on release.
        max_force: Cap on |F| on each particle, kJ/(mol nm); infinity for none.
        properties: Free facts for other clients (`owner.id`, `label`, ...).
    """

    id: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    particles: tuple[int, ...] = ()
    kind: PotentialKind = "gaussian"
    scale: float = 1.0
    mass_weighted: bool = True
    reset_velocities: bool = False
    max_force: float = DEFAULT_MAX_FORCE
    properties: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        id: str,
        *,
        position: object = (0.0, 0.0, 0.0),
        particles: object = (),
        kind: object = "gaussian",
        scale: object = 1.0,
        mass_weighted: object = True,
        reset_velocities: object = False,
        max_force: object = DEFAULT_MAX_FORCE,
        properties: Mapping[str, Any] | None = None,
        particle_count: int | None = None,
    ) -> Self:
        """The interaction that these untrusted values describe.

        Args:
            particle_count: How many particles the running system has; None when not known yet.

        Raises:
            InvalidArgumentError: naming the field and the value.
        """
        checked_id(id)
        where = f"{KEY_PREFIX}{id}."
        if kind not in KINDS:
            raise InvalidArgumentError(f"{where}interaction_type", kind, f"use one of {', '.join(KINDS)}")
        force = checked_number(f"{where}max_force", max_force, finite=False)
        if not force >= 0:
            raise InvalidArgumentError(f"{where}max_force", max_force, "must be 0 or more, or infinity for no cap")
        strength = checked_number(f"{where}scale", scale)
        if abs(strength) > MAX_SCALE:
            raise InvalidArgumentError(f"{where}scale", scale, f"must be between -{MAX_SCALE:g} and {MAX_SCALE:g}")
        return cls(
            id=id,
            position=checked_position(f"{where}position", position),
            particles=checked_particles(f"{where}particles", particles, particle_count),
            kind=cast(PotentialKind, kind),
            scale=strength,
            mass_weighted=checked_bool(f"{where}mass_weighted", mass_weighted),
            reset_velocities=checked_bool(f"{where}reset_velocities", reset_velocities),
            max_force=force,
            properties=dict(properties or {}),
        )

    @classmethod
    def from_state(cls, id: str, value: object, particle_count: int | None = None) -> Self:
        """The interaction that the shared-state value of `interaction.<id>` describes, as existing clients write it.

        Raises:
            InvalidArgumentError: naming the field and the value.
        """
        checked_id(id)
        if not isinstance(value, Mapping):
            raise InvalidArgumentError(f"{KEY_PREFIX}{id}", value, "an interaction is a map")
        named = {STATE_FIELDS[key]: item for key, item in value.items() if key in STATE_FIELDS}
        free = {key: item for key, item in value.items() if key not in STATE_FIELDS}
        return cls.parse(id, **named, properties=free, particle_count=particle_count)

    def to_state(self) -> dict[str, Any]:
        """The value of `interaction.<id>` in the shared state; `from_state` reads it back."""
        return {
            **self.properties,
            "position": list(self.position),
            "particles": list(self.particles),
            "interaction_type": self.kind,
            "scale": self.scale,
            "mass_weighted": self.mass_weighted,
            "reset_velocities": self.reset_velocities,
            "max_force": self.max_force,
        }

    def moved(self, position: object) -> Self:
        """This interaction with its handle at `position` (nm).

        Raises:
            InvalidArgumentError: not three finite numbers.
        """
        return replace(self, position=checked_position(f"{KEY_PREFIX}{self.id}.position", position))


STATE_FIELDS: Final = {
    "position": "position",
    "particles": "particles",
    "interaction_type": "kind",
    "scale": "scale",
    "mass_weighted": "mass_weighted",
    "reset_velocities": "reset_velocities",
    "max_force": "max_force",
}


def checked_id(id: object) -> str:
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID_LENGTH or not id.isprintable():
        raise InvalidArgumentError("interaction id", id, f"must be 1 to {MAX_ID_LENGTH} printable characters")
    return id


def checked_number(name: str, value: object, finite: bool = True) -> float:
    """`value` as a float. Existing clients write an infinite cap as a number or as the text "Infinity"."""
    if isinstance(value, str) and value.lower() in ("infinity", "inf", "+infinity"):
        value = math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(name, value, "must be a number")
    try:
        number = float(value)
    except OverflowError:
        raise InvalidArgumentError(name, value, "is too large") from None
    if math.isnan(number) or (finite and math.isinf(number)):
        raise InvalidArgumentError(name, value, "must be finite" if finite else "must be a number")
    return number


def checked_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentError(name, value, "must be true or false")
    return value


def checked_position(name: str, value: object) -> tuple[float, float, float]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 3:
        raise InvalidArgumentError(name, value, "must be three numbers (x, y, z in nm)")
    x, y, z = (checked_number(f"{name}[{axis}]", item) for axis, item in enumerate(value))
    for axis, item in enumerate((x, y, z)):
        if abs(item) > MAX_COORDINATE:
            raise InvalidArgumentError(f"{name}[{axis}]", item, f"must be within {MAX_COORDINATE:g} nm of the origin")
    return x, y, z


def checked_particles(name: str, value: object, particle_count: int | None) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidArgumentError(name, value, "must be a list of particle indices")
    if not value:
        raise InvalidArgumentError(name, value, "is empty; name at least one particle")
    if len(value) > MAX_PARTICLES:
        raise InvalidArgumentError(name, f"{len(value)} indices", f"at most {MAX_PARTICLES} particles per interaction")
    indices: list[int] = []
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item) or int(item) != item:
            raise InvalidArgumentError(name, item, "particle indices are whole numbers")
        indices.append(int(item))
    lowest, highest = min(indices), max(indices)
    if lowest < 0:
        raise InvalidArgumentError(name, lowest, "particle indices start at 0")
    if particle_count is not None and highest >= particle_count:
        raise InvalidArgumentError(
            name, highest, f"the system has {particle_count} particles, 0 to {particle_count - 1}"
        )
    ordered = sorted(indices)
    if len(set(ordered)) != len(ordered):
        twice = next(a for a, b in itertools.pairwise(ordered) if a == b)
        raise InvalidArgumentError(name, twice, "is named twice; name each particle once")
    return tuple(ordered)
