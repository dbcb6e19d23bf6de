"""Rotation: a group is held in an orientation about its centre, which itself stays free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import Parameter
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Terms, crossing, huber
from narupa_shared.potentials.vectors import Array, length, over


class Rotation:
    """E = scale k/2 sum_i w_i |y_i|^2 with y_i = x_i - c - R a_i: particles are drawn to a turned reference.

    w_i is the mass in amu or 1, c the centre with these weights, a_i the reference positions from their own such
    centre, and R the rotation by the quaternion q / |q|. Being a function of the positions alone it has an energy,
    which a torque that is simply applied has not. F_j = -g_j + (w_j / W) sum_i g_i with g_i = scale k w_i y_i; the
    forces add up to zero, so that the centre feels nothing, and the torque is the one that turns the group towards R.

    With the cap, each term is a Huber function of |y_i| whose slope stops at max_force / 2 w_i / max(w). The share of the
    centre in F_j adds at most as much again, so that no |F_j| exceeds max_force.

    Source: the pivot-free isotropic potential of C. Kutzner, J. Czub, H. Grubmueller, J. Chem. Theory Comput. 7, 1381
    (2011), there with w_i = N m_i / M.
    """

    name = "rotation"
    groups = 1
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol nm^2)", 1000.0),
        parameters.vector(
            "rotation",
            "",
            "quaternion x, y, z, w, from the reference; its length does not matter",
            size=4,
            limit=1e6,
            shortest=1e-6,
            default=(0.0, 0.0, 0.0, 1.0),
        ),
        parameters.positions(
            "reference",
            "positions without rotation, of a whole group; null for where they are when the interaction begins",
        ),
    )
    timed = False
    per_particle = True
    anchored = True

    def prepare(self, terms: Terms) -> Evaluate:
        reference = terms.begun_at.copy()
        for item, start, count in zip(terms.interactions, terms.starts, terms.counts[:, 0], strict=True):
            if item.parameters["reference"] is not None:
                reference[:, start : start + count] = np.array(item.parameters["reference"], dtype=np.float64).T
        firsts = terms.of_members(reference[:, terms.starts])
        arms = reference - firsts
        arms -= terms.of_members(terms.sum_groups(arms * terms.shares))
        targets = rotated(arms, terms.of_members(terms.vectors("rotation")))
        scales = terms.of_members(terms.scales)
        stiffness = terms.of_members(terms.numbers("stiffness")) * terms.weights
        heaviest = terms.of_members(terms.top_shares[:, 0])
        caps = terms.of_members(terms.max_forces) / 2 * np.where(terms.shares > 0, terms.shares / heaviest, 1.0)
        bend = crossing(caps, np.abs(scales) * stiffness)

        def evaluate(at: Geometry) -> Evaluation:
            away = at.members - terms.of_members(at.centres[:, :, 0]) - targets
            distances = length(away)
            energies, slopes = huber(distances, stiffness, bend)
            pulls = away * over(scales * slopes, distances)
            forces = terms.of_members(terms.sum_groups(pulls)) * terms.shares - pulls
            return Evaluation(terms.sum_groups(scales * energies), forces)

        return evaluate


def rotated(vectors: Array, quaternions: Array) -> Array:
    """(3, M) `vectors`, each turned by its quaternion, (4, M) as x, y, z, w of any length but zero."""
    x, y, z, w = quaternions / np.sqrt((quaternions * quaternions).sum(axis=0))
    matrices = np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )
    out: Array = np.einsum("ijm,jm->im", matrices, vectors)
    return out
