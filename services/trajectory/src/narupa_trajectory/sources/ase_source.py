"""A simulation that ASE runs, with any calculator; the users' bias is added to every force evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import ase
import ase.units
import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.units import ANGSTROM_IN_NM, EV_IN_KJ_MOL, FS_IN_PS, NM_IN_ANGSTROM
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.ase_calculator import (
    BiasedCalculator,
    frame_box,
    guarded,
    periodic_box,
    positions_nm,
    temperature_of,
)
from narupa_trajectory.sources.ase_dynamics import DynamicsKind, ExactState, make_dynamics
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.divergence import MAX_TEMPERATURE_K, Limits, check, check_finite, check_snapshot
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue
from narupa_trajectory.sources.velocities import thermal_velocities, to_redraw

# ASE's unit of velocity, Angstrom per (Angstrom sqrt(amu / eV)), in nm/ps.
ASE_VELOCITY_IN_NM_PS: Final = ANGSTROM_IN_NM * ase.units.fs / FS_IN_PS


class AseSource:
    """One `ase.Atoms` with a calculator, moved at constant energy, temperature, or temperature and pressure."""

    def __init__(
        self,
        name: str,
        atoms: ase.Atoms,
        calculator: Any,
        *,
        timestep_fs: float = 1.0,
        temperature_k: float = 300.0,
        friction_per_ps: float = 10.0,
        dynamics: DynamicsKind = "langevin",
        pressure_bar: float | None = None,
        steps_per_frame: int = 1,
        max_temperature_k: float = MAX_TEMPERATURE_K,
    ) -> None:
        """Ready to run; velocities are drawn at `temperature_k` when the atoms have none.

        Args:
            friction_per_ps: Coupling to the thermostat: of `langevin` the friction, of `npt` the inverse of the time in
                which the thermostat answers; the volume answers ten times slower.
            pressure_bar: What `npt` keeps; 1 bar by default.
            max_temperature_k: A system hotter than this has blown up.

        Raises:
            InvalidArgumentError: no atoms, or the calculator or the dynamics cannot do them.
        """
        count = len(atoms)
        if not count or not np.isfinite(atoms.positions).all():
            raise InvalidArgumentError("input", name, "has no atoms, or positions that are not finite")
        self._info = SourceInfo(name, count, True, None, True, steps_per_frame)
        self._atoms = atoms
        self._masses = np.asarray(atoms.get_masses(), dtype=np.float64)
        self._limits = Limits(max_temperature_k)
        self._bias = Bias(self._masses)
        self._wanted: tuple[Interaction, ...] = ()
        self._rng = np.random.default_rng()
        self._timestep_ps = timestep_fs * FS_IN_PS
        self._temperature = None if dynamics == "nve" else temperature_k
        self._step = 0
        self._time_ps = 0.0
        self._broken: SourceDivergedError | None = None
        self._topology = topologies.from_ase(atoms)
        self._calculator = BiasedCalculator(calculator, self._bias)
        atoms.calc = self._calculator
        try:
            # Constraints take the lengths that they keep from the positions that they first see.
            atoms.set_positions(atoms.get_positions())
            if not atoms.has("momenta"):
                thermal = thermal_velocities(self._masses, temperature_k, self._rng)
                atoms.set_velocities(thermal / ASE_VELOCITY_IN_NM_PS)
            atoms.get_forces()
        except Exception as error:  # whatever a calculator raises for elements or cells it does not know
            kind = type(calculator).__name__
            detail = f"{type(error).__name__}: {error}"
            raise InvalidArgumentError(
                "calculator", kind, f"cannot compute {atoms.get_chemical_formula()} ({detail})"
            ) from error
        self._dynamics = make_dynamics(
            dynamics,
            atoms,
            self._calculator,
            self._rng,
            timestep_fs=timestep_fs,
            temperature_k=temperature_k,
            friction_per_ps=friction_per_ps,
            pressure_bar=pressure_bar,
        )
        self._signature = f"ase {ase.__version__} {dynamics} of {count}"
        self._start = self._checkpoint()

    @property
    def info(self) -> SourceInfo:
        return self._info

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        for _ in range(steps):
            try:
                guarded(lambda: self._dynamics.step(self._time_ps))
            except SourceDivergedError as error:
                self._broken = error  # in the middle of a step: what the atoms have now is of no instant
                raise
            self._step += 1
            self._time_ps += self._timestep_ps
            # At every step: what has come off takes neighbour lists and memory along with it.
            self._check_motion()
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        atoms = self._atoms
        self._check_motion()
        positions = positions_nm(atoms)
        box = frame_box(atoms)
        snapshot = Snapshot(
            positions=positions.astype(np.float32),
            time_ps=self._time_ps,
            step=self._step,
            box=None if box is None else box.astype(np.float32),
            potential_energy=self._calculator.system_energy(atoms),
            kinetic_energy=float(atoms.get_kinetic_energy()) * EV_IN_KJ_MOL,
            temperature=temperature_of(atoms),
        )
        if velocities:
            snapshot.velocities = (atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS).astype(np.float32)
        bias = self._bias
        if not bias.empty:
            energy, forces = guarded(lambda: bias.step(positions[bias.particles], periodic_box(atoms), self._time_ps))
            snapshot.user_energy = energy
            snapshot.user_index = bias.particles.astype(np.uint32)
            snapshot.user_forces = forces.astype(np.float32)
            snapshot.interaction_ids = tuple(item.id for item in bias.interactions)
            snapshot.interaction_energies = np.array(bias.energies, np.float64)
            snapshot.interaction_work = np.array(bias.works, np.float64)
            snapshot.interaction_forces = np.array(bias.net_forces, np.float64)
        snapshot.user_work = bias.work
        check_snapshot(snapshot, self._limits)
        return snapshot

    def seek(self, index: int) -> None:
        raise FailedPreconditionError("a simulation has no frames to seek; reset it, or play a recording")

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        count = self._info.particle_count
        wanted = tuple(item for item in interactions if item.particles and item.particles[-1] < count)
        before, self._wanted = self._wanted, wanted
        if wanted == before:
            return
        self._bias.set(wanted, positions_nm(self._atoms), periodic_box(self._atoms), self._time_ps)
        self._dynamics.changed()
        redraw = to_redraw(before, wanted)
        if redraw.size:
            self._redraw_velocities(redraw)

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return self._bias.take_finished()

    def suspects(self) -> Sequence[str]:
        return self._bias.suspects()

    def reset(self) -> None:
        exact = ExactState.from_bytes(self._start.exact, self._signature, self._info.particle_count)
        self._put(self._start, exact)

    def checkpoint(self) -> bytes:
        self._check_motion()
        if not self._bias.empty:
            here = self._atoms.positions[self._bias.particles] * ANGSTROM_IN_NM
            guarded(lambda: self._bias.step(here, periodic_box(self._atoms), self._time_ps))
        kept = self._checkpoint()
        # Whoever goes on from here starts with a fresh calculator; to stay together with them bit for bit, so does this.
        self._calculator.forget()
        self._dynamics.changed()
        check(self._calculator.system_energy(self._atoms), None, None, self._info.particle_count, self._limits)
        return kept.to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        count = self._info.particle_count
        read = Checkpoint.from_bytes(checkpoint, count)
        if read.box is None and self._atoms.cell.any():
            raise InvalidArgumentError("checkpoint", "box", "is of another system: this one has a cell")
        exact = ExactState.from_bytes(read.exact, self._signature, count)
        try:  # what is refused has changed nothing
            Bias(self._masses).restore(read.bias)
            if exact is not None:
                type(self._rng.bit_generator)().state = dict(exact.random)
                self._dynamics.restore(exact.dynamics)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(
                "checkpoint exact", f"{len(read.exact)} bytes", f"is refused: {error}"
            ) from error
        if exact is not None:
            self._rng.bit_generator.state = dict(exact.random)
        self._put(read, exact)

    def close(self) -> None:
        self._atoms.calc = None

    def _check_motion(self) -> None:
        """Raises: SourceDivergedError."""
        if self._broken is not None:
            raise SourceDivergedError(str(self._broken))
        atoms = self._atoms
        check_finite("positions", atoms.positions)
        kinetic = float(atoms.get_kinetic_energy()) * EV_IN_KJ_MOL
        check(None, kinetic, temperature_of(atoms), self._info.particle_count, self._limits)

    def _redraw_velocities(self, particles: NDArray[np.intp]) -> None:
        """Thermal velocities for `particles`; the atoms' constraints take from them what they forbid."""
        temperature = self._temperature if self._temperature is not None else temperature_of(self._atoms)
        masses = self._masses[particles]
        momenta = self._atoms.get_momenta()
        momenta[particles] = (
            masses[:, None] * thermal_velocities(masses, temperature, self._rng) / ASE_VELOCITY_IN_NM_PS
        )
        self._atoms.set_momenta(momenta)
        self._dynamics.changed()

    def _checkpoint(self) -> Checkpoint:
        cell = np.array(self._atoms.cell) * ANGSTROM_IN_NM
        return Checkpoint(
            positions=positions_nm(self._atoms),
            velocities=self._atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS,
            time_ps=self._time_ps,
            step=self._step,
            work=self._bias.work,
            box=cell if cell.any() else None,
            exact=ExactState.of(self._atoms, self._dynamics, self._rng).to_bytes(self._signature),
            bias=self._bias.state(),
        )

    def _put(self, state: Checkpoint, exact: ExactState | None) -> None:
        """At `state`, exactly where that is known. Chance goes its own way: whoever wants the same again sets it too."""
        atoms, self._broken = self._atoms, None
        if exact is not None:
            positions, momenta, cell = exact.positions, exact.momenta, exact.cell
        else:
            positions = state.positions * NM_IN_ANGSTROM
            momenta = self._masses[:, None] * state.velocities / ASE_VELOCITY_IN_NM_PS
            cell = atoms.cell.array if state.box is None else state.box * NM_IN_ANGSTROM
        atoms.set_cell(cell, apply_constraint=False)
        atoms.set_positions(positions, apply_constraint=False)
        atoms.set_momenta(momenta, apply_constraint=False)
        self._calculator.forget()
        self._dynamics.restore(exact.dynamics if exact is not None else {})
        self._time_ps, self._step = state.time_ps, state.step
        self._wanted = ()
        self._bias = self._calculator.bias = Bias(self._masses)
        self._bias.restore(state.bias)
