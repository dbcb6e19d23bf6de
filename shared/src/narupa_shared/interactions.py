"""An interaction: somebody pulls some particles towards (or along) a handle, by a bias potential.

The rules of what a valid interaction is live here, once; the imd service applies them to everything that comes in, and the
trajectory service to everything that imd tells it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.potentials.parameters import MAX_COORDINATE, checked_number, checked_parameters
from narupa_shared.potentials.potential import Potential
from narupa_shared.potentials.registry import known_kinds, potential_named

# Those that existing clients know, in the order of the wire's enum. `known_kinds` tells all.
KINDS: Final[tuple[str, ...]] = ("gaussian", "spring", "constant")
KEY_PREFIX: Final = "interaction."

DEFAULT_MAX_FORCE: Final = 20000.0
MAX_PARTICLES: Final = 100_000
MAX_ID_LENGTH: Final = 128
MAX_SCALE: Final = 1.0e9


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user's pull on some particles; always valid once made by `parse`.

    Attributes:
        id: Unique in the session; the shared-state key is `interaction.<id>`.
        position: Handle, nm, simulation space.
        particles: Indices, ascending, no duplicates, at least one.
        kind: The name of its potential, built in or added by a plug-in.
        scale: Strength; multiplies energy and force.
        mass_weighted: Whether each particle's share of the force is proportional to its mass (in amu).
        reset_velocities: Whether the particles' velocities are redrawn from the Maxwell-Boltzmann distribution on release.
        max_force: Cap on |F| on each particle, kJ/(mol nm); infinity for none.
        properties: Free facts for other clients (`owner.id`, `label`, ...).
        parameters: The potential's parameters, all of them, checked.
        groups: The groups of a potential between groups, each ascending, none sharing particles; empty for a potential of
            one group, which is `particles`.
        owner: Who made it: a user's id, or the address of a client without a token; "" when not known.
    """

    id: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    particles: tuple[int, ...] = ()
    kind: str = "gaussian"
    scale: float = 1.0
    mass_weighted: bool = True
    reset_velocities: bool = False
    max_force: float = DEFAULT_MAX_FORCE
    properties: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[tuple[int, ...], ...] = ()
    owner: str = ""

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
        parameters: object = None,
        groups: object = None,
        owner: str = "",
        properties: Mapping[str, Any] | None = None,
        particle_count: int | None = None,
    ) -> Self:
        """The interaction that these untrusted values describe.

        Args:
            particles: With `groups`, empty or their union.
            parameters: Those of the potential that differ from its defaults.
            owner: As the connection tells, not as the client says.
            particle_count: How many particles the running system has; None when not known yet.

        Raises:
            InvalidArgumentError: naming the field and the value.
        """
        checked_id(id)
        where = f"{KEY_PREFIX}{id}."
        potential = checked_kind(f"{where}interaction_type", kind)
        force = checked_number(f"{where}max_force", max_force, finite=False)
        if not force >= 0:
            raise InvalidArgumentError(f"{where}max_force", max_force, "must be 0 or more, or infinity for no cap")
        strength = checked_number(f"{where}scale", scale)
        if abs(strength) > MAX_SCALE:
            raise InvalidArgumentError(f"{where}scale", scale, f"must be between -{MAX_SCALE:g} and {MAX_SCALE:g}")
        parts, given = checked_groups(where, potential, particles, groups, particle_count)
        # Values with one item for each particle come in the order in which the caller named these.
        named = list(itertools.chain.from_iterable(parts)) if parts else given
        members = tuple(sorted(named))
        order = None if tuple(named) == members else sorted(range(len(named)), key=named.__getitem__)
        return cls(
            id=id,
            position=checked_position(f"{where}position", position),
            particles=members,
            kind=potential.name,
            scale=strength,
            mass_weighted=checked_bool(f"{where}mass_weighted", mass_weighted),
            reset_velocities=checked_bool(f"{where}reset_velocities", reset_velocities),
            max_force=force,
            # None of them may pass for a field where both are written into one map.
            properties={key: item for key, item in (properties or {}).items() if key not in STATE_FIELDS},
            parameters=checked_parameters(
                f"{where}parameters.", potential.parameters, parameters, potential.name, len(members), order
            ),
            groups=tuple(tuple(sorted(part)) for part in parts),
            owner=owner,
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
        """The value of `interaction.<id>` in the shared state; `from_state` reads it back, less the owner."""
        value = {
            **self.properties,
            "position": list(self.position),
            "particles": list(self.particles),
            "interaction_type": self.kind,
            "scale": self.scale,
            "mass_weighted": self.mass_weighted,
            "reset_velocities": self.reset_velocities,
            "max_force": self.max_force,
        }
        if given := self.given_parameters():
            value["parameters"] = given
        if self.groups:
            value["groups"] = [list(group) for group in self.groups]
        return value

    def given_parameters(self) -> dict[str, Any]:
        """The parameters that differ from the potential's defaults, as plain lists and numbers."""
        if not self.parameters:
            return {}
        defaults = {parameter.name: parameter.default for parameter in potential_named(self.kind).parameters}
        return {name: plain(value) for name, value in self.parameters.items() if value != defaults.get(name)}

    def to_json(self) -> dict[str, Any]:
        """All but the properties, in plain types; `from_json` reads it back."""
        return {
            "id": self.id,
            "position": list(self.position),
            "particles": list(self.particles),
            "kind": self.kind,
            "scale": self.scale,
            "mass_weighted": self.mass_weighted,
            "reset_velocities": self.reset_velocities,
            # JSON has no infinity.
            "max_force": self.max_force if math.isfinite(self.max_force) else "Infinity",
            "parameters": {name: plain(value) for name, value in self.parameters.items()},
            "groups": [list(group) for group in self.groups],
            "owner": self.owner,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The interaction that `to_json` wrote.

        Raises:
            InvalidArgumentError: naming the field and the value.
        """
        if not isinstance(value, Mapping):
            raise InvalidArgumentError("interaction", value, "an interaction is a map")
        fields = dict(value)
        id = checked_id(fields.pop("id", None))
        if unknown := set(fields) - JSON_FIELDS:
            raise InvalidArgumentError(
                f"{KEY_PREFIX}{id}.{min(map(str, unknown))}", None, "is no field of an interaction"
            )
        owner = fields.pop("owner", "")
        if not isinstance(owner, str):
            raise InvalidArgumentError(f"{KEY_PREFIX}{id}.owner", owner, "must be text")
        return cls.parse(id, owner=owner, **fields)

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
    "parameters": "parameters",
    "groups": "groups",
}
JSON_FIELDS: Final = frozenset({*STATE_FIELDS.values(), "owner"})


def plain(value: Any) -> Any:
    """`value` with lists for tuples, all the way down."""
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def checked_kind(name: str, value: object) -> Potential:
    """The potential that `value` names."""
    if not isinstance(value, str):
        raise InvalidArgumentError(name, value, f"use one of {', '.join(known_kinds())}")
    try:
        return potential_named(value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(name, value, error.reason) from None


def checked_groups(
    where: str, potential: Potential, particles: object, groups: object, particle_count: int | None
) -> tuple[list[list[int]], list[int]]:
    """The groups, and all particles, each in the order given; no groups for a potential that has one."""
    given = () if groups is None else groups
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise InvalidArgumentError(f"{where}groups", given, "must be a list of lists of particle indices")
    if not given and potential.groups == 1:
        return [], checked_particles(f"{where}particles", particles, particle_count)
    if len(given) != potential.groups:
        needs = f"{potential.name} acts on {potential.groups} group" + ("s" if potential.groups > 1 else "")
        raise InvalidArgumentError(f"{where}groups", f"{len(given)} groups", needs)
    parts = [checked_particles(f"{where}groups[{n}]", part, particle_count) for n, part in enumerate(given)]
    if sum(map(len, parts)) > MAX_PARTICLES:
        raise InvalidArgumentError(f"{where}groups", f"{sum(map(len, parts))} indices", f"at most {MAX_PARTICLES}")
    union: set[int] = set()
    for n, part in enumerate(parts):
        if shared := union.intersection(part):
            raise InvalidArgumentError(
                f"{where}groups[{n}]", min(shared), "is in an earlier group too; groups share no particles"
            )
        union.update(part)
    if particles is not None and not (isinstance(particles, Sequence) and not len(particles)):
        named = checked_particles(f"{where}particles", particles, particle_count)
        if set(named) != union:
            raise InvalidArgumentError(
                f"{where}particles", f"{len(named)} indices", "leave it empty, or name all of the groups"
            )
    return ([], parts[0]) if potential.groups == 1 else (parts, sorted(union))


def checked_id(id: object) -> str:
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID_LENGTH or not id.isprintable():
        raise InvalidArgumentError("interaction id", id, f"must be 1 to {MAX_ID_LENGTH} printable characters")
    return id


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


def checked_index(name: str, value: object) -> int:
    if type(value) is int:
        return value
    if not isinstance(value, float) or not value.is_integer():
        raise InvalidArgumentError(name, value, "particle indices are whole numbers")
    return int(value)


def checked_particles(name: str, value: object, particle_count: int | None) -> list[int]:
    """Whole numbers from 0 up, no two the same, in the order given."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidArgumentError(name, value, "must be a list of particle indices")
    if not value:
        raise InvalidArgumentError(name, value, "is empty; name at least one particle")
    if len(value) > MAX_PARTICLES:
        raise InvalidArgumentError(name, f"{len(value)} indices", f"at most {MAX_PARTICLES} particles per interaction")
    if set(map(type, value)) == {int}:
        indices = list(value)
    else:
        indices = [checked_index(name, item) for item in value]
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
    return indices
