"""Frames to and from MDAnalysis: XTC, DCD, TRR, H5MD, PDB and what else it reads. Units there: Å, ps, Å/ps, kJ/(mol Å)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_client.conversion.packages import imported
from narupa_client.conversion.universes import dimensions_of, universe_of
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, shown
from narupa_shared.frames import Frame
from narupa_shared.units import ANGSTROM_IN_NM, NM_IN_ANGSTROM

# Files that say nothing of what their particles are.
BARE: Final = frozenset({".xtc", ".dcd", ".trr", ".h5md", ".nc", ".ncdf"})
WRITTEN: Final = frozenset({".xtc", ".dcd", ".trr", ".h5md", ".pdb"})
# Of H5MD, which leaves them to the writer.
_UNITS: Final = {
    "timeunit": "ps",
    "lengthunit": "Angstrom",
    "velocityunit": "Angstrom/ps",
    "forceunit": "kJ/(mol*Angstrom)",
}


def read_molecules(path: Path, topology: Path | None) -> tuple[int, Iterator[Frame]]:
    """How many frames there are, and each with all that is known of it, read when it is asked for.

    Raises:
        InvalidArgumentError: it cannot be read, or needs a topology.
    """
    mda = imported("MDAnalysis")
    if topology is None and path.suffix.lower() in BARE:
        reason = "does not say what its particles are; name a file that does with --topology"
        raise InvalidArgumentError("input", str(path), reason)
    with _quietly(path):
        universe = mda.Universe(*(str(part) for part in (topology, path) if part is not None))
        count = len(universe.trajectory)
        known = topology_of(universe)
    return count, _frames(universe, known, path)


def _frames(universe: Any, known: Frame, path: Path) -> Iterator[Frame]:
    try:
        with _quietly(path):
            for number, step in enumerate(universe.trajectory):
                yield _frame_of(step, number, known)
    finally:
        universe.trajectory.close()


def _frame_of(step: Any, number: int, known: Frame) -> Frame:
    frame = Frame(number, dict(known.values), dict(known.arrays))
    frame.arrays[keys.POSITIONS] = (step.positions * ANGSTROM_IN_NM).astype(np.float32)
    if step.has_velocities:
        frame.arrays[keys.VELOCITIES] = (step.velocities * ANGSTROM_IN_NM).astype(np.float32)
    if step.has_forces:
        frame.arrays[keys.FORCES] = (step.forces * NM_IN_ANGSTROM).astype(np.float32)
    dimensions = step.dimensions
    if dimensions is not None and (dimensions[:3] > 0).all():
        from MDAnalysis.lib.mdamath import triclinic_vectors

        frame.arrays[keys.BOX] = (triclinic_vectors(dimensions) * ANGSTROM_IN_NM).astype(np.float32)
    if {"time", "dt"} & set(step.data):  # otherwise it has made one up
        frame.values[keys.TIME] = float(step.time)
    return frame


def topology_of(universe: Any) -> Frame:
    """What does not change with time."""
    from MDAnalysis.guesser.tables import Z2SYMB

    numbers = {symbol.upper(): number for number, symbol in Z2SYMB.items()}
    atoms, residues, segments = universe.atoms, universe.residues, universe.segments
    count = len(atoms)
    symbols = next(
        (getattr(atoms, name) for name in ("elements", "types", "names") if hasattr(atoms, name)), [""] * count
    )
    letters = ["".join(filter(str.isalpha, str(symbol))).upper() for symbol in symbols]
    elements = [numbers.get(text, numbers.get(text[:1], 0)) for text in letters]
    names = [str(name) for name in atoms.names] if hasattr(atoms, "names") else [text.capitalize() for text in letters]
    resnames = [str(name) for name in residues.resnames] if hasattr(residues, "resnames") else ["UNK"] * len(residues)
    resids = (
        [str(id) for id in residues.resids]
        if hasattr(residues, "resids")
        else list(map(str, range(1, len(residues) + 1)))
    )
    segids = [str(id) for id in segments.segids] if hasattr(segments, "segids") else [""] * len(segments)
    items: dict[str, Any] = {
        keys.PARTICLE_COUNT: float(count),
        keys.ELEMENTS: np.array(elements, np.uint32),
        keys.NAMES: names,
        keys.RESIDUES: np.array(atoms.resindices, np.uint32),
        keys.RESIDUE_COUNT: float(len(residues)),
        keys.RESIDUE_NAMES: resnames,
        keys.RESIDUE_IDS: resids,
        keys.RESIDUE_CHAINS: np.array(residues.segindices, np.uint32),
        keys.CHAIN_COUNT: float(len(segments)),
        keys.CHAIN_NAMES: segids,
    }
    if hasattr(universe, "bonds"):
        items[keys.BOND_PAIRS] = np.array(universe.bonds.indices, np.uint32).reshape(-1, 2)
    return Frame.of(0, items)


def selected(frame: Frame, text: str) -> NDArray[np.int64]:
    """The indices of the particles that an MDAnalysis selection means, ascending.

    Raises:
        InvalidArgumentError: it is no selection, or selects nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = universe_of(frame)
        try:
            indices: NDArray[np.int64] = np.sort(universe.select_atoms(text).indices)
        except Exception as error:  # its parser raises whatever it trips over
            raise InvalidArgumentError("--select", text, f"is no selection: {shown(str(error), 200)}") from None
    if not len(indices):
        raise InvalidArgumentError("--select", text, "selects no particle")
    return indices


