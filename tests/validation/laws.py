"""The energies of every kind of interaction, written down a second time: slowly, one interaction at a time, without a cap.

The radial kinds are the law that existing Narupa and NanoVer clients expect: with d = centre - handle, E(d) = -exp(-d² / 2 s²),
d² or |d|, times scale, and F_i = scale w_i F(d) / N. (Their energy is W / N times E(d), W the sum of w_i.)
The others are the formulas of docs/physics.md. Nothing here is shared with the code under test but the checked `Interaction`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction

Vectors = NDArray[np.float64]
IMAGES: Final = np.array(list(itertools.product(range(-6, 7), repeat=3)))


def closest(displacement: Vectors, box: Vectors | None) -> Vectors:
    """The shortest image of a displacement, by trying all images; a box has rows of zeros where it has no period."""
    if box is None:
        return displacement
    near = displacement - np.rint(displacement @ np.linalg.pinv(box)) @ box
    candidates = near + IMAGES @ box
    return candidates[np.argmin(np.linalg.norm(candidates, axis=1))]


def whole(positions: Vectors, box: Vectors | None) -> Vectors:
    """The group with every particle at the image closest to the first."""
    return np.array([positions[0] + closest(place - positions[0], box) for place in positions])


def angle(a: Vectors, b: Vectors) -> float:
    return math.acos(float(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


def dihedral(one: Vectors, two: Vectors, three: Vectors) -> float:
    """Of three successive bonds; positive where the last is turned clockwise, seen along the second (IUPAC)."""
    left, right = np.cross(one, two), np.cross(two, three)
    size = angle(left, right)
    return math.copysign(size, float(one @ right))


def turned(vectors: Vectors, quaternion: Vectors) -> Vectors:
    """`vectors` (n, 3) turned by the quaternion x, y, z, w, by Rodrigues' formula."""
    axis, w = np.array(quaternion[:3]), float(quaternion[3])
    size = float(np.linalg.norm(axis))
    if size == 0:
        return vectors
    axis, turn = axis / size, 2 * math.atan2(size, w)
    along = np.outer(vectors @ axis, axis)
    return along + math.cos(turn) * (vectors - along) + math.sin(turn) * np.cross(axis, vectors)


def energy(
    item: Interaction, positions: Vectors, masses: Vectors, box: Vectors | None, time_ps: float, begun: Vectors
) -> float:
    """The energy of one interaction, kJ/mol.

    Args:
        positions: (N, 3) nm, of all particles.
        masses: (N,) amu.
        time_ps: Since the interaction began.
        begun: (N, 3) nm, the positions when it began.
    """
    given = item.parameters
    groups = [list(group) for group in item.groups] or [list(item.particles)]
    weights = [masses[group] if item.mass_weighted else np.ones(len(group)) for group in groups]
    placed = [whole(positions[group], box) for group in groups]
    centres = [np.average(some, axis=0, weights=w) for some, w in zip(placed, weights, strict=True)]
    handle = np.array(item.position)
    w, x = weights[0], placed[0]
    k = given.get("stiffness", 0.0)
    d = closest(centres[0] - handle, box)
    amplitude = w.sum() / len(w)
    if item.kind == "gaussian":
        value = -amplitude * math.exp(-float(d @ d) / (2 * given["width"] ** 2))
    elif item.kind == "spring":
        value = amplitude * k / 2 * float(d @ d)
    elif item.kind == "constant":
        value = amplitude * float(np.linalg.norm(d))
    elif item.kind == "steered":
        velocity = np.array(given["velocity"])
        speed = float(np.linalg.norm(velocity))
        extension = closest(centres[0] - handle - velocity * time_ps, box) @ velocity / speed
        value = k / 2 * float(extension) ** 2
    elif item.kind == "wall":
        normal = np.array(given["normal"]) / np.linalg.norm(given["normal"])
        first = handle + closest(x[0] - handle, box)
        depths = np.minimum(0.0, (x - x[0] + first - handle) @ normal)
        value = float(np.sum(k / 2 * (w if item.mass_weighted else 1.0) * depths**2))
    elif item.kind == "rotation":
        start = np.array(given["reference"]) if given["reference"] is not None else whole(begun[groups[0]], box)
        arms = start - np.average(start, axis=0, weights=w)
        away = x - centres[0] - turned(arms, np.array(given["rotation"]))
        value = k / 2 * float(np.sum(w * (away**2).sum(axis=1)))
    elif item.kind == "force":
        pulls = np.outer(w / w.sum(), given["force"])
        if given["forces"] is not None:
            pulls = pulls + np.array(given["forces"])
        ways = np.array([closest(positions[i] - begun[i], box) for i in groups[0]])
        value = -float(np.sum(pulls * ways))
    elif item.kind == "distance":
        value = k / 2 * (float(np.linalg.norm(closest(centres[1] - centres[0], box))) - given["target"]) ** 2
    elif item.kind == "angle":
        arms = [closest(centres[end] - centres[1], box) for end in (0, 2)]
        value = k / 2 * (angle(arms[0], arms[1]) - given["target"]) ** 2
    elif item.kind == "dihedral":
        bonds = [closest(centres[i + 1] - centres[i], box) for i in range(3)]
        off = dihedral(bonds[0], bonds[1], bonds[2]) - given["target"]
        value = k / 2 * (off - 2 * math.pi * round(off / (2 * math.pi))) ** 2
    else:
        raise NotImplementedError(item.kind)
    return item.scale * value


def negative_gradient(energy_at: Callable[[Vectors], float], positions: Vectors, step: float = 2e-3) -> Vectors:
    """-dE/dx by a seven-point stencil, whose error is of order step^6."""
    forces = np.zeros_like(positions)
    for place in np.ndindex(*positions.shape):
        values = []
        for k in (-3, -2, -1, 1, 2, 3):
            moved = positions.copy()
            moved[place] += k * step
            values.append(energy_at(moved))
        forces[place] = -float(np.dot((-1, 9, -45, 45, -9, 1), values)) / (60 * step)
    return forces


def forces(item: Interaction, positions: Vectors, masses: Vectors, box: Vectors | None) -> Vectors:
    """The forces (n, 3), kJ/(mol nm), on the interaction's particles at the moment when it begins."""
    held = list(item.particles)

    def energy_at(some: Vectors) -> float:
        everywhere = positions.copy()
        everywhere[held] = some
        return energy(item, everywhere, masses, box, 0.0, positions)

    if item.kind in ("gaussian", "spring", "constant"):
        return radial_forces(item, positions, masses, box)
    return negative_gradient(energy_at, positions[held])


def radial_forces(item: Interaction, positions: Vectors, masses: Vectors, box: Vectors | None) -> Vectors:
    """F_i = scale w_i F(d) / N, as existing clients have it."""
    held = list(item.particles)
    w = masses[held] if item.mass_weighted else np.ones(len(held))
    d = closest(np.average(whole(positions[held], box), axis=0, weights=w) - np.array(item.position), box)
    r = float(np.linalg.norm(d))
    if item.kind == "gaussian":
        s = item.parameters["width"]
        law = -d / s**2 * math.exp(-r * r / (2 * s * s))
    elif item.kind == "spring":
        law = -item.parameters["stiffness"] * d
    else:
        law = -d / r
    return item.scale * w[:, None] * law / len(held)
