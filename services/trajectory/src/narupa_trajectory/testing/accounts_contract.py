"""What users' forces have done is counted, for each interaction and in total, and told once."""

from __future__ import annotations

import time

import numpy as np
import pytest

from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.source import Source
from narupa_trajectory.testing.engine_case import CaseContract, EngineCase, pull, restorable


def system_energy(source: Source) -> float:
    snapshot = source.snapshot()
    assert snapshot.potential_energy is not None and snapshot.kinetic_energy is not None
    return snapshot.potential_energy + snapshot.kinetic_energy


class AccountsContract(CaseContract):
    def test_release_leaves_no_force_and_keeps_the_work(self, source: Source) -> None:
        source.set_interactions([pull(source, [1, 3])])
        source.advance(10)
        work = source.snapshot().user_work
        assert work != 0
        source.set_interactions([])
        for _ in range(2):
            snapshot = source.snapshot()
            assert snapshot.user_index.size == 0 and snapshot.user_forces.shape == (0, 3)
            assert snapshot.interaction_ids == () and snapshot.interaction_work.shape == (0,)
            assert snapshot.user_energy == 0
            assert snapshot.user_work == pytest.approx(work, abs=1e-6)
            source.advance(5)

    def test_users_come_and_go_independently(self, source: Source) -> None:
        one, other = pull(source, [0], id="one"), pull(source, [4, 2], id="other")
        for held, expected in (
            ([one], [0]),
            ([one, other], [0, 2, 4]),
            ([other], [2, 4]),
            ([other, one], [0, 2, 4]),
            ([], []),
        ):
            source.set_interactions(held)
            for _ in range(2):
                snapshot = source.snapshot()
                assert snapshot.user_index.tolist() == expected
                assert sorted(snapshot.interaction_ids) == sorted(item.id for item in held)
                source.advance(3)

    def test_interactions_beyond_the_system_are_left_out(self, source: Source) -> None:
        beyond = Interaction.parse("far", particles=[0, source.info.particle_count])
        source.set_interactions([beyond, pull(source, [1])])
        source.advance(2)
        assert source.snapshot().user_index.tolist() == [1]
        source.set_interactions([beyond])
        source.advance(2)
        assert source.snapshot().user_index.size == 0

    def test_the_works_of_the_interactions_add_up(self, source: Source) -> None:
        """Those that are over included; a handle that jumps does no work by it."""
        rng = np.random.default_rng(5)
        steered = {"kind": "steered", "scale": 1.0, "parameters": {"stiffness": 500.0, "velocity": [1.0, 0.0, 0.0]}}
        told = most = 0.0
        for round in range(6):
            held = [pull(source, [0], tuple(rng.normal(scale=0.2, size=3)), id="a")]
            if round in (1, 2, 4):
                held.append(pull(source, [0, 2], tuple(rng.normal(scale=0.2, size=3)), id="b"))
            if round < 4:
                held.append(pull(source, [3], (0, 0, 0), id="c", **steered))
            before = source.snapshot().user_work
            source.set_interactions(held)
            assert source.snapshot().user_work == pytest.approx(before, abs=1e-6)
            told += sum(item.work for item in source.take_finished())
            source.advance(4)
            snapshot = source.snapshot()
            assert told + snapshot.interaction_work.sum() == pytest.approx(snapshot.user_work, rel=1e-6, abs=1e-6)
            most = max(most, abs(snapshot.user_work))
        assert most > 0.01  # the last may be anything, by chance 0 too

    def test_the_work_of_a_resting_handle_is_the_energy_it_gave(self, source: Source) -> None:
        source.set_interactions([pull(source, [0, 1])])
        start = source.snapshot().user_energy
        for _ in range(4):
            source.advance(5)
            snapshot = source.snapshot()
            given = start - snapshot.user_energy
            assert snapshot.interaction_work[0] == pytest.approx(given, abs=2e-3 + 1e-4 * abs(start))

    def test_a_finished_interaction_is_told_once(self, source: Source) -> None:
        source.advance(5)
        began, since = source.snapshot().time_ps, time.time()
        source.set_interactions([pull(source, [2, 0], id="done", owner="ada"), pull(source, [1], id="stays")])
        source.advance(10)
        last = source.snapshot()
        assert list(source.take_finished()) == []
        source.set_interactions([pull(source, [1], id="stays")])
        (account,) = source.take_finished()
        assert list(source.take_finished()) == []
        assert (account.id, account.owner, account.potential, account.particles) == ("done", "ada", "spring", (0, 2))
        assert account.work == pytest.approx(
            dict(zip(last.interaction_ids, last.interaction_work, strict=True))["done"]
        )
        assert since - 1 <= account.started_at <= time.time() and 0 <= account.duration_s < 600
        if began is not None and last.time_ps is not None:
            assert account.start_time_ps == pytest.approx(began, abs=1e-9)
            assert account.end_time_ps == pytest.approx(last.time_ps, abs=1e-9)
        source.advance(2)
        assert list(source.take_finished()) == []

    def test_other_particles_under_the_same_id_are_another_interaction(self, source: Source) -> None:
        source.set_interactions([pull(source, [0])])
        source.advance(5)
        source.set_interactions([pull(source, [0, 1])])
        assert [item.particles for item in source.take_finished()] == [(0,)]
        assert source.snapshot().interaction_work[0] == pytest.approx(0.0, abs=1e-6)

    def test_reset_clears_every_account(self, source: Source) -> None:
        restorable(source)
        source.set_interactions([pull(source, [0], id="gone")])
        source.advance(5)
        source.set_interactions([pull(source, [1])])
        source.advance(5)
        source.reset()
        snapshot = source.snapshot()
        assert (snapshot.user_work, snapshot.user_energy, snapshot.interaction_ids) == (0, 0, ())
        assert list(source.take_finished()) == []
        source.set_interactions([pull(source, [1])])
        assert source.snapshot().interaction_work.tolist() == [0]
        source.advance(5)
        source.set_interactions([])
        (account,) = source.take_finished()
        assert account.work == pytest.approx(source.snapshot().user_work, abs=1e-9)

    def test_the_systems_energy_grows_by_the_work(self, source: Source, case: EngineCase) -> None:
        if not case.conserves_energy:
            pytest.skip("this engine has a thermostat")
        source.advance(5)
        start = system_energy(source)
        source.set_interactions([pull(source, [0, 1], (0.2, 0.1, 0.0))])
        most = 0.0  # the particles may swing back
        for _ in range(10):
            source.advance(10)
            work = source.snapshot().user_work
            assert system_energy(source) - start == pytest.approx(work, rel=0.02, abs=0.3)
            most = max(most, abs(work))
        assert most > 1
