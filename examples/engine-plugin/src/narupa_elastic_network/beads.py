"""The beads of a model: one for each residue of a structure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError, shown
from narupa_shared.units import ANGSTROM_IN_NM
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.source import TopologyValue

# Neighbours along a chain are drawn as bonded; C-alpha atoms are 0.38 nm apart there, phosphorus atoms up to 0.7 nm.
BOND_LIMIT_NM: Final = 0.75

# An alpha helix: Pauling, Corey and Branson, Proc. Natl. Acad. Sci. 37, 205 (1951).
HELIX_RESIDUES: Final = 40
HELIX_RADIUS_NM, HELIX_RISE_NM, HELIX_TURN = 0.23, 0.15, np.radians(100.0)


@dataclass(frozen=True, slots=True)
class Beads:
    """Where the beads are in the structure, and what they are called.

    Attributes:
        positions: (N, 3) float64, nm.
        topology: The keys of a topology (docs/frames.md).
    """

    positions: NDArray[np.float64]
    topology: Mapping[str, TopologyValue]


def read(path: str, selection: str) -> Beads:
    """The selected atoms of the first model in the file at `path`.

    Raises:
        InvalidArgumentError: the file cannot be read, or the selection is wrong or empty.
    """
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            universe = MDAnalysis.Universe(path)
        except Exception as error:  # its parsers raise whatever they trip over
            raise InvalidArgumentError("input", path, f"MDAnalysis cannot read it ({shown(str(error))})") from error
        try:
            atoms = universe.select_atoms(selection)
        except Exception as error:
            raise InvalidArgumentError("selection", selection, f"is no selection ({shown(str(error))})") from error
        if not len(atoms):
            raise InvalidArgumentError("selection", selection, f"selects none of the {len(universe.atoms)} atoms")
        alone = MDAnalysis.Merge(atoms)
        positions = alone.atoms.positions.astype(np.float64) * ANGSTROM_IN_NM
        chains = alone.atoms.segindices
        topology = topologies.from_mdanalysis(alone)
    return Beads(positions, {**topology, "bond.pairs": along_chains(positions, chains)})


def helix() -> Beads:
    """An ideal alpha helix of alanines along z."""
    index = np.arange(HELIX_RESIDUES)
    turn = index * HELIX_TURN
    x, y = HELIX_RADIUS_NM * np.cos(turn), HELIX_RADIUS_NM * np.sin(turn)
    positions = np.column_stack([x, y, HELIX_RISE_NM * (index - index.mean())])
    topology = topologies.assemble(
        elements=[6] * HELIX_RESIDUES,
        names=["CA"] * HELIX_RESIDUES,
        residues=index,
        residue_names=["ALA"] * HELIX_RESIDUES,
        residue_ids=topologies.numbered(HELIX_RESIDUES),
        residue_chains=[0] * HELIX_RESIDUES,
        chain_names=["A"],
        bonds=along_chains(positions, np.zeros(HELIX_RESIDUES, np.intp)),
    )
    return Beads(positions, topology)


def along_chains(positions: NDArray[np.float64], chains: NDArray[np.intp]) -> NDArray[np.uint32]:
    """Pairs (B, 2) of beads that follow each other in a chain without a gap."""
    first = np.flatnonzero(
        (chains[1:] == chains[:-1]) & (np.linalg.norm(np.diff(positions, axis=0), axis=1) < BOND_LIMIT_NM)
    )
    return np.column_stack([first, first + 1]).astype(np.uint32)
