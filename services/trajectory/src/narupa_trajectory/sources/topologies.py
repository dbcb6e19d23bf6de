"""The keys of a topology, from what each engine or file format calls one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narupa_trajectory.sources.source import TopologyValue

if TYPE_CHECKING:
    import ase  # takes a third of a second, which an engine that needs none of it would lose at every restart

Topology = dict[str, TopologyValue]

MAX_PARTICLES_TO_GUESS_BONDS: Final = 200_000
# Two atoms are bonded when closer than this many times the sum of their covalent radii.
BOND_TOLERANCE: Final = 1.15
HYDROGEN: Final = 1
NOBLE_GASES: Final = (2, 10, 18, 36, 54, 86)


def from_openmm(topology: Any, positions_nm: ArrayLike) -> Topology:
    """The keys of an `openmm.app.Topology`; bonds are guessed where it has none."""
    atoms = list(topology.atoms())
    residues = list(topology.residues())
    chains = list(topology.chains())
    elements = [atom.element.atomic_number if atom.element is not None else 0 for atom in atoms]
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return assemble(
        elements=elements,
        names=[atom.name for atom in atoms],
        residues=[atom.residue.index for atom in atoms],
        residue_names=[residue.name for residue in residues],
        residue_ids=[f"{residue.id}{residue.insertionCode}".strip() for residue in residues],
        residue_chains=[residue.chain.index for residue in residues],
        chain_names=[str(chain.id) for chain in chains],
        bonds=bonds or guessed_bonds(elements, positions_nm),
    )


def from_mdanalysis(universe: Any) -> Topology:
    """The keys of an `MDAnalysis.Universe`; bonds are guessed, from its present frame, where it has none."""
    atoms, residues, segments = universe.atoms, universe.residues, universe.segments
    count = len(atoms)
    symbols: Iterable[str] = next(
        (getattr(atoms, name) for name in ("elements", "types", "names") if hasattr(atoms, name)), [""] * count
    )
    elements = [atomic_number(str(symbol)) for symbol in symbols]
    names = [str(name) for name in atoms.names] if hasattr(atoms, "names") else [symbol_of(z) for z in elements]
    ids = [str(id) for id in residues.resids] if hasattr(residues, "resids") else numbered(len(residues))
    if hasattr(residues, "icodes"):
        ids = [f"{id}{code}".strip() for id, code in zip(ids, residues.icodes, strict=True)]
    bonds = universe.bonds.indices if hasattr(universe, "bonds") else []
    return assemble(
        elements=elements,
        names=names,
        residues=atoms.resindices,
        residue_names=[str(name) for name in residues.resnames]
        if hasattr(residues, "resnames")
        else ["UNK"] * len(residues),
        residue_ids=ids,
        residue_chains=residues.segindices,
        chain_names=[str(name) for name in segments.segids] if hasattr(segments, "segids") else numbered(len(segments)),
        bonds=bonds if len(bonds) else guessed_bonds(elements, atoms.positions * 0.1),
    )


def from_ase(atoms: ase.Atoms) -> Topology:
    """The keys of `ase.Atoms`, with residues where a PDB file gave them; bonds are guessed."""
    count = len(atoms)
    numbers = atoms.get_atomic_numbers()
    names = atoms.arrays.get("atomtypes", atoms.get_chemical_symbols())
    residues = np.zeros(count, np.uint32)
    residue_names, residue_ids = ["UNK"], ["1"]
    if "residuenumbers" in atoms.arrays and "residuenames" in atoms.arrays and count:
        labels = list(zip(atoms.arrays["residuenumbers"], atoms.arrays["residuenames"], strict=True))
        starts = [0, *(i for i in range(1, count) if labels[i] != labels[i - 1])]
        residues[starts[1:]] = 1
        residues = residues.cumsum(dtype=np.uint32)
        residue_names = [str(labels[i][1]).strip() for i in starts]
        residue_ids = [str(labels[i][0]).strip() for i in starts]
    return assemble(
        elements=numbers,
        names=[str(name).strip() for name in names],
        residues=residues,
        residue_names=residue_names,
        residue_ids=residue_ids,
        residue_chains=[0] * len(residue_names),
        chain_names=["A"],
        bonds=guessed_bonds(numbers, atoms.get_positions() * 0.1),
    )


def guessed_bonds(elements: ArrayLike, positions_nm: ArrayLike) -> NDArray[np.uint32]:
    """Pairs (B, 2) closer than their covalent radii allow, without those across a boundary, which would be drawn as
    lines through the box. None beyond `MAX_PARTICLES_TO_GUESS_BONDS`, nor between hydrogens or of noble gases."""
    numbers = np.asarray(elements, dtype=np.int64)
    none = np.empty((0, 2), np.uint32)
    if not 1 < len(numbers) <= MAX_PARTICLES_TO_GUESS_BONDS:
        return none
    if not np.isfinite(positions_nm).all():
        return none
    from ase import Atoms
    from ase.data import covalent_radii
    from ase.neighborlist import natural_cutoffs, neighbor_list

    # Only what can have bonds: the radius 0.2 A of what is unknown would cut space into more cells than there are atoms.
    able = np.flatnonzero((numbers < len(covalent_radii)) & ~np.isin(numbers, (0, *NOBLE_GASES)))
    if len(able) < 2:
        return none
    places = np.asarray(positions_nm)[able] * 10
    # Without a cell around them, all atoms would be compared with all.
    cell = np.ptp(places, axis=0) + 1.0
    atoms = Atoms(numbers=numbers[able], positions=places - places.min(axis=0), cell=cell)
    first, second = (able[ends] for ends in neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=BOND_TOLERANCE)))
    keep = (first < second) & ((numbers[first] != HYDROGEN) | (numbers[second] != HYDROGEN))
    return np.column_stack([first[keep], second[keep]]).astype(np.uint32)


def assemble(
    *,
    elements: ArrayLike,
    names: list[str],
    residues: ArrayLike,
    residue_names: list[str],
    residue_ids: list[str],
    residue_chains: ArrayLike,
    chain_names: list[str],
    bonds: Sequence[tuple[int, int]] | NDArray[Any],
) -> Topology:
    return {
        "particle.count": float(len(names)),
        "particle.elements": np.asarray(elements, dtype=np.uint32),
        "particle.names": names,
        "particle.residues": np.asarray(residues, dtype=np.uint32),
        "residue.count": float(len(residue_names)),
        "residue.names": residue_names,
        "residue.ids": residue_ids,
        "residue.chains": np.asarray(residue_chains, dtype=np.uint32),
        "chain.count": float(len(chain_names)),
        "chain.names": chain_names,
        "bond.pairs": np.asarray(bonds, dtype=np.uint32).reshape(-1, 2),
    }


def atomic_number(symbol: str) -> int:
    """The atomic number of a symbol or of a name that starts with one; 0 when it is neither."""
    from ase.data import atomic_numbers

    letters = "".join(filter(str.isalpha, symbol))
    return int(atomic_numbers.get(letters.capitalize(), 0) or atomic_numbers.get(letters[:1].upper(), 0))


def symbol_of(number: int) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[number])


def numbered(count: int) -> list[str]:
    return [str(i + 1) for i in range(count)]
