"""A wall: a plane that particles are pushed back across, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import MAX_COORDINATE, Parameter
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Terms, crossing, huber
from narupa_shared.potentials.vectors import dot, length


class Wall:
    """E = scale sum_i k_i/2 min(0, n.(x_i - h))^2, a soft plane through the handle h with the normal n, |n| = 1.

    The side towards which n points is free. k_i is `stiffness`, times the particle's mass in amu where mass-weighted,
    so that a wall then slows light and heavy particles alike. F_i = -scale k_i min(0, n.(x_i - h)) n; where that
    reaches max_force, E_i goes on along its tangent. In periodic boxes the whole group is placed with its first
    particle at the image nearest to h.

    Source: the harmonic wall of colvars, G. Fiorin, M. L. Klein, J. Henin, Mol. Phys. 111, 3345 (2013).
    """

    name = "wall"
    groups = 1
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol nm^2)", 1000.0),
        parameters.vector(
            "normal",
            "",
            "points to the free side; its length does not matter",
            limit=MAX_COORDINATE,
            shortest=1e-6,
            default=(0.0, 0.0, 1.0),
        ),
    )
    timed = False
    per_particle = True
    anchored = False

    def prepare(self, terms: Terms) -> Evaluate:
        normals = terms.vectors("normal")
        normals = normals / length(normals)
        member_normals = terms.of_members(normals)
        stiffness = terms.of_members(terms.numbers("stiffness")) * terms.weights
        scales = terms.of_members(terms.scales)
        bend = crossing(terms.of_members(terms.max_forces), np.abs(scales) * stiffness)
        handles, starts = terms.handles, terms.starts

        def evaluate(at: Geometry) -> Evaluation:
            firsts = at.members[:, starts] - handles
            # How deep behind the plane the first particle's closest image is, and each of the others from there.
            placed = dot(normals, at.closest(firsts) - firsts - handles)
            depths = np.maximum(-dot(member_normals, at.members) - terms.of_members(placed), 0.0)
            energies, slopes = huber(depths, stiffness, bend)
            return Evaluation(terms.sum_groups(scales * energies), member_normals * (scales * slopes))

        return evaluate
