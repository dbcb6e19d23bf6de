"""Bias potentials: the energy that users' interactions add to a system, and the forces, its exact negative gradient.

`docs/physics.md` derives them and says where other servers differ. No engine is in here, and no input or output.
"""

from __future__ import annotations

from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.potentials.bias import Bias
from narupa_shared.potentials.potential import Evaluation, Geometry, Potential, RadialPotential, Terms
from narupa_shared.potentials.registry import known_kinds, potential_named

BiasPotential = Bias

__all__ = [
    "Bias",
    "BiasPotential",
    "Evaluation",
    "FinishedInteraction",
    "Geometry",
    "Potential",
    "RadialPotential",
    "Terms",
    "known_kinds",
    "potential_named",
]
