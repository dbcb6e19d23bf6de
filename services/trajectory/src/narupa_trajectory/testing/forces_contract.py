"""The forces that users bring about are those of their interactions, at the instant, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.periodic import Lattice
from narupa_trajectory.sources.source import Source
from narupa_trajectory.testing.engine_case import CaseContract, EngineCase, pull, restorable

# Kind -> what `pull` is to make of four particles.
SAMPLES: Final[dict[str, Callable[[list[int]], dict[str, Any]]]] = {
    "gaussian": lambda four: {"particles": four[:3], "parameters": {"width": 0.4}, "mass_weighted": True},
    "spring": lambda four: {"particles": four[:1], "parameters": {"stiffness": 4.0}},
    "constant": lambda four: {"particles": four, "mass_weighted": True, "scale": 20.0},
    "force": lambda four: {
        "particles": four[:3],
        "parameters": {"force": [0.0, 90.0, 0.0], "forces": [[30.0, 0, 0], [0, 0, 0], [0, 0, -20.0]]},
        "mass_weighted": True,
        "scale": 1.0,
    },
    "steered": lambda four: {
        "particles": four[:2],
        "parameters": {"stiffness": 800.0, "velocity": [0.5, 1.0, -0.5]},
        "scale": 1.0,
    },
    "wall": lambda four: {"particles": four, "parameters": {"stiffness": 600.0, "normal": [0, 0.6, 0.8]}, "scale": 1.0},
    "rotation": lambda four: {
        "particles": four,
        "parameters": {"stiffness": 300.0, "rotation": [0.0, 0.0, 0.3826834, 0.9238795]},
        "scale": 1.0,
    },
    "distance": lambda four: {
        "particles": [],
        "groups": [four[:1], four[1:3]],
        "parameters": {"stiffness": 900.0, "target": 0.5},
        "scale": 1.0,
    },
    "angle": lambda four: {
        "particles": [],
        "groups": [four[:1], four[1:2], four[2:]],
        "parameters": {"stiffness": 40.0, "target": 1.9},
        "scale": 1.0,
    },
    "dihedral": lambda four: {
        "particles": [],
        "groups": [[index] for index in four],
        "parameters": {"stiffness": 20.0, "target": 0.3},
        "scale": 1.0,
    },
}


def sample(kind: str, source: Source, case: EngineCase, **fields: Any) -> Interaction:
    """An interaction of this kind that does something to the source's first particle and those near it."""
    four = case.four(source)
    given = {"id": kind, "kind": kind, "scale": 300.0, "mass_weighted": False, **SAMPLES[kind](four), **fields}
    handle = source.snapshot().positions[four[0]].astype(float) + np.array([0.15, 0.1, -0.05])
    return Interaction.parse(given.pop("id"), position=handle.tolist(), **given)


