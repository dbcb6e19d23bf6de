"""Energies of real dynamics under a bias: conserved where they should be, and equal to the work where they are not."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import openmm
import pytest

from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.source import Source


def ring(integrator: openmm.Integrator) -> OpenMMSource:
    """Eight beads on harmonic springs, with a box so that pulls cross its faces."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors([2.4, 0, 0], [0.7, 2.4, 0], [-0.8, 0.5, 2.4])
    bonds = openmm.HarmonicBondForce()
    bonds.setUsesPeriodicBoundaryConditions(True)
    for i in range(8):
        system.addParticle(12.0 + i)
        bonds.addBond(i, (i + 1) % 8, 0.2, 5000)
    system.addForce(bonds)
    angles = np.arange(8) * np.pi / 4
    positions = np.column_stack([0.26 * np.cos(angles), 0.26 * np.sin(angles), 0.05 * angles])
    return OpenMMSource("ring", {}, system, integrator, positions, temperature_k=50.0)


def custom_velocity_verlet(timestep: float) -> openmm.CustomIntegrator:
    """Velocity Verlet, whose kinetic energy belongs to the same instant as its positions."""
    integrator = openmm.CustomIntegrator(timestep)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    return integrator


def internal_energy(source: Source) -> float:
    snapshot = source.snapshot()
    assert snapshot.potential_energy is not None and snapshot.kinetic_energy is not None
    return snapshot.potential_energy + snapshot.kinetic_energy


def held(source: Source, kind: str = "spring", **fields: object) -> Interaction:
    centre = source.snapshot().positions[1] + np.array([0.3, 0.1, -0.2])
    return Interaction.parse(
        "one", particles=[1, 2, 3], position=centre.tolist(), kind=kind, **{"scale": 40.0, **fields}
    )


@pytest.mark.parametrize(
    "fields", [{}, {"max_force": 150.0}, {"kind": "gaussian"}, {"mass_weighted": False, "scale": 500.0}], ids=str
)
@pytest.mark.parametrize(("make", "tolerance"), [(openmm.VerletIntegrator, 0.15), (custom_velocity_verlet, 0.02)])
def test_energy_with_the_bias_is_conserved_and_the_systems_own_grows_by_the_work(
    make: object, tolerance: float, fields: dict[str, object]
) -> None:
    source = ring(make(0.0005))  # type: ignore[operator]
    source.set_interactions([held(source, **fields)])  # type: ignore[arg-type]
    start = internal_energy(source)
    total = start + source.snapshot().user_energy
    exchanged = []
    for _ in range(60):
        source.advance(20)
        snapshot = source.snapshot()
        energy = internal_energy(source)
        exchanged.append(energy - start)
        assert energy + snapshot.user_energy == pytest.approx(total, abs=tolerance)
        assert energy - start == pytest.approx(snapshot.user_work, abs=tolerance)
    assert np.abs(exchanged).max() > 1.5


def test_work_is_that_of_a_handle_on_the_move() -> None:
    """The account stays right while the handle jumps between steps, and particles are grabbed and let go."""
    source = ring(custom_velocity_verlet(0.0005))
    start = internal_energy(source)
    rng = np.random.default_rng(4)
    pull = held(source)
    for step in range(120):
        pull = pull.moved((np.array(pull.position) + rng.normal(scale=0.02, size=3)).tolist())
        beside = source.snapshot().positions[5] + np.array([0.2, 0.0, 0.1])
        other = Interaction.parse("two", particles=[5], position=beside.tolist(), kind="gaussian", scale=100.0)
        source.set_interactions([pull, other] if step % 9 < 4 else [pull] if step % 9 < 7 else [])
        source.advance(7)
        if step % 10 == 0:
            assert internal_energy(source) - start == pytest.approx(source.snapshot().user_work, abs=0.02)
    assert source.snapshot().user_work > 10


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, False)], ids=str)
def test_ase_conserves_energy_under_a_static_spring(tmp_path: Path, pbc: tuple[bool, bool, bool]) -> None:
    atoms = ase.build.fcc111("Cu", size=(3, 3, 3), vacuum=6.0)
    atoms.info.clear()
    atoms.set_pbc(pbc)
    ase.io.write(tmp_path / "slab.xyz", atoms)
    spec = f"{tmp_path / 'slab.xyz'}?calculator=emt&dynamics=nve&timestep_fs=1&temperature_k=50"
    source = open_source(SourceSpec.parse(spec))
    above = source.snapshot().positions[22] + np.array([0.05, 0.0, 0.15])
    source.set_interactions(
        [Interaction.parse("one", particles=[22, 23], position=above.tolist(), kind="spring", scale=30.0)]
    )
    start = internal_energy(source)
    total = start + source.snapshot().user_energy
    for _ in range(10):
        source.advance(10)
        snapshot = source.snapshot()
        assert internal_energy(source) + snapshot.user_energy == pytest.approx(total, abs=0.2)
        assert internal_energy(source) - start == pytest.approx(snapshot.user_work, abs=0.2)
    assert abs(source.snapshot().user_work) > 2
    source.close()


def test_methane_can_be_threaded_through_the_nanotube() -> None:
    source = open_source(SourceSpec.parse("demo:nanotube"))
    methane = list(range(source.info.particle_count - 5, source.info.particle_count))
    places = source.snapshot().positions
    tube_end = float(places[:-5, 2].min())
    assert places[methane[0], 2] > places[:-5, 2].max()
    for height in np.linspace(places[methane[0], 2], tube_end - 0.3, 100):
        handle = (0.0, 0.0, float(height))
        source.set_interactions(
            [Interaction.parse("x", particles=methane, position=handle, kind="spring", scale=500.0)]
        )
        source.advance(40)
    places = source.snapshot().positions
    assert places[methane[0], 2] < tube_end
    across = np.linalg.norm(places[:-5, :2], axis=1)
    assert across.min() > 0.25 and across.max() < 0.6  # the tube is still one
    source.close()


def test_the_helix_stays_a_helix() -> None:
    source = open_source(SourceSpec.parse("demo:peptide"))
    names = source.topology()["particle.names"]
    alphas = [i for i, name in enumerate(names) if name == "CA"]  # type: ignore[arg-type]
    source.advance(400)
    places = source.snapshot().positions[alphas]
    rise = np.linalg.norm(places[9] - places[0]) / 9
    assert 0.13 < rise < 0.17  # 0.15 nm per residue along an alpha helix; 0.38 when stretched
    source.close()
