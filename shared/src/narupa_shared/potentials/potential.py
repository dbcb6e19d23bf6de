"""What a potential is: its name, its parameters, and how many interactions of its kind are evaluated at once.

A potential is one object for all interactions of its kind. `prepare` takes K of them as arrays and gives back a function,
which is then called at every step. Arrays have their components first, (3, ...), so that an operation runs along memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from narupa_shared.periodic import Lattice
from narupa_shared.potentials.parameters import Parameter
from narupa_shared.potentials.vectors import Array, length, over

if TYPE_CHECKING:
    from narupa_shared.interactions import Interaction


@dataclass(frozen=True, slots=True)
class Terms:
    """K interactions of one kind, each on g groups, whose M particles lie one group after the other.

    Attributes:
        interactions: The K interactions.
        handles: (3, K) nm.
        scales: (K,), each 0 where a group has no weight: a group of particles without mass, mass-weighted.
        max_forces: (K,) kJ/(mol nm).
        counts: (K, g) particles in each group.
        starts: (K * g,) where each group begins among the M.
        weights: (M,) mass in amu where mass-weighted, else 1.
        shares: (M,) weight by the group's total.
        totals: (K, g) the groups' total weights.
        top_shares: (K, g) the largest share in each group.
        begun_ps: (K,) simulated time at which each began.
        begun_at: (3, M) nm, where the particles were then, the groups whole; for a potential that is `anchored`, else empty.
    """

    interactions: Sequence[Interaction]
    handles: Array
    scales: Array
    max_forces: Array
    counts: NDArray[np.intp]
    starts: NDArray[np.intp]
    weights: Array
    shares: Array
    totals: Array
    top_shares: Array
    begun_ps: Array
    begun_at: Array

    def numbers(self, name: str) -> Array:
        """(K,) values of a parameter that is a number; NaN where it is null."""
        return np.array([item.parameters[name] for item in self.interactions], dtype=np.float64)

    def vectors(self, name: str) -> Array:
        """(size, K) values of a parameter that is a list of numbers."""
        return np.array([item.parameters[name] for item in self.interactions], dtype=np.float64).T

    def of_members(self, values: Array) -> Array:
        """(..., M) for each particle the value, (..., K * g), of its group."""
        return np.repeat(values, self.counts.ravel(), axis=-1)

    def sum_groups(self, values: Array) -> Array:
        """(..., K * g) for each group the sum of its particles' values, (..., M)."""
        return np.add.reduceat(values, self.starts, axis=-1)


class Geometry(NamedTuple):
    """Where the particles are.

    Attributes:
        centres: (3, K, g) nm, weighted centres of the groups, each made whole.
        members: (3, M) nm, the particles of each group at the images closest to its first particle.
        lattice: For minimum images; None without periods.
        time_ps: Simulated time.
    """

    centres: Array
    members: Array
    lattice: Lattice | None
    time_ps: float

    def closest(self, displacements: Array) -> Array:
        """The shortest images of displacements, (3, ...) nm."""
        return displacements if self.lattice is None else self.lattice.closest_columns(displacements)


class Evaluation(NamedTuple):
    """Energies and forces of K interactions.

    Attributes:
        energies: (K,) kJ/mol.
        forces: kJ/(mol nm): (3, K, g) on the centres, to be shared out by `Terms.shares`; or (3, M) on the particles, for
            a potential whose `per_particle` is true.
        rates: (K,) kJ/(mol ps), dE/dt with all particles held; None for none.
    """

    energies: Array
    forces: Array
    rates: Array | None = None


Evaluate = Callable[[Geometry], Evaluation]


