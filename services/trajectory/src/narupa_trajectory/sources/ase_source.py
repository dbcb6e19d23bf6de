"""A simulation that ASE runs, with any calculator; the users' bias is added to every force evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import ase
import ase.units
import numpy as np
from ase.calculators.abc import GetPropertiesMixin
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import BiasPotential
from narupa_shared.units import (
    ANGSTROM_IN_NM,
    EV_IN_KJ_MOL,
    EV_PER_ANGSTROM_IN_KJ_MOL_NM,
    FS_IN_PS,
    NM_IN_ANGSTROM,
)
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue
from narupa_trajectory.sources.velocities import thermal_velocities, to_redraw

# ASE's unit of velocity, Angstrom per (Angstrom sqrt(amu / eV)), in nm/ps.
ASE_VELOCITY_IN_NM_PS = ANGSTROM_IN_NM * ase.units.fs / FS_IN_PS


class BiasedCalculator(GetPropertiesMixin):
    """A calculator that adds the users' bias to the energy and forces of another, in ASE's units.

    It keeps no results of its own, since a handle can move while the atoms do not; the inner one keeps those that cost.
    """

    def __init__(self, inner: Any, bias: BiasPotential) -> None:
        self.inner = inner
        self.bias = bias
        self.results: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.name = "biased"

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        value = self.inner.get_property(name, atoms, allow_calculation)
        if self.bias.empty or atoms is None or name not in ("energy", "free_energy", "forces"):
            return value
        energy, forces = self.bias.step(positions_nm(atoms)[self.bias.particles], periodic_box(atoms))
        if name != "forces":
            return value + energy / EV_IN_KJ_MOL
        total = np.array(value, dtype=np.float64)
        total[self.bias.particles] += forces / EV_PER_ANGSTROM_IN_KJ_MOL_NM
        return total

    def calculation_required(self, atoms: ase.Atoms, properties: Sequence[str]) -> bool:
        return True


class AseSource:
    """One `ase.Atoms` with a calculator, moved by Langevin dynamics or velocity Verlet."""

    def __init__(
        self,
        name: str,
        atoms: ase.Atoms,
        calculator: Any,
        *,
        timestep_fs: float = 1.0,
        temperature_k: float = 300.0,
        friction_per_ps: float = 10.0,
        dynamics: Literal["langevin", "nve"] = "langevin",
        steps_per_frame: int = 1,
    ) -> None:
        """Ready to run; velocities are drawn at `temperature_k` when the atoms have none.

        Raises:
            InvalidArgumentError: no atoms, or the calculator cannot do them.
        """
        count = len(atoms)
        if not count or not np.isfinite(atoms.positions).all():
            raise InvalidArgumentError("input", name, "has no atoms, or positions that are not finite")
        self._info = SourceInfo(name, count, True, None, True, steps_per_frame)
        self._atoms = atoms
        self._masses = np.asarray(atoms.get_masses(), dtype=np.float64)
        self._bias = BiasPotential(self._masses)
        self._wanted: tuple[Interaction, ...] = ()
        self._rng = np.random.default_rng()
        self._timestep_fs = timestep_fs
        self._temperature = temperature_k if dynamics == "langevin" else None
        self._step = 0
        self._time_ps = 0.0
        if not atoms.has("momenta"):
            self._set_velocities(thermal_velocities(self._masses, temperature_k, self._rng))
        self._topology = topologies.from_ase(atoms)
        self._inner = calculator
        atoms.calc = BiasedCalculator(calculator, self._bias)
        if dynamics == "langevin":
            # The centre of mass is left free: holding it would take part of every pull away again.
            self._dynamics: Any = Langevin(
                atoms,
                timestep_fs * ase.units.fs,
                temperature_K=temperature_k,
                friction=friction_per_ps * FS_IN_PS / ase.units.fs,
                fixcm=False,
                rng=self._rng,
            )
        else:
            self._dynamics = VelocityVerlet(atoms, timestep_fs * ase.units.fs)
        try:
            atoms.get_forces()
        except Exception as error:  # whatever a calculator raises for elements or cells it does not know
            kind = type(calculator).__name__
            detail = f"{type(error).__name__}: {error}"
            raise InvalidArgumentError(
                "calculator", kind, f"cannot compute {atoms.get_chemical_formula()} ({detail})"
            ) from error
        self._start = self._checkpoint()

    @property
    def info(self) -> SourceInfo:
        return self._info

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        for _ in range(steps):
            guarded(self._dynamics.step)
            self._step += 1
            self._time_ps += self._timestep_fs * FS_IN_PS
        if not np.isfinite(self._atoms.positions).all():
            raise SourceDivergedError("the simulation diverged: positions are no longer finite")
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        atoms = self._atoms
        positions = positions_nm(atoms)
        try:
            potential: float | None = float(guarded(lambda: self._inner.get_potential_energy(atoms))) * EV_IN_KJ_MOL
        except PropertyNotImplementedError:
            potential = None
        kinetic = float(atoms.get_kinetic_energy()) * EV_IN_KJ_MOL
        if not (np.isfinite(kinetic + (potential or 0.0)) and np.isfinite(positions).all()):
            raise SourceDivergedError(f"the simulation diverged: the potential energy is {potential} kJ/mol")
        box = frame_box(atoms)
        snapshot = Snapshot(
            positions=positions.astype(np.float32),
            time_ps=self._time_ps,
            step=self._step,
            box=None if box is None else box.astype(np.float32),
            potential_energy=potential,
            kinetic_energy=kinetic,
            temperature=temperature_of(atoms),
        )
        if velocities:
            snapshot.velocities = (atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS).astype(np.float32)
        if not self._bias.empty:
            particles = self._bias.particles
            energy, forces = self._bias.step(positions[particles], periodic_box(atoms))
            snapshot.user_energy = energy
            snapshot.user_index = particles.astype(np.uint32)
            snapshot.user_forces = forces.astype(np.float32)
        snapshot.user_work = self._bias.work
        return snapshot

    def seek(self, index: int) -> None:
        raise FailedPreconditionError("a simulation has no frames to seek; reset it, or play a recording")

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        count = self._info.particle_count
        wanted = tuple(item for item in interactions if item.particles and item.particles[-1] < count)
        before, self._wanted = self._wanted, wanted
        if wanted == before:
            return
        self._account()
        self._bias.set(wanted)
        self._bias.rebase()
        self._account()
        redraw = to_redraw(before, wanted)
        if redraw.size:
            velocities = self._atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS
            temperature = self._temperature if self._temperature is not None else temperature_of(self._atoms)
            velocities[redraw] = thermal_velocities(self._masses[redraw], temperature, self._rng)
            self._set_velocities(velocities)

    def reset(self) -> None:
        self._put(self._start)

    def checkpoint(self) -> bytes:
        self._account()
        return self._checkpoint().to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        read = Checkpoint.from_bytes(checkpoint, self._info.particle_count)
        if read.box is None and self._atoms.cell.any():
            raise InvalidArgumentError("checkpoint", "box", "is of another system: this one has a cell")
        self._put(read)

    def close(self) -> None:
        self._atoms.calc = None

    def _account(self) -> None:
        """The work up to the present positions is in the account."""
        if not self._bias.empty:
            self._bias.step(positions_nm(self._atoms)[self._bias.particles], periodic_box(self._atoms))

    def _set_velocities(self, velocities: NDArray[np.float64]) -> None:
        """`velocities` in nm/ps; the atoms' constraints take from them what they forbid."""
        self._atoms.set_velocities(velocities / ASE_VELOCITY_IN_NM_PS)

    def _checkpoint(self) -> Checkpoint:
        cell = np.array(self._atoms.cell) * ANGSTROM_IN_NM
        return Checkpoint(
            positions=positions_nm(self._atoms),
            velocities=self._atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS,
            time_ps=self._time_ps,
            step=self._step,
            work=self._bias.work,
            box=cell if cell.any() else None,
        )

    def _put(self, state: Checkpoint) -> None:
        self._wanted = ()
        self._bias.set(())
        self._bias.reset_work()
        self._bias.work = state.work
        if state.box is not None:
            self._atoms.set_cell(state.box * NM_IN_ANGSTROM)
        self._atoms.set_positions(state.positions * NM_IN_ANGSTROM, apply_constraint=False)
        self._set_velocities(state.velocities)
        self._time_ps, self._step = state.time_ps, state.step


def guarded(compute: Callable[[], Any]) -> Any:
    """What `compute` returns. Given positions that are not finite, calculators raise anything."""
    try:
        return compute()
    except (NarupaError, PropertyNotImplementedError):
        raise
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise SourceDivergedError(f"the calculator failed: {type(error).__name__}: {error}") from error


def temperature_of(atoms: ase.Atoms) -> float:
    """The temperature, K; 0 where constraints leave nothing to move."""
    return float(atoms.get_temperature()) if atoms.get_number_of_degrees_of_freedom() > 0 else 0.0


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
