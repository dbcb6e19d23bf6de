"""The bias that OpenMM itself evaluates is the one that is reported, in every box, and gets there without rebuilds."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_trajectory.sources import openmm_bias
from narupa_trajectory.sources.openmm_bias import OpenMMBias
from narupa_trajectory.sources.openmm_source import OpenMMSource
from narupa_trajectory.sources.openmm_system import vectors_of

BOXES = {
    "none": None,
    "cube": np.diag([2.0, 2.0, 2.0]),
    "bar": np.diag([1.6, 2.0, 3.1]),
    "skewed": np.array([[2.0, 0, 0], [0.9, 1.9, 0], [-0.8, 0.6, 1.8]]),
}
COUNT = 12
RNG = np.random.default_rng(5)
PLACES = RNG.uniform(-2, 4, size=(COUNT, 3))
MASSES = RNG.uniform(1, 50, size=COUNT)


def beads(box: str = "none", *forces: openmm.Force, **options: Any) -> OpenMMSource:
    """Particles that feel nothing but the users, some of them far outside the box."""
    system = openmm.System()
    for mass in MASSES:
        system.addParticle(mass)
    held = openmm.CustomExternalForce("0")
    vectors = BOXES[box]
    if vectors is not None:
        system.setDefaultPeriodicBoxVectors(*vectors)
        held = openmm.CustomExternalForce("0*periodicdistance(x,y,z,0,0,0)")
    system.addForce(held)
    for force in forces:
        system.addForce(force)
    integrator = options.pop("integrator", None) or openmm.VerletIntegrator(0.001)
    options = {"max_temperature_k": math.inf, **options}  # nothing but the users' forces holds the particles together
    return OpenMMSource("beads", {}, system, integrator, options.pop("positions", PLACES), **options)


def pull(
    id: str, *particles: int, at: Sequence[float] = (0.2, 0.3, 0.1), kind: str = "spring", **given: Any
) -> Interaction:
    return Interaction.parse(id, particles=list(particles), position=list(at), kind=kind, **given)


def engines(source: OpenMMSource) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The energy and forces of the engine's own bias, and where the particles are."""
    group = 1 << bias_of(source)._group
    state = source._context.getState(getPositions=True, getForces=True, getEnergy=True, groups=group)
    return (
        float(state.getPotentialEnergy()._value),
        vectors_of(state, openmm.State.Forces),
        vectors_of(state, openmm.State.Positions),
    )


def bias_of(source: OpenMMSource) -> OpenMMBias:
    return source._bias


def agree(source: OpenMMSource, items: Sequence[Interaction], box: str) -> None:
    """The engine's bias is what `Bias` says of the same interactions at the same place."""
    energy, forces, positions = engines(source)
    bias = Bias(MASSES)
    vectors = BOXES[box]
    bias.set(items, positions, vectors, 0.0)
    expected, some = bias.evaluate(positions[bias.particles], vectors, 0.0)
    np.testing.assert_allclose(forces[bias.particles], some, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(some).max()))
    assert np.delete(forces, bias.particles, axis=0).any() == np.False_
    assert energy == pytest.approx(expected, rel=1e-9, abs=1e-9)
    snapshot = source.snapshot()
    assert snapshot.user_energy == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert snapshot.potential_energy == pytest.approx(0, abs=1e-6 * max(1.0, abs(expected)))
    assert snapshot.user_index.tolist() == bias.particles.tolist()
    np.testing.assert_allclose(snapshot.user_forces, some, rtol=1e-5, atol=1e-5)


RADIAL: list[dict[str, Any]] = [
    {"kind": kind, "scale": scale, "mass_weighted": weighted, "max_force": cap, "parameters": parameters}
    for kind, shapes in (
        ("spring", [{}, {"stiffness": 730.0}]),
        ("gaussian", [{}, {"width": 0.3}]),
        ("constant", [{}]),
    )
    for parameters in shapes
    for scale, weighted, cap in (
        (1.0, True, 20000.0),
        (300.0, False, math.inf),
        (-40.0, True, 6.0),
        (120.0, False, 15.0),
        (5.0, True, 0.0),
    )
]


