"""Which potentials there are: the built-in ones, and those that installed packages add by entry point."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import structlog

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.potentials.force import Force
from narupa_shared.potentials.potential import Potential, is_potential
from narupa_shared.potentials.radial import Constant, Gaussian, Spring
from narupa_shared.potentials.restraints import Angle, Dihedral, Distance
from narupa_shared.potentials.rotation import Rotation
from narupa_shared.potentials.steered import Steered
from narupa_shared.potentials.wall import Wall

log = structlog.get_logger(__name__)

ENTRY_POINT_GROUP: Final = "narupa.potentials"
BUILT_IN: Final[Mapping[str, Potential]] = {
    item.name: item
    for item in (
        Gaussian(),
        Spring(),
        Constant(),
        Force(),
        Steered(),
        Wall(),
        Rotation(),
        Distance(),
        Angle(),
        Dihedral(),
    )
}


def known_kinds() -> tuple[str, ...]:
    """The names of all potentials, the built-in ones first; plug-ins are listed without being loaded."""
    return (*BUILT_IN, *sorted(plug_ins()))


def potential_named(kind: str) -> Potential:
    """The potential of this name; a plug-in's code is loaded when it is first asked for.

    Raises:
        InvalidArgumentError: there is none of this name, or its plug-in is broken, with the reason.
    """
    found = BUILT_IN.get(kind)
    if found is not None:
        return found
    if kind not in plug_ins():
        raise InvalidArgumentError("potential", kind, f"use one of {', '.join(known_kinds())}")
    loaded = load(kind)
    if isinstance(loaded, str):
        raise InvalidArgumentError("potential", kind, loaded)
    return loaded


@functools.lru_cache(maxsize=1)
def plug_ins() -> Mapping[str, EntryPoint]:
    """What installed packages add, by name. Looked up once: installing a package needs a restart."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in BUILT_IN:
            log.warning("potential_plug_in_ignored", name=entry.name, value=entry.value, reason="the name is built in")
        else:
            found.setdefault(entry.name, entry)
    return found


@functools.lru_cache(maxsize=256)
def load(name: str) -> Potential | str:
    """The plug-in's potential, or what is wrong with it."""
    entry = plug_ins()[name]
    source = f"the plug-in {entry.value}"
    try:
        loaded = entry.load()
        if isinstance(loaded, type):
            loaded = loaded()
        sound = is_potential(loaded)
    except Exception as error:  # whatever somebody else's code raises
        return f"{source} cannot be loaded: {type(error).__name__}: {error}"
    if not sound:
        return (
            f"{source} is no potential: it needs name, groups, parameters, timed, per_particle, anchored and prepare()"
        )
    if loaded.name != name:
        return f"{source} calls itself {loaded.name!r}: its name and its entry point's must be the same"
    potential: Potential = loaded
    return potential
