"""What is ASE's own: the instant of each evaluation, constraints, the barostat, and runs that repeat every bit."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import ase
import ase.build
import ase.units
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLengths, FixCom, Hookean
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.units import EV_IN_KJ_MOL
from narupa_trajectory.sources.ase_dynamics import AtConstantPressure
from narupa_trajectory.sources.ase_source import AseSource
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import SourceDivergedError


class Nothing(Calculator):
    """No forces at all, and no stress that it would tell."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "forces"]

    def calculate(
        self, atoms: ase.Atoms | None = None, properties: Sequence[str] = (), changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3)), "stress": np.zeros(6)}


class NothingAtAll(Nothing):
    """No stress either, and it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.implemented_properties.append("stress")


def free(count: int = 1, **options: Any) -> AseSource:
    """Argon that feels nothing, at rest."""
    atoms = ase.Atoms(f"Ar{count}", positions=[[4.0 * i, 0, 0] for i in range(count)])
    atoms.set_momenta(np.zeros((count, 3)))
    return AseSource("free", atoms, Nothing(), **{"dynamics": "nve", **options})


def argon(count: int = 8, **options: Any) -> AseSource:
    grid = [[3.8 * i, 3.8 * j, 3.8 * k] for i in range(2) for j in range(2) for k in range(count // 4)]
    atoms = ase.Atoms(f"Ar{count}", positions=grid)
    calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=12.0)
    return AseSource("argon", atoms, calculator, **{"temperature_k": 20.0, "timestep_fs": 2.0, **options})


def copper(**options: Any) -> AseSource:
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.02, seed=1)
    return AseSource("cu", atoms, EMT(), **{"timestep_fs": 2.0, **options})


def interaction(kind: str = "spring", id: str = "one", **fields: Any) -> Interaction:
    given: dict[str, Any] = {"particles": [0], "position": (0.3, 0.1, 0.2), "mass_weighted": False, **fields}
    return Interaction.parse(id, kind=kind, **given)


def energy_of(source: AseSource) -> float:
    snapshot = source.snapshot()
    assert snapshot.potential_energy is not None and snapshot.kinetic_energy is not None
    return snapshot.potential_energy + snapshot.kinetic_energy


STEERED = {"stiffness": 1000.0, "velocity": [2.0, 0.0, 0.0]}


@pytest.mark.parametrize("npt", [False, True], ids=["nve", "npt"])
def test_a_timed_force_is_that_of_the_instant_of_the_positions(npt: bool) -> None:
    """A particle at rest under a spring that begins to move: a velocity Verlet integration done here by hand."""
    if npt:  # so slow a piston and thermostat, and so cold, that they do nothing
        atoms = ase.Atoms("Ar", positions=[[0.0, 0, 0]], cell=np.eye(3) * 1e3, pbc=True)
        atoms.set_momenta(np.zeros((1, 3)))
        still: dict[str, Any] = {"friction_per_ps": 1e-7, "temperature_k": 1e-9}
        source = AseSource("free", atoms, NothingAtAll(), dynamics="npt", timestep_fs=2.0, **still)
    else:
        source = free(timestep_fs=2.0)
    source.set_interactions([interaction("steered", position=(0, 0, 0), parameters=STEERED)])
    mass, dt, x, v = 39.948, 0.002, 0.0, 0.0
    for step in range(50):
        v += dt / 2 * 1000.0 * (2.0 * step * dt - x) / mass
        x += dt * v
        v += dt / 2 * 1000.0 * (2.0 * (step + 1) * dt - x) / mass
        source.advance(1)
        assert source._atoms.positions[0, 0] / 10 == pytest.approx(x, rel=1e-5 if npt else 1e-7, abs=1e-12)
    snapshot = source.snapshot(velocities=True)
    assert snapshot.velocities is not None
    assert snapshot.velocities[0, 0] == pytest.approx(v, rel=1e-5)
    assert snapshot.user_work == pytest.approx(mass * v * v / 2, rel=1e-3)


def test_the_work_of_a_timed_force_is_the_energy_that_it_puts_in() -> None:
    source = argon(dynamics="nve", timestep_fs=1.0)
    start = energy_of(source)
    source.set_interactions([interaction("steered", position=(0, 0, 0), parameters=STEERED)])
    for _ in range(5):
        source.advance(40)
        assert energy_of(source) - start == pytest.approx(source.snapshot().user_work, abs=0.05)
    assert source.snapshot().user_work > 5


class TestConstraints:
    def test_fixed_bonds_keep_their_lengths_and_the_work_is_that_of_the_actual_path(self) -> None:
        atoms = ase.Atoms("Ar4", positions=[[0, 0, 0], [3.6, 0, 0], [0, 3.9, 0], [3.6, 3.9, 0]])
        atoms.set_constraint(FixBondLengths([[0, 1], [2, 3]]))
        calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=12.0)
        source = AseSource("dimers", atoms, calculator, dynamics="nve", temperature_k=20.0, timestep_fs=1.0)
        start = energy_of(source)
        source.set_interactions([interaction(scale=400.0, position=(-0.2, 0.2, 0.3))])
        for _ in range(5):
            source.advance(40)
            lengths = [atoms.get_distance(0, 1), atoms.get_distance(2, 3)]
            np.testing.assert_allclose(lengths, 3.6, atol=1e-9)
            assert energy_of(source) - start == pytest.approx(source.snapshot().user_work, abs=0.05)
        assert source.snapshot().user_work > 2

    def test_lengths_are_kept_after_a_restart(self) -> None:
        """What a constraint keeps is of the input, and not of where it was restarted."""
        lengths = []
        for restarted in (False, True):
            atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [3.6, 0, 0]])
            atoms.set_constraint(FixBondLengths([[0, 1]]))
            source = AseSource("dimer", atoms, Nothing(), dynamics="nve", temperature_k=20.0)
            if restarted:
                source.restore(
                    Checkpoint(np.array([[0, 0, 0], [0.3601, 0, 0]]), np.zeros((2, 3)), 0.0, 0, 0.0).to_bytes()
                )
            source.advance(2)
            lengths.append(atoms.get_distance(0, 1))
        np.testing.assert_allclose(lengths, 3.6, atol=1e-9)

    def test_what_is_fixed_does_no_work_and_gets_no_velocity(self) -> None:
        atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])
        atoms.set_constraint(FixAtoms([0]))
        source = AseSource("pair", atoms, Nothing(), temperature_k=20.0)
        source.set_interactions([interaction(scale=400.0, reset_velocities=True)])
        source.advance(10)
        snapshot = source.snapshot()
        assert snapshot.user_work == 0 and snapshot.user_energy > 1
        source.set_interactions([])
        velocities = source.snapshot(velocities=True).velocities
        assert velocities is not None and not velocities[0].any()

    def test_a_fixed_centre_of_mass_stays(self) -> None:
        atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])
        atoms.set_constraint(FixCom())
        source = AseSource("pair", atoms, Nothing(), dynamics="nve", temperature_k=20.0)
        before = atoms.get_center_of_mass()
        source.set_interactions([interaction(scale=400.0)])
        source.advance(100)
        np.testing.assert_allclose(atoms.get_center_of_mass(), before, atol=1e-9)
        assert source.snapshot().user_work > 0

    def test_a_restraint_of_the_input_belongs_to_the_systems_energy(self) -> None:
        atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])
        atoms.set_constraint(Hookean(0, 1, 2.0, rt=3.0))
        atoms.set_momenta(np.zeros((2, 3)))
        source = AseSource("pair", atoms, Nothing(), dynamics="nve")
        assert source.snapshot().potential_energy == pytest.approx(0.5 * 2.0 * 0.8**2 * EV_IN_KJ_MOL)
        source.advance(20)
        assert energy_of(source) == pytest.approx(0.5 * 2.0 * 0.8**2 * EV_IN_KJ_MOL, rel=1e-3)


class TestConstantPressure:
    def test_conserves_enthalpy_where_its_thermostat_is_off(self) -> None:
        source = copper(dynamics="npt", pressure_bar=10_000.0, timestep_fs=1.0)
        assert isinstance(source._dynamics, AtConstantPressure)
        dynamics = source._dynamics.inner
        dynamics.set_temperature(None)
        values, volumes = [], []
        for _ in range(20):
            source.advance(5)
            volumes.append(source._atoms.get_volume())
            work = 10_000.0 * 1e5 * ase.units.Pascal * volumes[-1]
            piston = dynamics.p_eps**2 / (2 * dynamics.barostat_mass)
            values.append((source._atoms.get_total_energy() + work + piston) * EV_IN_KJ_MOL)
        kinetic = source.snapshot().kinetic_energy
        assert kinetic is not None and np.ptp(values) < 0.01 * kinetic
        assert np.ptp(volumes) > 0.001 * volumes[0]

    def test_keeps_pressure_and_the_temperature_of_the_inner_motion(self) -> None:
        source = copper(dynamics="npt", pressure_bar=20_000.0, timestep_fs=4.0, friction_per_ps=30.0)
        source.advance(100)
        atoms, temperatures, pressures = source._atoms, [], []
        for _ in range(400):
            source.advance(1)
            momenta = atoms.get_momenta()
            momenta -= momenta.mean(axis=0)  # all have the same mass
            kinetic = (momenta**2).sum() / (2 * atoms.get_masses()[0])
            temperatures.append(2 * kinetic / (3 * (len(atoms) - 1) * ase.units.kB))
            stress = atoms.get_stress(include_ideal_gas=True)[:3].mean()
            pressures.append(-stress / (1e5 * ase.units.Pascal))
        assert np.mean(temperatures) == pytest.approx(300.0, abs=45.0)
        assert np.mean(pressures) == pytest.approx(20_000.0, abs=4_000.0)

    def test_the_box_gives_way_to_the_pressure(self) -> None:
        boxes = []
        for bar in (0.0, 100_000.0):
            source = copper(dynamics="npt", pressure_bar=bar, friction_per_ps=40.0)
            source.advance(150)
            lengths = []
            for _ in range(10):  # it swings about where it is going
                source.advance(10)
                box = source.snapshot().box
                assert box is not None
                lengths.append(box[0, 0])
            boxes.append(np.mean(lengths))
        assert boxes[1] < 0.99 * boxes[0]

    def test_a_pull_adds_nothing_to_the_stress(self) -> None:
        source = copper(dynamics="npt")
        before = source._atoms.get_stress()
        source.set_interactions([interaction(scale=500.0)])
        np.testing.assert_array_equal(source._atoms.get_stress(), before)

    def test_redrawn_velocities_are_those_it_goes_on_with(self) -> None:
        source = copper(dynamics="npt", friction_per_ps=0.01)
        source.set_interactions([interaction(scale=0.0, reset_velocities=True)])
        source.set_interactions([])
        drawn = source._atoms.get_velocities()[0].copy()
        source.advance(1)
        np.testing.assert_allclose(source._atoms.get_velocities()[0], drawn, rtol=0.3, atol=4e-3)

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda: argon(dynamics="npt"), "periodic in all three"),
            (lambda: copper(pressure_bar=1.0), "only with dynamics=npt"),
            (lambda: copper(dynamics="npt", friction_per_ps=0.0), "above 0"),
            (lambda: stiff_copper(FixAtoms([0])), "constraints, and the atoms have FixAtoms"),
            (lambda: without_stress(), "needs the stress, which Nothing does not compute"),
        ],
    )
    def test_what_it_cannot_do_is_refused(self, make: Callable[[], AseSource], reason: str) -> None:
        with pytest.raises(InvalidArgumentError, match=reason):
            make()


def stiff_copper(constraint: Any) -> AseSource:
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.set_constraint(constraint)
    return AseSource("cu", atoms, EMT(), dynamics="npt")


def without_stress() -> AseSource:
    return AseSource("cu", ase.build.bulk("Cu", cubic=True), Nothing(), dynamics="npt")


MAKERS: dict[str, Callable[[], AseSource]] = {
    "nve": lambda: argon(dynamics="nve"),
    "langevin": lambda: argon(dynamics="langevin"),
    "npt": lambda: copper(dynamics="npt"),
    "emt": lambda: copper(),
}


def bits(source: AseSource) -> tuple[bytes, ...]:
    atoms = source._atoms
    arrays: list[NDArray[np.float64]] = [atoms.positions, atoms.get_momenta(), atoms.cell.array]
    return tuple(array.tobytes() for array in arrays)


class TestCheckpoints:
    @pytest.mark.parametrize("name", MAKERS)
    def test_a_fresh_source_repeats_every_bit(self, name: str) -> None:
        source, other = MAKERS[name](), MAKERS[name]()
        held = [
            interaction("steered", "s", particles=[1, 2], parameters=STEERED),
            interaction("rotation", "r", particles=[0, 3, 4], parameters={"stiffness": 50.0}),
        ]
        source.advance(3)
        source.set_interactions(held)
        source.advance(40)
        checkpoint = source.checkpoint()
        source.advance(60)
        other.advance(7)
        other.restore(checkpoint)
        other.set_interactions(held)
        other.advance(60)
        assert bits(other) == bits(source)
        assert other.snapshot().user_work == pytest.approx(source.snapshot().user_work, rel=1e-12, abs=1e-9)
        source.advance(20)
        other.advance(20)
        assert bits(other) == bits(source)

    @pytest.mark.parametrize("name", MAKERS)
    def test_keeping_a_checkpoint_changes_nothing_but_last_bits(self, name: str) -> None:
        source = MAKERS[name]()
        before = bits(source)
        source.checkpoint()
        assert bits(source) == before

    def test_one_of_another_engine_is_taken_up_as_far_as_it_goes(self) -> None:
        source = argon()
        source.advance(5)
        read = Checkpoint.from_bytes(source.checkpoint(), 8)
        for exact in (b"", b"of another engine", dataclasses.replace(read).exact.replace(b"langevin", b"quantum.")):
            other = argon()
            other.restore(dataclasses.replace(read, exact=exact).to_bytes())
            np.testing.assert_allclose(other._atoms.positions, source._atoms.positions, atol=1e-12)
            other.advance(2)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"random": {"bit_generator": "MT19937", "state": {}}},
            {"random": {}},
            {"random": 5},
            {"dynamics": {"piston": 0}},
            {"dynamics": {"piston": [1], "force": 0}},
            {"dynamics": {"piston": 1e999, "force": 0}},
            {"dynamics": []},
        ],
    )
    def test_a_forged_one_is_refused_and_changes_nothing(self, wrong: dict[str, Any]) -> None:
        source = copper(dynamics="npt")
        read = Checkpoint.from_bytes(source.checkpoint(), 32)
        with np.load(io.BytesIO(read.exact)) as archive:
            arrays = {name: archive[name] for name in archive.files}
        plain = {**json.loads(arrays.pop("plain").tobytes()), **wrong}
        buffer = io.BytesIO()
        np.savez(buffer, plain=np.frombuffer(json.dumps(plain).encode(), np.uint8), **arrays)
        source.advance(3)
        before, random = bits(source), source._rng.bit_generator.state
        with pytest.raises(InvalidArgumentError, match="checkpoint exact"):
            source.restore(dataclasses.replace(read, exact=buffer.getvalue()).to_bytes())
        assert (bits(source), source._rng.bit_generator.state) == (before, random)
        source.advance(1)

    def test_a_reset_does_not_repeat_the_same_chance(self) -> None:
        source = argon()
        source.advance(5)
        once = bits(source)
        source.reset()
        source.advance(5)
        assert bits(source) != once


def test_the_limit_of_the_temperature_is_an_option() -> None:
    argon(temperature_k=300.0).snapshot()
    with pytest.raises(SourceDivergedError, match="max_temperature_k"):
        argon(temperature_k=300.0, max_temperature_k=10.0).snapshot()


def test_a_constraint_that_cannot_be_met_is_a_blow_up() -> None:
    atoms = ase.Atoms("Ar3", positions=[[0, 0, 0], [3.6, 0, 0], [3.6, 3.6, 0]])
    atoms.set_constraint(FixBondLengths([[0, 1], [1, 2]]))
    source = AseSource("chain", atoms, Nothing(), dynamics="nve", temperature_k=20.0)
    pull = interaction(scale=1e9, position=(0.3, 5.0, 0.2), max_force=float("inf"))
    source.set_interactions([pull])
    with pytest.raises(SourceDivergedError):
        source.advance(50)
    assert list(source.suspects()) == ["one"]
    source.reset()
    source.advance(5)
    np.testing.assert_allclose(atoms.get_distance(0, 1), 3.6, atol=1e-9)