@pytest.mark.parametrize("box", BOXES)
def test_the_engines_force_is_the_reported_one_for_every_law_cap_and_group(box: str) -> None:
    source = beads(box)
    for given in RADIAL:
        for members in ((3,), (7, 2), (0, 1, 4, 9)):
            item = pull("one", *members, **given)
            source.set_interactions([item])
            agree(source, [item], box)
    assert not bias_of(source)._stepped.interactions or box == "skewed"


@pytest.mark.parametrize("box", BOXES)
def test_many_at_once_on_overlapping_groups(box: str) -> None:
    source = beads(box)
    items = [
        pull(f"p{n}", n % COUNT, (n + 5) % COUNT, at=RNG.uniform(0, 2, 3).tolist(), **given)
        for n, given in enumerate(RADIAL)
    ]
    source.set_interactions(items)
    agree(source, items, box)
    source.advance(5)
    agree(source, items, box)


OTHERS: list[tuple[str, dict[str, Any]]] = [
    (
        "force",
        {"particles": [9, 0, 4], "parameters": {"force": [3.0, 0, 1.0], "forces": [[0, 9, 0], [0, 0, 0], [1, 2, 3]]}},
    ),
    ("steered", {"particles": [1, 2], "parameters": {"velocity": [1.0, 0.5, 0.0]}}),
    ("wall", {"particles": [3, 4], "parameters": {"stiffness": 50.0, "normal": [0, 0, 1]}}),
    ("rotation", {"particles": [5, 6, 7], "parameters": {"stiffness": 9.0, "rotation": [0, 0, 0.6, 0.8]}}),
    ("distance", {"groups": [[0, 1], [2]], "parameters": {"stiffness": 90.0, "target": 0.4}}),
    ("angle", {"groups": [[0], [2], [8]], "parameters": {"stiffness": 90.0, "target": 1.0}}),
    ("dihedral", {"groups": [[0], [2], [8], [9]], "parameters": {"stiffness": 90.0, "target": 1.0}}),
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("kind", "given"), OTHERS, ids=[kind for kind, _ in OTHERS])
def test_other_kinds_act_beside_native_ones(box: str, kind: str, given: dict[str, Any]) -> None:
    source = beads(box)
    given = {"particles": (), **given}
    items = [
        pull("near", 10, 11),
        Interaction.parse("other", position=(0.1, 0.2, 0.3), kind=kind, **given),
        pull("beside", 1, 3, kind="gaussian", scale=30.0),
    ]
    source.set_interactions(items)
    agree(source, items, box)
    assert [item.id for item in bias_of(source)._stepped.interactions][:1] == ["other" if box != "skewed" else "near"]
    snapshot = source.snapshot()
    assert snapshot.interaction_ids == ("near", "other", "beside")
    assert snapshot.interaction_energies.sum() == pytest.approx(snapshot.user_energy)
    source.advance(3)
    source.set_interactions(items[:1])
    agree(source, items[:1], box)


def test_a_group_across_a_face_is_made_whole_by_its_handle() -> None:
    places = PLACES.copy()
    places[1], places[2] = [0.05, 1.0, 1.0], [1.95, 1.0, 1.0]  # 0.1 nm apart, through the face
    source = beads("cube", positions=places)
    item = pull("one", 1, 2, at=(0.4, 1.0, 1.0), scale=10.0, mass_weighted=False)
    source.set_interactions([item])
    assert not bias_of(source)._stepped.interactions
    agree(source, [item], "cube")
    assert source.snapshot().user_forces[0, 0] == pytest.approx(4.0, rel=1e-5)  # scale U' / N = 10 * 0.8 / 2
    moved = item.moved((1.9, 1.1, 0.9))
    source.set_interactions([moved])
    source.advance(50)
    agree(source, [moved], "cube")


def test_where_the_platform_wraps_molecules_only_groups_within_one_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmm_bias, "PLATFORMS_THAT_DO_NOT_WRAP", ())
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(2, 3, 0.1, 0.0)
    source = beads("cube", bonds)
    items = [pull("one", 1), pull("molecule", 2, 3), pull("two", 4, 5)]
    source.set_interactions(items)
    assert [item.id for item in bias_of(source)._native.interactions] == ["one", "molecule"]
    agree(source, items, "cube")
    free = beads("none")
    free.set_interactions(items)
    assert not bias_of(free)._stepped.interactions


