"""A simulation that OpenMM runs, with the users' bias evaluated inside the integration at every step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import openmm
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import BiasPotential
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.openmm_system import (
    Vectors,
    bias_group,
    degrees_of_freedom,
    drop_placeholders,
    new_context,
    parts_of,
    thermostat_temperature,
    vectors_of,
)
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue
from narupa_trajectory.sources.velocities import thermal_velocities, to_redraw

ALL_GROUPS = 0xFFFFFFFF
# Enough to take the strain out of a built structure; the dynamics does the rest. The root mean square of the forces that are
# left is a tenth of what thermal motion at 300 K brings about, kJ/mol/nm: to go further takes several times as long.
MINIMISER_TOLERANCE = 50.0
MINIMISER_ITERATIONS = 100


class OpenMMSource:
    """One OpenMM context.

    The bias is a `PythonForce` on the particles being pulled and no others. It enters the system when somebody first
    pulls, and is switched on and off by its force group, so that an undisturbed simulation runs at raw speed; the
    context is rebuilt, with its state kept, only when particles are pulled that the present force does not cover. A
    moved handle takes effect at the next force evaluation and costs nothing else.

    An integrator made of user-written expressions (`CustomIntegrator`) fixes its force groups when it is built, so
    there the force is taken out of the system on release; where its expressions name groups, the bias joins the one
    they evaluate most often, the innermost of a multiple-time-step scheme.
    """

    def __init__(
        self,
        name: str,
        topology: Mapping[str, TopologyValue],
        system: openmm.System,
        integrator: openmm.Integrator,
        positions: Vectors,
        *,
        velocities: Vectors | None = None,
        box: Vectors | None = None,
        steps_per_frame: int = 5,
        temperature_k: float | None = None,
        minimise: bool = False,
        platform: str | None = None,
    ) -> None:
        """Ready to run from `positions` ((N, 3) nm), and `velocities` ((N, 3) nm/ps) if they are given.

        Args:
            box: (3, 3) nm; by default the system's own.
            temperature_k: Of the first velocities where none are given; by default the integrator's own, and a
                simulation without thermostat starts at rest.
            minimise: Whether to relax the positions to a minimum of the potential energy first.
            platform: Name of an OpenMM platform; by default the fastest that works.

        Raises:
            InvalidArgumentError: no such platform, or the parts do not fit together.
        """
        count = system.getNumParticles()
        self._info = SourceInfo(name, count, True, None, True, steps_per_frame)
        self._topology = topology
        self._system = system
        self._integrator = integrator
        self._masses = np.array([system.getParticleMass(i)._value for i in range(count)])
        drop_placeholders(system)
        self._periodic = bool(system.usesPeriodicBoundaryConditions())
        forces = list(system.getForces())
        self._box_moves = any("Barostat" in type(force).__name__ for force in forces)
        self._freedom = degrees_of_freedom(system, self._masses)
        self._base_groups = integrator.getIntegrationForceGroups() & ALL_GROUPS
        self._group, self._alone = bias_group(integrator, forces)
        self._switchable = self._alone and not any(isinstance(i, openmm.CustomIntegrator) for i in parts_of(integrator))
        self._constraints = np.array(
            [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())], dtype=np.intp
        ).reshape(-1, 2)
        self._rng = np.random.default_rng()
        self._bias = BiasPotential(self._masses)
        self._wanted: tuple[Interaction, ...] = ()
        self._pending = False  # `_wanted` is to be applied when positions are next at hand
        self._covered = np.empty(0, np.intp)  # particles of the force in the system
        self._places: NDArray[np.intp] | None = (
            None  # of the bias's particles in `_covered`; None when they are the same
        )
        self._force_index: int | None = None
        self._active = False
        self._callback_error: Exception | None = None
        self._context = new_context(system, integrator, platform)
        self._temperature = thermostat_temperature(self._context)
        self._start = self._first_state(positions, velocities, box, temperature_k, minimise)
        self._box = self._read_box()
        self._put(self._start)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def platform(self) -> str:
        """The OpenMM platform that runs this."""
        return str(self._context.getPlatform().getName())

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        try:
            self._integrator.step(steps)
        except openmm.OpenMMException as error:
            raise self._explained(error) from error
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        groups = ALL_GROUPS if self._active or not self._alone else ALL_GROUPS & ~(1 << self._group)
        try:
            state = self._context.getState(getPositions=True, getEnergy=True, getVelocities=velocities, groups=groups)
        except openmm.OpenMMException as error:
            raise self._explained(error) from error
        positions = vectors_of(state, openmm.State.Positions)
        if self._box_moves:
            self._box = self._read_box(state)
        kinetic = float(state.getKineticEnergy()._value)
        potential = float(state.getPotentialEnergy()._value)
        single = positions.astype(np.float32)
        if not (np.isfinite(potential + kinetic) and np.isfinite(single).all()):
            raise SourceDivergedError(f"the simulation diverged: the potential energy is {potential} kJ/mol")
        snapshot = Snapshot(
            positions=single,
            time_ps=float(state.getTime()._value),
            step=int(state.getStepCount()),
            box=None if self._box is None else self._box.astype(np.float32),
            potential_energy=potential,
            kinetic_energy=kinetic,
            temperature=2 * kinetic / (self._freedom * BOLTZMANN_KJ_MOL_K),
        )
        if velocities:
            snapshot.velocities = vectors_of(state, openmm.State.Velocities).astype(np.float32)
        if self._active:
            if self._pending:
                self._apply(positions[self._covered])
            energy, forces = self._bias.step(positions[self._bias.particles], self._box)
            snapshot.potential_energy = potential - energy
            snapshot.user_energy = energy
            snapshot.user_index = self._bias.particles.astype(np.uint32)
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
        if wanted and self._active and self._covers(before, wanted):
            self._pending = True
        else:
            self._rearrange()
        redraw = to_redraw(before, wanted)
        if redraw.size:
            self._redraw_velocities(redraw)

    def reset(self) -> None:
        self._drop_bias()
        self._put(self._start)

    def checkpoint(self) -> bytes:
        state = self._context.getState(getPositions=True, getVelocities=True, getParameters=True)
        positions = vectors_of(state, openmm.State.Positions)
        if self._active and self._pending:
            self._apply(positions[self._covered])
        if self._active:
            self._bias.step(positions[self._bias.particles], self._read_box(state))
        return Checkpoint(
            positions=positions,
            velocities=vectors_of(state, openmm.State.Velocities),
            time_ps=float(state.getTime()._value),
            step=int(state.getStepCount()),
            work=self._bias.work,
            box=self._read_box(state),
            parameters=self._parameters(),
        ).to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        read = Checkpoint.from_bytes(checkpoint, self._info.particle_count)
        unknown = sorted(set(read.parameters) - set(self._parameters()))
        if unknown or (read.box is None) == self._periodic:
            raise InvalidArgumentError(
                "checkpoint", unknown or "box", "is of another system: its parameters or box differ"
            )
        self._drop_bias()
        self._put(read)

    def close(self) -> None:
        # OpenMM frees a context when nothing refers to it any more.
        if hasattr(self, "_context"):
            del self._context, self._integrator

    # The bias

    def _bias_force(self, state: openmm.State) -> tuple[float, Vectors]:
        """What OpenMM calls at every force evaluation, with the positions of the covered particles."""
        try:
            positions = vectors_of(state, openmm.State.Positions)
            if self._box_moves:
                self._box = self._read_box(state)
            if self._pending:
                self._apply(positions)
            if self._places is None:
                return self._bias.step(positions, self._box)
            energy, some = self._bias.step(positions[self._places], self._box)
            forces = np.zeros_like(positions)
            forces[self._places] = some
            return energy, forces
        except Exception as error:
            self._callback_error = error
            raise

    def _covers(self, before: Sequence[Interaction], wanted: Sequence[Interaction]) -> bool:
        if len(before) == len(wanted) and all(a.particles == b.particles for a, b in zip(before, wanted, strict=True)):
            return True
        return bool(np.isin(sorted({i for item in wanted for i in item.particles}), self._covered).all())

    def _apply(self, covered: Vectors) -> None:
        """The wanted interactions act from now on, the covered particles being at `covered`; the change is no work."""
        self._pending = False
        if not self._bias.empty:
            self._bias.step(covered if self._places is None else covered[self._places], self._box)
        self._bias.set(self._wanted)
        self._bias.rebase()
        particles = self._bias.particles
        same = np.array_equal(particles, self._covered)
        self._places = None if same else np.searchsorted(self._covered, particles)
        if particles.size:
            self._bias.step(covered if same else covered[self._places], self._box)

    def _rearrange(self) -> None:
        """The wanted interactions act from now on, in a force that covers their particles."""
        positions = vectors_of(self._context.getState(getPositions=True), openmm.State.Positions)
        if not self._bias.empty:
            self._bias.step(positions[self._bias.particles], self._box)  # closes the account of those that go
        particles = np.array(sorted({i for item in self._wanted for i in item.particles}), dtype=np.intp)
        self._bias.set(())
        if particles.size and not (self._force_index is not None and np.isin(particles, self._covered).all()):
            self._install(particles)
        self._switch(bool(particles.size))
        self._apply(positions[self._covered])

    def _install(self, particles: NDArray[np.intp]) -> None:
        """A force that covers `particles` is in the system."""
        self._covered = particles
        if self._force_index is None:
            force = openmm.PythonForce(self._bias_force)
            force.setForceGroup(self._group)
            force.setUsesPeriodicBoundaryConditions(self._periodic)
            force.setParticles(particles.tolist())
            self._force_index = self._system.addForce(force)
        else:
            self._system.getForce(self._force_index).setParticles(particles.tolist())
        self._places = None
        self._rebuild()

    def _switch(self, active: bool) -> None:
        """The force in the system takes part in the integration, or does not."""
        self._active = active
        if self._switchable:
            bit = 1 << self._group
            groups = self._base_groups | bit if active else self._base_groups & ~bit
            self._integrator.setIntegrationForceGroups(groups - (groups >> 31 << 32))  # as a signed 32-bit integer
        elif not active and self._force_index is not None:
            self._system.removeForce(self._force_index)
            self._force_index = None
            self._covered = np.empty(0, np.intp)
            self._rebuild()

    def _rebuild(self) -> None:
        try:
            self._context.reinitialize(preserveState=True)
        except openmm.OpenMMException as error:
            raise self._explained(error) from error

    def _drop_bias(self) -> None:
        self._wanted, self._pending = (), False
        self._bias.set(())
        self._bias.reset_work()
        self._places = None
        self._switch(False)

    def _redraw_velocities(self, particles: NDArray[np.intp]) -> None:
        state = self._context.getState(getVelocities=True)
        velocities = vectors_of(state, openmm.State.Velocities)
        temperature = self._temperature
        if temperature is None:
            kinetic = 0.5 * float(np.einsum("i,ij,ij->", self._masses, velocities, velocities))
            temperature = 2 * kinetic / (self._freedom * BOLTZMANN_KJ_MOL_K)
        drawn = velocities.copy()
        drawn[particles] = thermal_velocities(self._masses[particles], temperature, self._rng)
        if self._constraints.size:
            # OpenMM applies constraints to all particles, and so would change the velocities of those far away a little.
            self._context.setVelocities(drawn)
            self._context.applyVelocityConstraints(self._integrator.getConstraintTolerance())
            constrained = vectors_of(self._context.getState(getVelocities=True), openmm.State.Velocities)
            touched = self._constrained_with(particles)
            drawn = np.where(touched[:, None], constrained, velocities)
        self._context.setVelocities(drawn)

    def _constrained_with(self, particles: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which particles (N,) constraints tie to `particles`, directly or through others, themselves included."""
        touched = np.zeros(len(self._masses), dtype=bool)
        touched[particles] = True
        count = 0
        while count != (count := int(touched.sum())):
            reached = touched[self._constraints].any(axis=1)
            touched[self._constraints[reached]] = True
        return touched

    # The state

    def _first_state(
        self,
        positions: Vectors,
        velocities: Vectors | None,
        box: Vectors | None,
        temperature_k: float | None,
        minimise: bool,
    ) -> Checkpoint:
        context = self._context
        if self._periodic and box is not None:
            context.setPeriodicBoxVectors(*box)
        try:
            context.setPositions(positions)
            tolerance = self._integrator.getConstraintTolerance()
            temperature = self._temperature if temperature_k is None else temperature_k
            if minimise:
                openmm.LocalEnergyMinimizer.minimize(context, MINIMISER_TOLERANCE, MINIMISER_ITERATIONS)
            if velocities is not None:
                context.setVelocities(velocities)
            else:
                context.applyConstraints(tolerance)
                if temperature is not None:
                    context.setVelocities(thermal_velocities(self._masses, temperature, self._rng))
                    context.applyVelocityConstraints(tolerance)
            state = context.getState(getPositions=True, getVelocities=True)
        except openmm.OpenMMException as error:
            raise InvalidArgumentError(
                "positions", f"{len(positions)} of them", f"OpenMM refuses them: {error}"
            ) from error
        return Checkpoint(
            positions=vectors_of(state, openmm.State.Positions),
            velocities=vectors_of(state, openmm.State.Velocities),
            time_ps=0.0,
            step=0,
            work=0.0,
            box=self._read_box(state),
            parameters=self._parameters(),
        )

    def _put(self, state: Checkpoint) -> None:
        context, integrator = self._context, self._integrator
        if state.box is not None:
            context.setPeriodicBoxVectors(*state.box)
            self._box = state.box
        context.setPositions(state.positions)
        context.setVelocities(state.velocities)
        context.setTime(state.time_ps)
        context.setStepCount(state.step)
        for key, value in state.parameters.items():
            kind, _, name = key.partition(":")
            if kind == "context":
                context.setParameter(name, value)
            elif isinstance(integrator, openmm.CustomIntegrator):
                integrator.setGlobalVariableByName(name, value)
        self._bias.reset_work()
        self._bias.work = state.work

    def _parameters(self) -> dict[str, float]:
        found = {f"context:{name}": float(value) for name, value in dict(self._context.getParameters()).items()}
        integrator = self._integrator
        if isinstance(integrator, openmm.CustomIntegrator):
            for i in range(integrator.getNumGlobalVariables()):
                found[f"integrator:{integrator.getGlobalVariableName(i)}"] = float(integrator.getGlobalVariable(i))
        return found

    def _read_box(self, state: openmm.State | None = None) -> Vectors | None:
        if not self._periodic:
            return None
        state = self._context.getState() if state is None else state
        return np.array([tuple(row) for row in state.getPeriodicBoxVectors()._value], dtype=np.float64)

    def _explained(self, error: Exception) -> Exception:
        cause, self._callback_error = self._callback_error, None
        if cause is not None:
            return cause
        if re.search(r"\bnan\b", str(error), re.IGNORECASE):
            return SourceDivergedError(f"the simulation diverged: {error}")
        return error
