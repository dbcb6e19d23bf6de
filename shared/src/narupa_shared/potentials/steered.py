"""Steered molecular dynamics: one group drawn along a line by a spring whose other end moves at constant velocity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narupa_shared.potentials import parameters
from narupa_shared.potentials.parameters import MAX_COORDINATE, MAX_TIME_PS, Parameter
from narupa_shared.potentials.potential import (
    Evaluate,
    Evaluation,
    Geometry,
    Terms,
    crossing,
    huber,
    slope_limits,
)
from narupa_shared.potentials.vectors import length


class Steered:
    """E = scale k/2 x^2 with x = n.(c - h) - |v| (t - t0), n = v / |v|: the component across n is free.

    The spring's end waits at the handle h until t0 (`start_ps`, or the moment when the interaction begins) and then moves by v.
    In periodic boxes c - h - v (t - t0) is a minimum image, so that the end may be drawn through any number of boxes. With the
    cap, E goes on along its tangent from where k |x| scale reaches max_force / (largest share of a particle):
    F_i = -(w_i / W) dE/dx n. dE/dt at fixed positions is -|v| dE/dx.

    Source: H. Grubmueller, B. Heymann, P. Tavan, Science 271, 997 (1996); S. Izrailev et al., Biophys. J. 72, 1568 (1997);
    B. Isralewitz, M. Gao, K. Schulten, Curr. Opin. Struct. Biol. 11, 224 (2001).
    """

    name = "steered"
    groups = 1
    parameters: Sequence[Parameter] = (
        parameters.stiffness("kJ/(mol nm^2)", 1000.0),
        parameters.vector(
            "velocity", "nm/ps", "the velocity of the spring's end", limit=MAX_COORDINATE, shortest=1e-12
        ),
        parameters.number(
            "start_ps",
            "ps",
            "simulated time at which the end begins to move; null for the moment when the interaction begins",
            low=-MAX_TIME_PS,
            high=MAX_TIME_PS,
            default=None,
            optional=True,
        ),
    )
    timed = True
    per_particle = False
    anchored = False

    def prepare(self, terms: Terms) -> Evaluate:
        stiffness = terms.numbers("stiffness")
        velocity = terms.vectors("velocity")
        speed = length(velocity)
        direction = velocity / speed
        start = terms.numbers("start_ps")
        start = np.where(np.isnan(start), terms.begun_ps, start)
        # Where the end moves from the first moment on, the rate there is the one after it: no movement came before.
        at_once = terms.begun_ps >= start
        scales, handles = terms.scales, terms.handles
        bend = crossing(slope_limits(terms, np.abs(scales) * terms.top_shares[:, 0]), stiffness)

        def evaluate(at: Geometry) -> Evaluation:
            elapsed = np.maximum(at.time_ps - start, 0.0)
            d = at.closest(at.centres[:, :, 0] - handles - velocity * elapsed)
            x = (direction * d).sum(axis=0)
            energies, slopes = huber(np.abs(x), stiffness, bend)
            pull = scales * np.copysign(slopes, x)
            moving = (elapsed > 0) | (at_once & (at.time_ps == start))
            return Evaluation(scales * energies, (direction * -pull)[:, :, None], np.where(moving, -speed * pull, 0.0))

        return evaluate
