"""Force: given vectors that act on particles wherever they go, as clients that do not know of potentials send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import MAX_STIFFNESS, Parameter
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Terms
from narupa_shared.potentials.vectors import Array, dot, length

UNIT: Final = "kJ/(mol nm)"


class Force:
    """E = -scale sum_i f_i.u_i, with u_i the way of particle i from where it was when the interaction began; F_i = scale f_i.

    f_i = (w_i / W) `force` + `forces`_i: one vector that the group shares out by its weights (mass in amu if mass-weighted,
    else 1, W their sum), and one for each particle, for which weights do not matter; but mass-weighted, particles without
    mass feel nothing. The handle plays no part. Where |scale f_i| exceeds max_force, f_i is shortened to that, for E as well.

    A force that is the same everywhere has no energy that is a function of place in a periodic box: a particle that it has
    drawn around once has gained scale f.a, a the box vector, and is where it was. So u_i is followed from call to call, each
    time by the shortest image of the move since the last one, and may become any number of boxes long; the work, the difference
    of E, is that of the path. It takes no step of half a box or more. Where a call makes E anew (a changed interaction, another
    one that comes or goes) u_i starts at its own shortest image, which changes E by a constant, and no force or work.

    Source: the linear potential of a constant force, as in the MDCOMM message of the IMD protocol: J. E. Stone, J. Gullingsrud,
    K. Schulten, P. Grayson, Proc. 2001 ACM Symposium on Interactive 3D Graphics, 191.
    """

    name = "force"
    groups = 1
    parameters: Sequence[Parameter] = (
        parameters.vector(
            "force",
            UNIT,
            "the force on the group, shared out by weight",
            limit=MAX_STIFFNESS,
            shortest=0.0,
            default=(0.0, 0.0, 0.0),
        ),
        parameters.rows("forces", UNIT, "further forces, one on each particle; or null", limit=MAX_STIFFNESS),
    )
    timed = False
    per_particle = True
    anchored = True

    def prepare(self, terms: Terms) -> Evaluate:
        given = np.zeros_like(terms.begun_at)
        for item, start, count in zip(terms.interactions, terms.starts, terms.counts[:, 0], strict=True):
            if item.parameters["forces"] is not None:
                given[:, start : start + count] = np.array(item.parameters["forces"], dtype=np.float64).T
        wanted = np.where(terms.weights > 0, given, 0.0) + terms.of_members(terms.vectors("force")) * terms.shares
        wanted *= terms.of_members(terms.scales)
        sizes, limits = length(wanted), terms.of_members(terms.max_forces)
        with np.errstate(invalid="ignore"):  # an infinite cap of a force that is zero
            forces = wanted * np.where(sizes > limits, limits / np.where(sizes > 0, sizes, 1.0), 1.0)
        begun = terms.begun_at
        way: Array = np.zeros_like(begun)

        def evaluate(at: Geometry) -> Evaluation:
            nonlocal way
            now = way + at.closest(at.members - begun - way)
            # Positions that are no numbers, of a simulation that has blown up, leave no trace once it has gone back.
            way = np.where(np.isfinite(now), now, way)
            return Evaluation(-terms.sum_groups(dot(forces, now)), forces.copy())

        return evaluate
