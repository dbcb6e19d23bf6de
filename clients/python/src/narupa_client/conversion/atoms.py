"""Frames to and from ASE: XYZ and extended XYZ, ASE's own .traj, and what else it reads. Units there: Å, eV, amu."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from narupa_client.conversion.packages import imported
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, shown
from narupa_shared.frames import Frame
from narupa_shared.units import (
    ANGSTROM_IN_NM,
    EV_IN_KJ_MOL,
    EV_PER_ANGSTROM_IN_KJ_MOL_NM,
    FS_IN_PS,
    NM_IN_ANGSTROM,
)

READ: Final = frozenset({".xyz", ".extxyz", ".traj", ".db", ".json", ".cif"})
WRITTEN: Final = frozenset({".xyz", ".extxyz"})
_TIME: Final = "time_ps"


def _velocity_unit() -> float:
    """ASE's unit of velocity in nm/ps."""
    return float(ANGSTROM_IN_NM / (FS_IN_PS / imported("ase.units").fs))


def read_atoms(path: Path) -> Iterator[Frame]:
    """Each frame with all that is known of it, read when it is asked for.

    Raises:
        InvalidArgumentError: it cannot be read.
    """
    io = imported("ase.io")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = Frame()
            for number, atoms in enumerate(io.iread(str(path), ":", do_not_split_by_at_sign=True)):
                before = _frame_of(atoms, number, before)
                yield before
    except InvalidArgumentError:
        raise
    except Exception as error:  # its parsers raise whatever they trip over
        reason = f"ASE cannot read it ({shown(f'{type(error).__name__}: {error}', 200)[1:-1]})"
        raise InvalidArgumentError("input", str(path), reason) from None


def _frame_of(atoms: Any, number: int, before: Frame) -> Frame:
    """What is in `atoms`; what these are is the very same object as in the frame before, where it is equal."""
    count = len(atoms)
    items: dict[str, Any] = {
        keys.PARTICLE_COUNT: float(count),
        keys.ELEMENTS: atoms.get_atomic_numbers().astype(np.uint32),
        keys.NAMES: [str(name) for name in atoms.arrays.get("names", atoms.get_chemical_symbols())],
        keys.POSITIONS: (atoms.positions * ANGSTROM_IN_NM).astype(np.float32),
    }
    if atoms.cell.rank == 3 and atoms.pbc.all():
        items[keys.BOX] = (np.asarray(atoms.cell) * ANGSTROM_IN_NM).astype(np.float32)
    if atoms.has("momenta"):
        items[keys.VELOCITIES] = (atoms.get_velocities() * _velocity_unit()).astype(np.float32)
    results = atoms.calc.results if atoms.calc is not None else {}
    if results.get("forces") is not None:
        items[keys.FORCES] = (np.asarray(results["forces"]) * EV_PER_ANGSTROM_IN_KJ_MOL_NM).astype(np.float32)
    if results.get("energy") is not None:
        items[keys.POTENTIAL] = float(results["energy"]) * EV_IN_KJ_MOL
    if isinstance(time := atoms.info.get(_TIME), (int, float)):
        items[keys.TIME] = float(time)
    for key in (keys.ELEMENTS, keys.NAMES):
        if key in before.arrays and np.array_equal(before.arrays[key], items[key]):
            items[key] = before.arrays[key]
    if before.values.get(keys.PARTICLE_COUNT) == count:
        items[keys.PARTICLE_COUNT] = before.values[keys.PARTICLE_COUNT]
    return Frame.of(number, items)


def atoms_of(frame: Frame, time_ps: float | None = None) -> Any:
    """An ASE Atoms of the particles of a whole frame: with its cell, momenta, and energy and forces of the last step.

    The energy is the potential energy, without that of users. `info["time_ps"]` is the simulated time.

    Args:
        time_ps: Overrides that of the frame.

    Raises:
        InvalidArgumentError: the frame does not fit itself.
    """
    ase, symbols = imported("ase"), imported("ase.data").chemical_symbols
    positions: Any = frame.arrays.get(keys.POSITIONS, np.empty((0, 3), np.float32))
    numbers: Any = frame.arrays.get(keys.ELEMENTS, np.zeros(len(positions), np.uint32))
    if len(numbers) != len(positions) or (numbers.size and int(numbers.max()) >= len(symbols)):
        raise InvalidArgumentError(keys.ELEMENTS, len(numbers), "must be an atomic number for each particle")
    box: Any = frame.arrays.get(keys.BOX)
    periodic = box is not None and box.size == 9
    cell = box.reshape(3, 3) * NM_IN_ANGSTROM if periodic else None
    atoms = ase.Atoms(numbers, positions * NM_IN_ANGSTROM, cell=cell, pbc=periodic)
    time_ps = _number(frame, keys.TIME) if time_ps is None else time_ps
    if time_ps is not None:
        atoms.info[_TIME] = time_ps
    velocities: Any = frame.arrays.get(keys.VELOCITIES)
    if velocities is not None:
        atoms.set_velocities(velocities / _velocity_unit())
    results: dict[str, Any] = {}
    forces: Any = frame.arrays.get(keys.FORCES)
    if forces is not None:
        results["forces"] = forces / EV_PER_ANGSTROM_IN_KJ_MOL_NM
    energy = _number(frame, keys.POTENTIAL)
    if energy is not None:
        results["energy"] = energy / EV_IN_KJ_MOL
    if results:
        atoms.calc = imported("ase.calculators.singlepoint").SinglePointCalculator(atoms, **results)
    return atoms


def _number(frame: Frame, key: str) -> float | None:
    value = frame.values.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class AtomsWriter:
    """Writes frames into a file of extended XYZ: positions, box, velocities, forces, energy and time."""

    notices: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Raises: OSError."""
        self._io = imported("ase.io")
        self._file: IO[str] = path.open("w")

    def write(self, frame: Frame, time_ps: float) -> None:
        """The frame is behind those before it. Raises: InvalidArgumentError, OSError."""
        self._io.write(self._file, atoms_of(frame, time_ps), format="extxyz")

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