class MoleculeWriter:
    """Writes frames of one system into a file that MDAnalysis writes."""

    def __init__(self, path: Path, first: Frame, dt_ps: float) -> None:
        """
        Args:
            path: Its ending tells the format.
            first: A whole frame, which tells what there is; nothing is written yet.
            dt_ps: Time between frames, for formats that keep only that.
        """
        self._path = path
        self._kept = {key for key in (keys.VELOCITIES, keys.FORCES) if key in first.arrays}
        self.notices: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._universe = universe_of(first)
            options: dict[str, Any] = {"dt": dt_ps} if path.suffix.lower() == ".dcd" else {}
            if path.suffix.lower() == ".pdb":
                options = {"multiframe": True, "bonds": "conect" if hasattr(self._universe, "bonds") else None}
            if path.suffix.lower() == ".h5md":
                options = {"velocities": keys.VELOCITIES in self._kept, "forces": keys.FORCES in self._kept, **_UNITS}
            mda = imported("MDAnalysis")
            self._writer = mda.Writer(str(path), len(self._universe.atoms), **options)

    def write(self, frame: Frame, time_ps: float) -> None:
        """The frame is behind those before it. Raises: InvalidArgumentError, OSError."""
        step, number = self._universe.trajectory.ts, self._universe.trajectory.ts.frame
        positions: Any = frame.arrays[keys.POSITIONS]
        step.positions = positions * NM_IN_ANGSTROM
        for key, name, factor in (
            (keys.VELOCITIES, "velocities", NM_IN_ANGSTROM),
            (keys.FORCES, "forces", ANGSTROM_IN_NM),
        ):
            values: Any = frame.arrays.get(key)
            if key in self._kept and (values is None or len(values) != len(step.positions)):
                raise InvalidArgumentError(key, "missing", "the first frame has them, so that all must")
            setattr(step, f"has_{name}", key in self._kept)
            if key in self._kept:
                setattr(step, name, values * factor)
        step.dimensions = self._dimensions(frame)
        step.time = time_ps
        step.data["step"] = number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._writer.write(self._universe)
        step.frame += 1

    def close(self) -> None:
        """Idempotent."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._writer.close()

    def _dimensions(self, frame: Frame) -> Any:
        box: Any = frame.arrays.get(keys.BOX)
        if box is None or box.size != 9:
            return None
        dimensions, turned = dimensions_of(box)
        if turned and not self.notices:
            self.notices.append(
                f"{self._path.name} has the lengths and angles of the box, which is turned, and not its directions"
            )
        return dimensions


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvalidArgumentError:
        raise
    except Exception as error:  # its parsers raise whatever they trip over
        reason = f"MDAnalysis cannot read it ({shown(f'{type(error).__name__}: {error}', 200)[1:-1]})"
        raise InvalidArgumentError("input", str(path), reason) from None
