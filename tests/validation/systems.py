"""The systems that the physics is validated on, the same for every engine, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ase
import numpy as np
import openmm
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.units import ANGSTROM_IN_NM, BOLTZMANN_KJ_MOL_K, EV_IN_KJ_MOL, NM_IN_ANGSTROM
from narupa_trajectory.sources.ase_source import ASE_VELOCITY_IN_NM_PS, AseSource
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.source import Source

Vectors = NDArray[np.float64]

ARGON_COUNT: Final = 64
ARGON_MASS: Final = 39.948
ARGON_TEMPERATURE_K: Final = 120.0
# nm; reduced as OpenMM asks, at the density of the liquid.
ARGON_BOX: Final = 1.55 * np.array([[1.0, 0.0, 0.0], [0.25, 1.0, 0.0], [-0.2, 1 / 6, 1.0]])
CUBE: Final = np.diag([1.55] * 3)
SIGMA, EPSILON, SWITCH, CUTOFF = 0.3405, 0.996, 0.5, 0.62  # nm, kJ/mol


class PairArgon(Calculator):  # type: ignore[misc]
    """Lennard-Jones with OpenMM's switching function, all pairs in `ARGON_BOX`: the same Hamiltonian as `argon_system`."""

    implemented_properties = ("energy", "forces")
    pairs = np.triu_indices(ARGON_COUNT, 1)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        places = self.atoms.positions * ANGSTROM_IN_NM
        first, second = self.pairs
        d = places[first] - places[second]
        for axis in (2, 1, 0):
            d -= np.rint(d[:, axis] / ARGON_BOX[axis, axis])[:, None] * ARGON_BOX[axis]
        square = np.einsum("ij,ij->i", d, d)
        near = square < CUTOFF * CUTOFF
        d, r = d[near], np.sqrt(square[near])
        sixth = (SIGMA / r) ** 6
        energy, slope = 4 * EPSILON * (sixth * sixth - sixth), -24 * EPSILON * (2 * sixth * sixth - sixth) / r
        x = np.maximum(0.0, (r - SWITCH) / (CUTOFF - SWITCH))
        weight = 1 - x**3 * (10 - x * (15 - 6 * x))
        slope = slope * weight - energy * 30 * x * x * (1 - x) ** 2 / (CUTOFF - SWITCH)
        pull = d * (-slope / r)[:, None]
        forces = np.zeros_like(places)
        np.add.at(forces, first[near], pull)
        np.add.at(forces, second[near], -pull)
        per_angstrom = ANGSTROM_IN_NM / EV_IN_KJ_MOL
        self.results = {"energy": float(energy @ weight) / EV_IN_KJ_MOL, "forces": forces * per_angstrom}


class Wells(Calculator):  # type: ignore[misc]
    """Every particle in a harmonic well of its own: E = stiffness/2 |x - centre|^2."""

    implemented_properties = ("energy", "forces")

    def __init__(self, centres: Vectors, stiffness: float) -> None:
        """`centres` (N, 3) nm, `stiffness` kJ/(mol nm^2)."""
        super().__init__()
        self.centres, self.stiffness = centres, stiffness

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions * ANGSTROM_IN_NM - self.centres
        energy = 0.5 * self.stiffness * float(np.vdot(away, away))
        forces = -self.stiffness * away * ANGSTROM_IN_NM
        self.results = {"energy": energy / EV_IN_KJ_MOL, "forces": forces / EV_IN_KJ_MOL}


