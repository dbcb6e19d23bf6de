"""Thermal velocities, and whose are redrawn when a user lets go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.units import BOLTZMANN_KJ_MOL_K


def thermal_velocities(
    masses: NDArray[np.float64], temperature: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Velocities (n, 3) nm/ps from the Maxwell-Boltzmann distribution at `temperature` K; 0 for particles without mass.

    Each component is normal with variance k_B T / m; 1 kJ/(mol amu) is 1 (nm/ps)^2.
    """
    spread = np.sqrt(np.divide(BOLTZMANN_KJ_MOL_K * temperature, masses, out=np.zeros_like(masses), where=masses > 0))
    return rng.standard_normal((len(masses), 3)) * spread[:, None]


def to_redraw(before: Sequence[Interaction], after: Sequence[Interaction]) -> NDArray[np.intp]:
    """The particles that some interactions which asked for it have let go of, by ending or by taking hold of others, and
    that nobody holds any more."""
    released = {index for item in before if item.reset_velocities for index in item.particles}
    if not released:
        return np.empty(0, np.intp)
    held = {index for item in after for index in item.particles}
    return np.array(sorted(released - held), dtype=np.intp)
