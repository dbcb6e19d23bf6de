"""The part of the users' bias that OpenMM evaluates itself, on its own device: pulls of one group towards a handle."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import openmm
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials.radial import gaussian_crossings

Vectors = NDArray[np.float64]
# The particles of a group, and whether its centre is that of mass: what cannot be changed without a rebuild.
Key = tuple[tuple[int, ...], bool]
Name = tuple[Key, str]

# The kinds that it can do, and the parameter that gives each its shape.
SHAPES: Final = {"gaussian": "width", "spring": "stiffness", "constant": ""}
# One law for the three kinds, of the distance r between centre and handle. All of them are, with their caps,
#     a parabola up to ri, a line from ri to ro, and a Gaussian well outside ro and inside ri
# where the parts that a kind does not have are zero. The numbers are per bond, so one force serves every interaction.
ENERGY: Final = (
    "curvature*min(r,ri)^2 + slope*max(0,min(r,ro)-ri) + level - depth*(exp(-sharpness*max(r,ro)^2)"
    " + exp(-sharpness*min(r,ri)^2)); r = pointdistance(x1,y1,z1,hx,hy,hz)"
)
PARAMETERS: Final = ("hx", "hy", "hz", "curvature", "slope", "level", "depth", "sharpness", "ri", "ro")
Numbers = tuple[float, ...]
IDLE: Final[Numbers] = (0.0,) * len(PARAMETERS)
# Beyond any distance, nm: a crossing that is never reached.
FAR: Final = 1.0e6
# Groups that were let go stay in the force, without effect, to be grabbed again without a rebuild.
MOST_SPARE: Final = 16
MOST_SPARE_PARTICLES: Final = 5000


class NativePulls:
    """Interactions as bonds of a `CustomCentroidBondForce`, one group and one handle each.

    A bond's group is fixed when the force is built into the context; all else is parameters, which change without a
    rebuild. Bonds are in the order of their groups, and interactions on the same group in the order of their ids, so that
    forces are added up in the same order, to the last bit, whatever was grabbed and let go before.
    """

    def __init__(self, masses: Vectors, periodic: bool) -> None:
        """No interactions on particles of these masses, (N,) amu; distances are minimum images if `periodic`."""
        self._masses = masses
        self._periodic = periodic
        self._items: list[Interaction | None] = []  # by bond; None: without effect
        self._keys: list[Key] = []  # by bond
        self._numbers: list[Numbers] = []  # by bond, as the engine has them
        self._names: list[Name] = []  # of the interactions that act
        self._bonds: list[int] = []  # theirs, in the order of `_names`
        self._recent: dict[Key, None] = {}  # groups in force or let go of late, the latest last
        self._force: openmm.CustomCentroidBondForce | None = None
        self._groups = Groups([], masses)

    @property
    def shifts(self) -> bool:
        """Whether groups may have to be made whole: a move of the particles can then change the numbers."""
        return self._periodic and self._groups.several

    def covers(self, items: Sequence[Interaction]) -> bool:
        """Whether all of `items` can act without a rebuild."""
        if named(items) == self._names:
            return True
        there = Counter(self._keys)
        return all(count <= there[key] for key, count in Counter(map(key_of, items)).items())

    def build(self, items: Sequence[Interaction]) -> openmm.CustomCentroidBondForce:
        """A new force, for a context that is about to be rebuilt, with bonds for `items` and for spare groups."""
        needed = Counter(map(key_of, items))
        self._remember(needed)
        spare: list[Key] = []
        room = MOST_SPARE_PARTICLES
        for key in list(reversed(self._recent))[: MOST_SPARE + len(needed)]:
            if key not in needed and len(spare) < MOST_SPARE and len(key[0]) <= room:
                spare.append(key)
                room -= len(key[0])
        self._recent = {key: None for key in self._recent if key in needed or key in spare}
        self._keys = sorted([*needed.elements(), *spare])
        self._items = [None] * len(self._keys)
        self._names, self._bonds = [], []
        self._numbers = [IDLE] * len(self._keys)
        self._groups = Groups(self._keys, self._masses)
        self._force = force = openmm.CustomCentroidBondForce(1, ENERGY)
        for name in PARAMETERS:
            force.addPerBondParameter(name)
        for (particles, _), shares in zip(self._keys, self._groups.shares, strict=True):
            force.addBond([force.addGroup(particles, shares.tolist())], IDLE)
        force.setUsesPeriodicBoundaryConditions(self._periodic)
        return force

    def remove(self) -> None:
        """The force has been taken out of the system."""
        self._keys, self._items, self._numbers, self._names, self._bonds, self._force = [], [], [], [], [], None

    def set(self, items: Sequence[Interaction]) -> None:
        """`items`, all of which are covered, are to act; the force has their numbers after `refresh`."""
        names = named(items)
        if names != self._names:  # else they have only been moved or changed
            self._remember(key for key, _ in names)
            free: dict[Key, list[int]] = {}
            for bond, key in reversed(list(enumerate(self._keys))):
                free.setdefault(key, []).append(bond)
            bonds = {(key, id): free[key].pop() for key, id in sorted(names)}
            self._names, self._bonds = names, [bonds[name] for name in names]
            self._items = [None] * len(self._keys)
        for bond, item in zip(self._bonds, items, strict=True):
            self._items[bond] = item

    def refresh(self, positions: Vectors, edges: Vectors | None) -> bool:
        """The force's parameters are those for these positions, (N, 3) nm; whether any has changed.

        A group that lies across a face of the box is made whole by lattice vectors, which stay the same while it moves:
        they are taken from the handle, since OpenMM takes the centre of the particles as they are.

        Args:
            edges: (3,) nm of the box, whose vectors are at right angles; None without periods.
        """
        force = self._force
        if force is None:
            return False
        shifts = self._groups.shifts(positions, edges) if self.shifts and edges is not None else None
        changed = False
        for bond, item in enumerate(self._items):
            if item is None:
                numbers = IDLE
            else:
                hx, hy, hz = item.position
                if shifts is not None:
                    sx, sy, sz = shifts[bond].tolist()
                    hx, hy, hz = hx - sx, hy - sy, hz - sz
                shape = float(item.parameters.get(SHAPES[item.kind], 0.0))
                weights = self._groups.totals[bond], self._groups.heaviest[bond]
                count = len(item.particles)
                numbers = (hx, hy, hz, *law(item.kind, shape, item.scale, item.max_force, count, *weights))
            if numbers != self._numbers[bond]:
                force.setBondParameters(bond, (bond,), numbers)
                self._numbers[bond] = numbers
                changed = True
        return changed

    def send(self, context: openmm.Context) -> None:
        """The context has the force's parameters."""
        if self._force is not None:
            self._force.updateParametersInContext(context)

    def _remember(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._recent.pop(key, None)
            self._recent[key] = None


class Groups:
    """The groups of all bonds, laid end to end."""

    def __init__(self, keys: Sequence[Key], masses: Vectors) -> None:
        weights = [masses[list(particles)] if weighted else np.ones(len(particles)) for particles, weighted in keys]
        self.totals = [float(each.sum()) for each in weights]
        self.heaviest = [float(each.max()) for each in weights]
        self.shares = [each / total for each, total in zip(weights, self.totals, strict=True)]
        sizes = [len(particles) for particles, _ in keys]
        self.several = any(size > 1 for size in sizes)
        self._members = np.array([index for particles, _ in keys for index in particles], dtype=np.intp)
        self._first = np.array([particles[0] for particles, _ in keys for _ in particles], dtype=np.intp)
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.intp)
        self._flat_shares = np.concatenate([np.empty(0), *self.shares])

    def shifts(self, positions: Vectors, edges: Vectors) -> Vectors | None:
        """What making each group whole, relative to its first particle, adds to its centre, (bonds, 3) nm; None for nought."""
        steps = np.rint((positions[self._members] - positions[self._first]) / edges)
        if not steps.any():
            return None
        summed: Vectors = np.add.reduceat(self._flat_shares[:, None] * (-steps * edges), self._starts, axis=0)
        return summed


