"""Thermal velocities, and whose are redrawn."""

from __future__ import annotations

import numpy as np
import pytest

from narupa_shared.interactions import Interaction
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.velocities import thermal_velocities, to_redraw


def test_mean_kinetic_energy_is_that_of_the_temperature() -> None:
    masses = np.tile([1.0, 16.0, 0.0], 20_000)
    velocities = thermal_velocities(masses, 350.0, np.random.default_rng(1))
    assert not velocities[2::3].any()
    for first in (0, 1):
        energy = 0.5 * masses[first] * (velocities[first::3] ** 2).sum(axis=1).mean()
        assert energy == pytest.approx(1.5 * BOLTZMANN_KJ_MOL_K * 350.0, rel=0.02)


def test_only_those_let_go_by_everybody_are_redrawn() -> None:
    one = Interaction.parse("one", particles=[1, 2, 3], reset_velocities=True)
    two = Interaction.parse("two", particles=[3, 4])
    three = Interaction.parse("three", particles=[7])
    assert to_redraw([one, two, three], [two]).tolist() == [1, 2]
    assert to_redraw([one, two], [one]).size == 0
    assert to_redraw([one], [one.moved((1, 1, 1))]).size == 0


def test_those_that_an_interaction_exchanges_for_others_are_let_go() -> None:
    before = Interaction.parse("one", particles=[1, 2, 3], reset_velocities=True)
    after = Interaction.parse("one", particles=[3, 4], reset_velocities=True)
    assert to_redraw([before], [after]).tolist() == [1, 2]
