"""The tether: its law, and what every potential must keep to, with the cases that Narupa's own are tested with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias, known_kinds
from narupa_shared.testing.bias_cases import System, finite_difference_error, interactions, systems, translated

PARAMETERS = {"tether": st.fixed_dictionaries({"length": st.floats(0, 2)}, optional={"stiffness": st.floats(0, 500)})}


def tethered(**parameters: Any) -> Interaction:
    return Interaction.parse("pet", kind="tether", particles=[0], mass_weighted=False, parameters=parameters)


def test_is_there_once_the_package_is_installed() -> None:
    assert "tether" in known_kinds()


@pytest.mark.parametrize(("r", "energy", "force"), [(0.0, 0, 0), (0.99, 0, 0), (1.5, 12.5, -50), (3.0, 200, -200)])
def test_is_free_within_its_length_and_harmonic_beyond(r: float, energy: float, force: float) -> None:
    bias = Bias([1.0])
    bias.set([tethered(length=1.0)], np.array([[r, 0.0, 0.0]]), None, 0.0)
    assert bias.energies[0] == pytest.approx(energy)
    np.testing.assert_allclose(bias.net_forces, [[force, 0, 0]], atol=1e-12)


def test_needs_a_length() -> None:
    with pytest.raises(InvalidArgumentError, match=r"interaction\.pet\.parameters\.length"):
        tethered()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), system=systems(), seed=st.integers(0, 2**32 - 1))
def test_keeps_what_every_potential_must(data: st.DataObject, system: System, seed: int) -> None:
    pull = data.draw(interactions(kinds=["tether"], parameters=PARAMETERS))
    bias = Bias(system.masses)
    bias.set([pull], system.positions, system.box, 0.0)
    positions = system.positions[bias.particles]
    energy, forces = bias.evaluate(positions, system.box, 0.0)
    assert math.isfinite(energy)
    assert np.linalg.norm(forces, axis=1).max() <= pull.max_force * (1 + 1e-12)
    assert finite_difference_error(bias, positions, system.box, 0.0) < 1e-6
    moved = translated(system, np.random.default_rng(seed))[bias.particles]
    assert bias.evaluate(moved, system.box, 0.0)[0] == pytest.approx(energy, abs=1e-7 * max(1.0, abs(energy)))
