"""What live interactions cost a simulation: steps per second with 1, 10 and 100 of them against none, in one run.

`python -m benchmarks.interactions [INPUT] [--rounds N] [--size PARTICLES] [--kind KIND] [--cpu]`

Four copies of the simulation live through the whole run, one for each number of interactions, and take turns in shuffled
order, a slice each, so that a machine that slows down slows all. A slice is what the service makes an engine do at 30 frames
per second: all handles move, the engine integrates up to the next frame, the frame is read. Prints the ratio of the
medians; then how long it takes to grab, to grab again, to move and to let go.

OpenMM has one thread here, and the process one core: left to the scheduler, its threads land on one core or two, which alone
changes the speed.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from narupa_shared.interactions import Interaction
    from narupa_trajectory.sources.source import Source

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "17-ala.xml"
COUNTS = (0, 1, 10, 100)
FRAMES_PER_S = 30
WIRED = ("gaussian", "spring", "constant")
# How far from its particle a handle is, and wanders in a run, nm.
REACH_NM = 0.15


def pulls(source: Source, count: int, size: int, kinds: Sequence[str]) -> list[Interaction]:
    """`count` gentle interactions on `size` particles each, spread over the system, of `kinds` in turn."""
    from narupa_shared.interactions import Interaction

    positions, total = source.snapshot().positions.astype(float), source.info.particle_count
    found = []
    for number in range(count):
        particles = [(number * total // count + i) % total for i in range(size)]
        found.append(
            Interaction.parse(
                f"pull{number}",
                position=(positions[particles].mean(axis=0) + np.array([REACH_NM, 0, 0])).tolist(),
                particles=particles,
                kind=kinds[number % len(kinds)],
                scale=2.0,
            )
        )
    return found


class Live:
    """A simulation with some interactions on it whose handles move with every frame."""

    def __init__(self, source: Source, items: list[Interaction], steps: int) -> None:
        self.source, self.items, self.steps = source, items, steps
        self._rng = np.random.default_rng(len(items))

    def moved(self) -> list[Interaction]:
        by = self._rng.normal(scale=REACH_NM / 100, size=(len(self.items), 3))
        return [
            item.moved((np.array(item.position) + step).tolist()) for item, step in zip(self.items, by, strict=True)
        ]

    def rate(self, frames: int, clock: Callable[[], float]) -> float:
        """Steps per second over some frames; the clients' part, to say where the handles are, is not counted."""
        moves = []
        for _ in range(frames):
            self.items = self.moved()
            moves.append(self.items)
        start = clock()
        for items in moves:
            if items:
                self.source.set_interactions(items)
            self.source.advance(self.steps)
            self.source.snapshot()
        return frames * self.steps / (clock() - start)


def timed(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds that `act` takes."""
    start = clock()
    act()
    return (clock() - start) * 1000


def changes(source: Source, items: list[Interaction], clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds of each kind of change, on a simulation that runs in between."""
    found: dict[str, list[float]] = {"grab": [], "move": [], "release": [], "grab again": []}
    for item in items:
        there = [item.moved((np.array(item.position) + 0.01).tolist())]
        for name, wanted in (("grab", [item]), ("move", there), ("release", []), ("grab again", there), ("", [])):
            took = timed(functools.partial(source.set_interactions, wanted), clock)
            source.advance(5)
            if name:
                found[name].append(took)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default=str(SAMPLE) if SAMPLE.exists() else "demo:peptide")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--size", type=int, default=1, help="particles of each interaction")
    parser.add_argument("--cpu", action="store_true", help="count processor time, where others use the machine too")
    parser.add_argument("--kind", choices=WIRED, help="by default all three in turn")
    options = parser.parse_args()
    os.environ["OPENMM_CPU_THREADS"] = "1"  # read when OpenMM is loaded
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from narupa_trajectory.sources.catalogue import SourceSpec, open_source

    clock = time.process_time if options.cpu else time.perf_counter
    kinds = (options.kind,) if options.kind else WIRED
    spec = SourceSpec.parse(options.source)
    name = Path(options.source).name
    runs: dict[int, Live] = {}
    for count in COUNTS:
        source = open_source(spec)
        source.advance(50)
        start = clock()
        source.advance(200)
        speed = 200 / (clock() - start)
        steps = runs[0].steps if runs else max(1, round(speed / FRAMES_PER_S))
        runs[count] = Live(source, pulls(source, count, options.size, kinds), steps)
        runs[count].rate(3, clock)
    rates: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(options.rounds):
        for count in random.sample(COUNTS, len(COUNTS)):
            rates[count].append(runs[count].rate(2, clock))
    none = statistics.median(rates[0])
    print(f"interactions {name} of {options.size}: none {none:.0f} steps/s", end="")
    for count in COUNTS[1:]:
        print(f"; {count}: {statistics.median(rates[count]) / none:.3f}", end="")
    print(f" (ratios of medians of {options.rounds} slices of {2 * runs[0].steps} steps)")
    grabbed = pulls(runs[0].source, 40, options.size, kinds)
    for change, took in changes(runs[0].source, grabbed, clock).items():
        print(f"interactions {name} {change}: median {statistics.median(took):.2f} ms, longest {max(took):.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
