"""What units an engine speaks over IMD.

Version 3 of the protocol fixes them, and LAMMPS sends its own all the same; version 2 never said. So the units are named by
who starts a session, or, where the engine sends enough to tell, read off its motion: of a particle of mass m, known from the
topology, m dv/dt = F in whatever units velocities, time and forces are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.imd_protocol import Frame
from narupa_shared.units import ANGSTROM_IN_NM, EV_IN_KJ_MOL, FS_IN_PS, KCAL_IN_KJ

# No molecular dynamics takes longer steps than this, ps, coarse-grained ones included.
LONGEST_TIMESTEP_PS: Final = 0.1
# Units that fit differ from those that do not by more than this factor; constraints and thermostats disturb by less.
TOLERANCE: Final = 10.0
FLOAT32: Final = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one engine in ours.

    Attributes:
        length: Of positions and boxes, nm.
        time: Of times, ps.
        energy: Of energies, kJ/mol.
        push: Of the forces that the engine is sent, kJ/(mol nm).
        gap: Whether it leaves out the forces it was sent in each step in which it sends a frame (LAMMPS, version 2).
        choosable: Whether `recognised` may choose them.
    """

    length: float
    time: float
    energy: float
    push: float
    gap: bool = False
    choosable: bool = True

    @property
    def velocity(self) -> float:
        """nm/ps."""
        return self.length / self.time

    @property
    def force(self) -> float:
        """Of the forces that the engine sends, kJ/(mol nm)."""
        return self.energy / self.length

    @property
    def inertia(self) -> float:
        """m dv/dt / F of a particle with m in amu and the rest in these units: 1 kJ/(mol nm) is 1 amu nm/ps^2."""
        return self.force / (self.velocity / self.time)


def of_lammps(length: float, time: float, energy: float) -> Units:
    """LAMMPS sends and takes its own units, whatever the version."""
    return Units(length, time, energy, energy / length, gap=True)


KCAL_MOL_ANGSTROM: Final = KCAL_IN_KJ / ANGSTROM_IN_NM
# The units of version 3 (IMDv3 Protocol, "Units"); of LAMMPS's `units real` and `units metal`; of GROMACS, which sends
# kJ/mol and takes kcal/(mol A) (src/gromacs/imd/imd.cpp); and of NAMD, for which the protocol was made.
KNOWN: Final[Mapping[str, Units]] = {
    "imd": Units(ANGSTROM_IN_NM, 1.0, 1.0, 1.0 / ANGSTROM_IN_NM),
    "real": of_lammps(ANGSTROM_IN_NM, FS_IN_PS, KCAL_IN_KJ),
    "metal": of_lammps(ANGSTROM_IN_NM, 1.0, EV_IN_KJ_MOL),
    "gromacs": Units(ANGSTROM_IN_NM, 1.0, 1.0, KCAL_MOL_ANGSTROM, choosable=False),
    "namd": Units(ANGSTROM_IN_NM, 1.0, KCAL_IN_KJ, KCAL_MOL_ANGSTROM, choosable=False),
}


def named(name: str, length_nm: float | None, time_ps: float | None, energy_kj_mol: float | None) -> Units:
    """The units of this name; `lj` are what the three numbers say.

    Raises:
        InvalidArgumentError: numbers are missing, or given with units that have their own.
    """
    scales = {"lj_length_nm": length_nm, "lj_time_ps": time_ps, "lj_energy_kj_mol": energy_kj_mol}
    if name == "lj":
        missing = [option for option, value in scales.items() if value is None]
        if missing:
            reason = (
                f"needs {' and '.join(missing)}: what its unit of length (sigma), time and energy (epsilon) stand for"
            )
            raise InvalidArgumentError("units", name, reason)
        assert length_nm is not None and time_ps is not None and energy_kj_mol is not None
        return of_lammps(length_nm, time_ps, energy_kj_mol)
    for option, value in scales.items():
        if value is not None:
            raise InvalidArgumentError(option, value, f"is for units=lj; units={name} have their own")
    return KNOWN[name]


def recognised(frames: tuple[Frame, Frame] | None, masses: NDArray[np.float64]) -> str | None:
    """The name of the units that fit two frames one step apart; None where they do not tell.

    Compares m (v2 - v1) / dt with (F1 + F2) / 2, by least squares over all components; see `Units.inertia`. The candidates
    are more than a factor of `TOLERANCE` squared apart.

    Args:
        frames: Consecutive ones, with times, velocities and forces; None where the engine sends no such.
        masses: (N,) amu.

    Raises:
        FailedPreconditionError: no units that are known fit.
    """
    measured = inertia_of(frames, masses)
    if measured is None:
        return None
    off = {name: abs(math.log(measured / units.inertia)) for name, units in KNOWN.items() if units.choosable}
    best = min(off, key=lambda name: off[name])
    if off[best] > math.log(TOLERANCE):
        raise FailedPreconditionError(
            f"the engine's velocities and forces fit no units that are known (m dv/dt is {measured:.3g} F); "
            "say which they are, for example units=lj with its scales, and check the masses in the topology"
        )
    return best


def inertia_of(frames: tuple[Frame, Frame] | None, masses: NDArray[np.float64]) -> float | None:
    """m dv/dt / F in the engine's own units, masses in amu; None where nothing is pushed, or too little is sent to tell."""
    if frames is None:
        return None
    first, second = frames
    times = first.time, second.time
    if times[0] is None or times[1] is None or times[1].step - times[0].step != 1 or not times[1].timestep > 0:
        return None
    velocities, forces = (first.velocities, second.velocities), (first.forces, second.forces)
    if velocities[0] is None or velocities[1] is None or forces[0] is None or forces[1] is None:
        return None
    known = masses > 0
    gained = masses[known, None] * (velocities[1].astype(float) - velocities[0])[known] / times[1].timestep
    force = 0.5 * (forces[0].astype(float) + forces[1])[known]
    size, product = float(np.vdot(force, force)), float(np.vdot(gained, force))
    # Velocities are float32: what is left of them after subtraction is this uncertain, and the slope accordingly.
    noise = float(np.abs(velocities[1]).max(initial=0)) * FLOAT32 * float(masses.max()) / times[1].timestep
    if not (size > 0 and math.isfinite(product) and product > 10 * noise * math.sqrt(size)):
        return None
    return product / size


def check_timestep(units: Units, frame: Frame, name: str) -> None:
    """Passes where the engine's timestep is one. Raises: FailedPreconditionError, with what the units may be instead."""
    time = frame.time
    if time is not None and not 0 <= time.timestep * units.time <= LONGEST_TIMESTEP_PS:
        raise FailedPreconditionError(
            f"in units={name} the engine's timestep is {time.timestep * units.time:g} ps, which no simulation takes; "
            "LAMMPS sends its own units: add units=real or units=metal, whichever its input has"
        )
