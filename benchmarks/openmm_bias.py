"""The ways to put a bias into OpenMM's integration, against no bias, in one run.

`python -m benchmarks.openmm_bias [INPUT.xml | ATOMS] [--rounds N] [--seconds S] [--platform NAME] [--cpu]`

INPUT.xml is an OpenMM input; a number makes a liquid of so many argon atoms instead. Every candidate pulls 1, 10 and 100 single
particles with springs, in contexts of its own that live through the whole run and take turns in shuffled order. Prints the
ratio of each one's median speed to that of the bare system; then what a moved handle and a rebuild cost.

    python      a PythonForce that evaluates `Bias` with numpy
    native      the force of this project: one bond of a CustomCentroidBondForce for each interaction, any of three laws
    centroid    the same force with nothing but the law of a spring
    external    a CustomExternalForce: single particles only
    compound    a CustomCompoundBondForce of one particle: single particles only
    mts         no bias at all, but the integrator with multiple time steps that would make a slow bias affordable
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.interactions import SAMPLE, timed

if TYPE_CHECKING:
    import openmm

COUNTS = (1, 10, 100)
CANDIDATES = ("python", "native", "centroid", "external", "compound")
GROUP = 31
Build = Callable[[], "tuple[openmm.System, Any]"]


def sample(path: Path) -> Build:
    """The system of an input file, and its positions, nm."""
    import openmm

    from narupa_trajectory.sources.openmm_input import deserialized, parsed, read_structure

    root = parsed(path)
    positions = read_structure(root).getPositions(asNumpy=True)._value
    return lambda: (deserialized(root, "System", openmm.System), positions)


def argon(count: int) -> Build:
    """A liquid of argon at 1.4 g/cm3, on a lattice to begin with."""
    import openmm

    side = round(count ** (1 / 3))
    edge = side * 0.362

    def build() -> tuple[openmm.System, Any]:
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*np.diag([edge] * 3))
        force = openmm.NonbondedForce()
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(0.9)
        for _ in range(side**3):
            system.addParticle(39.948)
            force.addParticle(0.0, 0.3405, 0.996)
        system.addForce(force)
        return system, np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3) * 0.362

    return build


def bias_force(candidate: str, system: openmm.System, positions: Any, count: int) -> tuple[Any, Callable[[Any], None]]:
    """The force of a candidate that pulls `count` particles, and a function that moves the handles in a context."""
    import openmm

    from narupa_shared.interactions import Interaction
    from narupa_shared.potentials import Bias
    from narupa_trajectory.sources.openmm_native import NativePulls
    from narupa_trajectory.sources.openmm_system import vectors_of

    total = system.getNumParticles()
    particles = [n * total // count for n in range(count)]
    handles = np.array(positions)[particles] + [0.1, 0, 0]
    periodic = system.usesPeriodicBoundaryConditions()
    items = [
        Interaction.parse(f"p{n}", particles=[i], position=h, kind="spring", scale=50.0, mass_weighted=False)
        for n, (i, h) in enumerate(zip(particles, handles.tolist(), strict=True))
    ]
    masses = np.array([system.getParticleMass(i)._value for i in range(total)])
    box = np.array([list(row._value) for row in system.getDefaultPeriodicBoxVectors()]) if periodic else None
    if candidate == "python":
        bias = Bias(masses)
        bias.set(items, np.array(positions, float), box, 0.0)

        def evaluate(state: openmm.State) -> tuple[float, Any]:
            return bias.step(vectors_of(state, openmm.State.Positions), box, 0.0)

        force = openmm.PythonForce(evaluate)
        force.setParticles(particles)
        return force, lambda context: bias.set(items, np.array(positions, float), box, 0.0)
    if candidate == "native":
        pulls = NativePulls(masses, periodic)
        force = pulls.build(items)
        edges = None if box is None else np.diag(box)
        by = [0.0]

        def move(context: Any) -> None:
            by[0] += 0.001
            pulls.set([item.moved((item.position[0] + by[0], *item.position[1:])) for item in items])
            if pulls.refresh(positions, edges) and context is not None:
                pulls.send(context)

        move(None)
        return force, move
    if candidate == "external":
        distance = "periodicdistance(x,y,z,hx,hy,hz)" if periodic else "sqrt((x-hx)^2+(y-hy)^2+(z-hz)^2)"
        force = openmm.CustomExternalForce(f"50*{distance}^2")
        parameter, add, change = force.addPerParticleParameter, force.addParticle, force.setParticleParameters
        places: list[Any] = particles
    else:
        compound = candidate == "compound"
        force = (openmm.CustomCompoundBondForce if compound else openmm.CustomCentroidBondForce)(
            1, "50*pointdistance(x1,y1,z1,hx,hy,hz)^2"
        )
        parameter, add, change = force.addPerBondParameter, force.addBond, force.setBondParameters
        places = [[i] if compound else [force.addGroup([i], [1.0])] for i in particles]
        force.setUsesPeriodicBoundaryConditions(periodic)
    for name in ("hx", "hy", "hz"):
        parameter(name)
    for place, handle in zip(places, handles, strict=True):
        add(place, handle)

    def moved(context: Any) -> None:
        for n, handle in enumerate(handles):
            change(n, places[n], handle)
        force.updateParametersInContext(context)

    return force, moved


def changes(context: openmm.Context, move: Callable[[Any], None]) -> tuple[float, float]:
    """Median milliseconds of a move of all handles, and of a rebuild."""
    moves = [timed(lambda: move(context)) for _ in range(20)]
    rebuilds = [timed(lambda: context.reinitialize(preserveState=True)) for _ in range(5)]
    return statistics.median(moves), statistics.median(rebuilds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default=str(SAMPLE) if SAMPLE.exists() else "1000")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each slice")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--cpu", action="store_true", help="count processor time, where others use the machine too")
    options = parser.parse_args()
    os.environ["OPENMM_CPU_THREADS"] = "1"  # read when OpenMM is loaded
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import openmm
    from openmm.mtsintegrator import MTSLangevinIntegrator

    build = argon(int(options.source)) if options.source.isdigit() else sample(Path(options.source))
    platform = openmm.Platform.getPlatform(options.platform)
    contexts: dict[tuple[str, int], Any] = {}
    moves: dict[tuple[str, int], Any] = {}
    for key in [("none", 0), ("mts", 0), *((name, count) for name in CANDIDATES for count in COUNTS)]:
        system, positions = build()
        if key[1]:
            force, moves[key] = bias_force(key[0], system, positions, key[1])
            force.setForceGroup(GROUP)
            system.addForce(force)
        mts = key[0] == "mts"
        integrator = (
            MTSLangevinIntegrator(300.0, 1.0, 0.002, [(0, 1)])
            if mts
            else openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
        )
        contexts[key] = openmm.Context(system, integrator, platform)
        contexts[key].setPositions(positions)
        contexts[key].setVelocitiesToTemperature(300.0)
        integrator.step(5)
    clock = time.process_time if options.cpu else time.perf_counter
    plain = contexts["none", 0].getIntegrator()
    steps = max(1, round(options.seconds * 20 / (timed(lambda: plain.step(20)) / 1000)))
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in contexts}
    for _ in range(options.rounds):
        for key in random.sample(list(contexts), len(contexts)):
            start = clock()
            contexts[key].getIntegrator().step(steps)
            rates[key].append(steps / (clock() - start))
    none = statistics.median(rates["none", 0])
    name = Path(options.source).name
    print(f"openmm_bias {name} on {options.platform}: none {none:.0f} steps/s; slices of {steps} steps")
    print(f"openmm_bias {name} mts without bias: {statistics.median(rates['mts', 0]) / none:.3f}")
    for candidate in CANDIDATES:
        ratios = [f"{count}: {statistics.median(rates[candidate, count]) / none:.3f}" for count in COUNTS]
        move, rebuild = changes(contexts[candidate, COUNTS[-1]], moves[candidate, COUNTS[-1]])
        print(
            f"openmm_bias {name} {candidate:9} {'; '.join(ratios)}; moving {COUNTS[-1]} handles {move:.3f} ms, "
            f"rebuilding {rebuild:.1f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
