"""Cases for tests of bias potentials: any interaction, in any box, across any face; and forces against finite differences.

Writers of potentials may use them for their own: `interactions(kinds=["mine"], parameters=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials.bias import Bias
from narupa_shared.potentials.registry import BUILT_IN, potential_named

PARTICLES: Final = 10
# No force, far below, around and far above what the scales and parameters here lead to, and no cap.
CAPS: Final = (0.0, 0.3, 5.0, 60.0, 2000.0, 20000.0, math.inf)
STEPS_NM: Final = (3e-4, 3e-5, 3e-6)
# dE/dx from E at -4 ... 4 steps, to fourth order, times 12: central, and from either side only. Where E has a kink, the force is
# the derivative on one side of it.
STENCILS: Final = (
    np.array([0, 0, 1, -8, 0, 8, -1, 0, 0]),
    np.array([0, 0, 0, 0, -25, 48, -36, 16, -3]),
    np.array([3, -16, 36, -48, 25, 0, 0, 0, 0]),
)


class System(NamedTuple):
    """Particles in a box: a molecule smaller than half of any of the boxes, each of its particles at any image.

    Attributes:
        masses: (N,) amu.
        positions: (N, 3) nm.
        box: (3, 3) nm, or None.
        whole: (N, 3) nm, the molecule in one piece.
    """

    masses: NDArray[np.float64]
    positions: NDArray[np.float64]
    box: NDArray[np.float64] | None
    whole: NDArray[np.float64]


def boxes() -> st.SearchStrategy[NDArray[np.float64] | None]:
    """None; orthorhombic; triclinic, skewed as far as closest images several vectors away; periodic along one or two vectors."""
    edge = st.floats(2.0, 5.0)
    skew = st.floats(-0.9, 0.9)

    def triclinic(a: float, b: float, c: float, xy: float, xz: float, yz: float) -> NDArray[np.float64]:
        return np.array([[a, 0.0, 0.0], [xy * a, b, 0.0], [xz * a, yz * b, c]])

    orthorhombic = st.builds(lambda a, b, c: np.diag([a, b, c]), edge, edge, edge)
    skewed = st.builds(triclinic, edge, edge, edge, skew, skew, skew)
    far = st.just(np.array([[12.0, 0.0, 0.0], [0.0, 12.0, 0.0], [4.3, 0.0, 2.0]]))
    partly = st.builds(
        lambda box, rows: np.where(np.array(rows)[:, None], box, 0.0),
        st.one_of(orthorhombic, skewed),
        st.sampled_from([(True, True, False), (False, True, True), (False, False, True), (True, False, False)]),
    )
    return st.one_of(st.none(), orthorhombic, skewed, far, partly)


def coordinates(limit: float) -> st.SearchStrategy[tuple[float, float, float]]:
    """Three numbers within +-`limit`."""
    axis = st.floats(-limit, limit)
    return st.tuples(axis, axis, axis)


@st.composite
def systems(draw: st.DrawFn, massless: bool = False) -> System:
    """`PARTICLES` particles in one of `boxes`; with `massless`, the last one weighs nothing."""
    box = draw(boxes())
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    masses = rng.uniform(1.0, 60.0, PARTICLES)
    if massless:
        masses[-1] = 0.0
    whole = np.array(draw(coordinates(4.0))) + rng.uniform(-0.25, 0.25, (PARTICLES, 3))
    positions = whole
    if box is not None:
        positions = whole + rng.integers(-2, 3, (PARTICLES, 3)) @ box
    return System(masses, positions, box, whole)


@st.composite
def interactions(
    draw: st.DrawFn,
    kinds: Sequence[str] = tuple(BUILT_IN),
    parameters: Mapping[str, st.SearchStrategy[Mapping[str, Any]]] | None = None,
    max_forces: Sequence[float] = CAPS,
    id: str = "case",
) -> Interaction:
    """An interaction of one of `kinds` on some of `PARTICLES` particles; `parameters` adds strategies for kinds not built in."""
    kind = draw(st.sampled_from(list(kinds)))
    count = potential_named(kind).groups
    members = draw(st.permutations(range(PARTICLES)))[: draw(st.integers(count, PARTICLES))]
    # Each group has one at least, and the rest go anywhere.
    owners = [*range(count), *(draw(st.integers(0, count - 1)) for _ in members[count:])]
    parts = [[member for member, owner in zip(members, owners, strict=True) if owner == n] for n in range(count)]
    choices = {**PARAMETERS, **(parameters or {})}
    given = dict(draw(choices[kind])) if kind in choices else {}
    if kind == "rotation" and draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        given["reference"] = rng.uniform(-0.3, 0.3, (len(members), 3)).tolist()
    if kind == "force" and draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        given["forces"] = rng.normal(scale=300.0, size=(len(members), 3)).tolist()
    return Interaction.parse(
        id,
        kind=kind,
        position=draw(coordinates(4.0)),
        particles=members if count == 1 else [],
        groups=parts if count > 1 else None,
        scale=draw(st.sampled_from([1.0, 25.0, -4.0, 0.1])),
        mass_weighted=draw(st.booleans()),
        max_force=draw(st.sampled_from(list(max_forces))),
        parameters=given,
    )


STIFFNESS = st.sampled_from([0.0, 2.0, 150.0, 1000.0])
PARAMETERS: Final[Mapping[str, st.SearchStrategy[Mapping[str, Any]]]] = {
    "gaussian": st.fixed_dictionaries({}, optional={"width": st.floats(0.3, 3.0)}),
    "spring": st.fixed_dictionaries({}, optional={"stiffness": STIFFNESS}),
    "force": st.fixed_dictionaries({}, optional={"force": coordinates(500.0)}),
    "steered": st.fixed_dictionaries(
        {"velocity": coordinates(0.5).filter(lambda v: math.hypot(*v) > 1e-6)},
        optional={"stiffness": STIFFNESS, "start_ps": st.none() | st.floats(-5, 5)},
    ),
    "wall": st.fixed_dictionaries(
        {}, optional={"stiffness": STIFFNESS, "normal": coordinates(2.0).filter(lambda v: math.hypot(*v) > 1e-3)}
    ),
    "rotation": st.fixed_dictionaries(
        {},
        optional={
            "stiffness": STIFFNESS,
            "rotation": st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 1e-3),
        },
    ),
    "distance": st.fixed_dictionaries({"target": st.floats(0, 1)}, optional={"stiffness": STIFFNESS}),
    "angle": st.fixed_dictionaries({"target": st.floats(0, math.pi)}, optional={"stiffness": STIFFNESS}),
    "dihedral": st.fixed_dictionaries({"target": st.floats(-math.pi, math.pi)}, optional={"stiffness": STIFFNESS}),
}


def finite_difference_error(
    bias: Bias, positions: NDArray[np.float64], box: NDArray[np.float64] | None, time_ps: float, enough: float = 1e-7
) -> float:
    """The largest |F + dE/dx| of any coordinate, by the largest |F|; smaller steps are tried until it is below `enough`.

    What the rounding of the energy alone may amount to is not counted.

    Args:
        bias: Its interactions are those tested.
        positions: (n, 3) nm, of `bias.particles`.
        box: (3, 3) nm, or None.
        time_ps: Simulated time.
        enough: Relative error at which no smaller step is tried.
    """
    energy, forces = bias.evaluate(positions, box, time_ps)
    largest = float(np.abs(forces).max(initial=0.0))
    if not (math.isfinite(energy) and math.isfinite(largest)):
        return math.inf
    scale = max(abs(energy), largest * float(np.abs(positions).max(initial=0.0)))
    worst = 0.0
    error: float
    for index in np.ndindex(*positions.shape):
        error = math.inf
        for step in STEPS_NM:
            energies = np.empty(9)
            for place, shift in enumerate(range(-4, 5)):
                moved = positions.copy()
                moved[index] += shift * step
                energies[place] = bias.evaluate(moved, box, time_ps)[0]
            rounding = 64 * np.finfo(float).eps * max(scale, float(np.abs(energies).max())) / step
            for stencil in STENCILS:
                off = abs(float(forces[index]) + float(stencil @ energies) / (12 * step))
                error = min(error, max(0.0, off - rounding) / largest if largest else off - rounding)
            if error < enough:
                break
        worst = max(worst, error)
    return worst


def translated(system: System, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 3) nm: each particle moved by box vectors of its own."""
    if system.box is None:
        return system.positions
    shifts: NDArray[np.float64] = system.positions + rng.integers(-3, 4, (len(system.positions), 3)) @ system.box
    return shifts
