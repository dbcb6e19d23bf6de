"""Distance, angle and dihedral: restraints between the centres of two, three or four groups. The handle plays no part.

With weights w_i (mass in amu if mass-weighted, else 1) the centre of a group is c = sum w_i x_i / W, and a force F on a
centre is shared out as F_i = (w_i / W) F: the energy depends on nothing but the centres. t is the largest share of any
particle in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import MAX_COORDINATE, Parameter
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Terms, crossing, huber, slope_limits
from narupa_shared.potentials.vectors import Array, cross, dot, length, over

# With u = a L(x), |grad u| <= a * 1 for an angle's lever and a * 3/2 for a dihedral's, and a deviation of at most pi.
ANGLE_BOUND: Final = 1.0 + math.pi
DIHEDRAL_BOUND: Final = 1.0 + 1.5 * math.pi


class Distance:
    """E = scale k/2 (r - r0)^2, r = |c_2 - c_1|, minimum image, and its tangent where the force reaches max_force.

    The most heavily weighted particle meets the cap first, at scale k |r - r0| t = max_force.

    F on c_2 is -dE/dr (c_2 - c_1) / r and on c_1 the opposite; no force at r = 0 exactly, where there is no direction.

    Source: the harmonic restraint; with centres, as "pull-coord-geometry = distance" of GROMACS or "distance" of colvars,
    G. Fiorin, M. L. Klein, J. Henin, Mol. Phys. 111, 3345 (2013).
    """

    name = "distance"
    groups = 2
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol nm^2)", 1000.0),
        parameters.number("target", "nm", "the distance r0 between the centres", low=0.0, high=MAX_COORDINATE),
    )
    timed = False
    per_particle = False
    anchored = False

    def prepare(self, terms: Terms) -> Evaluate:
        stiffness, target, scales = terms.numbers("stiffness"), terms.numbers("target"), terms.scales
        bend = crossing(slope_limits(terms, np.abs(scales) * terms.top_shares.max(axis=1)), stiffness)

        def evaluate(at: Geometry) -> Evaluation:
            d = at.closest(at.centres[:, :, 1] - at.centres[:, :, 0])
            r = length(d)
            x = r - target
            energies, slopes = huber(np.abs(x), stiffness, bend)
            pull = d * over(scales * np.copysign(slopes, x), r)
            return Evaluation(scales * energies, np.stack((pull, -pull), axis=2))

        return evaluate


class Angle:
    """E = scale k/2 (theta - theta0)^2, theta in [0, pi] between c_1 - c_2 and c_3 - c_2 (minimum images), from atan2.

    With p and q the lengths of these arms, |grad theta| on a centre is at most 1/p + 1/q = 1/L. The cap stops dE/dtheta
    at u = a L with a = max_force / (|scale| t (1 + pi)): E = u |theta - theta0| - u^2 / 2k where k |theta - theta0| >
    u. As u depends on the positions, the gradient has the term (|theta - theta0| - u / k) grad u, at most pi a long;
    with u |grad theta| <= a the sum stays within the cap. u vanishes with an arm, so that no force is singular. At 0
    and pi, where theta has no gradient unless it is the target, the force is 0.

    Source: W. C. Swope, D. M. Ferguson, J. Comput. Chem. 13, 585 (1992), for a gradient without sin(theta) in it; the capped
    form is ours.
    """

    name = "angle"
    groups = 3
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol rad^2)", 100.0),
        parameters.number("target", "rad", "the angle theta0 at the second group", low=0.0, high=math.pi),
    )
    timed = False
    per_particle = False
    anchored = False

    def prepare(self, terms: Terms) -> Evaluate:
        cap = AngularCap(terms, ANGLE_BOUND)
        target = terms.numbers("target")

        def evaluate(at: Geometry) -> Evaluation:
            bonds = at.closest(at.centres[:, :, :-1] - at.centres[:, :, 1:])
            arm, other = bonds[:, :, 0], -bonds[:, :, 1]
            p, q = length(arm), length(other)
            arm, other = over(arm, p), over(other, q)
            normal = cross(arm, other)
            sine = length(normal)
            normal = over(normal, sine)
            theta = np.arctan2(sine, dot(arm, other))
            on_first = over(cross(arm, normal), p)
            on_last = over(cross(normal, other), q)
            lever = over(p * q, p + q)
            along_first, along_last = over(q, p + q) ** 2 * arm, over(p, p + q) ** 2 * other
            energies, slopes, stretch = cap.apply(theta - target, lever)
            ends = [-(slopes * on_first + stretch * along_first), -(slopes * on_last + stretch * along_last)]
            return Evaluation(energies, np.stack((ends[0], -ends[0] - ends[1], ends[1]), axis=2))

        return evaluate


class Dihedral:
    """E = scale k/2 wrapped(phi - phi0)^2, phi in (-pi, pi] with the sign of IUPAC: positive if, seen along c_2 -> c_3,
    c_4 is turned clockwise from c_1. Deviations are wrapped to [-pi, pi].

    With F = c_1 - c_2, G = c_2 - c_3, H = c_4 - c_3 (minimum images), A = F x G and B = H x G, phi = atan2((B x A).G /
    |G|, A.B), and |grad phi| on a centre is at most (|F| + |G|) / |A| + (|H| + |G|) / |B| = 1/L. The cap stops dE/dphi
    at u = a L with a = max_force / (|scale| t (1 + 3 pi / 2)), as for an angle: |grad L| on a centre is at most 3/2, so
    that |F_i| <= max_force, and u vanishes where three centres lie on one line and phi is singular. Exactly there, the
    force is 0.

    Source: A. Blondel, M. Karplus, J. Comput. Chem. 17, 1132 (1996), for phi and its gradient; the capped form is ours.
    """

    name = "dihedral"
    groups = 4
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol rad^2)", 100.0),
        parameters.number(
            "target", "rad", "the dihedral phi0 about groups 2 and 3", low=-2 * math.pi, high=2 * math.pi
        ),
    )
    timed = False
    per_particle = False
    anchored = False

    def prepare(self, terms: Terms) -> Evaluate:
        cap = AngularCap(terms, DIHEDRAL_BOUND)
        target = terms.numbers("target")

        def evaluate(at: Geometry) -> Evaluation:
            bonds = at.closest(at.centres[:, :, :-1] - at.centres[:, :, 1:])
            f, g, h = bonds[:, :, 0], bonds[:, :, 1], -bonds[:, :, 2]
            f_length, g_length, h_length = length(f), length(g), length(h)
            a, b = cross(f, g), cross(h, g)
            a_length, b_length = length(a), length(b)
            a, b = over(a, a_length), over(b, b_length)
            phi = np.arctan2(over(dot(cross(b, a), g), g_length), dot(a, b))
            deviation = phi - target
            deviation = deviation - 2 * math.pi * np.rint(deviation / (2 * math.pi))
            # grad phi
            on_one, on_four = -a * over(g_length, a_length), b * over(g_length, b_length)
            through = a * over(dot(f, g), a_length * g_length) - b * over(dot(h, g), b_length * g_length)
            # L, and its gradient by f, g and h
            left_arms, right_arms = f_length + g_length, h_length + g_length
            left, right = over(a_length, left_arms), over(b_length, right_arms)
            lever = over(left * right, left + right)
            by_left, by_right = over(right, left + right) ** 2, over(left, left + right) ** 2
            g_unit = over(g, g_length)
            by_f = by_left * over(cross(g, a) - left * over(f, f_length), left_arms)
            by_h = by_right * over(cross(g, b) - right * over(h, h_length), right_arms)
            by_g = by_left * over(cross(a, f) - left * g_unit, left_arms)
            by_g += by_right * over(cross(b, h) - right * g_unit, right_arms)
            energies, slopes, stretch = cap.apply(deviation, lever)
            forces = np.stack(
                (
                    slopes * on_one + stretch * by_f,
                    slopes * (through - on_one) + stretch * (by_g - by_f),
                    slopes * (-through - on_four) - stretch * (by_g + by_h),
                    slopes * on_four + stretch * by_h,
                ),
                axis=2,
            )
            return Evaluation(energies, -forces)

        return evaluate


class AngularCap:
    """Huber functions of K angles, whose slopes stop at u = a L, with levers L that follow the positions."""

    def __init__(self, terms: Terms, bound: float) -> None:
        self.scales = terms.scales
        self.stiffness = terms.numbers("stiffness")
        limits = slope_limits(terms, np.abs(terms.scales) * terms.top_shares.max(axis=1) * bound)
        self.bend = crossing(limits, self.stiffness)  # by the lever
        self.free = np.isinf(self.bend)
        self.growth = np.where(np.isinf(limits), 0.0, limits)

    def apply(self, deviations: Array, levers: Array) -> tuple[Array, Array, Array]:
        """E (K,), and what grad E is made of: dE/d(angle) (K,), and dE/du a (K,), which multiplies grad L."""
        size = np.abs(deviations)
        with np.errstate(invalid="ignore"):
            bend = np.where(self.free, np.inf, self.bend * levers)
        energies, slopes = huber(size, self.stiffness, bend)
        stretch = (size - np.minimum(size, bend)) * self.growth
        return self.scales * energies, self.scales * np.copysign(slopes, deviations), self.scales * stretch
