"""What counts as a simulation that has blown up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from narupa_trajectory.sources.divergence import Limits, check, check_finite, check_snapshot
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError


@pytest.mark.parametrize(
    ("potential", "kinetic", "temperature", "told"),
    [
        (math.nan, 1.0, 300.0, "the potential energy is nan kJ/mol"),
        (1.0, math.inf, 300.0, "the kinetic energy is inf kJ/mol"),
        (1.0, 1.0, math.nan, "the temperature is nan K"),
        (1.0, 1.0, 100_001.0, "1e.05 K, above its limit of 100000 K .*max_temperature_k"),
        (None, 1e6, None, "above its limit"),  # reckoned from the kinetic energy
    ],
)
def test_states_that_are_no_simulation_are_named(
    potential: float | None, kinetic: float | None, temperature: float | None, told: str
) -> None:
    with pytest.raises(SourceDivergedError, match=told):
        check(potential, kinetic, temperature, 10)


def test_what_is_hot_but_allowed_or_not_known_passes() -> None:
    check(None, None, None, 10)
    check(-1e12, 1e3, 99_999.0, 10)
    check(1.0, 1e9, 1e9, 10, Limits(math.inf))
    with pytest.raises(SourceDivergedError):
        check(1.0, 1.0, 301.0, 10, Limits(300.0))


def test_the_particle_that_is_nowhere_is_named() -> None:
    positions = np.zeros((4, 3))
    check_finite("positions", positions)
    positions[2, 1] = np.inf
    with pytest.raises(SourceDivergedError, match="the positions of particle 2 are not finite"):
        check_finite("positions", positions)


@pytest.mark.parametrize(
    "bad",
    [
        {"velocities": np.full((2, 3), np.nan, np.float32)},
        {"user_energy": math.inf},
        {"user_work": math.nan},
        {"user_forces": np.full((1, 3), np.inf, np.float32)},
        {"interaction_energies": np.array([1e39])},  # too large for a frame
        {"interaction_work": np.array([math.nan])},
        {"interaction_forces": np.full((1, 3), np.nan)},
    ],
)
def test_no_part_of_a_frame_may_be_no_number(bad: dict[str, Any]) -> None:
    check_snapshot(Snapshot(np.zeros((2, 3), np.float32), 0.0, 0))
    with pytest.raises(SourceDivergedError):
        check_snapshot(Snapshot(np.zeros((2, 3), np.float32), 0.0, 0, **bad))
