"""The particles of an engine that sends their coordinates only: what they are, and their masses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import MDAnalysis
import numpy as np
from ase.data import atomic_masses
from MDAnalysis.coordinates.memory import MemoryReader
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, shown
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.recording_source import ASE_FIRST, ase_images
from narupa_trajectory.sources.topologies import Topology

MASS_TOLERANCE: Final = 0.1  # amu: elements closer to a mass than this
# The columns of LAMMPS's atom styles, as its data files name them ("Atoms # full"); MDAnalysis takes all for full otherwise.
LAMMPS_COLUMNS: Final = {
    "atomic": "id type x y z",
    "charge": "id type charge x y z",
    "bond": "id resid type x y z",
    "angle": "id resid type x y z",
    "molecular": "id resid type x y z",
    "full": "id resid type charge x y z",
}


class Particles:
    """What a topology file says of a system, read before the engine has sent anything.

    Attributes:
        count: How many there are.
        masses: (N,) amu; 0 where unknown.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InvalidArgumentError: neither MDAnalysis nor ASE can read the file.
        """
        self._universe: Any = None
        self._atoms: Any = None
        problems = []
        for reader in (self._by_ase, self._by_mdanalysis)[:: 1 if path.suffix.lower() in ASE_FIRST else -1]:
            try:
                masses = reader(path)
                break
            except FailedPreconditionError as error:
                problems.append(str(error))
        else:
            raise InvalidArgumentError("topology", str(path), f"cannot be read: {'; '.join(problems)}")
        self.count = len(masses)
        if not self.count:
            raise InvalidArgumentError("topology", str(path), "has no particles")
        self.masses = np.where(np.isfinite(masses) & (masses > 0), masses, 0.0)

    def topology(self, positions_nm: NDArray[np.float64]) -> Topology:
        """The keys of a topology; bonds, where the file has none, are guessed from the positions, (N, 3) nm."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._universe is not None:
                self._universe.load_new((positions_nm * 10).astype(np.float32)[None], format=MemoryReader)
                found = topologies.from_mdanalysis(self._universe)
            else:
                self._atoms.set_positions(positions_nm * 10, apply_constraint=False)
                found = topologies.from_ase(self._atoms)
        elements = np.asarray(found["particle.elements"])
        if not elements.any() and self.masses.any():
            # A LAMMPS data file numbers its types and knows their masses.
            numbers = self._elements_by_mass()
            found["particle.elements"] = numbers
            found["particle.names"] = [topologies.symbol_of(int(number)) for number in numbers]
            if not len(np.asarray(found["bond.pairs"])):
                found["bond.pairs"] = topologies.guessed_bonds(numbers, positions_nm)
        return found

    def _elements_by_mass(self) -> NDArray[np.uint32]:
        distances = np.abs(atomic_masses[None, 1:] - np.unique(self.masses)[:, None])
        nearest = np.where(distances.min(axis=1) < MASS_TOLERANCE, distances.argmin(axis=1) + 1, 0)
        return nearest[np.searchsorted(np.unique(self.masses), self.masses)].astype(np.uint32)

    def _by_mdanalysis(self, path: Path) -> NDArray[np.float64]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                columns = lammps_columns(path)
                styled = {} if columns is None else {"atom_style": columns}
                universe = MDAnalysis.Universe(str(path), **styled)
                count = len(universe.atoms)
                masses = universe.atoms.masses if hasattr(universe.atoms, "masses") else np.zeros(count)
        except Exception as error:  # its parsers raise whatever they trip over
            raise FailedPreconditionError(f"MDAnalysis: {shown(f'{type(error).__name__}: {error}', 200)}") from error
        self._universe = universe
        return np.asarray(masses, dtype=np.float64)

    def _by_ase(self, path: Path) -> NDArray[np.float64]:
        images = ase_images(path, "-1")
        if not images:
            raise FailedPreconditionError("ASE: it holds no structure")
        self._atoms = images[0]
        return np.asarray(self._atoms.get_masses(), dtype=np.float64)


def lammps_columns(path: Path) -> str | None:
    """The columns of the atoms in a LAMMPS data file that names its style; None of any other file."""
    if path.suffix.lower() != ".data":
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            section, _, style = line.partition("#")
            if section.strip() == "Atoms":
                return LAMMPS_COLUMNS.get(style.strip())
    return None
