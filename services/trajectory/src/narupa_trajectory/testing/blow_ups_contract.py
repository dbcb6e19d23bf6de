"""A simulation that somebody has pulled to pieces says so, names who, and goes on from where it was good."""

from __future__ import annotations

import math

import numpy as np
import pytest

from narupa_trajectory.sources.source import Source, SourceDivergedError
from narupa_trajectory.testing.engine_case import CaseContract, EngineCase, pull, restorable


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class BlowUpsContract(CaseContract):
    @staticmethod
    def blow_up(source: Source, steps: int) -> None:
        harmless = pull(source, [4], (0.1, 0, 0), id="harmless", scale=1.0)
        monster = pull(source, [0, 2], (0.9, 0.7, 0.3), id="monster", scale=1e9, max_force=math.inf)
        idle = pull(source, [1], id="idle", scale=0.0)
        source.set_interactions([idle, harmless, monster])
        with pytest.raises(SourceDivergedError):
            for _ in range(max(1, steps // 5)):
                source.advance(5)
                source.snapshot()

    def test_the_culprit_is_named_first(self, source: Source, case: EngineCase) -> None:
        source.advance(5)
        assert list(source.suspects()) == []
        self.blow_up(source, case.blow_up_steps)
        suspects = list(source.suspects())
        assert suspects[0] == "monster"
        assert "idle" not in suspects

    def test_a_bad_state_is_neither_shown_nor_kept(self, source: Source, case: EngineCase) -> None:
        self.blow_up(source, case.blow_up_steps)
        with pytest.raises(SourceDivergedError):
            source.snapshot()
        if source.info.restorable:
            with pytest.raises(SourceDivergedError):
                source.checkpoint()

    def test_it_goes_on_from_a_checkpoint_in_the_same_process(self, source: Source, case: EngineCase) -> None:
        restorable(source)
        source.advance(5)
        good, checkpoint = source.snapshot(), source.checkpoint()
        self.blow_up(source, case.blow_up_steps)
        source.restore(checkpoint)
        back = source.snapshot(velocities=True)
        np.testing.assert_allclose(back.positions, good.positions, atol=1e-6)
        assert (back.step, back.user_index.size, back.user_work) == (good.step, 0, 0)
        source.set_interactions([pull(source, [0], (0.1, 0, 0), scale=10.0)])
        source.advance(20)
        later = source.snapshot(velocities=True)
        assert later.user_index.tolist() == [0] and np.isfinite(later.positions).all()
        if later.temperature is not None and case.temperature_k is not None and case.equilibrated:
            assert later.temperature < 3 * case.temperature_k

    def test_it_goes_on_after_a_reset_in_the_same_process(self, source: Source, case: EngineCase) -> None:
        restorable(source)
        first = source.snapshot()
        self.blow_up(source, case.blow_up_steps)
        source.reset()
        np.testing.assert_allclose(source.snapshot().positions, first.positions, atol=1e-6)
        assert list(source.take_finished()) == []
        source.advance(10)
        assert source.snapshot().step == 10
