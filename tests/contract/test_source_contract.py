"""What every source promises, whatever runs it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ase.build
import ase.io
import numpy as np
import openmm
import openmm.app
import pytest
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NoLongerKeptError
from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.source import Source, TopologyValue

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def argon_box(integrator: openmm.Integrator, triclinic: bool = False) -> OpenMMSource:
    """64 argon atoms in a periodic box of 2.4 nm."""
    system = openmm.System()
    edge = 2.4
    rows = [
        [edge, 0, 0],
        [edge / 3 if triclinic else 0, edge, 0],
        [edge / 4 if triclinic else 0, edge / 4 if triclinic else 0, edge],
    ]
    system.setDefaultPeriodicBoxVectors(*rows)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.9)
    for _ in range(64):
        system.addParticle(39.948)
        force.addParticle(0.0, 0.3405, 0.996)
    system.addForce(force)
    grid = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) / 4
    positions = grid @ np.array(rows)
    topology = {"particle.count": 64.0, "particle.elements": np.full(64, 18, np.uint32)}
    return OpenMMSource("argon", topology, system, integrator, positions, temperature_k=300.0)


@functools.cache
def built_peptide() -> tuple[str, Mapping[str, TopologyValue], NDArray[np.float64]]:
    """The demo with its constrained bonds, built once: adding hydrogens and relaxing them takes a second."""
    source = open_source(SourceSpec.parse("demo:peptide"))
    assert isinstance(source, OpenMMSource)
    return openmm.XmlSerializer.serialize(source._system), source.topology(), source.snapshot().positions.astype(float)


def constrained_peptide() -> Source:
    system, topology, positions = built_peptide()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    return OpenMMSource("peptide", topology, openmm.XmlSerializer.deserialize(system), integrator, positions)


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


def copper(folder: Path) -> str:
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    ase.io.write(folder / "cu.xyz", atoms)
    return f"{folder / 'cu.xyz'}?calculator=emt&timestep_fs=2&friction_per_ps=50"


def argon_cluster(folder: Path) -> str:
    positions = [[3.8 * i, 3.8 * j, 3.8 * k] for i in range(3) for j in range(3) for k in range(2)]
    ase.io.write(folder / "ar.xyz", ase.Atoms("Ar18", positions=positions))
    return f"{folder / 'ar.xyz'}?calculator=lj&temperature_k=30&timestep_fs=4&dynamics=nve"


def shared(name: str) -> str:
    if not (DATA / name).exists():
        pytest.skip(f"the sample input {name} is not beside this checkout")
    return str(DATA / name)


LIVE: dict[str, Callable[[Path], Source]] = {
    "nanotube-demo": lambda folder: open_source(SourceSpec.parse("demo:nanotube")),
    "peptide-demo": lambda folder: constrained_peptide(),
    "helix-xml": lambda folder: open_source(SourceSpec.parse(shared("17-ala.xml"))),
    "nanotube-xml": lambda folder: open_source(SourceSpec.parse(shared("nanotube.xml"))),
    "argon-triclinic": lambda folder: argon_box(openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002), triclinic=True),
    "argon-mts": lambda folder: argon_box(innermost()),
    "argon-compound": lambda folder: argon_box(compound()),
    "argon-nose-hoover": lambda folder: argon_box(openmm.NoseHooverIntegrator(300.0, 1.0, 0.002)),
    "argon-custom": lambda folder: argon_box(custom_verlet()),
    "emt": lambda folder: open_source(SourceSpec.parse(copper(folder))),
    "lj-nve": lambda folder: open_source(SourceSpec.parse(argon_cluster(folder))),
}


@pytest.fixture(params=LIVE)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Source]:
    return lambda: LIVE[request.param](tmp_path)


@pytest.fixture
def source(make: Callable[[], Source]) -> Iterator[Source]:
    source = make()
    yield source
    source.close()
    source.close()


def pull(
    source: Source, particles: list[int], by: tuple[float, float, float] = (0.5, 0, 0), **fields: Any
) -> Interaction:
    here = source.snapshot().positions[particles[0]].astype(float) + by
    given = {"kind": "spring", "scale": 200.0, "mass_weighted": True, **fields}
    return Interaction.parse(given.pop("id", "one"), particles=particles, position=here.tolist(), **given)


def test_topology_fits_the_positions(source: Source) -> None:
    topology = source.topology()
    count = source.info.particle_count
    assert topology["particle.count"] == count
    assert len(topology["particle.elements"]) == count  # type: ignore[arg-type]
    assert source.snapshot().positions.shape == (count, 3)
    bonds = topology.get("bond.pairs")
    assert bonds is None or not len(bonds) or bonds.max() < count  # type: ignore[union-attr, arg-type]


def test_starts_at_nought_and_time_grows_in_ps(source: Source) -> None:
    first = source.snapshot(velocities=True)
    assert (first.time_ps, first.step, first.user_work, first.user_energy) == (0, 0, 0, 0)
    assert first.positions.dtype == np.float32 and first.velocities is not None
    assert source.advance(10)
    later = source.snapshot()
    assert later.step == 10 and later.velocities is None
    assert later.time_ps is not None and 0.005 < later.time_ps < 0.1
    assert not np.array_equal(first.positions, later.positions)


def test_reports_energies_and_a_temperature_of_the_right_size(source: Source) -> None:
    # One snapshot of a small system fluctuates; a wrong unit is out by far more than that.
    source.advance(50)
    temperatures = []
    for _ in range(5):
        source.advance(20)
        snapshot = source.snapshot()
        assert snapshot.potential_energy is not None and snapshot.kinetic_energy is not None
        assert math.isfinite(snapshot.potential_energy) and snapshot.kinetic_energy > 0
        temperatures.append(snapshot.temperature or 0)
    if source.info.name == "nanotube" and source.info.particle_count == 65:
        return  # this input starts from a strained structure, without a thermostat
    target = 30 if source.info.name == "ar" else 300
    assert 0.3 * target < np.mean(temperatures) < 2 * target


def test_a_spring_pulls_the_atom_to_the_handle(source: Source) -> None:
    given = pull(source, [0], (0.25, 0.1, 0), scale=2000.0)
    distance = np.linalg.norm(source.snapshot().positions[0] - given.position)
    source.set_interactions([given])
    held = source.snapshot()
    assert held.user_index.tolist() == [0]
    assert held.user_energy > 0
    assert held.user_forces[0] @ (given.position - held.positions[0]) > 0
    nearest = distance
    for _ in range(40):
        source.advance(5)
        nearest = min(nearest, np.linalg.norm(source.snapshot().positions[0] - given.position))
    assert nearest < 0.5 * distance
    assert source.snapshot().user_work > 0


def test_the_reported_potential_energy_excludes_the_bias(source: Source) -> None:
    free = source.snapshot().potential_energy
    assert free is not None
    source.set_interactions([pull(source, [0, 1, 2])])
    held = source.snapshot()
    assert held.potential_energy == pytest.approx(free, rel=1e-4, abs=0.05)
    assert held.user_energy > 1


def test_release_leaves_no_force_and_keeps_the_work(source: Source) -> None:
    source.set_interactions([pull(source, [1, 3])])
    source.advance(10)
    work = source.snapshot().user_work
    source.set_interactions([])
    for _ in range(2):
        snapshot = source.snapshot()
        assert snapshot.user_index.size == 0 and snapshot.user_forces.shape == (0, 3)
        assert snapshot.user_energy == 0
        assert snapshot.user_work == pytest.approx(work, abs=1e-6)
        source.advance(5)


def test_a_moved_handle_acts_at_once(source: Source) -> None:
    given = pull(source, [2], (0.25, 0, 0))
    source.set_interactions([given])
    source.advance(5)
    before = source.snapshot()
    source.set_interactions([given.moved((before.positions[2] - [0.25, 0, 0]).tolist())])
    after = source.snapshot()
    assert after.user_work == pytest.approx(before.user_work, abs=1e-6)
    assert after.user_forces[0, 0] < 0 < before.user_forces[0, 0]
    source.advance(5)


def test_users_come_and_go_independently(source: Source) -> None:
    one, other = pull(source, [0], id="one"), pull(source, [4, 2], id="other")
    for held, expected in (
        ([one], [0]),
        ([one, other], [0, 2, 4]),
        ([other], [2, 4]),
        ([one, other], [0, 2, 4]),
        ([], []),
    ):
        source.set_interactions(held)
        assert source.snapshot().user_index.tolist() == expected
        source.advance(3)
        assert source.snapshot().user_index.tolist() == expected


def test_interactions_beyond_the_system_are_left_out(source: Source) -> None:
    beyond = Interaction.parse("far", particles=[0, source.info.particle_count])
    source.set_interactions([beyond, pull(source, [1])])
    source.advance(2)
    assert source.snapshot().user_index.tolist() == [1]
    source.set_interactions([beyond])
    source.advance(2)
    assert source.snapshot().user_index.size == 0


def test_reset_goes_back_and_clears_the_users_forces_and_work(source: Source) -> None:
    first = source.snapshot(velocities=True)
    source.set_interactions([pull(source, [0])])
    source.advance(20)
    source.reset()
    again = source.snapshot(velocities=True)
    np.testing.assert_allclose(again.positions, first.positions, atol=1e-6)
    np.testing.assert_allclose(again.velocities, first.velocities, atol=1e-5)
    assert (again.step, again.time_ps, again.user_work, again.user_index.size) == (0, 0, 0, 0)
    source.advance(5)
    assert source.snapshot().user_index.size == 0


def test_a_checkpoint_is_taken_up_by_a_new_source(source: Source, make: Callable[[], Source]) -> None:
    source.set_interactions([pull(source, [0])])
    source.advance(20)
    checkpoint = source.checkpoint()
    there = source.snapshot(velocities=True)
    other = make()
    try:
        other.restore(checkpoint)
        here = other.snapshot(velocities=True)
        np.testing.assert_allclose(here.positions, there.positions, atol=1e-6)
        np.testing.assert_allclose(here.velocities, there.velocities, atol=1e-5)
        assert (here.step, here.time_ps) == (there.step, pytest.approx(there.time_ps))
        assert here.user_work == pytest.approx(there.user_work, abs=1e-6)
        assert here.user_index.size == 0
        other.advance(5)
        assert other.snapshot().step == 25
    finally:
        other.close()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"PK\x03\x04 not a zip"])
def test_a_broken_checkpoint_is_refused(source: Source, garbage: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="checkpoint"):
        source.restore(garbage)
    source.advance(1)


def test_a_checkpoint_of_another_system_is_refused(source: Source, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "two.xyz", ase.build.molecule("N2"))
    other = open_source(SourceSpec.parse(f"{tmp_path / 'two.xyz'}?calculator=emt"))
    with pytest.raises(InvalidArgumentError, match="checkpoint"):
        source.restore(other.checkpoint())


def test_velocities_are_redrawn_on_release(source: Source) -> None:
    source.advance(20)  # an input at rest has no temperature to draw from
    given = pull(source, [0, 1, 2], reset_velocities=True, scale=0.0)
    source.set_interactions([given])
    held = source.snapshot(velocities=True).velocities
    source.set_interactions([])
    free = source.snapshot(velocities=True).velocities
    assert source.info.velocity_reset_available
    assert held is not None and free is not None
    changed = np.abs(held - free).max(axis=1) > 0.01  # constraints are kept to within their tolerance
    assert changed[:3].all() and not changed[len(changed) // 2 :].any()
    source.advance(5)


def test_live_sources_cannot_seek(source: Source) -> None:
    with pytest.raises(FailedPreconditionError):
        source.seek(0)


@pytest.fixture(params=["ase", "mdanalysis", "mdanalysis-two-files"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    import MDAnalysis

    atoms = ase.build.molecule("CH3CH2OH", vacuum=4)
    images = []
    for k in range(4):
        image = atoms.copy()  # type: ignore[no-untyped-call]
        image.positions += 0.1 * k
        image.set_pbc(True)
        images.append(image)
    ase.io.write(tmp_path / "run.traj", images)
    if request.param == "ase":
        text = str(tmp_path / "run.traj")
    else:
        ase.io.write(tmp_path / "run.pdb", images)
        text = str(tmp_path / "run.pdb")
    if request.param == "mdanalysis-two-files":
        universe = MDAnalysis.Universe.empty(len(atoms), trajectory=True)
        with MDAnalysis.Writer(str(tmp_path / "run.dcd"), n_atoms=len(atoms), dt=2.0) as writer:
            for image in images:
                universe.atoms.positions = image.positions
                universe.dimensions = image.cell.cellpar()
                writer.write(universe.atoms)
        text = f"{tmp_path / 'run.dcd'}?topology={tmp_path / 'run.pdb'}"
    source = open_source(SourceSpec.parse(text))
    yield source
    source.close()


@pytest.mark.filterwarnings("ignore:::MDAnalysis")
class TestRecordings:
    def test_have_frames_and_no_forces(self, recording: Source) -> None:
        assert not recording.info.live and recording.info.frame_count == 4
        recording.set_interactions([Interaction.parse("x", particles=[0])])
        assert recording.snapshot().user_index.size == 0

    def test_play_to_the_last_frame(self, recording: Source) -> None:
        heights = [float(recording.snapshot().positions[0, 2])]
        while recording.advance(5):
            heights.append(float(recording.snapshot().positions[0, 2]))
        assert len(heights) == 4
        np.testing.assert_allclose(np.diff(heights), 0.01, atol=2e-4)
        assert recording.snapshot().step == 3

    def test_seek_and_reset(self, recording: Source) -> None:
        recording.seek(2)
        assert recording.snapshot().step == 2
        recording.reset()
        assert recording.snapshot().step == 0
        for index in (-1, 4):
            with pytest.raises(NoLongerKeptError, match=str(index)):
                recording.seek(index)

    def test_carry_topology_box_and_checkpoint(self, recording: Source) -> None:
        topology = recording.topology()
        elements = topology["particle.elements"]
        assert sorted(np.asarray(elements).tolist()) == [1, 1, 1, 1, 1, 1, 6, 6, 8]
        assert len(topology["bond.pairs"]) == 8  # type: ignore[arg-type]
        box = recording.snapshot().box
        assert box is not None and 0.5 < box[0, 0] < 2
        recording.advance(1)
        checkpoint = recording.checkpoint()
        recording.reset()
        recording.restore(checkpoint)
        assert recording.snapshot().step == 1
        with pytest.raises(InvalidArgumentError):
            recording.restore(b"frame 99")
