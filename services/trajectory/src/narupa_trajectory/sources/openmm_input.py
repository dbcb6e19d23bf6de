"""OpenMM simulations written as one XML file: structure, System, Integrator and, optionally, State."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
import openmm
import openmm.app
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError, shown
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.openmm_system import vectors_of

ROOT = "OpenMMSimulation"
T = TypeVar("T")


def open_openmm(path: Path, name: str, **options: Any) -> OpenMMSource:
    """The simulation in the file at `path`; `options` as those of `OpenMMSource`.

    Raises:
        InvalidArgumentError: the file is broken, hostile, or lacks a part.
    """
    root = parsed(path)
    structure = part(path, root, "structure", read_structure)
    system = part(path, root, "System", lambda: deserialized(root, "System", openmm.System))
    integrator = part(path, root, "Integrator", lambda: deserialized(root, "Integrator", openmm.Integrator))
    positions: NDArray[np.float64] = np.array(structure.getPositions(asNumpy=True)._value, dtype=np.float64)
    velocities = box = None
    if root.find("State") is not None:
        state = part(path, root, "State", lambda: deserialized(root, "State", openmm.State))
        present = state.getDataTypes()
        if present & openmm.State.Positions:
            positions = vectors_of(state, openmm.State.Positions)
        if present & openmm.State.Velocities:
            velocities = vectors_of(state, openmm.State.Velocities)
        box = np.array([tuple(row) for row in state.getPeriodicBoxVectors()._value])
    count = system.getNumParticles()
    sizes = {"structure": structure.topology.getNumAtoms(), "State": len(positions)}
    for label, size in sizes.items():
        if size != count:
            raise InvalidArgumentError("input", str(path), f"its {label} has {size} particles and its System {count}")
    if not count or not np.isfinite(positions).all():
        raise InvalidArgumentError("input", str(path), "has no particles, or positions that are not finite")
    topology = topologies.from_openmm(structure.topology, positions)
    try:
        return OpenMMSource(name, topology, system, integrator, positions, velocities=velocities, box=box, **options)
    except openmm.OpenMMException as error:
        raise InvalidArgumentError("input", str(path), f"OpenMM cannot run it: {shown(str(error), 300)}") from error


def parsed(path: Path) -> ElementTree.Element:
    """The root of the XML, safe to go through.

    Document types are refused, since entities could expand without bound, and so is code: OpenMM would unpickle and run
    what a serialised `PythonForce` holds.
    """
    try:
        text = path.read_text(encoding="utf-8")  # parsed as text, so that no other encoding can hide a document type
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError("input", str(path), f"cannot be read as UTF-8 text ({error})") from error
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InvalidArgumentError("input", str(path), "declares a document type or entities, which are not accepted")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InvalidArgumentError("input", str(path), f"is not well-formed XML ({error})") from error
    if root.tag != ROOT:
        raise InvalidArgumentError("input", str(path), f"its root is <{root.tag[:40]}>; an OpenMM input has <{ROOT}>")
    if any("pythonforce" in element.get("type", "").lower() for element in root.iter()):
        raise InvalidArgumentError("input", str(path), "holds a PythonForce, which is code and is not run from a file")
    return root


def part(path: Path, root: ElementTree.Element, label: str, read: Callable[..., T]) -> T:
    """What `read` makes of one part of the file; its errors name the file and the part."""
    try:
        return read(root) if label == "structure" else read()
    except InvalidArgumentError:
        raise
    except MissingPartError as error:
        raise InvalidArgumentError("input", str(path), f"has no <{error}> element; it needs one") from error
    except Exception as error:  # OpenMM's readers raise whatever they trip over
        detail = f"{type(error).__name__}: {error}"
        raise InvalidArgumentError("input", str(path), f"its {label} cannot be read ({shown(detail, 300)})") from error


class MissingPartError(Exception):
    """An element that the file must have is not there."""


def read_structure(root: ElementTree.Element) -> openmm.app.PDBFile | openmm.app.PDBxFile:
    for tag, reader in (("pdbx", openmm.app.PDBxFile), ("pdb", openmm.app.PDBFile)):
        element = root.find(tag)
        if element is not None and element.text:
            return reader(io.StringIO(element.text.strip() + "\n"))
    raise MissingPartError("pdbx> or <pdb")


def deserialized(root: ElementTree.Element, tag: str, kind: type[Any]) -> Any:
    element = root.find(tag)
    if element is None:
        raise MissingPartError(tag)
    check_types(element)
    value = openmm.XmlSerializer.deserialize(ElementTree.tostring(element, encoding="unicode"))
    if not isinstance(value, kind):
        raise TypeError(f"it holds a {type(value).__name__}")
    return value


# What the elements that carry a type must hold.
BASES = {
    "System": openmm.System,
    "State": openmm.State,
    "Integrator": openmm.Integrator,
    "Force": openmm.Force,
    "Function": openmm.TabulatedFunction,
}


def check_types(element: ElementTree.Element) -> None:
    """Passes when every typed element holds what its name says: OpenMM takes that on trust, and crashes where it is not so.

    Raises:
        TypeError: naming the element and its type.
    """
    for each in element.iter():
        kind = each.get("type")
        if (kind is None and each is not element) or each.tag not in BASES:
            continue
        found = getattr(openmm, kind or "", None)
        if not (isinstance(found, type) and issubclass(found, BASES[each.tag])):
            raise TypeError(f"an element <{each.tag}> has the type {kind!r}")