def argon_system(box: Vectors = ARGON_BOX) -> openmm.System:
    """Liquid argon in a periodic box, with energies that are smooth at the cutoff."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH)
    force.setUseDispersionCorrection(False)
    for _ in range(ARGON_COUNT):
        system.addParticle(ARGON_MASS)
        force.addParticle(0.0, SIGMA, EPSILON)
    system.addForce(force)
    return system


def argon_start(
    seed: int, equilibration_steps: int = 3000, box: Vectors = ARGON_BOX, temperature_k: float = ARGON_TEMPERATURE_K
) -> tuple[Vectors, Vectors]:
    """Positions (nm) and velocities (nm/ps) of the liquid in equilibrium, both (64, 3), from OpenMM alone."""
    integrator = openmm.LangevinMiddleIntegrator(temperature_k, 5.0, 0.005)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(argon_system(box), integrator, openmm.Platform.getPlatform("Reference"))
    grid = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) / 4
    context.setPositions(grid @ box)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)
    context.setVelocitiesToTemperature(temperature_k, seed)
    integrator.step(equilibration_steps)
    state = context.getState(getPositions=True, getVelocities=True)
    return np.array(state.getPositions(True)._value), np.array(state.getVelocities(True)._value)


def argon(engine: str, start: tuple[Vectors, Vectors], timestep_ps: float) -> Source:
    """The liquid at constant energy, from `start`, on "openmm" (leap-frog, double precision) or "ase" (velocity Verlet)."""
    positions, velocities = start
    if engine == "openmm":
        integrator = openmm.VerletIntegrator(timestep_ps)
        return on_openmm(argon_system(), integrator, positions, velocities)
    return on_ase(np.full(ARGON_COUNT, ARGON_MASS), PairArgon(), positions, velocities, timestep_ps, box=ARGON_BOX)


def on_openmm(
    system: openmm.System,
    integrator: openmm.Integrator,
    positions: Vectors,
    velocities: Vectors | None = None,
    platform: str = "Reference",
) -> OpenMMSource:
    """A source of OpenMM, at rest unless velocities are given; its random numbers are those of `integrator`."""
    if velocities is None:
        velocities = np.zeros_like(positions)
    topology = {"particle.count": float(len(positions)), "particle.elements": np.full(len(positions), 18, np.uint32)}
    return OpenMMSource("system", topology, system, integrator, positions, velocities=velocities, platform=platform)


def on_ase(
    masses: Vectors,
    calculator: Calculator,
    positions: Vectors,
    velocities: Vectors | None = None,
    timestep_ps: float = 0.001,
    box: Vectors | None = None,
    **options: Any,
) -> AseSource:
    """A source of ASE, at rest unless velocities are given; at constant energy unless `options` say otherwise."""
    atoms = ase.Atoms(["Ar"] * len(positions), positions * NM_IN_ANGSTROM, masses=masses)
    if box is not None:
        atoms.set_cell(box * NM_IN_ANGSTROM)
        atoms.pbc = True
    atoms.set_velocities(np.zeros_like(positions) if velocities is None else velocities / ASE_VELOCITY_IN_NM_PS)
    return AseSource("system", atoms, calculator, timestep_fs=timestep_ps * 1000, **{"dynamics": "nve", **options})


def wells_system(centres: Vectors, stiffness: float, masses: Vectors) -> openmm.System:
    """As `Wells`, for OpenMM."""
    system = openmm.System()
    force = openmm.CustomExternalForce(f"{stiffness}/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for axis in "xyz":
        force.addPerParticleParameter(f"{axis}0")
    for index, (centre, mass) in enumerate(zip(centres, masses, strict=True)):
        system.addParticle(mass)
        force.addParticle(index, centre)
    system.addForce(force)
    return system


def free_system(masses: Vectors, box: Vectors | None = None) -> openmm.System:
    """Particles that feel nothing but the bias."""
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
        force = openmm.CustomExternalForce("0*periodicdistance(x,y,z,0,0,0)")
        force.addParticle(0)  # so that the system is periodic
        system.addForce(force)
    return system


class Free(Calculator):  # type: ignore[misc]
    """As `free_system`, for ASE."""

    implemented_properties = ("energy", "forces")

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def internal_energy(source: Source) -> float:
    """Potential and kinetic energy, kJ/mol, without the bias."""
    snapshot = source.snapshot()
    assert snapshot.potential_energy is not None and snapshot.kinetic_energy is not None
    return snapshot.potential_energy + snapshot.kinetic_energy


def pull(
    id: str, kind: str, particles: Sequence[int], position: Sequence[float] | Vectors, **fields: Any
) -> Interaction:
    """A checked interaction; not mass-weighted, and without a cap, unless `fields` say otherwise."""
    given = {"mass_weighted": False, "max_force": float("inf"), **fields}
    place = [float(x) for x in position]
    return Interaction.parse(id, kind=kind, particles=list(particles), position=place, **given)


def thermal(masses: Vectors, temperature: float, rng: np.random.Generator) -> Vectors:
    """Velocities (N, 3) nm/ps from the Maxwell-Boltzmann distribution."""
    spread: Vectors = np.sqrt(BOLTZMANN_KJ_MOL_K * temperature / masses)[:, None]
    return rng.normal(size=(len(masses), 3)) * spread


def velocity_verlet(timestep_ps: float) -> openmm.CustomIntegrator:
    """Velocity Verlet, whose velocities belong to the same instant as its positions."""
    integrator = openmm.CustomIntegrator(timestep_ps)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    return integrator