def test_moving_a_handle_and_changing_its_strength_rebuild_nothing() -> None:
    source = beads("cube")
    items = [pull("a", 1), pull("b", 2, 3, kind="gaussian"), pull("c", 4)]
    source.set_interactions(items)
    built = bias_of(source).rebuilds
    for step in range(5):
        items = [item.moved((0.1 * step, 0.2, 0.3)) for item in items]
        source.set_interactions(items)
        agree(source, items, "cube")
        source.advance(2)
    items[2] = pull("c", 4, kind="constant", scale=7.0, max_force=3.0)
    source.set_interactions(items)
    agree(source, items, "cube")
    assert bias_of(source).rebuilds == built


def test_letting_go_and_grabbing_again_rebuild_nothing_for_the_latest_groups() -> None:
    source = beads("cube")
    a, b = pull("a", 1), pull("b", 2, 3)
    source.set_interactions([a])
    source.set_interactions([b])
    built = bias_of(source).rebuilds
    for wanted in ([a, b], [], [b], [a], [], [pull("new", 1)]):
        source.set_interactions(wanted)
        source.advance(1)
        if wanted:
            agree(source, wanted, "cube")
        else:
            assert source.snapshot().user_index.size == 0
    assert bias_of(source).rebuilds == built
    source.set_interactions([a, pull("twice", 1)])  # two users on one particle need a second bond
    assert bias_of(source).rebuilds == built + 1
    agree(source, [a, pull("twice", 1)], "cube")


def test_spare_groups_do_not_pile_up() -> None:
    source = beads("none")
    for first in range(COUNT):
        for second in range(first):
            source.set_interactions([pull("x", second, first)])
    assert len(bias_of(source)._pulls._keys) <= 17


def test_what_fails_inside_the_bias_is_raised_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    source = beads("skewed")
    source.set_interactions([pull("a", 1)])

    def broken(*_: object) -> None:
        raise ZeroDivisionError("within the bias")

    monkeypatch.setattr(bias_of(source)._stepped, "step", broken)
    with pytest.raises(ZeroDivisionError, match="within the bias"):
        source.advance(1)


def test_python_is_called_at_each_step_for_what_is_not_native_and_else_never(monkeypatch: pytest.MonkeyPatch) -> None:
    source = beads("cube")
    steered = pull("a", 1, kind="steered", parameters={"velocity": [1.0, 0.0, 0.0]})
    calls: list[int] = []
    step = Bias.step

    def counted(*given: Any) -> Any:
        calls.append(1)
        return step(*given)

    source.set_interactions([pull("b", 2), steered])
    monkeypatch.setattr(Bias, "step", counted)
    source.advance(10)
    assert len(calls) == 10
    for wanted in ([pull("b", 2)], []):
        source.set_interactions(wanted)
        calls.clear()
        source.advance(10)
        assert not calls


def test_a_closed_source_keeps_no_context_alive() -> None:
    source = beads("skewed")
    source.set_interactions([pull("a", 1)])
    source.advance(1)
    context = weakref.ref(source._context)
    source.close()
    source.close()
    gc.collect()
    assert context() is None


def test_nobody_pulling_is_no_force_in_the_integration() -> None:
    integrator = openmm.VerletIntegrator(0.001)
    source = beads("cube", integrator=integrator)
    groups = integrator.getIntegrationForceGroups()
    source.set_interactions([pull("a", 1)])
    assert integrator.getIntegrationForceGroups() == groups
    source.set_interactions([])
    assert integrator.getIntegrationForceGroups() & 0xFFFFFFFF == groups & 0xFFFFFFFF & ~(1 << bias_of(source)._group)


def test_a_pull_at_its_handle_is_no_force() -> None:
    source = beads("cube")
    for kind in ("spring", "gaussian", "constant"):
        source.set_interactions([pull("a", 1, at=PLACES[1].tolist(), kind=kind)])
        _, forces, _ = engines(source)
        np.testing.assert_array_equal(forces, 0)


