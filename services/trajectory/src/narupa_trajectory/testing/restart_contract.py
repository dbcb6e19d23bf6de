"""Going back, going on from a checkpoint, and drawing velocities anew."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot, Source
from narupa_trajectory.testing.engine_case import CaseContract, EngineCase, pull, restorable
from narupa_trajectory.testing.forces_contract import sample

EXACT: Final = ("positions", "velocities", "box", "user_forces", "interaction_energies")


def held_for_a_while(source: Source, case: EngineCase) -> list[Interaction]:
    """What holds the source, since some steps."""
    held = [sample("steered", source, case), sample("spring", source, case, scale=20.0)]
    source.advance(3)
    source.set_interactions(held)
    source.advance(11)
    return held


def course_of(source: Source) -> list[Snapshot]:
    snapshots = []
    for _ in range(4):
        snapshots.append(source.snapshot(velocities=True))
        source.advance(7)
    return snapshots


def restarted(case: EngineCase, checkpoint: bytes, held: list[Interaction], steps: int) -> list[Snapshot]:
    """The course of a fresh source from the checkpoint. One after the other: some engines share their random numbers."""
    source = case.make()
    try:
        source.advance(steps)  # a past of its own
        source.restore(checkpoint)
        source.set_interactions(held)
        return course_of(source)
    finally:
        source.close()


class RestartContract(CaseContract):
    def test_an_engine_that_cannot_go_back_says_so(self, source: Source) -> None:
        if source.info.restorable:
            pytest.skip("this engine can")
        for attempt in (source.reset, source.checkpoint, lambda: source.restore(b"")):
            with pytest.raises(FailedPreconditionError):
                attempt()

    def test_reset_goes_back_to_the_first_frame(self, source: Source) -> None:
        restorable(source)
        first = source.snapshot(velocities=True)
        source.set_interactions([pull(source, [0])])
        source.advance(20)
        source.reset()
        again = source.snapshot(velocities=True)
        np.testing.assert_allclose(again.positions, first.positions, atol=1e-6)
        if first.velocities is not None and again.velocities is not None:
            np.testing.assert_allclose(again.velocities, first.velocities, atol=1e-5)
        if first.box is not None:
            np.testing.assert_array_equal(again.box, first.box)
        assert (again.step, again.time_ps, again.user_work, again.user_index.size) == (0, 0, 0, 0)
        source.advance(5)
        assert source.snapshot().user_index.size == 0

    def test_a_checkpoint_is_taken_up_by_a_new_source(self, source: Source, case: EngineCase) -> None:
        restorable(source)
        source.set_interactions([pull(source, [0])])
        source.advance(20)
        checkpoint = source.checkpoint()
        there = source.snapshot(velocities=True)
        other = case.make()
        try:
            other.restore(checkpoint)
            here = other.snapshot(velocities=True)
            np.testing.assert_allclose(here.positions, there.positions, atol=1e-6)
            np.testing.assert_allclose(here.velocities, there.velocities, atol=1e-5)  # type: ignore[arg-type]
            assert here.step == there.step and here.time_ps == pytest.approx(there.time_ps)
            assert here.user_work == pytest.approx(there.user_work, abs=1e-6)
            assert here.user_index.size == 0
            other.advance(5)
            assert other.snapshot().step == 25
        finally:
            other.close()

    def test_runs_from_one_checkpoint_are_the_same_bit_for_bit(self, source: Source, case: EngineCase) -> None:
        if not (restorable(source) and case.repeats):
            pytest.skip("this engine does not repeat its runs")
        held = held_for_a_while(source, case)
        checkpoint = source.checkpoint()
        first, second = (restarted(case, checkpoint, held, steps) for steps in (0, 2))
        for here, there in zip(first, second, strict=True):
            for name in (*EXACT, "interaction_work"):
                np.testing.assert_array_equal(getattr(here, name), getattr(there, name), err_msg=name)
            assert (here.step, here.time_ps, here.user_work) == (there.step, there.time_ps, there.user_work)

    def test_a_restarted_run_goes_where_the_first_one_goes(self, source: Source, case: EngineCase) -> None:
        if not restorable(source) or case.strays_nm is None:
            pytest.skip("chance goes its own way after a restart of this engine")
        held = held_for_a_while(source, case)
        checkpoint = source.checkpoint()
        course = course_of(source)
        for here, there in zip(restarted(case, checkpoint, held, 2), course, strict=True):
            assert (here.step, here.time_ps) == (there.step, there.time_ps)
            np.testing.assert_allclose(here.positions, there.positions, rtol=0, atol=case.strays_nm)
            for name in () if case.strays_nm else EXACT:
                np.testing.assert_array_equal(getattr(here, name), getattr(there, name), err_msg=name)
            near = 1e-9 + 1e4 * case.strays_nm  # the accounts were closed, and opened anew
            works = there.interaction_work.tolist()
            assert here.interaction_work.tolist() == pytest.approx(works, rel=1e-9, abs=near)
            assert here.user_work == pytest.approx(there.user_work, rel=1e-9, abs=near)

    def test_an_account_goes_on_after_a_restart(self, source: Source, case: EngineCase) -> None:
        restorable(source)
        held = [pull(source, [0], id="goes on", owner="ada"), pull(source, [1], id="not taken up")]
        source.set_interactions(held)
        source.advance(10)
        began = source.snapshot()
        other = case.make()
        try:
            other.restore(source.checkpoint())
            other.set_interactions(held[:1])
            other.advance(5)
            snapshot = other.snapshot()
            other.set_interactions([])
            account = next(item for item in other.take_finished() if item.id == "goes on")
            assert account.work == pytest.approx(snapshot.interaction_work[0])
            assert account.start_time_ps == pytest.approx(0.0, abs=1e-9)
            assert account.end_time_ps == pytest.approx(snapshot.time_ps)
            total = snapshot.interaction_work[0] + began.interaction_work[began.interaction_ids.index("not taken up")]
            assert snapshot.user_work == pytest.approx(total, rel=1e-6, abs=1e-6)
        finally:
            other.close()

    @pytest.mark.parametrize("garbage", [b"", b"garbage", b"PK\x03\x04 not a zip"])
    def test_a_broken_checkpoint_is_refused(self, source: Source, garbage: bytes) -> None:
        restorable(source)
        with pytest.raises(InvalidArgumentError, match="checkpoint"):
            source.restore(garbage)
        source.advance(1)

    def test_a_checkpoint_of_another_system_is_refused(self, source: Source) -> None:
        restorable(source)
        two = Checkpoint(np.zeros((2, 3)), np.zeros((2, 3)), 0.0, 0, 0.0)
        with pytest.raises(InvalidArgumentError, match="checkpoint"):
            source.restore(two.to_bytes())
        source.advance(1)

    def test_velocities_are_redrawn_on_release(self, source: Source) -> None:
        if not source.info.velocity_reset_available:
            pytest.skip("this engine does not draw velocities")
        source.advance(20)  # an input at rest has no temperature to draw from
        source.set_interactions([pull(source, [0, 1, 2], reset_velocities=True, scale=0.0)])
        held = source.snapshot(velocities=True).velocities
        source.set_interactions([])
        free = source.snapshot(velocities=True).velocities
        assert held is not None and free is not None
        changed = np.abs(held - free).max(axis=1) > 0.01  # constraints are kept to within their tolerance
        assert changed[:3].all() and not changed[max(3, len(changed) // 2) :].any()
        source.advance(5)

    def test_redrawn_velocities_have_the_temperature(self, source: Source, case: EngineCase) -> None:
        """Everything is redrawn, many times: the mean of the temperatures is that of the thermostat, or of the moment."""
        if not source.info.velocity_reset_available:
            pytest.skip("this engine does not draw velocities")
        source.advance(20)
        count, masses = source.info.particle_count, case.masses(source)
        everything = pull(source, list(range(count)), reset_velocities=True, scale=0.0)
        draws = max(8, 2500 // (3 * count))
        ratios, drift = [], np.zeros(3)
        for _ in range(draws):
            before = source.snapshot().temperature
            source.set_interactions([everything])
            source.set_interactions([])
            after = source.snapshot(velocities=True)
            if after.temperature is None or before is None or after.velocities is None:
                pytest.skip("this engine has no temperature")
            target = case.temperature_k or before
            ratios.append(after.temperature / target)
            spread = np.sqrt(masses.sum() * BOLTZMANN_KJ_MOL_K * target)
            drift += masses @ after.velocities.astype(np.float64) / spread
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)
        # No direction is preferred: the mean of the total momentum is within five standard errors of none.
        assert np.abs(drift / draws).max() < 5 / np.sqrt(draws)
