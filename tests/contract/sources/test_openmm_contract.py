"""The contract of engines, kept by OpenMM with several integrators, constraints, boxes and inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import openmm.app
import pytest
from numpy.typing import NDArray

from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.source import Source, TopologyValue
from narupa_trajectory.testing.engine_contract import EngineCase, EngineContract

DATA = Path(__file__).resolve().parents[3] / "../shared/data"


# On several threads the CPU platform adds up forces in any order; the reference platform repeats every bit.
ANY_ORDER: dict[str, Any] = {"repeats": False, "strays_nm": 1e-4}


def argon_box(
    integrator: Callable[[], openmm.Integrator],
    triclinic: bool = False,
    barostat: bool = False,
    platform: str = "CPU",
    **facts: Any,
) -> EngineCase:
    """64 argon atoms in a periodic box of 2.4 nm."""
    edge = 2.4
    rows = [
        [edge, 0, 0],
        [edge / 3 if triclinic else 0, edge, 0],
        [edge / 4 if triclinic else 0, edge / 4 if triclinic else 0, edge],
    ]
    grid = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) / 4
    topology: dict[str, TopologyValue] = {"particle.count": 64.0, "particle.elements": np.full(64, 18, np.uint32)}

    def make() -> Source:
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*rows)
        force = openmm.NonbondedForce()
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(0.9)
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(0.7)
        for _ in range(64):
            system.addParticle(39.948)
            force.addParticle(0.0, 0.3405, 0.996)
        system.addForce(force)
        if barostat:
            system.addForce(openmm.MonteCarloBarostat(50.0, 300.0, 5))
        positions = grid @ np.array(rows)
        return OpenMMSource("argon", topology, system, integrator(), positions, temperature_k=300.0, platform=platform)

    facts = facts if platform == "Reference" else {**ANY_ORDER, **facts}
    return EngineCase(make=make, masses=lambda source: np.full(64, 39.948), box_moves=barostat, **facts)


@functools.cache
def built_peptide() -> tuple[str, Mapping[str, TopologyValue], NDArray[np.float64]]:
    """The demo with its constrained bonds, built once: adding hydrogens and relaxing them takes a second."""
    source = open_source(SourceSpec.parse("demo:peptide"))
    assert isinstance(source, OpenMMSource)
    return openmm.XmlSerializer.serialize(source._system), source.topology(), source.snapshot().positions.astype(float)


def constrained_peptide() -> Source:
    system, topology, positions = built_peptide()
    free = openmm.XmlSerializer.deserialize(system)
    removers = [i for i, force in enumerate(free.getForces()) if isinstance(force, openmm.CMMotionRemover)]
    for index in reversed(removers):  # so that the whole keeps the momentum that a pull gives it
        free.removeForce(index)
    return OpenMMSource("peptide", topology, free, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002), positions)


def innermost() -> openmm.Integrator:
    from openmm.mtsintegrator import MTSLangevinIntegrator

    return MTSLangevinIntegrator(300.0, 5.0, 0.004, [(0, 1), (1, 2)])


def compound() -> openmm.Integrator:
    integrator = openmm.CompoundIntegrator()
    integrator.addIntegrator(openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002))
    integrator.addIntegrator(openmm.VerletIntegrator(0.002))
    return integrator


def custom_verlet() -> openmm.Integrator:
    integrator = openmm.CustomIntegrator(0.002)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    return integrator


def langevin() -> openmm.Integrator:
    return openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)


def verlet() -> openmm.Integrator:
    return openmm.VerletIntegrator(0.002)


def nose_hoover() -> openmm.Integrator:
    return openmm.NoseHooverIntegrator(300.0, 1.0, 0.002)


def named(text: str, **facts: Any) -> EngineCase:
    return EngineCase(make=lambda: open_source(SourceSpec.parse(text)), masses=own_masses, **{**ANY_ORDER, **facts})


def own_masses(source: Source) -> NDArray[np.float64]:
    """Of the system, which may differ from those of its elements."""
    assert isinstance(source, OpenMMSource)
    system = source._system
    return np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())], np.float64)


def shared(name: str) -> str:
    if not (DATA / name).exists():
        pytest.skip(f"the sample input {name} is not beside this checkout")
    return str(DATA / name)


CASES: dict[str, Callable[[], EngineCase]] = {
    "nanotube-demo": lambda: named("demo:nanotube", keeps_momentum=False),  # its carbons are tethered
    "peptide-demo": lambda: EngineCase(make=constrained_peptide, masses=own_masses, equilibrated=False, **ANY_ORDER),
    "helix-xml": lambda: named(shared("17-ala.xml"), keeps_momentum=False),
    "nanotube-xml": lambda: named(shared("nanotube.xml"), temperature_k=None, equilibrated=False),
    "argon-triclinic": lambda: argon_box(langevin, triclinic=True),
    "argon-reference": lambda: argon_box(langevin, platform="Reference"),
    "argon-barostat": lambda: argon_box(langevin, barostat=True, strays_nm=None),  # its chance is in no checkpoint
    "argon-verlet": lambda: argon_box(verlet, temperature_k=None),
    "argon-mts": lambda: argon_box(innermost),
    "argon-compound": lambda: argon_box(compound),
    "argon-nose-hoover": lambda: argon_box(nose_hoover),
    "argon-custom": lambda: argon_box(custom_verlet, temperature_k=None, conserves_energy=True),
}


class TestOpenMM(EngineContract):
    @pytest.fixture(params=CASES)
    def case(self, request: pytest.FixtureRequest) -> EngineCase:
        return CASES[request.param]()
