"""What a live source shows, and how it moves on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from narupa_shared.errors import FailedPreconditionError
from narupa_trajectory.sources.source import Source
from narupa_trajectory.testing.engine_case import CaseContract, EngineCase


class FramesContract(CaseContract):
    def test_topology_fits_the_positions(self, source: Source) -> None:
        topology = source.topology()
        count = source.info.particle_count
        assert topology["particle.count"] == count
        assert len(topology["particle.elements"]) == count  # type: ignore[arg-type]
        assert source.snapshot().positions.shape == (count, 3)
        bonds = topology.get("bond.pairs")
        assert bonds is None or not len(bonds) or bonds.max() < count  # type: ignore[union-attr, arg-type]

    def test_is_live_and_has_no_frames_to_seek(self, source: Source) -> None:
        assert source.info.live and source.info.frame_count is None
        with pytest.raises(FailedPreconditionError):
            source.seek(0)

    def test_starts_without_work_and_time_grows_in_ps(self, source: Source) -> None:
        first = source.snapshot(velocities=True)
        assert (first.user_work, first.user_energy, first.user_index.size) == (0, 0, 0)
        assert first.interaction_ids == () and first.interaction_forces.shape == (0, 3)
        if source.info.restorable:
            assert (first.time_ps, first.step) == (0, 0)
        assert first.positions.dtype == np.float32
        assert source.advance(10)
        later = source.snapshot()
        # An engine run by somebody else goes on until it hears that it is to stop.
        assert later.step == first.step + 10 or (not source.info.restorable and later.step > first.step + 10)
        assert later.velocities is None
        if first.time_ps is not None and later.time_ps is not None:
            assert 0.0005 < later.time_ps - first.time_ps < 0.2
        assert not np.array_equal(first.positions, later.positions)

    def test_what_it_returned_is_never_written_again(self, source: Source) -> None:
        snapshot = source.snapshot(velocities=True)
        kept = snapshot.positions.copy()
        source.advance(10)
        source.snapshot(velocities=True)
        np.testing.assert_array_equal(snapshot.positions, kept)

    def test_energies_and_temperature_have_the_right_size(self, source: Source, case: EngineCase) -> None:
        # One snapshot of a small system fluctuates; a wrong unit is out by far more than that.
        source.advance(30)
        temperatures = []
        for _ in range(5):
            source.advance(10)
            snapshot = source.snapshot()
            for energy in (snapshot.potential_energy, snapshot.kinetic_energy):
                assert energy is None or math.isfinite(energy)
            temperatures.append(snapshot.temperature)
        measured = [value for value in temperatures if value is not None]
        assert all(value > 0 for value in measured)
        if measured and case.temperature_k is not None and case.equilibrated:
            assert 0.3 * case.temperature_k < np.mean(measured) < 2 * case.temperature_k

    def test_the_box_is_that_of_the_instant(self, source: Source, case: EngineCase) -> None:
        first = source.snapshot().box
        source.advance(60)
        later = source.snapshot().box
        if first is None or later is None:
            assert first is later is None and not case.box_moves
        else:
            assert first.shape == later.shape == (3, 3)
            assert np.array_equal(first, later) is not case.box_moves
