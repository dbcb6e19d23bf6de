"""The users' bias as a calculator around somebody else's, and what a calculator's failures mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.abc import GetPropertiesMixin
from ase.calculators.calculator import PropertyNotImplementedError
from numpy.typing import NDArray

from narupa_shared.potentials import Bias
from narupa_shared.units import ANGSTROM_IN_NM, EV_IN_KJ_MOL, EV_PER_ANGSTROM_IN_KJ_MOL_NM
from narupa_trajectory.sources.source import SourceDivergedError


class BiasedCalculator(GetPropertiesMixin):
    """A calculator that adds the users' bias to the energy and forces of another, in ASE's units.

    It keeps no results of its own, since a handle can move while the atoms do not; the inner one keeps those that cost.
    The stress is the inner one's alone: a handle is outside the system, and the virial of a force from outside, the sum of
    F x, depends on where the origin is, so that it is no property of the system.

    Attributes:
        time_ps: The simulated time of the positions that the next evaluation is for, which whoever moves the atoms sets.
    """

    def __init__(self, inner: Any, bias: Bias) -> None:
        self.inner = inner
        self.bias = bias
        self.time_ps = 0.0
        self.results: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.name = "biased"

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        value = self.inner.get_property(name, atoms, allow_calculation)
        if self.bias.empty or atoms is None or name not in ("energy", "free_energy", "forces"):
            return value
        particles = self.bias.particles
        energy, forces = self.bias.step(atoms.positions[particles] * ANGSTROM_IN_NM, periodic_box(atoms), self.time_ps)
        if name != "forces":
            return value + energy / EV_IN_KJ_MOL
        total = np.array(value, dtype=np.float64)
        total[particles] += forces / EV_PER_ANGSTROM_IN_KJ_MOL_NM
        return total

    def calculation_required(self, atoms: ase.Atoms, properties: Sequence[str]) -> bool:
        return True

    def system_energy(self, atoms: ase.Atoms) -> float | None:
        """The potential energy without the bias, kJ/mol, with that of constraints that have one (Hookean springs, external
        forces); None where the calculator has no energy."""
        try:
            energy = float(guarded(lambda: self.inner.get_potential_energy(atoms)))
        except PropertyNotImplementedError:
            return None
        for constraint in atoms.constraints:
            if hasattr(constraint, "adjust_potential_energy"):
                energy += float(constraint.adjust_potential_energy(atoms))
        return energy * EV_IN_KJ_MOL

    def forget(self) -> None:
        """The inner calculator knows nothing of what it computed before, where it can forget.

        Neighbour lists, and wave functions to start from, depend on the path and show in the last bits of the forces; a
        calculator that has seen positions that are not finite may hold on to them.
        """
        reset = getattr(self.inner, "reset", None)
        if callable(reset):
            reset()


def guarded(compute: Callable[[], Any]) -> Any:
    """What `compute` returns. Given positions that are far off or not finite, calculators and constraints raise anything.

    Raises:
        SourceDivergedError: in place of those errors.
    """
    try:
        return compute()
    except (SourceDivergedError, PropertyNotImplementedError):
        raise
    except (ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError, np.linalg.LinAlgError) as error:
        raise SourceDivergedError(f"the calculator failed: {type(error).__name__}: {error}") from error


def positions_nm(atoms: ase.Atoms) -> NDArray[np.float64]:
    """A fresh array (N, 3) nm."""
    return np.asarray(atoms.positions, dtype=np.float64) * ANGSTROM_IN_NM


def periodic_box(atoms: ase.Atoms) -> NDArray[np.float64] | None:
    """The box for the minimum image, (3, 3) nm: zeros along the directions without period; None without any."""
    if not atoms.pbc.any():
        return None
    box: NDArray[np.float64] = np.where(atoms.pbc[:, None], atoms.cell.array * ANGSTROM_IN_NM, 0.0)
    return box


def frame_box(atoms: ase.Atoms) -> NDArray[np.float64] | None:
    """The box that frames carry, (3, 3) nm, only where all three directions are periodic."""
    return periodic_box(atoms) if atoms.pbc.all() and atoms.cell.rank == 3 else None


def temperature_of(atoms: ase.Atoms) -> float:
    """The temperature, K; 0 where constraints leave nothing to move."""
    return float(atoms.get_temperature()) if atoms.get_number_of_degrees_of_freedom() > 0 else 0.0
