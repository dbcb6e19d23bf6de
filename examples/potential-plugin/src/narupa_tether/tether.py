"""The tether: within its length a group is free, beyond it is drawn back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from narupa_shared.potentials import Parameter, RadialPotential, Terms, crossing, huber, parameters

Array = NDArray[np.float64]


class Tether(RadialPotential):
    """E = scale (W / N) U(r), U = k/2 max(0, r - R)^2, r the distance (minimum image) from the group's centre to the handle.

    F_i = -scale (w_i / N) k max(0, r - R) (c - h) / r. The slope stops at the limit that keeps every particle's force
    within max_force, and U goes on along its tangent from there. `RadialPotential` does all but U.

    Source: the flat-bottomed position restraint of GROMACS (reference manual, "Restraints"), with a sphere as its shape.
    """

    name = "tether"
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol nm^2)", default=100.0),
        parameters.number("length", "nm", "R, how far the group may go before it feels the tether", low=0.0, high=1e6),
    )

    def profile(self, limits: Array, terms: Terms) -> Callable[[Array], tuple[Array, Array]]:
        stiffness, free = terms.numbers("stiffness"), terms.numbers("length")
        bend = crossing(limits, stiffness)
        return lambda r: huber(np.maximum(r - free, 0.0), stiffness, bend)