@runtime_checkable
class Potential(Protocol):
    """A kind of interaction. Plug-ins give an object like this under the entry-point group `narupa.potentials`.

    What must hold, and `narupa_shared.testing.bias_cases` helps to test: forces are the exact negative gradient of the
    energy; no particle's force is longer than its interaction's `max_force`; finite positions give finite results;
    moving any particle by a box vector changes nothing.

    Attributes:
        name: What clients call it.
        groups: How many groups of particles an interaction has; with one, it is all of its particles.
        parameters: What clients may set.
        timed: Whether the energy depends on time as well as on positions.
        per_particle: Whether `Evaluation.forces` are those on the particles rather than on the centres.
        anchored: Whether it depends on where the particles were when the interaction began.
    """

    name: str
    groups: int
    parameters: Sequence[Parameter]
    timed: bool
    per_particle: bool
    anchored: bool

    def prepare(self, terms: Terms) -> Evaluate:
        """The function that evaluates these interactions at any positions; called when an interaction changes."""
        ...


class RadialPotential(ABC):
    """A potential of the distance r between one group's centre and the handle: E = scale (W / N) U(r), minimum image.

    With weights w_i (mass in amu if mass-weighted, else 1), W = sum w_i over N particles and centre c = sum w_i x_i / W:
    F_i = -dE/dx_i = -scale (w_i / N) U'(r) (c - h) / r. Derived classes say what U is.
    """

    name: str
    groups = 1
    parameters: Sequence[Parameter] = ()
    timed: bool = False
    per_particle: bool = False
    anchored: bool = False

    @abstractmethod
    def profile(self, limits: Array, terms: Terms) -> Callable[[Array], tuple[Array, Array]]:
        """The function that gives U and U' >= 0, (K,) each, at distances r, (K,) nm, with |U'| <= `limits`, (K,).

        U is in the unit that makes scale * U an energy in kJ/mol; it must be the integral of the U' given.
        """

    def prepare(self, terms: Terms) -> Evaluate:
        counts = terms.counts[:, 0]
        amplitudes = terms.scales * terms.totals[:, 0] / counts
        profile = self.profile(slope_limits(terms, np.abs(amplitudes) * terms.top_shares[:, 0]), terms)
        handles = terms.handles

        def evaluate(at: Geometry) -> Evaluation:
            d = at.closest(at.centres[:, :, 0] - handles)
            r = length(d)
            heights, slopes = profile(r)
            return Evaluation(amplitudes * heights, (d * over(-amplitudes * slopes, r))[:, :, None])

        return evaluate


def slope_limits(terms: Terms, strongest: Array) -> Array:
    """(K,) where slopes must stop, if a slope of 1 puts a force of `strongest`, (K,), on the particle with most of it."""
    with np.errstate(over="ignore"):
        quotient: Array = np.divide(
            terms.max_forces, strongest, out=np.full(len(strongest), np.inf), where=strongest > 0
        )
    return quotient


def crossing(limits: Array, stiffness: Array) -> Array:
    """How far a harmonic term of `stiffness` may be stretched before its force reaches `limits`; infinity for ever."""
    with np.errstate(over="ignore"):
        out: Array = np.divide(limits, stiffness, out=np.full(np.shape(limits), np.inf), where=stiffness > 0)
    return out


def huber(x: Array, stiffness: Array, bend: Array) -> tuple[Array, Array]:
    """Energy and slope of `stiffness` x^2 / 2 for 0 <= x <= `bend`, and of its tangent beyond (P. J. Huber, 1964)."""
    bent = np.minimum(x, bend)
    slope = stiffness * bent
    return slope * (x - bent / 2), slope


def is_potential(candidate: Any) -> bool:
    """Whether it has all that a `Potential` must have, of the right types."""
    return (
        isinstance(candidate, Potential)
        and isinstance(candidate.name, str)
        and isinstance(candidate.groups, int)
        and 1 <= candidate.groups <= 16
        and all(isinstance(parameter, Parameter) for parameter in candidate.parameters)
        and isinstance(candidate.timed, bool)
        and isinstance(candidate.per_particle, bool)
        and isinstance(candidate.anchored, bool)
        and callable(candidate.prepare)
    )