def key_of(item: Interaction) -> Key:
    return item.particles, item.mass_weighted


def named(items: Sequence[Interaction]) -> list[Name]:
    """What decides which bond an interaction has."""
    return [((item.particles, item.mass_weighted), item.id) for item in items]


@functools.lru_cache(maxsize=4096)
def law(kind: str, shape: float, scale: float, max_force: float, count: int, total: float, heaviest: float) -> Numbers:
    """The parameters from `curvature` to `ro` of an interaction on `count` particles, with weights that sum to `total`.

    E = scale (W / N) U(r), with U and its cap as in `narupa_shared.potentials.radial`: U' stops at
    u = max_force N / (|scale| max w).

    Args:
        shape: The width of a gaussian, nm, or the stiffness of a spring, kJ/(mol nm^2).
        heaviest: The largest weight.
    """
    strongest = abs(scale) * heaviest / count
    cap = max_force / strongest if strongest > 0 else math.inf
    height = scale * total / count
    if height == 0 or cap <= 0:
        return IDLE[3:]
    if kind == "constant":  # U = r
        return 0.0, height * min(1.0, cap), 0.0, 0.0, 0.0, 0.0, FAR
    if kind == "spring":  # U = k / 2 r^2, a line of slope u from r = u / k
        bend = cap / shape if shape > 0 else math.inf
        if bend >= FAR:
            return height * shape / 2, 0.0, 0.0, 0.0, 0.0, FAR, FAR
        return height * shape / 2, height * cap, 0.0, 0.0, 0.0, bend, FAR
    sharpness = 1 / (2 * shape * shape)  # U = -exp(-r^2 / 2 s^2), a line of slope u where it is steeper
    if cap * shape >= math.exp(-0.5):  # the steepest slope, at r = s, is within the cap
        return 0.0, 0.0, height, height, sharpness, 0.0, 0.0
    inner, outer = (shape * float(radius[0]) for radius in gaussian_crossings(np.array([cap * shape])))
    level = cap * (inner - outer) + math.exp(-sharpness * inner * inner)
    return 0.0, height * cap, height * level, height, sharpness, inner, outer
