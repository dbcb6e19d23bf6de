"""How long the bias takes for one step, and for one move of a handle.

`python -m benchmarks.bias [--repeats N]`: interactions on groups of particles of a system of 100 000, in a skewed triclinic
box, many groups across a face; medians of N. "step" is what an engine waits for at each step of its integration, "move"
what it waits for when one handle has moved, "grab" when an interaction has come or gone. "mixed" has all the kinds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.registry import BUILT_IN

COUNT = 100_000
BOX = np.array([[10.0, 0.0, 0.0], [3.0, 9.5, 0.0], [-3.5, 2.5, 9.0]])
REQUIRED: dict[str, dict[str, Any]] = {
    "steered": {"velocity": [0.01, 0.0, 0.02]},
    "distance": {"target": 0.4},
    "angle": {"target": 1.2},
    "dihedral": {"target": -2.0},
}
SIZES = ((1, 1), (10, 1), (100, 1), (1, 50), (10, 50), (200, 50))


def interactions(kinds: Iterable[str], count: int, size: int, rng: np.random.Generator) -> list[Interaction]:
    """`count` interactions, of each kind in turn, each on `size` particles (or as many as it needs) next to each other."""
    found = []
    for number, kind in zip(range(count), itertools.cycle(kinds), strict=False):
        groups = BUILT_IN[kind].groups
        members = np.arange(max(size, groups)) + number * (COUNT // count)
        parts = [] if groups == 1 else [part.tolist() for part in np.array_split(members, groups)]
        found.append(
            Interaction.parse(
                f"{kind}-{number}",
                kind=kind,
                parameters=REQUIRED.get(kind),
                particles=[] if parts else members.tolist(),
                groups=parts,
                position=rng.uniform(0, 8, 3).tolist(),
                mass_weighted=bool(number % 2),
            )
        )
    return found


def system(rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 3) nm: a chain of particles 0.1 nm apart, wrapped into the box one by one."""
    walk = np.cumsum(rng.normal(scale=0.06, size=(COUNT, 3)), axis=0)
    fractions = walk @ np.linalg.inv(BOX)
    wrapped: NDArray[np.float64] = (fractions - np.floor(fractions)) @ BOX
    return wrapped


def median_us(call: Callable[[], object], repeats: int) -> float:
    """Median time of one call, microseconds."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6


def measure(kinds: Iterable[str], count: int, size: int, box: NDArray[np.float64] | None, repeats: int) -> str:
    rng = np.random.default_rng(1)
    positions = system(rng)
    bias = Bias(rng.uniform(1, 20, COUNT))
    present = interactions(kinds, count, size, rng)
    bias.set(present, positions, box, 0.0)
    near = positions[bias.particles]
    clock = itertools.count()
    step = median_us(lambda: bias.step(near, box, next(clock) * 1e-3), repeats)

    def move() -> None:
        moved = replace(present[0], position=tuple(rng.uniform(0, 8, 3).tolist()))
        bias.set([moved, *present[1:]], positions, box, next(clock) * 1e-3)

    def grab() -> None:
        bias.set(present if next(clock) % 2 else present[1:], positions, box, next(clock) * 1e-3)

    return f"{step:8.0f} {median_us(move, max(5, repeats // 10)):9.0f} {median_us(grab, max(5, repeats // 10)):9.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    print(f"{'kind':12s} {'box':10s} {'groups':>10s} {'step':>8s} {'move':>9s} {'grab':>9s}   microseconds, medians")
    sets = {**{kind: [kind] for kind in BUILT_IN}, "mixed": list(BUILT_IN)}
    for name, kinds in sets.items():
        for count, size in SIZES if name in ("spring", "mixed") else SIZES[-1:]:
            result = measure(kinds, count, size, BOX, options.repeats)
            print(f"{name:12s} {'triclinic':10s} {f'{count} x {size}':>10s} {result}", flush=True)
    result = measure(["spring"], 200, 50, None, options.repeats)
    print(f"{'spring':12s} {'none':10s} {'200 x 50':>10s} {result}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
