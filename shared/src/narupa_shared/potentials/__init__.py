"""Bias potentials: the energy that users' interactions add to a system, and the forces, its exact negative gradient.

For one interaction, with weights w_i (mass in amu if mass-weighted, else 1), W = sum w_i over its N particles, centre
c = sum w_i x_i / W, handle h, d = c - h (minimum image) and r = |d|:

    E   = scale (W / N) U(r)
    F_i = -dE/dx_i = -scale (w_i / N) U'(r) d / r

with U = -exp(-r^2 / 2 s^2), s = 1 nm (gaussian), r^2 (spring), r (constant; no force at r = 0). The cap holds for each
particle, so U' stops growing at u = max_force N / (|scale| max w_i), and U is the integral of that capped U'.
`docs/physics.md` derives this and says where other servers differ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narupa_shared.interactions import Interaction, PotentialKind
from narupa_shared.periodic import Lattice

GAUSSIAN_WIDTH_NM: Final = 1.0

# r >= 0 in nm -> (U, U') for unit strength: U has the unit that makes scale * U an energy in kJ/mol.
Profile = Callable[[float], tuple[float, float]]


def spring(limit: float) -> Profile:
    """U = r^2, and a straight line of slope `limit` from where U' = 2 r reaches it."""
    crossing = limit / 2

    def profile(r: float) -> tuple[float, float]:
        if r <= crossing:
            return r * r, 2 * r
        return crossing * crossing + limit * (r - crossing), limit

    return profile


def constant(limit: float) -> Profile:
    """U = r with a slope of 1, or of `limit` where that is less."""
    slope = min(1.0, limit)

    def profile(r: float) -> tuple[float, float]:
        return slope * r, slope

    return profile


def gaussian(limit: float) -> Profile:
    """U = -exp(-r^2 / 2), which is 0 at infinity; where U' = r exp(-r^2 / 2) would exceed `limit`, a straight line.

    The line is the band between the two radii where U' = `limit`; the well inside it is raised to stay continuous.
    """
    if limit >= math.exp(-0.5):  # the steepest slope, at r = s

        def uncapped(r: float) -> tuple[float, float]:
            well = math.exp(-r * r / 2)
            return -well, r * well

        return uncapped
    if limit <= 0:
        return constant(0.0)
    inner, outer = gaussian_crossings(limit)
    edge = -math.exp(-outer * outer / 2)
    raised = edge - limit * (outer - inner) + math.exp(-inner * inner / 2)

    def profile(r: float) -> tuple[float, float]:
        if inner < r < outer:
            return edge - limit * (outer - r), limit
        well = math.exp(-r * r / 2)
        return (raised if r <= inner else 0.0) - well, r * well

    return profile


PROFILES: Final[dict[PotentialKind, Callable[[float], Profile]]] = {
    "gaussian": gaussian,
    "spring": spring,
    "constant": constant,
}


@functools.lru_cache(maxsize=256)
def gaussian_crossings(slope: float) -> tuple[float, float]:
    """The two radii where r exp(-r^2 / 2) = `slope`, for 0 < `slope` < exp(-1/2), the smaller first.

    They are sqrt(-W(-slope^2)) on the two real branches of Lambert's W. Found by bisection of the logarithm, which
    neither underflows for tiny slopes nor stalls where the branches meet.
    """
    target = math.log(slope)
    radii = []
    for low, high in ((0.0, 1.0), (1.0, 2.0 + math.sqrt(-2 * target) * 2)):
        rising = low == 0.0
        while True:
            middle = (low + high) / 2
            if middle in (low, high):
                break
            if (math.log(middle) - middle * middle / 2 < target) is rising:
                low = middle
            else:
                high = middle
        radii.append((low + high) / 2)
    return radii[0], radii[1]


