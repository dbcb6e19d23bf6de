"""An interaction as a message of `narupa.imd.v1`, and back: for those that send one, serve it and follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.interactions import KEY_PREFIX, Interaction
from narupa_shared.structs import from_struct, to_struct

# The kinds that were there before `potential`; they are still sent as this enum, for who knows no other.
_NUMBERS: Final = {
    "gaussian": pb.POTENTIAL_KIND_GAUSSIAN,
    "spring": pb.POTENTIAL_KIND_SPRING,
    "constant": pb.POTENTIAL_KIND_CONSTANT,
}
_NAMES: Final[Mapping[int, str]] = {
    pb.POTENTIAL_KIND_UNSPECIFIED: "gaussian",
    **{number: name for name, number in _NUMBERS.items()},
}
_OPTIONAL: Final = ("scale", "mass_weighted", "reset_velocities", "max_force")


def interaction_message(interaction: Interaction, properties: bool = True, owner: str = "") -> pb.Interaction:
    """`interaction` as a message; parameters that are None, which they are when left out, are left out.

    Args:
        properties: Whether its free properties go with it.
        owner: Who made it.

    Raises:
        InvalidArgumentError: a parameter or property cannot be sent.
    """
    number = _NUMBERS.get(interaction.kind, pb.POTENTIAL_KIND_UNSPECIFIED)
    message = pb.Interaction(
        id=interaction.id,
        position=interaction.position,
        particles=interaction.particles,
        kind=number,
        scale=interaction.scale,
        mass_weighted=interaction.mass_weighted,
        reset_velocities=interaction.reset_velocities,
        max_force=interaction.max_force,
        potential="" if number else interaction.kind,
        groups=[pb.ParticleGroup(particles=group) for group in interaction.groups],
        owner=owner,
    )
    if properties and interaction.properties:
        message.properties.CopyFrom(to_struct(interaction.properties, "properties"))
    given = {name: value for name, value in interaction.parameters.items() if value is not None}
    if given:
        message.parameters.CopyFrom(to_struct(given, "parameters"))
    return message


def interaction_of(message: pb.Interaction, particle_count: int | None = None) -> Interaction:
    """The interaction that a message describes, its owner included.

    Args:
        particle_count: As for `Interaction.parse`.

    Raises:
        InvalidArgumentError: naming the field and the value.
    """
    where = f"{KEY_PREFIX}{message.id}."
    return Interaction.parse(
        message.id,
        position=list(message.position),
        particles=list(message.particles),
        kind=kind_of(message),
        parameters=_items(message, "parameters", where),
        groups=[list(group.particles) for group in message.groups] or None,
        owner=message.owner,
        properties=_items(message, "properties", where),
        particle_count=particle_count,
        **{name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)},
    )


def state_value_of(message: pb.Interaction) -> dict[str, Any]:
    """What the shared state's key `interaction.<id>` holds for a message; nothing in it has been checked yet but the size
    of its maps. Particles that are named by their groups only are listed as particles, too.

    Raises:
        InvalidArgumentError: parameters or properties are nested too deeply, or too many.
    """
    where = f"{KEY_PREFIX}{message.id}."
    groups = [list(group.particles) for group in message.groups]
    particles = list(message.particles) or sorted({index for group in groups for index in group})
    value: dict[str, Any] = _items(message, "properties", where) or {}
    defaults = Interaction(id=message.id)
    for name in _OPTIONAL:
        value[name] = getattr(message if message.HasField(name) else defaults, name)
    value |= {"position": list(message.position), "particles": particles, "interaction_type": kind_of(message)}
    for name, item in (("parameters", _items(message, "parameters", where)), ("groups", groups)):
        if item:
            value[name] = item
        else:
            value.pop(name, None)  # a free property cannot stand for them
    return value


def kind_of(message: pb.Interaction) -> str | int:
    """The potential's name; a number that no version of the proto has stays what it is, to be refused by it."""
    return message.potential or _NAMES.get(message.kind, int(message.kind))


def _items(message: pb.Interaction, field: str, where: str) -> dict[str, Any] | None:
    """The map in `field`; None where there is none."""
    if not message.HasField(field):
        return None
    try:
        return from_struct(getattr(message, field), field)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}{error.field}", error.value, error.reason) from None
