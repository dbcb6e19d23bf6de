"""What has to be found out about an OpenMM system and integrator before a bias can join them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.units import BOLTZMANN_KJ_MOL_K

Vectors = NDArray[np.float64]


def vectors_of(state: openmm.State, kind: int) -> Vectors:
    """The vectors of `kind` in a state, (n, 3) float64 in OpenMM's units, which are ours. A fresh array.

    This goes past `getPositions`, whose unit handling costs more than the copy and would be paid at every step.
    """
    array = np.empty((state._getNumParticles(), 3))
    state._getVectorAsNumpy(kind, array)
    return array


def box_of(state: openmm.State) -> Vectors:
    """The box vectors of a state, (3, 3) nm, one a row."""
    return np.array([tuple(row) for row in state.getPeriodicBoxVectors()._value], dtype=np.float64)


def constraint_pairs(system: openmm.System) -> NDArray[np.intp]:
    """The particles that constraints tie together, (n, 2)."""
    pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def new_context(system: openmm.System, integrator: openmm.Integrator, platform: str | None) -> openmm.Context:
    """A context on `platform`, or on the fastest one that works."""
    available = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    names = [candidate.getName() for candidate in available]
    if platform is not None and platform not in names:
        raise InvalidArgumentError("platform", platform, f"this OpenMM has {', '.join(names)}")
    problem: Exception | None = None
    for candidate in sorted(available, key=lambda each: -each.getSpeed()):
        if platform not in (None, candidate.getName()):
            continue
        precision = {"Precision": "mixed"} if "Precision" in candidate.getPropertyNames() else {}
        try:
            return openmm.Context(system, integrator, candidate, precision)
        except openmm.OpenMMException as error:
            problem = error
    raise InvalidArgumentError("System", f"{system.getNumParticles()} particles", f"OpenMM cannot run it: {problem}")


def parts_of(integrator: openmm.Integrator) -> Iterator[openmm.Integrator]:
    """The integrator itself, and those that it is made of."""
    yield integrator
    if isinstance(integrator, openmm.CompoundIntegrator):
        for i in range(integrator.getNumIntegrators()):
            yield integrator.getIntegrator(i)


def bias_group(integrator: openmm.Integrator, forces: Sequence[openmm.Force]) -> tuple[int, bool]:
    """The force group for the bias, and whether it has that group for itself."""
    named: Counter[int] = Counter()
    for part in parts_of(integrator):
        if isinstance(part, openmm.CustomIntegrator):
            for i in range(part.getNumComputations()):
                _, _, expression = part.getComputationStep(i)
                named.update(int(digits) for digits in re.findall(r"\bf(\d+)\b", expression))
    if named:
        return max(named, key=lambda group: (named[group], group)), False
    used = {force.getForceGroup() for force in forces}
    used |= {force.getReciprocalSpaceForceGroup() for force in forces if isinstance(force, openmm.NonbondedForce)}
    free = next((group for group in range(31, -1, -1) if group not in used), None)
    return (31, False) if free is None else (free, True)


def drop_placeholders(system: openmm.System) -> None:
    """Forces that other servers leave in their inputs to be filled with users' forces are gone: at zero they act on
    nothing, and are evaluated all the same."""
    for index in reversed(range(system.getNumForces())):
        force = system.getForce(index)
        if not isinstance(force, openmm.CustomExternalForce):
            continue
        expression = re.sub(r"\s", "", force.getEnergyFunction())
        if expression == "-fx*x-fy*y-fz*z" and force.getNumPerParticleParameters() == 3:
            parameters = [force.getParticleParameters(i)[1] for i in range(force.getNumParticles())]
            if not any(any(values) for values in parameters):
                system.removeForce(index)


def degrees_of_freedom(system: openmm.System, masses: NDArray[np.float64]) -> int:
    """Of the particles that move: three each, less the constraints between them and the three that stopping the centre
    of mass takes; at least 1."""
    freedom = 3 * int((masses > 0).sum())
    for i in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(i)
        freedom -= bool(masses[first] > 0 and masses[second] > 0)
    if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
        freedom -= 3
    return max(freedom, 1)


def thermostat_temperature(context: openmm.Context) -> float | None:
    """The temperature (K) that the integrator, or an Andersen thermostat, keeps; None when nothing does."""
    parameters: dict[str, Any] = dict(context.getParameters())
    if openmm.AndersenThermostat.Temperature() in parameters:
        return float(parameters[openmm.AndersenThermostat.Temperature()])
    for part in parts_of(context.getIntegrator()):
        if isinstance(part, openmm.CustomIntegrator):
            names = [part.getGlobalVariableName(i) for i in range(part.getNumGlobalVariables())]
            if "kT" in names:  # the name that OpenMM's own Langevin schemes use
                return float(part.getGlobalVariableByName("kT")) / BOLTZMANN_KJ_MOL_K
        elif hasattr(part, "getTemperature"):
            try:
                return float(part.getTemperature()._value)
            except openmm.OpenMMException:  # a Nose-Hoover integrator without a chain
                return None
    return None