def diatomic(barostat: openmm.Force) -> OpenMMSource:
    """A gas of diatomic molecules in a box that changes; the second molecule lies across a face."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*np.diag([2.0, 2.0, 2.0]))
    bonds = openmm.HarmonicBondForce()
    bonds.setUsesPeriodicBoundaryConditions(True)
    places = []
    for n in range(8):
        centre = np.array([n & 1, n >> 1 & 1, n >> 2 & 1]) + 0.25
        for side in (-0.05, 0.05):
            system.addParticle(20.0)
            places.append(centre + np.array([side, 0, 0]))
        bonds.addBond(2 * n, 2 * n + 1, 0.1, 1000)
    places[2:4] = [[1.97, 0.3, 0.3], [0.07, 0.3, 0.3]]
    system.addForce(bonds)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    return OpenMMSource("gas", {}, system, integrator, np.array(places))


@pytest.mark.parametrize(
    ("barostat", "native"),
    [
        (openmm.MonteCarloBarostat(50.0, 300.0, 2), {"single", "molecule"}),
        (
            openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(50.0, 50.0, 50.0), 300.0, True, True, True, 2),
            {"single", "molecule"},
        ),
        (openmm.MonteCarloFlexibleBarostat(50.0, 300.0, 2), set()),
    ],
    ids=["isotropic", "anisotropic", "flexible"],
)
def test_boxes_that_change(barostat: openmm.Force, native: set[str]) -> None:
    source = diatomic(openmm.XmlSerializer.clone(barostat))
    items = [
        pull("single", 0, scale=100.0, mass_weighted=False),
        pull("molecule", 4, 5, scale=100.0, mass_weighted=False),
        pull("across", 2, 3, scale=100.0, mass_weighted=False),
        pull("several", 8, 12, scale=100.0, mass_weighted=False),
    ]
    source.set_interactions(items)
    assert {item.id for item in bias_of(source)._native.interactions} == native
    first = source.snapshot().box
    assert first is not None
    masses = np.full(16, 20.0)
    for _ in range(20):
        source.advance(10)
        energy, forces, positions = engines(source)
        box = source._state.box()
        bias = Bias(masses)
        bias.set(items, positions, box, 0.0)
        expected, some = bias.evaluate(positions[bias.particles], box, 0.0)
        assert energy == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(forces[bias.particles], some, rtol=1e-6, atol=1e-6)
        shown = source.snapshot().box
        assert box is not None and shown is not None
        np.testing.assert_allclose(shown, box, rtol=1e-6)
    assert shown is not None and not np.array_equal(shown, first)


def test_the_systems_energy_grows_by_the_work_of_native_and_other_pulls_together() -> None:
    """Bonded beads at constant energy, with handles on the move, across the faces of the box."""
    bonds = openmm.HarmonicBondForce()
    bonds.setUsesPeriodicBoundaryConditions(True)
    for i in range(COUNT):
        bonds.addBond(i, (i + 1) % COUNT, 0.3, 2000)
    integrator = openmm.CustomIntegrator(0.0005)  # velocity Verlet: kinetic and potential energy of the same instant
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    angles = np.arange(COUNT) * 2 * np.pi / COUNT
    ring = np.column_stack([0.58 * np.cos(angles), 0.58 * np.sin(angles), 0 * angles])
    source = beads("bar", bonds, integrator=integrator, positions=ring)
    first = source.snapshot()
    start = (first.potential_energy or 0) + (first.kinetic_energy or 0)
    for turn in range(40):
        x = 0.6 + 0.01 * turn
        items = [
            pull("near", 0, at=(x, 0.1, 0.2), scale=60.0),
            pull("group", 4, 5, 6, at=(-x, 0.1, 0.1), kind="gaussian", scale=90.0, max_force=40.0),
            pull("steered", 9, at=(0.0, -0.6, 0.0), kind="steered", parameters={"velocity": [0.0, 0.0, 2.0]}),
        ]
        source.set_interactions(items if turn % 8 < 6 else items[:1])
        source.advance(20)
    last = source.snapshot()
    grown = (last.potential_energy or 0) + (last.kinetic_energy or 0) - start
    assert last.user_work > 5
    assert grown == pytest.approx(last.user_work, rel=1e-3)
    finished = source.take_finished()
    assert [item.id for item in finished] == ["group", "steered"] * 5
    total = sum(item.work for item in finished) + float(last.interaction_work.sum())
    assert total == pytest.approx(last.user_work, rel=1e-9)
