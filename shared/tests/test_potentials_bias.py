"""The accounts: work, who finished with what, resets, checkpoints, and who is suspected of a blow-up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.testing.bias_cases import PARTICLES, System, interactions, systems

TRICLINIC = np.array([[3.0, 0.0, 0.0], [1.2, 2.8, 0.0], [-1.4, 1.3, 2.2]])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pull(id: str = "test", **fields: Any) -> Interaction:
    return Interaction.parse(id, **{"kind": "spring", "particles": [0], "mass_weighted": False, **fields})


def at(*xs: float) -> NDArray[np.float64]:
    """Particles on the x axis."""
    return np.array([[x, 0.0, 0.0] for x in xs])


def bias_of(pulls: list[Interaction], positions: NDArray[np.float64], **fields: Any) -> Bias:
    bias = Bias(np.ones(len(positions)), **fields)
    bias.set(pulls, positions, None, 0.0)
    return bias


class TestWhatActs:
    def test_particles_are_the_sorted_union_and_those_beyond_the_system_are_left_out(self) -> None:
        bias = Bias(np.ones(6))
        pulls = [pull("a", particles=[5, 1]), pull("b", particles=[1, 3]), pull("c", particles=[2, 6])]
        bias.set(pulls, np.zeros((6, 3)), None, 0.0)
        assert bias.particles.tolist() == [1, 3, 5]
        assert [item.id for item in bias.interactions] == ["a", "b"]
        assert bias.energies.shape == (2,) and bias.net_forces.shape == (2, 3)
        bias.set([], np.zeros((6, 3)), None, 0.0)
        assert bias.empty and bias.particles.size == 0 and bias.energies.shape == (0,)
        energy, forces = bias.step(np.empty((0, 3)), None, 0.0)
        assert energy == 0 and forces.shape == (0, 3)

    def test_only_steered_pulls_make_it_timed(self) -> None:
        bias = bias_of([pull()], at(0))
        assert not bias.timed
        bias.set([pull(kind="steered", parameters={"velocity": [1, 0, 0]})], at(0), None, 0.0)
        assert bias.timed

    def test_a_potential_that_is_not_installed_changes_nothing(self) -> None:
        bias = bias_of([pull()], at(0))
        with pytest.raises(InvalidArgumentError, match="no-such"):
            bias.set([replace(pull("other"), kind="no-such")], at(0), None, 0.0)
        assert [item.id for item in bias.interactions] == ["test"]

    def test_impossible_boxes_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="box"):
            bias_of([pull()], at(0)).step(at(0), np.ones((3, 3)), 0.0)


class TestWork:
    def test_equals_the_drop_in_energy_however_many_steps_lie_between(self) -> None:
        rng = np.random.default_rng(2)
        start, end = rng.normal(size=(2, 3, 3))
        works = []
        for steps in (1, 7, 1000):
            bias = bias_of([pull(kind="gaussian", particles=[0, 1, 2], scale=50)], start)
            first = bias.energies[0]
            for fraction in np.linspace(0, 1, steps + 1)[1:]:
                bias.step(start + fraction * (end - start), None, 0.0)
            works.append(bias.work)
            assert bias.work == pytest.approx(first - bias.energies[0], rel=1e-12)
        assert works[0] == pytest.approx(works[2], rel=1e-12)

    def test_is_the_integral_of_the_force_along_the_path(self) -> None:
        rng = np.random.default_rng(4)
        items = [
            pull("a", particles=[0, 1], scale=9),
            pull("b", kind="distance", groups=[[2], [1]], particles=[], parameters={"target": 0.1}),
        ]
        positions = rng.normal(size=(3, 3))
        bias = bias_of(items, positions)
        by_hand, (_, forces) = 0.0, bias.step(positions, None, 0.0)
        for _ in range(2000):
            moved = positions + rng.normal(scale=1e-3, size=(3, 3))
            _, after = bias.step(moved, None, 0.0)
            by_hand += float(((forces + after) / 2 * (moved - positions)).sum())
            positions, forces = moved, after
        assert bias.work == pytest.approx(by_hand, rel=1e-4)
        assert bias.works.sum() == pytest.approx(bias.work, rel=1e-12)

    def test_of_a_moving_restraint_has_the_part_that_time_does(self) -> None:
        # The particle stands still while the spring's end moves: force on it, no way, no work.
        bias = bias_of([pull(kind="steered", parameters={"velocity": [1, 0, 0], "stiffness": 10.0})], at(0))
        for time_ps in np.linspace(0, 2, 2001)[1:]:
            bias.step(at(0), None, float(time_ps))
        assert bias.energies[0] == pytest.approx(0.5 * 10 * 4)
        assert bias.work == pytest.approx(0, abs=1e-9)
        # The particle lags 0.5 nm behind the end: a constant force over 3 nm.
        for time_ps in np.linspace(2, 5, 3001)[1:]:
            bias.step(at(float(time_ps) - 0.5), None, float(time_ps))
        jump = 0.5 * 10 * (2**2 - 0.5**2)  # from 0 to 1.5 nm within one step
        assert bias.work == pytest.approx(jump + 10 * 0.5 * 3, rel=2e-3)

    def test_of_standing_still_and_of_wrapping_is_none(self) -> None:
        bias = bias_of([pull()], at(0.3))
        for shift in ([0, 0, 0], [0, 0, 0], TRICLINIC[1], TRICLINIC[2] - TRICLINIC[0]):
            bias.step(at(0.3) + shift, TRICLINIC, 0.0)
        assert bias.work == pytest.approx(0, abs=1e-12)

    def test_of_moving_the_handle_is_none_and_the_next_step_counts_under_the_new_one(self) -> None:
        bias = bias_of([pull(scale=10)], at(0.1))
        bias.set([pull(scale=10, position=(5, 0, 0))], at(0.1), None, 0.0)
        assert bias.work == 0
        bias.step(at(0.2), None, 0.0)
        assert bias.work == pytest.approx(10 * (4.9**2 - 4.8**2))

    def test_set_closes_the_account_at_the_present_positions(self) -> None:
        bias = bias_of([pull(scale=10)], at(1.0))
        bias.set([pull(scale=3)], at(0.5), None, 0.0)
        assert bias.work == pytest.approx(10 * 0.75)
        bias.step(at(0.0), None, 0.0)
        assert bias.works == pytest.approx([10 * 0.75 + 3 * 0.25])

    def test_of_grabbing_and_releasing_others_is_none(self) -> None:
        one, other = pull("a"), pull("b", particles=[4], position=(9, 9, 9))
        positions = np.linspace(0, 1, 6)[:, None] * np.ones(3)
        bias = bias_of([one], positions)
        for pulls in ([one, other], [other], [other, one], []):
            bias.set(pulls, positions, None, 0.0)
        assert bias.work == 0

    def test_goes_on_from_elsewhere_after_a_rebase(self) -> None:
        bias = bias_of([pull()], at(2.0))
        bias.step(at(1.0), None, 0.0)
        bias.rebase()
        assert bias.work == pytest.approx(3)
        bias.step(at(7.0), None, 0.0)
        assert bias.work == pytest.approx(3)
        bias.step(at(6.0), None, 0.0)
        assert bias.work == pytest.approx(3 + 49 - 36)

    def test_survives_positions_that_are_not_finite(self) -> None:
        bias = bias_of([pull()], at(2.0))
        bias.step(at(1.0), None, 0.0)
        energy, _ = bias.step(at(math.nan), None, 0.0)
        assert math.isnan(energy)
        bias.set([], at(math.nan), None, 0.0)
        [finished] = bias.take_finished()
        assert finished.work == pytest.approx(3) == bias.work

    @settings(max_examples=15, deadline=None)
    @given(system=systems(), data=st.data(), seed=st.integers(0, 2**32 - 1))
    def test_telescopes_over_changes_of_all_kinds(self, system: System, data: st.DataObject, seed: int) -> None:
        rng = np.random.default_rng(seed)
        pulls = [data.draw(interactions(id=f"pull-{n}")) for n in range(3)]
        bias = Bias(system.masses)
        positions, expected, told = system.whole, 0.0, 0.0
        bias.set(pulls, positions, None, 0.0)
        for step in range(12):
            before = bias.energies.sum()
            timed = bias.timed
            positions = positions + rng.normal(scale=0.02, size=positions.shape)
            bias.step(positions[bias.particles], None, 0.0)
            assert not timed or bias.work is not None
            expected += before - bias.energies.sum()
            if step % 3 == 2:
                kept = [item.moved(rng.normal(size=3).tolist()) for item in pulls if rng.random() < 0.6]
                bias.set(kept, positions, None, 0.0)
                told += sum(item.work for item in bias.take_finished())
        scale = max(1.0, abs(expected))
        assert bias.work == pytest.approx(expected, abs=1e-9 * scale * 100)
        assert told + bias.works.sum() == pytest.approx(bias.work, abs=1e-9 * scale * 100)


class TestFinished:
    def test_tells_who_what_when_how_long_and_how_much_once(self) -> None:
        clock = Clock()
        item = replace(pull(particles=[1]), owner="ada")
        bias = Bias(np.ones(3), clock=clock)
        bias.set([item], at(0, 2, 0), None, 5.0)
        clock.now += 30
        bias.set([], at(0, 1, 0), None, 7.5)
        [finished] = bias.take_finished()
        assert finished.id == "test" and finished.owner == "ada" and finished.potential == "spring"
        assert finished.particles == (1,) and finished.reason == ""
        assert (finished.started_at, finished.duration_s) == (1000.0, 30.0)
        assert (finished.start_time_ps, finished.end_time_ps) == (5.0, 7.5)
        assert finished.work == pytest.approx(3) == bias.work
        assert bias.take_finished() == []

    @pytest.mark.parametrize(
        "other",
        [
            pull(particles=[1]),
            pull(kind="constant"),
            pull(mass_weighted=True),
        ],
    )
    def test_another_interaction_with_the_same_id_is_another(self, other: Interaction) -> None:
        bias = bias_of([pull()], at(0, 0))
        bias.set([other], at(0, 0), None, 1.0)
        assert [item.id for item in bias.take_finished()] == ["test"]

    def test_a_moved_or_changed_one_goes_on(self) -> None:
        bias = bias_of([pull()], at(1))
        for changed in (pull(position=(1, 1, 1)), pull(scale=4), pull(max_force=1), pull(parameters={"stiffness": 9})):
            bias.set([changed], at(0.5), None, 1.0)
        assert bias.take_finished() == []
        assert bias.work == pytest.approx(0.75)


STEERED: dict[str, Any] = {"kind": "steered", "parameters": {"velocity": [1, 0, 0], "stiffness": 10.0}}


class TestOrigins:
    def test_a_steered_pull_begins_when_it_is_set_and_goes_on_when_changed(self) -> None:
        bias = Bias(np.ones(1))
        bias.set([pull(**STEERED)], at(0), None, 100.0)
        assert bias.energies[0] == 0
        bias.set([pull(**STEERED, scale=2)], at(0), None, 101.0)
        assert bias.energies[0] == pytest.approx(2 * 5.0)

    def test_a_reset_begins_everything_anew_at_the_next_step(self) -> None:
        bias = Bias(np.ones(2))
        turned = pull("turned", kind="rotation", particles=[0, 1])
        bias.set([pull(**STEERED), turned], at(0, 1), None, 100.0)
        bias.set([pull(**STEERED)], at(3, 9), None, 110.0)
        bias.set([pull(**STEERED), turned], at(3, 9), None, 110.0)
        bias.step(at(5, 2), None, 120.0)
        bias.reset()
        assert bias.work == 0 and bias.take_finished() == [] and not bias.works.any()
        assert bias.evaluate(at(1, 4), None, 7.0)[0] == pytest.approx(5.0)  # as if it began there, which it does not
        assert bias.step(at(0, 4), None, 2.0)[0] == 0
        assert bias.step(at(0, 4), None, 3.0)[0] == pytest.approx(5.0)
        assert bias.energies[1] == pytest.approx(0)
        bias.step(at(0, 3), None, 3.0)
        assert bias.energies[1] > 0


class TestCheckpoints:
    @settings(max_examples=20, deadline=None)
    @given(system=systems(), data=st.data(), seed=st.integers(0, 2**32 - 1))
    def test_a_restored_bias_goes_on_as_if_nothing_had_happened(
        self, system: System, data: st.DataObject, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        pulls = [data.draw(interactions(id=f"pull-{n}")) for n in range(3)]
        one = Bias(system.masses, clock=lambda: 50.0)
        one.set(pulls[:2], system.positions, system.box, 1.0)
        one.set(pulls[1:], system.positions + 0.01, system.box, 2.0)
        positions = system.positions + rng.normal(scale=0.05, size=(PARTICLES, 3))
        one.step(positions[one.particles], system.box, 3.0)
        state = json.loads(json.dumps(one.state()))

        other = Bias(system.masses, clock=lambda: 99.0)
        other.restore(state)
        assert other.work == pytest.approx(one.work)
        assert other.state()["accounts"] == state["accounts"]
        other.set(pulls[1:], positions, system.box, 3.0)
        later = positions + rng.normal(scale=0.05, size=(PARTICLES, 3))
        expected = one.step(later[one.particles], system.box, 4.0)
        found = other.step(later[other.particles], system.box, 4.0)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])
        assert other.work == pytest.approx(one.work, rel=1e-9, abs=1e-9)
        one.set([], later, system.box, 5.0)
        other.set([], later, system.box, 5.0)
        told = [[item.work for item in bias.take_finished()[-2:]] for bias in (one, other)]
        assert told[0] == pytest.approx(told[1], rel=1e-9, abs=1e-9)

    def test_interactions_in_force_go_back_to_it(self) -> None:
        bias = bias_of([pull(), pull("late", particles=[1])], at(2, 2))
        early = {"work": 8.0, "accounts": {"test": bias.state()["accounts"]["test"] | {"work": 5.0}}}
        bias.step(at(1, 1), None, 1.0)
        bias.restore(early)
        assert bias.work == pytest.approx(8)
        np.testing.assert_allclose(bias.works, [5, 0])
        bias.step(at(9, 9), None, 1.0)
        assert bias.work == pytest.approx(8)

    def test_another_interaction_under_a_kept_id_begins_anew_and_the_work_stays(self) -> None:
        state = bias_of([pull()], at(2)).state()
        state["accounts"]["test"]["work"] = state["work"] = 4.0
        bias = Bias(np.ones(2))
        bias.restore(state)
        bias.set([pull(particles=[1])], at(0, 0), None, 9.0)
        assert bias.works.tolist() == [0.0] and bias.work == 4.0

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"work": math.nan}, "bias.work"),
            ({"work": "much"}, "bias.work"),
            ({"accounts": []}, "bias.accounts"),
            ({"accounts": {"test": 3}}, "bias.accounts.test"),
            ({"kind": 3}, "kind"),
            ({"particles": "all"}, "particles"),
            ({"particles": [0.5]}, "particles"),
            ({"particles": [-1]}, "particles"),
            ({"groups": 4}, "groups"),
            ({"groups": [4]}, "groups"),
            ({"mass_weighted": 1}, "mass_weighted"),
            ({"started_at": None}, "started_at"),
            ({"start_time_ps": math.inf}, "start_time_ps"),
            ({"start_time_ps": 1e99}, "start_time_ps"),
            ({"begun_at": [[1, 2]]}, "begun_at"),
            ({"begun_at": [[1, 2, math.nan]]}, "begun_at"),
            ({"begun_at": "here"}, "begun_at"),
            ({"begun_at": [[1, 2, {}]]}, "begun_at"),
            ({"work": [1]}, "work"),
        ],
    )
    def test_a_broken_state_is_refused_by_name_and_changes_nothing(self, change: dict[str, Any], named: str) -> None:
        bias = bias_of([pull()], at(2))
        bias.step(at(1), None, 0.0)
        state = bias.state()
        broken = json.loads(json.dumps(state))
        (broken if set(change) <= {"accounts"} or named == "bias.work" else broken["accounts"]["test"]).update(change)
        with pytest.raises(InvalidArgumentError, match=named):
            bias.restore(broken)
        assert bias.state() == state

    def test_a_state_without_origin_for_what_needs_one_begins_anew(self) -> None:
        item = pull(kind="rotation", particles=[0, 1])
        state = bias_of([item], at(0, 1)).state()
        state["accounts"]["test"]["begun_at"] = None
        bias = Bias(np.ones(2))
        bias.restore(state)
        bias.set([item], at(3, 9), None, 0.0)
        assert bias.energies[0] == pytest.approx(0)


class TestSuspects:
    def test_are_ranked_by_the_acceleration_they_cause(self) -> None:
        bias = Bias(np.array([1.0, 100.0, 1.0]))
        light, heavy = pull("light", scale=10), pull("heavy", particles=[1], scale=50)
        idle = pull("idle", particles=[2], scale=0)
        bias.set([heavy, idle, light], at(1, 1, 1), None, 0.0)
        assert bias.suspects() == ("light", "heavy")
        bias.step(at(math.nan, 1, 1), None, 0.0)  # what it was before that counts
        assert bias.suspects() == ("light", "heavy")

    def test_are_none_without_interactions(self) -> None:
        assert Bias([1.0]).suspects() == ()

    def test_count_all_groups(self) -> None:
        bias = bias_of(
            [
                pull("far", kind="distance", particles=[], groups=[[0], [1]], parameters={"target": 0.0}),
                pull("near", particles=[2]),
            ],
            at(0, 5, 0.1),
        )
        assert bias.suspects() == ("far", "near")
