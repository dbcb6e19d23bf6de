"""Gaussian, spring and constant force: pulls of one group towards the handle, as existing clients expect them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import MAX_COORDINATE, MIN_LENGTH, Parameter
from narupa_shared.potentials.potential import RadialPotential, Terms, crossing, huber
from narupa_shared.potentials.vectors import Array

DEFAULT_WIDTH_NM: Final = 1.0
# U = r^2 by default, the law of the existing clients.
DEFAULT_STIFFNESS: Final = 2.0

Profile = Callable[[Array], tuple[Array, Array]]


class Spring(RadialPotential):
    """U = k r^2 / 2 and, from where U' = k r reaches the limit u, its tangent u r - u^2 / 2k.

    Source: M. O'Connor et al., J. Chem. Phys. 150, 220901 (2019), with k = 2; the cap is Huber's.
    """

    name = "spring"
    parameters: Sequence[Parameter] = (parameters.stiffness("kJ/(mol nm^2)", DEFAULT_STIFFNESS),)

    def profile(self, limits: Array, terms: Terms) -> Profile:
        stiffness = terms.numbers("stiffness")
        bend = crossing(limits, stiffness)
        return lambda r: huber(r, stiffness, bend)


class Constant(RadialPotential):
    """U = r, with a slope of 1 or of the limit where that is less; no force exactly at the handle."""

    name = "constant"

    def profile(self, limits: Array, terms: Terms) -> Profile:
        slopes = np.minimum(1.0, limits)
        return lambda r: (slopes * r, slopes)


class Gaussian(RadialPotential):
    """U = -exp(-r^2 / 2 s^2), which is 0 at infinity; a straight line where U' would exceed the limit.

    The line is the band between the two radii where U' = r / s^2 exp(-r^2 / 2 s^2) equals the limit u; U outside is the plain
    gaussian, and the well inside is raised to stay continuous. Below, rho = r / s and the limit is u s.

    Source: M. O'Connor et al., J. Chem. Phys. 150, 220901 (2019), with s = 1 nm; the cap is ours.
    """

    name = "gaussian"
    parameters: Sequence[Parameter] = (
        parameters.number(
            "width", "nm", "s, the standard deviation", low=MIN_LENGTH, high=MAX_COORDINATE, default=DEFAULT_WIDTH_NM
        ),
    )

    def profile(self, limits: Array, terms: Terms) -> Profile:
        width = terms.numbers("width")
        steepest = math.exp(-0.5)  # at rho = 1
        limit = limits * width
        if (limit >= steepest).all():

            def plain(r: Array) -> tuple[Array, Array]:
                rho = r / width
                well = np.exp(rho * rho / -2)
                return -well, rho / width * well

            return plain
        free = limit >= steepest
        capped = ~free & (limit > 0)
        inner, outer = np.ones(len(limit)), np.ones(len(limit))
        inner[capped], outer[capped] = gaussian_crossings(limit[capped])
        outer[limit <= 0] = np.inf
        inner[limit <= 0] = 0.0
        # Where nothing is capped, the band from 1 to 1 is empty.
        edge = -np.exp(outer * outer / -2)
        slope = np.where(capped, limit, 0.0)
        outer_line = np.where(capped, outer, 0.0)  # without 0 * infinity
        raised = np.where(capped, edge - slope * (outer_line - inner) + np.exp(inner * inner / -2), 0.0)
        at_zero = np.where(limit <= 0, 0.0, 1.0)

        def profile(r: Array) -> tuple[Array, Array]:
            rho = r / width
            well = np.exp(rho * rho / -2) * at_zero
            band = (rho > inner) & (rho < outer)
            height = np.where(band, edge - slope * (outer_line - rho), np.where(rho <= inner, raised, 0.0) - well)
            return height, np.where(band, slope, rho * well) / width

        return profile


def gaussian_crossings(limits: Array) -> tuple[Array, Array]:
    """The two radii where rho exp(-rho^2 / 2) equals `limits`, (m,) from above 0 to below exp(-1/2); the smaller first.

    They are sqrt(-W(-limit^2)) on the two real branches of Lambert's W. Found by Newton's method for logarithms, from the
    side on which it is monotonic and cannot overshoot.
    """
    target = np.log(limits)
    logarithm = target.copy()
    outer = 1.0 + np.sqrt(-2.0 * target)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(64):
            square = np.exp(2 * logarithm)
            step = (target - logarithm + square / 2) / (1 - square)
            down = (outer * outer / 2 - np.log(outer) + target) / (outer - 1 / outer)
            step = np.where(np.isfinite(step) & (step > 0), step, 0.0)
            down = np.where(np.isfinite(down) & (down > 0), down, 0.0)
            logarithm = np.minimum(logarithm + step, 0.0)
            outer = np.maximum(outer - down, 1.0)
            if (step <= 4e-16 * np.abs(logarithm)).all() and (down <= 4e-16 * outer).all():
                break
    return np.exp(logarithm), outer