class Group:
    """The particles of one interaction: their places in the union, and the share of the force that each takes."""

    __slots__ = ("heaviest", "mass_weighted", "only", "particles", "places", "shares", "total")

    def __init__(self, interaction: Interaction, masses: NDArray[np.float64], union: NDArray[np.intp]) -> None:
        indices = np.array(interaction.particles, dtype=np.intp)
        weights = masses[indices] if interaction.mass_weighted else np.ones(len(indices))
        self.particles = interaction.particles
        self.mass_weighted = interaction.mass_weighted
        self.places = np.searchsorted(union, indices)
        self.only = int(self.places[0]) if len(indices) == 1 else None
        self.total = float(weights.sum())
        self.heaviest = float(weights.max())
        # Particles without mass (virtual sites) take no share; a group of nothing else feels nothing.
        self.shares = weights / self.total if self.total > 0 else np.full(len(indices), 1 / len(indices))

    def serves(self, interaction: Interaction) -> bool:
        """Whether `interaction` acts on the same particles with the same shares."""
        return self.mass_weighted is interaction.mass_weighted and self.particles == interaction.particles


class Pull:
    """One interaction made ready to be evaluated often."""

    __slots__ = ("amplitude", "group", "handle", "interaction", "profile")

    def __init__(self, interaction: Interaction, group: Group) -> None:
        count = len(group.shares)
        self.interaction = interaction
        self.group = group
        self.handle = interaction.position
        self.amplitude = interaction.scale * group.total / count
        strongest = abs(interaction.scale) * group.heaviest / count
        limit = interaction.max_force / strongest if strongest > 0 else math.inf
        self.profile = PROFILES[interaction.kind](limit)

    def at(self, x: float, y: float, z: float, lattice: Lattice | None) -> tuple[float, float, float, float]:
        """Energy (kJ/mol) and total force (kJ/(mol nm)) on the group when its centre is at (x, y, z) nm."""
        hx, hy, hz = self.handle
        x, y, z = x - hx, y - hy, z - hz
        if lattice is not None:
            x, y, z = lattice.closest_one(x, y, z)
        r = math.hypot(x, y, z)
        height, slope = self.profile(r)
        factor = -self.amplitude * slope / r if r > 0 else 0.0
        return self.amplitude * height, factor * x, factor * y, factor * z


