"""Each potential against its published formula, written out here independently, and at points where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.radial import gaussian_crossings

MASSES = np.array([1.008, 12.011, 15.999, 35.45, 1.008, 22.99])
RNG = np.random.default_rng(5)


def bias_of(positions: Any, masses: Any = MASSES, box: Any = None, **fields: Any) -> Bias:
    """A bias of one interaction without a cap, as evaluated at `positions` at 0 ps."""
    bias = Bias(masses)
    pull = Interaction.parse("test", **{"max_force": math.inf, **fields})
    bias.set([pull], np.asarray(positions, dtype=np.float64), box, 0.0)
    return bias


def forces_of(bias: Bias, positions: Any, time_ps: float = 0.0, box: Any = None) -> NDArray[np.float64]:
    return bias.evaluate(np.asarray(positions, dtype=np.float64)[bias.particles], box, time_ps)[1]


@pytest.mark.parametrize("mass_weighted", [True, False])
@pytest.mark.parametrize("kind", ["gaussian", "spring", "constant"])
def test_uncapped_force_is_the_law_that_existing_clients_expect(kind: str, mass_weighted: bool) -> None:
    positions, handle, particles = RNG.normal(size=(6, 3)), RNG.normal(size=3), [1, 2, 3, 5]
    bias = bias_of(
        positions, kind=kind, position=handle.tolist(), particles=particles, scale=7.0, mass_weighted=mass_weighted
    )
    weights = MASSES[particles] if mass_weighted else np.ones(4)
    d = (weights[:, None] * positions[particles]).sum(axis=0) / weights.sum() - handle
    law = {"gaussian": -d * np.exp(-(d @ d) / 2), "spring": -2 * d, "constant": -d / np.linalg.norm(d)}[kind]
    np.testing.assert_allclose(forces_of(bias, positions), 7.0 * weights[:, None] * law / 4, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("gaussian", {}, -math.exp(-0.5)),
        ("gaussian", {"width": 0.5}, -math.exp(-2.0)),
        ("spring", {}, 1.0),
        ("spring", {"stiffness": 30.0}, 15.0),
        ("constant", {}, 1.0),
    ],
)
def test_uncapped_radial_energies(kind: str, parameters: Any, expected: float) -> None:
    positions = [[0.0, 0.0, 0.5], [0.0, 0.0, 1.5]]
    bias = bias_of(positions, [10.0, 10.0], kind=kind, particles=[0, 1], scale=3.0, parameters=parameters)
    assert bias.energies[0] == pytest.approx(3.0 * 20 / 2 * expected)


@pytest.mark.parametrize("limit", [1e-300, 1e-9, 0.01, 0.3, 0.6, math.exp(-0.5) * (1 - 1e-12)])
def test_the_capped_gaussian_is_continuous_and_vanishes_far_away(limit: float) -> None:
    [inner], [outer] = gaussian_crossings(np.array([limit]))
    assert 0 < inner <= 1 <= outer
    for radius in (inner, outer):
        assert radius * math.exp(-radius * radius / 2) == pytest.approx(limit, rel=1e-9)
    bias = bias_of(np.zeros((1, 3)), [1.0], kind="gaussian", particles=[0], max_force=limit)

    def at(r: float) -> tuple[float, float]:
        energy, forces = bias.evaluate(np.array([[r, 0.0, 0.0]]), None, 0.0)
        return energy, -forces[0, 0]

    for radius in (inner, outer):
        assert at(radius * (1 - 1e-12)) == pytest.approx(at(radius * (1 + 1e-12)), rel=1e-9, abs=1e-11)
        assert at(radius)[1] == pytest.approx(limit, rel=1e-6)
    assert abs(at(40.0)[0]) <= 1e-300
    heights, slopes = np.array([at(r) for r in np.linspace(1e-6, 8, 2000)]).T
    assert slopes.max() <= limit * (1 + 1e-9) and (np.diff(heights) >= 0).all()


@pytest.mark.parametrize("kind", ["gaussian", "spring", "constant"])
def test_no_force_exactly_at_the_handle(kind: str) -> None:
    bias = bias_of(np.full((6, 3), 2.0), kind=kind, position=(2, 2, 2), particles=[1], scale=1e9)
    assert not forces_of(bias, np.full((6, 3), 2.0)).any()


def test_massless_particles_take_no_share_and_a_group_of_them_feels_nothing() -> None:
    masses = [0.0, 0.0, 2.0, 1.0]
    positions = np.ones((4, 3))
    assert not forces_of(bias_of(positions, masses, kind="spring", particles=[0, 1]), positions).any()
    forces = forces_of(bias_of(positions, masses, kind="spring", particles=[0, 2]), positions)
    assert not forces[0].any() and forces[1].all()
    for kind, groups, target in (("distance", [[0, 1], [2]], 3.0), ("angle", [[2], [0], [3]], 1.0)):
        scattered = RNG.normal(size=(4, 3))
        bias = bias_of(scattered, masses, kind=kind, groups=groups, parameters={"target": target})
        assert not forces_of(bias, scattered).any()


def test_a_molecule_across_a_face_is_whole() -> None:
    box = np.diag([2.0, 2.5, 3.0])
    fields: dict[str, Any] = {"kind": "spring", "particles": [0, 1], "position": (0.0, 1.0, 1.0), "scale": 10}
    across = np.array([[-0.05, 1.0, 1.0], [0.05, 1.0, 1.0]])
    wrapped = across % np.diag(box)
    assert wrapped[0, 0] > 1.9
    inside, split = bias_of(across, [12.0, 16.0], **fields), bias_of(wrapped, [12.0, 16.0], box, **fields)
    assert split.energies == pytest.approx(inside.energies)
    np.testing.assert_allclose(forces_of(split, wrapped, box=box), forces_of(inside, across), atol=1e-9)


STEERED: dict[str, Any] = {"kind": "steered", "particles": [1, 2], "mass_weighted": False, "scale": 2.0}


class TestSteered:
    def test_pulls_along_its_direction_only_towards_where_its_end_is_by_now(self) -> None:
        positions = np.zeros((6, 3)) + np.array([0.3, 5.0, -7.0])
        parameters = {"velocity": [0.5, 0, 0], "stiffness": 100.0}
        bias = bias_of(positions, position=(0.1, 0, 0), parameters=parameters, **STEERED)
        x = 0.3 - 0.1 - 0.5 * 4.0
        energy, forces = bias.evaluate(positions[bias.particles], None, 4.0)
        assert energy == pytest.approx(2.0 * 100 / 2 * x**2)
        np.testing.assert_allclose(forces, np.full((2, 3), 1.0) * [-2.0 * 100 * x / 2, 0, 0], atol=1e-9)

    def test_waits_at_the_handle_until_its_start(self) -> None:
        positions = np.zeros((6, 3))
        bias = bias_of(positions, parameters={"velocity": [1, 0, 0], "start_ps": 10.0}, **STEERED)
        assert not forces_of(bias, positions, 9.0).any()
        assert forces_of(bias, positions, 11.0)[0, 0] == pytest.approx(2.0 * 1000.0 * 1.0 / 2)

    def test_may_have_started_before_it_was_made(self) -> None:
        bias = bias_of(np.zeros((6, 3)), parameters={"velocity": [1, 0, 0], "start_ps": -2.0}, **STEERED)
        assert bias.energies[0] == pytest.approx(2.0 * 500 * 4)

    def test_draws_through_any_number_of_boxes(self) -> None:
        box = np.diag([2.0, 2.0, 2.0])
        positions = np.zeros((6, 3))
        bias = bias_of(positions, box=box, parameters={"velocity": [0.1, 0, 0]}, **STEERED)
        for time_ps, x in ((100.0, 10.0), (101.0, 10.1)):
            assert np.abs(forces_of(bias, positions + np.array([x, 0, 0]), time_ps, box)).max() < 1e-9
            wrapped = (positions + np.array([x, 0, 0])) % 2.0
            assert np.abs(forces_of(bias, wrapped, time_ps, box)).max() < 1e-9


class TestWall:
    def test_only_what_is_behind_it_feels_it(self) -> None:
        positions = np.zeros((6, 3))
        positions[:, 2] = [-0.3, -0.1, 0.0, 0.1, 0.5, 3.0]
        bias = bias_of(positions, kind="wall", particles=range(6), mass_weighted=False, parameters={"stiffness": 50.0})
        expected = np.zeros((6, 3))
        expected[:2, 2] = [15.0, 5.0]
        np.testing.assert_allclose(forces_of(bias, positions), expected, atol=1e-12)
        assert bias.energies[0] == pytest.approx(25.0 * (0.09 + 0.01))

    def test_mass_weighted_slows_all_alike(self) -> None:
        positions = np.full((6, 3), -0.2)
        bias = bias_of(positions, kind="wall", particles=range(6), parameters={"stiffness": 3.0, "normal": [0, 5, 0]})
        np.testing.assert_allclose(forces_of(bias, positions) / MASSES[:, None], [[0, 0.6, 0]] * 6, atol=1e-12)


class TestForce:
    def test_one_vector_is_shared_out_by_weight_and_one_each_is_not(self) -> None:
        positions, each = RNG.normal(size=(6, 3)), RNG.normal(size=(3, 3))
        for mass_weighted, shares in ((True, MASSES[[1, 3, 4]] / MASSES[[1, 3, 4]].sum()), (False, np.full(3, 1 / 3))):
            # Rows are in the order in which particles are named.
            parameters = {"force": [3.0, -1.0, 2.0], "forces": each[[2, 0, 1]].tolist()}
            bias = bias_of(
                positions,
                kind="force",
                particles=[4, 1, 3],
                scale=-2.0,
                mass_weighted=mass_weighted,
                parameters=parameters,
            )
            law = -2.0 * (shares[:, None] * np.array([3.0, -1.0, 2.0]) + each)
            np.testing.assert_allclose(forces_of(bias, positions), law, rtol=1e-12)
            assert bias.energies[0] == 0

    def test_the_cap_shortens_the_vector_of_each_particle(self) -> None:
        parameters = {"forces": [[3.0, 4.0, 0.0], [0.0, 0.5, 0.0]]}
        bias = bias_of(np.zeros((6, 3)), kind="force", particles=[0, 1], max_force=2.0, parameters=parameters)
        np.testing.assert_allclose(forces_of(bias, np.ones((6, 3))), [[1.2, 1.6, 0.0], [0.0, 0.5, 0.0]])
        assert bias.evaluate(np.ones((2, 3)), None, 0.0)[0] == pytest.approx(-(1.2 + 1.6 + 0.5))

    def test_its_work_is_that_of_the_way_through_any_number_of_boxes(self) -> None:
        positions, box = np.zeros((6, 3)), np.array([[2.0, 0, 0], [0.6, 2.0, 0], [-0.5, 0.7, 2.0]])
        bias = bias_of(
            positions, kind="force", particles=[0, 3], box=box, parameters={"forces": [[5.0, 0, 0], [0, 1, 2]]}
        )
        step = np.array([[0.3, 0.1, -0.2], [0.0, -0.4, 0.5]])
        for count in range(1, 60):
            wrapped = (count * step) @ np.linalg.inv(box) % 1.0 @ box
            bias.step(wrapped, box, 0.0)
        assert bias.work == pytest.approx(59 * (5.0 * 0.3 - 0.4 + 2 * 0.5))
        assert bias.energies[0] == pytest.approx(-bias.work)
        with np.errstate(invalid="ignore"):
            assert math.isnan(bias.evaluate(np.full((2, 3), np.nan), box, 0.0)[0])
        assert bias.evaluate(wrapped, box, 0.0)[0] == pytest.approx(-bias.work)
        other = Interaction.parse("other", kind="force", particles=[1], parameters={"force": [1.0, 0, 0]})
        everywhere = np.zeros((6, 3))
        everywhere[[0, 3]] = wrapped
        work = bias.work
        bias.set([*bias.interactions, other], everywhere, box, 0.0)
        assert bias.work == pytest.approx(work)
        everywhere[[0, 3]] += step
        bias.step(everywhere[bias.particles], box, 0.0)
        assert bias.work == pytest.approx(work * 60 / 59)

    def test_mass_weighted_leaves_what_has_no_mass_alone(self) -> None:
        masses = np.array([0.0, 12.0, 0.0])
        fields: dict[str, Any] = {
            "kind": "force",
            "parameters": {"force": [6.0, 0, 0], "forces": [[0, 1, 0], [0, 1, 0]]},
        }
        bias = bias_of(np.zeros((3, 3)), masses, particles=[0, 1], **fields)
        np.testing.assert_allclose(forces_of(bias, np.zeros((3, 3))), [[0, 0, 0], [6, 1, 0]])
        assert not forces_of(bias_of(np.zeros((3, 3)), masses, particles=[0, 2], **fields), np.zeros((3, 3))).any()
        equal = bias_of(np.zeros((3, 3)), masses, particles=[0, 1], mass_weighted=False, **fields)
        np.testing.assert_allclose(forces_of(equal, np.zeros((3, 3))), [[3, 1, 0], [3, 1, 0]])


class TestRotation:
    def test_holds_the_orientation_in_which_it_began_and_lets_the_group_drift(self) -> None:
        positions = RNG.normal(size=(6, 3))
        bias = bias_of(positions, kind="rotation", particles=range(6))
        assert bias.energies[0] == pytest.approx(0, abs=1e-20)
        assert np.abs(forces_of(bias, positions + np.array([3, -4, 5]))).max() < 1e-9

    def test_has_no_net_force_and_a_torque_towards_the_rotation_asked_for(self) -> None:
        positions = RNG.normal(size=(6, 3)) * 0.2
        quarter = [0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4)]
        parameters = {"rotation": quarter, "stiffness": 2.0}
        bias = bias_of(positions, kind="rotation", particles=range(6), scale=3.0, parameters=parameters)
        centre = MASSES @ positions / MASSES.sum()
        turned = (positions - centre) @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to y
        y = positions - centre - turned
        assert bias.energies[0] == pytest.approx(3.0 * (MASSES * (y * y).sum(axis=1)).sum())
        forces = forces_of(bias, positions)
        np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-10)
        assert np.cross(positions - centre, forces).sum(axis=0)[2] > 0
        assert np.abs(forces_of(bias, centre + turned)).max() < 1e-10

    def test_reference_positions_follow_the_order_in_which_particles_are_named(self) -> None:
        reference = RNG.normal(size=(3, 3))
        positions = np.zeros((6, 3))
        positions[[4, 0, 2]] = reference
        parameters = {"reference": reference.tolist()}
        bias = bias_of(positions, kind="rotation", particles=[4, 0, 2], parameters=parameters)
        assert bias.energies[0] == pytest.approx(0, abs=1e-20)


class TestBetweenGroups:
    def test_distance(self) -> None:
        positions = np.zeros((6, 3))
        positions[[1, 2]] = [[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]
        parameters = {"target": 0.5, "stiffness": 10.0}
        bias = bias_of(positions, kind="distance", groups=[[0], [2, 1]], mass_weighted=False, parameters=parameters)
        assert bias.energies[0] == pytest.approx(5.0 * 1.5**2)
        np.testing.assert_allclose(forces_of(bias, positions)[:, 2], [15.0, -7.5, -7.5])
        np.testing.assert_allclose(bias.net_forces, [[0, 0, 15.0]])

    @pytest.mark.parametrize("theta", [0.0, 1e-9, 0.4, math.pi / 2, 3.0, math.pi - 1e-9, math.pi])
    def test_angle_exact_and_finite_from_0_to_pi(self, theta: float) -> None:
        positions = np.zeros((6, 3))
        positions[0, 0] = 0.5
        positions[2] = [0.3 * math.cos(theta), 0.3 * math.sin(theta), 0.0]
        bias = bias_of(positions, kind="angle", groups=[[0], [1], [2]], parameters={"target": 1.0, "stiffness": 4.0})
        assert bias.energies[0] == pytest.approx(2.0 * (theta - 1.0) ** 2, rel=1e-9)
        forces = forces_of(bias, positions)
        assert np.isfinite(forces).all()
        if 0 < theta < math.pi - 1e-12:
            assert np.linalg.norm(forces[0]) == pytest.approx(4.0 * abs(theta - 1.0) / 0.5, rel=1e-6)

    @pytest.mark.parametrize("phi", [-3.0, -math.pi / 2, -0.1, 0.0, 1.0, math.pi / 2, 3.1])
    def test_dihedral_has_the_sign_of_iupac(self, phi: float) -> None:
        # Seen from the second towards the third group, along z, a turn from x to y is clockwise: positive.
        positions = np.zeros((6, 3))
        positions[0] = [0.1, 0, -0.05]
        positions[2] = [0, 0, 0.15]
        positions[3] = [0.2 * math.cos(phi), 0.2 * math.sin(phi), 0.3]
        for target in (phi, phi + 2 * math.pi if phi < 0 else phi - 2 * math.pi):
            bias = bias_of(positions, kind="dihedral", groups=[[0], [1], [2], [3]], parameters={"target": target})
            assert bias.energies[0] == pytest.approx(0, abs=1e-20)
        parameters = {"target": phi - 0.2, "stiffness": 10.0}
        bias = bias_of(positions, kind="dihedral", groups=[[0], [1], [2], [3]], parameters=parameters)
        assert bias.energies[0] == pytest.approx(5.0 * 0.04)

    def test_dihedral_turns_the_short_way_round(self) -> None:
        def placed(phi: float) -> NDArray[np.float64]:
            out = np.zeros((6, 3))
            out[0], out[2], out[3] = [0.1, 0, 0], [0, 0, 0.15], [0.2 * math.cos(phi), 0.2 * math.sin(phi), 0.15]
            return out

        parameters = {"target": -3.0, "stiffness": 10.0}
        bias = bias_of(placed(3.0), kind="dihedral", groups=[[0], [1], [2], [3]], parameters=parameters)
        assert bias.energies[0] == pytest.approx(5.0 * (2 * math.pi - 6.0) ** 2)

    @pytest.mark.parametrize(("kind", "count", "target"), [("angle", 3, 0.3), ("dihedral", 4, 0.5)])
    def test_cap_holds_as_arms_vanish(self, kind: str, count: int, target: float) -> None:
        positions = RNG.normal(size=(6, 3)) * 0.2
        positions[1] = 0.0
        parameters = {"target": target, "stiffness": 1e6}
        groups = [[n] for n in range(count)]
        largest = []
        for size in (1.0, 1e-2, 1e-4, 1e-8, 1e-30):
            near = positions.copy()
            near[0] = positions[0] * size
            bias = bias_of(near, kind=kind, groups=groups, max_force=100.0, parameters=parameters)
            largest.append(np.linalg.norm(forces_of(bias, near), axis=1).max())
        assert max(largest) <= 100.0 and min(largest) > 5.0