class ForcesContract(CaseContract):
    @pytest.mark.parametrize("kind", SAMPLES)
    def test_every_kind_acts_as_it_is_defined(self, source: Source, case: EngineCase, kind: str) -> None:
        source.advance(20)
        interaction = sample(kind, source, case)
        bias = case.bias(source, interaction)
        source.set_interactions([interaction])
        held = case.assert_acts(source, bias)
        assert (
            np.abs(held.user_forces).max() > 1e-3 or kind == "steered"
        )  # which begins where the group is only in part
        source.advance(5)
        case.assert_acts(source, bias)
        source.advance(5)
        assert np.abs(case.assert_acts(source, bias).user_forces).max() > 1e-3

    def test_all_kinds_act_together(self, source: Source, case: EngineCase) -> None:
        source.advance(20)
        together = [sample(kind, source, case, scale=0.5) for kind in SAMPLES]
        bias = case.bias(source, *together)
        source.set_interactions(together)
        for _ in range(3):
            snapshot = case.assert_acts(source, bias)
            assert snapshot.interaction_energies.sum() == pytest.approx(snapshot.user_energy, rel=1e-5, abs=1e-4)
            source.advance(3)

    def test_a_spring_pulls_the_particle_to_the_handle(self, source: Source) -> None:
        given = pull(source, [0], mass_weighted=True, scale=2000.0)
        distance = np.linalg.norm(source.snapshot().positions[0] - given.position)
        source.set_interactions([given])
        nearest = distance
        for _ in range(40):
            source.advance(5)
            nearest = min(nearest, np.linalg.norm(source.snapshot().positions[0] - given.position))
            if nearest < 0.5 * distance:
                break
        assert nearest < 0.5 * distance
        assert source.snapshot().user_work > 0

    def test_the_force_that_is_told_is_the_force_that_moves(self, source: Source, case: EngineCase) -> None:
        """Two runs from one checkpoint, with the same chance, differ by the momentum that the pull puts in."""
        if not (restorable(source) and case.strays_nm is not None and case.keeps_momentum):
            pytest.skip("the momentum of two runs cannot be compared here")
        source.advance(20)
        checkpoint, masses = source.checkpoint(), case.masses(source)
        free = self._momentum(case, checkpoint, masses, [])
        interaction = pull(source, case.four(source)[:2], kind="constant", scale=2000.0)
        bias = case.bias(source, interaction)
        here = source.snapshot()
        positions = here.positions[bias.particles].astype(np.float64)
        _, forces = bias.evaluate(positions, case.box(source, here), here.time_ps or 0.0)
        held = self._momentum(case, checkpoint, masses, [interaction])
        gained = (held[0] - free[0]) / (held[1] - (here.time_ps or 0.0))
        told = forces.sum(axis=0)
        np.testing.assert_allclose(gained, told, atol=0.06 * float(np.linalg.norm(told)))

    @staticmethod
    def _momentum(
        case: EngineCase, checkpoint: bytes, masses: NDArray[np.float64], interactions: list[Interaction]
    ) -> tuple[NDArray[np.float64], float]:
        """The total momentum two steps after the checkpoint, amu nm/ps, and the time then, ps."""
        source = case.make()
        try:
            source.restore(checkpoint)
            source.set_interactions(interactions)
            source.advance(2)
            snapshot = source.snapshot(velocities=True)
            assert snapshot.velocities is not None and snapshot.time_ps is not None
            return masses @ snapshot.velocities.astype(np.float64), snapshot.time_ps
        finally:
            source.close()

    def test_a_moved_handle_acts_at_once(self, source: Source, case: EngineCase) -> None:
        given = pull(source, [2], (0.25, 0, 0))
        source.set_interactions([given])
        source.advance(5)
        before = source.snapshot()
        moved = given.moved((before.positions[2].astype(float) - [0.25, 0, 0]).tolist())
        source.set_interactions([moved])
        after = case.assert_acts(source, case.bias(source, moved))
        assert after.user_work == pytest.approx(before.user_work, abs=1e-6)
        assert after.user_forces[0, 0] < 0 < before.user_forces[0, 0]
        source.advance(5)

    def test_the_systems_energy_never_contains_the_bias(self, source: Source) -> None:
        free = source.snapshot().potential_energy
        if free is None:
            pytest.skip("this engine has no potential energy")
        given = pull(source, [0, 1, 2])
        source.set_interactions([given])
        held = source.snapshot()
        assert held.potential_energy == pytest.approx(free, rel=1e-4, abs=0.05)
        assert held.user_energy > 1
        source.set_interactions([given.moved(np.add(given.position, [0.1, 0.1, 0]).tolist())])
        moved = source.snapshot()
        assert moved.potential_energy == pytest.approx(free, rel=1e-4, abs=0.05)
        assert abs(moved.user_energy - held.user_energy) > 1
        source.set_interactions([])
        assert source.snapshot().potential_energy == pytest.approx(free, rel=1e-4, abs=0.05)

    def test_a_handle_beyond_a_face_pulls_as_its_image_does(self, source: Source, case: EngineCase) -> None:
        source.advance(5)
        box = case.box(source, source.snapshot())
        if box is None:
            pytest.skip("this system has no period")
        given = pull(source, [1])
        source.set_interactions([given])
        near = source.snapshot()
        for row in box[box.any(axis=1)]:
            source.set_interactions([given.moved((np.array(given.position) + row).tolist())])
            far = source.snapshot()
            np.testing.assert_allclose(far.user_forces, near.user_forces, rtol=1e-4, atol=0.01)

    def test_a_group_across_a_face_is_whole(self, source: Source, case: EngineCase) -> None:
        snapshot = source.snapshot()
        box = case.box(source, snapshot)
        lattice = Lattice.of_box(box)
        if lattice is None or box is None:
            pytest.skip("this system has no period")
        positions = snapshot.positions.astype(np.float64)
        least = min(np.linalg.norm(row) for row in box if row.any())
        for a, b in itertools.combinations(range(min(len(positions), 100)), 2):
            apart = positions[b] - positions[a]
            closest = lattice.closest(apart[None])[0]
            if np.linalg.norm(closest) < 0.4 * least and np.linalg.norm(apart - closest) > 0.1 * least:
                break
        else:
            pytest.skip("no two particles here are nearest across a face")
        middle = positions[a] + closest / 2
        interaction = Interaction.parse(
            "pair", particles=[a, b], kind="spring", position=np.add(middle, [0.1, 0, 0]).tolist(), mass_weighted=False
        )
        bias = case.bias(source, interaction)
        source.set_interactions([interaction])
        held = case.assert_acts(source, bias)
        np.testing.assert_allclose(held.user_forces.sum(axis=0), [0.2, 0, 0], atol=2e-3)

    def test_a_changing_box_is_followed(self, source: Source, case: EngineCase) -> None:
        if not case.box_moves:
            pytest.skip("the box of this system stays")
        first = case.box(source, source.snapshot())
        assert first is not None
        x, y, z = (float(length) for length in first[0])
        interaction = pull(source, [0], (x + 0.1, y + 0.1, z))
        bias = case.bias(source, interaction)
        source.set_interactions([interaction])
        for _ in range(4):
            source.advance(15)
            case.assert_acts(source, bias)
        last = case.box(source, source.snapshot())
        assert last is not None and not np.array_equal(last, first)