class BiasPotential:
    """What all present interactions add to one system, and the work they have done.

    Positions are given for `particles` only, the sorted union of the interactions' particles, so that the cost follows
    what is being pulled and not the size of the system.

    Attributes:
        particles: (n,) sorted indices of the particles that some interaction acts on.
        interactions: The interactions in force.
        work: Integral of F dx over the steps since `reset_work`, kJ/mol: what the users have put into the system.
    """

    def __init__(self, masses: ArrayLike) -> None:
        """A bias with no interactions on particles of these masses, (N,) amu."""
        self._masses = np.array(masses, dtype=np.float64)
        self._pulls: list[Pull] = []
        self._before: tuple[NDArray[np.float64], NDArray[np.float64]] | None = (
            None  # positions and forces of the last step
        )
        self._box_key: bytes | None = None
        self._lattice: Lattice | None = None
        self.particles: NDArray[np.intp] = np.empty(0, np.intp)
        self.work = 0.0

    @property
    def interactions(self) -> tuple[Interaction, ...]:
        return tuple(pull.interaction for pull in self._pulls)

    @property
    def empty(self) -> bool:
        return not self._pulls

    def set(self, interactions: Sequence[Interaction]) -> None:
        """These interactions, and no others, act; those that name particles beyond the system are left out.

        The change itself does no work. Where all particles acted on now were acted on before, the next `step` is
        accounted for from the previous positions under the new interactions; otherwise it starts the account anew.
        """
        count = len(self._masses)
        kept = [
            item for item in interactions if item.particles and item.particles[-1] < count and item.particles[0] >= 0
        ]
        groups = [pull.group for pull in self._pulls]
        union = self.particles
        if len(kept) != len(groups) or not all(map(Group.serves, groups, kept)):
            union = np.array(sorted({index for item in kept for index in item.particles}), dtype=np.intp)
            groups = [Group(item, self._masses, union) for item in kept]
        before = self._before
        if before is not None:
            places = np.searchsorted(self.particles, union)
            known = bool((places < len(self.particles)).all()) and bool((self.particles[places] == union).all())
            before = (before[0][places], before[1]) if known else None
        self.particles = union
        self._pulls = [Pull(item, group) for item, group in zip(kept, groups, strict=True)]
        self._before = None
        if before is not None:
            self._before = (before[0], self._evaluate(before[0])[1])

    def evaluate(self, positions: NDArray[np.float64], box: ArrayLike | None) -> tuple[float, NDArray[np.float64]]:
        """Energy (kJ/mol) and forces ((n, 3) float64, kJ/(mol nm)) with `particles` at `positions`.

        Args:
            positions: (n, 3) float64 nm, in the order of `particles`.
            box: (3, 3) nm, rows are the box vectors, a row of zeros where there is no period; None without any.

        Raises:
            InvalidArgumentError: the box has dependent or infinite vectors.
        """
        self._set_box(box)
        return self._evaluate(positions)

    def step(self, positions: NDArray[np.float64], box: ArrayLike | None) -> tuple[float, NDArray[np.float64]]:
        """As `evaluate`, and adds to `work` what was done since the last step: (F_before + F) / 2 times the way.

        Calling it again at the same positions adds nothing, so an engine may evaluate as often as it likes.
        """
        self._set_box(box)
        energy, forces = self._evaluate(positions)
        if self._before is not None and len(positions):
            old_positions, old_forces = self._before
            moved = positions - old_positions
            if self._lattice is not None and not self._lattice.all_closest(float(np.vdot(moved, moved))):
                moved = self._lattice.closest(moved)
            self.work += 0.5 * float(np.vdot(old_forces + forces, moved))
        self._before = (positions, forces)
        return energy, forces

    def reset_work(self) -> None:
        """No work has been done, and the next `step` starts the account anew."""
        self.work = 0.0
        self._before = None

    def rebase(self) -> None:
        """The next `step` starts from where the particles are then; what moved them there was no dynamics."""
        self._before = None

    def _set_box(self, box: ArrayLike | None) -> None:
        key = (
            None if box is None else box.tobytes() if isinstance(box, np.ndarray) else np.asarray(box, float).tobytes()
        )
        if key != self._box_key:
            self._lattice = Lattice.of_box(box)
            self._box_key = key

    def _evaluate(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        lattice = self._lattice
        if len(self._pulls) == 1 and self._pulls[0].group.only is not None:
            x, y, z = positions[0].tolist()
            energy, fx, fy, fz = self._pulls[0].at(x, y, z, lattice)
            return energy, np.array(((fx, fy, fz),))
        if len(self._pulls) == 1:  # the whole union is this group
            energy, force = self._on_group(self._pulls[0], positions)
            return energy, np.multiply.outer(self._pulls[0].group.shares, force)
        energy = 0.0
        forces = np.zeros((len(self.particles), 3))
        for pull in self._pulls:
            group = pull.group
            if group.only is not None:
                x, y, z = positions[group.only].tolist()
                part, *force = pull.at(x, y, z, lattice)
            else:
                part, force = self._on_group(pull, positions[group.places])
            energy += part
            # Places are unique within a group, so this adds each share once.
            forces[group.places] += np.multiply.outer(group.shares, force)
        return energy, forces

    def _on_group(self, pull: Pull, members: NDArray[np.float64]) -> tuple[float, list[float]]:
        """Energy and total force on a group whose particles are at `members`."""
        lattice = self._lattice
        if lattice is not None:  # whole, relative to the first particle
            first = members[0]
            offsets = members - first
            if not lattice.all_closest(float(np.vdot(offsets, offsets))):
                members = first + lattice.closest(offsets)
        x, y, z = (pull.group.shares @ members).tolist()
        energy, *force = pull.at(x, y, z, lattice)
        return energy, force
