"""The state of an OpenMM context: where it starts, what a checkpoint keeps of it, and how it is put back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.openmm_system import (
    Vectors,
    box_of,
    constraint_pairs,
    degrees_of_freedom,
    parts_of,
    thermostat_temperature,
    vectors_of,
)
from narupa_trajectory.sources.velocities import thermal_velocities

# Enough to take the strain out of a built structure; the dynamics does the rest. The root mean square of the forces that are
# left is a tenth of what thermal motion at 300 K brings about, kJ/mol/nm: to go further takes several times as long.
MINIMISER_TOLERANCE = 50.0
MINIMISER_ITERATIONS = 100
CHANCE_COSTS_MEMORY = (openmm.LangevinIntegrator, openmm.LangevinMiddleIntegrator)
MAX_SEED = 2**31 - 1


class OpenMMState:
    """Reads and writes the state of one context.

    Attributes:
        periodic: Whether the system has a box.
        temperature: Of the thermostat, K; None without.
    """

    def __init__(self, context: openmm.Context, system: openmm.System, masses: Vectors) -> None:
        """Of a `context` of the `system` as it is before any bias joins it; `masses` (N,) amu."""
        self._context, self._masses = context, masses
        self._integrator = context.getIntegrator()
        self.periodic = bool(system.usesPeriodicBoundaryConditions())
        self.temperature = thermostat_temperature(context)
        self._freedom = degrees_of_freedom(system, masses)
        self._constraints = constraint_pairs(system)
        self._rng = np.random.default_rng()
        self._put_at = 0  # the step at which the state was last put here
        platform, integrator = context.getPlatform().getName(), type(self._integrator)
        counts = any("Barostat" in type(force).__name__ for force in system.getForces())  # which no `State` has
        self._new_chance = platform == "CPU" and integrator in CHANCE_COSTS_MEMORY and not counts
        self._signature = self._signed(system)

    def first(
        self,
        positions: Vectors,
        velocities: Vectors | None,
        box: Vectors | None,
        temperature_k: float | None,
        minimise: bool,
    ) -> Checkpoint:
        """Where the simulation starts: see the arguments of `OpenMMSource`.

        Raises:
            InvalidArgumentError: OpenMM refuses the positions.
        """
        context = self._context
        if self.periodic and box is not None:
            context.setPeriodicBoxVectors(*box)
        try:
            context.setPositions(positions)
            tolerance = self._integrator.getConstraintTolerance()
            temperature = self.temperature if temperature_k is None else temperature_k
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
        return replace(self.portable(state), time_ps=0.0, step=0)

    def portable(self, state: openmm.State) -> Checkpoint:
        """What any platform can go on from, with no work; `state` must hold positions and velocities."""
        return Checkpoint(
            positions=vectors_of(state, openmm.State.Positions),
            velocities=vectors_of(state, openmm.State.Velocities),
            time_ps=float(state.getTime()._value),
            step=int(state.getStepCount()),
            work=0.0,
            box=self.box(state),
            parameters=self._parameters(),
        )

    def box(self, state: openmm.State | None = None) -> Vectors | None:
        """The present box, (3, 3) nm; None without periods."""
        if not self.periodic:
            return None
        return box_of(self._context.getState() if state is None else state)

    def temperature_of(self, kinetic: float) -> float:
        """The temperature, K, at this kinetic energy, kJ/mol."""
        return 2 * kinetic / (self._freedom * BOLTZMANN_KJ_MOL_K)

    def exact(self) -> bytes:
        """The engine's own state, random numbers included, and what it must meet to be taken up again."""
        inner: bytes = self._context.createCheckpoint()
        heading = {
            "signature": self._signature,
            "digest": hashlib.sha256(inner).hexdigest(),
            "rng": self._rng.bit_generator.state,
        }
        return json.dumps(heading).encode() + b"\n" + inner

    def check(self, checkpoint: Checkpoint) -> None:
        """Returns where the checkpoint is of this system. Raises: InvalidArgumentError."""
        unknown = sorted(set(checkpoint.parameters) - set(self._parameters()))
        if unknown or (checkpoint.box is None) == self.periodic:
            raise InvalidArgumentError(
                "checkpoint", unknown or "box", "is of another system: its parameters or box differ"
            )

    def put(self, checkpoint: Checkpoint) -> None:
        """The context is where the checkpoint was: exactly, where it is of the same platform and OpenMM."""
        if not self._put_exact(checkpoint):
            self._put_portable(checkpoint)
        self._put_at = checkpoint.step

    def _put_exact(self, checkpoint: Checkpoint) -> bool:
        heading, _, inner = checkpoint.exact.partition(b"\n")
        try:
            read = json.loads(heading)
            fits = read["signature"] == self._signature and read["digest"] == hashlib.sha256(inner).hexdigest()
            if not fits:
                return False
            self._context.loadCheckpoint(inner)
            generator = np.random.default_rng()
            generator.bit_generator.state = read["rng"]
        except (ValueError, TypeError, KeyError, RecursionError, openmm.OpenMMException):
            return False
        self._rng = generator
        state = self._context.getState(getPositions=True, getVelocities=True)
        return np.array_equal(vectors_of(state, openmm.State.Positions), checkpoint.positions)

    def _put_portable(self, checkpoint: Checkpoint) -> None:
        context, integrator = self._context, self._integrator
        if checkpoint.box is not None:
            context.setPeriodicBoxVectors(*checkpoint.box)
        context.setPositions(checkpoint.positions)
        context.setVelocities(checkpoint.velocities)
        context.setTime(checkpoint.time_ps)
        context.setStepCount(checkpoint.step)
        for key, value in checkpoint.parameters.items():
            kind, _, name = key.partition(":")
            if kind == "context":
                context.setParameter(name, value)
            elif isinstance(integrator, openmm.CustomIntegrator):
                integrator.setGlobalVariableByName(name, value)

    def rebuild(self) -> None:
        """The context is of its system as that is now, and is where it was.

        OpenMM 8.6's CPU platform never frees the random numbers of Langevin integrators that it reads from a checkpoint, 2.5 kB
        per thread each time; and to keep the state, `reinitialize` makes and reads one. So it is put back by hand there, with a
        new seed, but for what has just been restored, which goes the way it went the first time, and where there is a barostat.
        """
        context, integrator = self._context, self._integrator
        if not self._new_chance or context.getStepCount() == self._put_at:
            context.reinitialize(preserveState=True)
            return
        state = context.getState(getPositions=True, getVelocities=True)
        parameters = dict(context.getParameters())
        seed = integrator.getRandomNumberSeed()
        integrator.setRandomNumberSeed(int(self._rng.integers(1, MAX_SEED)))
        try:
            context.reinitialize()
        finally:
            integrator.setRandomNumberSeed(seed)
        context.setState(state)
        for name in parameters.keys() & dict(context.getParameters()).keys():
            context.setParameter(name, parameters[name])

    def redraw_velocities(self, particles: NDArray[np.intp]) -> None:
        """These particles have thermal velocities, at the thermostat's temperature or else the present one; constraints are
        applied to them and to those that they tie to them, and to no others."""
        context = self._context
        velocities = vectors_of(context.getState(getVelocities=True), openmm.State.Velocities)
        temperature = self.temperature
        if temperature is None:
            temperature = self.temperature_of(0.5 * float(np.einsum("i,ij,ij->", self._masses, velocities, velocities)))
        drawn = velocities.copy()
        drawn[particles] = thermal_velocities(self._masses[particles], temperature, self._rng)
        if self._constraints.size:
            # OpenMM applies constraints to all particles, and so would change the velocities of those far away a little.
            context.setVelocities(drawn)
            context.applyVelocityConstraints(self._integrator.getConstraintTolerance())
            constrained = vectors_of(context.getState(getVelocities=True), openmm.State.Velocities)
            touched = self._constrained_with(particles)
            drawn = np.where(touched[:, None], constrained, velocities)
        context.setVelocities(drawn)

    def _constrained_with(self, particles: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which particles (N,) constraints tie to `particles`, directly or through others, themselves included."""
        touched = np.zeros(len(self._masses), dtype=bool)
        touched[particles] = True
        count = 0
        while count != (count := int(touched.sum())):
            reached = touched[self._constraints].any(axis=1)
            touched[self._constraints[reached]] = True
        return touched

    def _parameters(self) -> dict[str, float]:
        found = {f"context:{name}": float(value) for name, value in dict(self._context.getParameters()).items()}
        integrator = self._integrator
        if isinstance(integrator, openmm.CustomIntegrator):
            for i in range(integrator.getNumGlobalVariables()):
                found[f"integrator:{integrator.getGlobalVariableName(i)}"] = float(integrator.getGlobalVariable(i))
        return found

    def _signed(self, system: openmm.System) -> str:
        """What decides whether the engine's own state of another context can be loaded into this one."""
        platform = self._context.getPlatform()
        properties = {name: platform.getPropertyValue(self._context, name) for name in platform.getPropertyNames()}
        parts: list[Any] = [
            openmm.Platform.getOpenMMVersion(),
            platform.getName(),
            properties.get("Precision"),
            [(type(force).__name__, force.getForceGroup()) for force in system.getForces()],
            [openmm.XmlSerializer.serialize(part) for part in parts_of(self._integrator)],
            sorted(dict(self._context.getParameters())),
        ]
        digest = hashlib.sha256(json.dumps(parts).encode())
        digest.update(self._masses.tobytes())
        digest.update(self._constraints.tobytes())
        return digest.hexdigest()
