"""Bias potentials: the energy that users' interactions add to a system, and the forces, its exact negative gradient.

`docs/physics.md` derives them, says where other servers differ, and how to write one of your own. No engine is in here, and no
input or output.
"""

from __future__ import annotations

from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.potentials.bias import Bias
from narupa_shared.potentials.parameters import Parameter
from narupa_shared.potentials.potential import (
    Evaluate,
    Evaluation,
    Geometry,
    Potential,
    RadialPotential,
    Terms,
    crossing,
    huber,
    slope_limits,
)
from narupa_shared.potentials.registry import known_kinds, potential_named

__all__ = [
    "Bias",
    "Evaluate",
    "Evaluation",
    "FinishedInteraction",
    "Geometry",
    "Parameter",
    "Potential",
    "RadialPotential",
    "Terms",
    "crossing",
    "huber",
    "known_kinds",
    "potential_named",
    "slope_limits",
]
