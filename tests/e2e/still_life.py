"""A molecule that holds still: a helix, a hairpin, water and ions in a skewed box, for pictures that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Backbone angles phi and psi of each residue, degrees.
_HELIX: Final = [(-57, -47)] * 14
_LOOP: Final = [(-75, 145), (-65, -40), (-85, 70), (-95, 150), (60, 35), (-110, 120)]
_STRAND: Final = [(-129, 130.5)] * 7
# Of the turns that make strands like these run back beside themselves.
_TURN: Final = [(111, 52.4), (70.7, 11.6)]
ANGLES: Final = (*_HELIX, *_LOOP, *_STRAND, *_TURN, *_STRAND)
_RESIDUES: Final = ("ALA", "LEU", "GLU", "LYS", "SER", "PHE", "CYS")
# Bond lengths (A) and angles (degrees) of peptides, after Engh and Huber (1991).
_N_CA, _CA_C, _C_N, _C_O, _CA_CB, _N_H, _C_H = 1.458, 1.525, 1.329, 1.231, 1.530, 1.01, 1.09
_AT_CA, _AT_C, _AT_N = 111.2, 116.2, 121.7
# Oxygen and hydrogens of a water, A.
WATER: Final = np.array([[0.0, 0.0, 0.0], [0.957, 0.0, 0.0], [-0.24, 0.927, 0.0]])


def _beyond(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], length: float, angle: float, dihedral: float
) -> NDArray[np.float64]:
    """The point bonded to c at this length, angle a-b-c and dihedral (degrees)."""
    theta, phi = np.radians(angle), np.radians(dihedral)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    side = np.cross(normal, along)
    step = -np.cos(theta) * along + np.sin(theta) * (np.cos(phi) * side + np.sin(phi) * normal)
    return np.asarray(c + length * step)


def peptide() -> tuple[list[tuple[str, str, int]], NDArray[np.float64]]:
    """Atoms as (name, residue, number of the residue from 1), and where they are, (N, 3) in A."""
    n, ca = np.zeros(3), np.array([_N_CA, 0.0, 0.0])
    c = ca + _CA_C * np.array([-np.cos(np.radians(_AT_CA)), np.sin(np.radians(_AT_CA)), 0.0])
    backbone = [(n, ca, c)]
    for (_, psi), (phi, _) in pairwise(ANGLES):
        n, ca, c = backbone[-1]
        next_n = _beyond(n, ca, c, _C_N, _AT_C, psi)
        next_ca = _beyond(ca, c, next_n, _N_CA, _AT_N, 180.0)
        backbone.append((next_n, next_ca, _beyond(c, next_n, next_ca, _CA_C, _AT_CA, phi)))
    atoms: list[tuple[str, str, int]] = []
    places: list[NDArray[np.float64]] = []
    for at, (n, ca, c) in enumerate(backbone):
        residue = _RESIDUES[at % len(_RESIDUES)]
        beta = _beyond(c, n, ca, _CA_CB, 110.1, 122.5 + 115.0)
        found = {
            "N": n,
            "CA": ca,
            "C": c,
            "O": _beyond(n, ca, c, _C_O, 120.1, ANGLES[at][1] + 180.0),
            "CB": beta,
            "HA": _beyond(c, n, ca, _C_H, 108.0, 118.0),
        }
        if at > 0:
            found["H"] = _beyond(backbone[at - 1][1], backbone[at - 1][2], n, _N_H, 119.0, 0.0)
        if residue == "CYS":
            found["SG"] = _beyond(n, ca, beta, 1.81, 114.0, -60.0)
        elif residue == "SER":
            found["OG"] = _beyond(n, ca, beta, 1.42, 110.0, 60.0)
        elif residue != "ALA":
            found["CG"] = _beyond(n, ca, beta, 1.52, 113.0, 180.0)
        atoms += [(name, residue, at + 1) for name in found]
        places += found.values()
    return atoms, np.array(places)


def _turned(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, its longest extents along x and y."""
    centred = places - places.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    turn = axes[:, [2, 1, 0]]
    # Mirrored it would be another molecule.
    turn[:, 2] *= np.sign(np.linalg.det(turn))
    return np.asarray(centred @ turn)


def pdb(atoms: Sequence[tuple[str, str, str, int]], places: NDArray[Any], box: Sequence[float] = ()) -> str:
    """A PDB file of atoms given as (name, residue, chain, number of the residue), (N, 3) in A; box lengths and angles, if any."""
    lines = (
        [f"CRYST1{box[0]:9.3f}{box[1]:9.3f}{box[2]:9.3f}{box[3]:7.2f}{box[4]:7.2f}{box[5]:7.2f} P 1           1"]
        if box
        else []
    )
    for serial, ((name, residue, chain, number), (x, y, z)) in enumerate(zip(atoms, places.tolist(), strict=True), 1):
        element = name if residue == name else name[0]
        column = f"{name:<4}" if len(element) == 2 else f" {name:<3}"
        which = f"{serial % 100_000:5d} {column} {residue:>3} {chain}{number:4d}"
        lines.append(f"ATOM  {which}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}")
    return "\n".join([*lines, "END", ""])


def write_still_life(path: Path) -> int:
    """Writes it as a PDB file; returns how many particles there are."""
    names, shape = peptide()
    shape = _turned(shape)
    low, high = shape.min(axis=0) - 4.0, shape.max(axis=0) + 4.0
    size = high - low
    atoms = [(name, residue, "A", number) for name, residue, number in names]
    places = [shape - low]
    for at in range(8):
        corner = np.array([at & 1, at >> 1 & 1, at >> 2 & 1]) * 0.8 + 0.1
        atoms += [(name, "HOH", "B", at + 1) for name in ("O", "H1", "H2")]
        places.append(WATER + corner * size)
    for number, (ion, corner) in enumerate({"NA": (0.25, 0.2, 0.85), "CL": (0.8, 0.3, 0.15)}.items(), 1):
        atoms.append((ion, ion, "C", number))
        places.append(np.array([corner]) * size)
    path.write_text(pdb(atoms, np.concatenate(places), (*size.tolist(), 90.0, 90.0, 75.0)))
    return len(atoms)
