"""Force is the negative gradient of the energy.

Hypothesis draws interactions of each kind (parameters, weights, one to ten particles in one or several groups, positive and
negative scales), boxes (none, orthorhombic, skewed up to where closest images are several vectors away, periodic along one or
two vectors), molecules whose particles are scattered over neighbouring images, and caps from 0 through far below to far above
the forces at hand. The force on every coordinate is compared with differences of the energy to fourth order, over steps of 1e-3
nm and, where that is not small enough, less; the error is the largest deviation over the largest force (or over a millionth of
the energy per nm, where that is more: rounding hides what is below). Where the energy has a kink, the force must be the
derivative on one side. Energies of uncapped interactions are compared with formulas written down a second time
(`tests/validation/laws.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.registry import BUILT_IN
from narupa_shared.testing.bias_cases import STENCILS, System, interactions, systems
from tests.validation import laws
from tests.validation.conftest import Recorder
from tests.validation.systems import Vectors

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

BOUND = 1e-6
EXAMPLES = 100
BEGUN_PS = 2.5
checking = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


STEPS_NM = (1e-3, 1e-4, 1e-5, 1e-6)


def gradient_error(bias: Bias, positions: Vectors, box: Vectors | None, time_ps: float) -> float:
    """The largest |F + dE/dx| over the largest |F|; positions (n, 3) nm are those of the bias's particles."""
    energy, forces = bias.evaluate(positions, box, time_ps)
    size = max(float(np.abs(forces).max(initial=0.0)), 1e-6 * abs(energy), 1e-300)
    worst = 0.0
    for place in np.ndindex(*positions.shape):
        error = math.inf
        for step in STEPS_NM:
            energies = []
            for shift in range(-4, 5):
                moved = positions.copy()
                moved[place] += shift * step
                energies.append(bias.evaluate(moved, box, time_ps)[0])
            slopes = np.array(STENCILS) @ np.array(energies) / (12 * step)
            error = min(error, float(np.abs(forces[place] + slopes).min()) / size)
            if error < BOUND / 100:
                break
        worst = max(worst, error)
    return worst


@dataclass
class Found:
    """What the examples came to."""

    worst: float = 0.0
    excess: float = 0.0  # of |F_i| over the cap, relative
    cases: Counter[str] = field(default_factory=Counter)

    def add(self, system: System, items: list[Interaction], seed: int, elapsed_ps: float) -> None:
        bias = Bias(system.masses)
        bias.set(items, system.positions, system.box, BEGUN_PS)
        rng = np.random.default_rng(seed)
        moved = system.positions[bias.particles] + rng.normal(scale=0.03, size=(len(bias.particles), 3))
        time_ps = BEGUN_PS + elapsed_ps
        self.worst = max(self.worst, gradient_error(bias, moved, system.box, time_ps))
        strongest = float(np.linalg.norm(bias.evaluate(moved, system.box, time_ps)[1], axis=1).max(initial=0.0))
        limit = sum(item.max_force for item in items)
        self.excess = max(self.excess, strongest / limit - 1 if limit > 0 else strongest)
        cap = items[0].max_force
        capped = abs(strongest - cap) < 1e-9 * cap or cap == 0
        self.cases["no cap" if math.isinf(cap) else "at the cap" if capped else "under a cap"] += 1
        self.cases["in boxes"] += system.box is not None

    def text(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(self.cases.items(), reverse=True))


def noted(found: Found, record: Recorder, what: str) -> None:
    record(
        "Force against finite differences of the energy; |F| of any particle against the cap",
        system=what,
        bound=f"relative error < {BOUND:g}; no excess over the cap (1e-9)",
        result=f"at most {found.worst:.1e} ({found.text()}); excess {max(0.0, found.excess):.0e}",
        passed=found.worst < BOUND and found.excess < 1e-9,
    )


@pytest.mark.parametrize("kind", BUILT_IN)
def test_force_is_minus_the_gradient(kind: str, record: Recorder) -> None:
    """Force against finite differences of the energy."""
    found = Found()

    @checking
    @given(systems(massless=True), interactions(kinds=[kind]), st.integers(0, 2**32 - 1), st.floats(0, 3))
    def check(system: System, item: Interaction, seed: int, elapsed_ps: float) -> None:
        found.add(system, [item], seed, elapsed_ps)

    check()
    noted(found, record, kind)


def test_force_of_many_is_minus_the_gradient(record: Recorder) -> None:
    """Force against finite differences of the energy, of several interactions of all kinds at once."""
    found = Found()
    several = st.tuples(*(interactions(id=str(number), max_forces=(5.0, 2000.0, 20000.0)) for number in range(5)))

    @checking
    @given(systems(), several, st.integers(0, 2**32 - 1), st.floats(0, 3))
    def check(system: System, items: tuple[Interaction, ...], seed: int, elapsed_ps: float) -> None:
        found.add(system, list(items), seed, elapsed_ps)

    check()
    noted(found, record, "five of any kinds at once, on shared particles")


@pytest.mark.parametrize("kind", BUILT_IN)
def test_energy_is_the_formula(kind: str, record: Recorder) -> None:
    """Energy against an independent formula."""
    worst = 0.0

    @checking
    @given(systems(), interactions(kinds=[kind], max_forces=(math.inf,)), st.integers(0, 2**32 - 1), st.floats(0, 3))
    def check(system: System, item: Interaction, seed: int, elapsed_ps: float) -> None:
        nonlocal worst
        bias = Bias(system.masses)
        bias.set([item], system.positions, system.box, BEGUN_PS)
        moved = system.positions + np.random.default_rng(seed).normal(scale=0.03, size=system.positions.shape)
        energy, _ = bias.evaluate(moved[bias.particles], system.box, BEGUN_PS + elapsed_ps)
        at = elapsed_ps
        if item.parameters.get("start_ps") is not None:
            at = max(0.0, BEGUN_PS + elapsed_ps - item.parameters["start_ps"])
        law = laws.energy(item, moved, system.masses, system.box, at, system.positions)
        worst = max(worst, abs(energy - law) / max(1.0, abs(law)))

    check()
    record(
        "Energy without a cap against an independent formula",
        system=kind,
        bound="error ≤ 1e-9 of the larger of it and 1 kJ/mol",
        result=f"at most {worst:.1e} ({EXAMPLES} cases)",
        passed=worst <= 1e-9,
    )
