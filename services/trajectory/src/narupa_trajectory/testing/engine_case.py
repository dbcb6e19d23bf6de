"""One engine with one input, and what the suite needs to know of it; the pulls that the suite makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.periodic import Lattice
from narupa_shared.potentials import Bias
from narupa_trajectory.sources.source import Snapshot, Source

# How many particles around the first one are looked at for a group of good shape.
CANDIDATES: Final = 12


def standard_masses(source: Source) -> NDArray[np.float64]:
    """Of the elements that the topology names, amu."""
    from ase.data import atomic_masses

    elements = np.asarray(source.topology()["particle.elements"], dtype=np.intp)
    return np.asarray(atomic_masses[elements], dtype=np.float64)


def frame_box(source: Source, snapshot: Snapshot) -> NDArray[np.float64] | None:
    return None if snapshot.box is None else snapshot.box.astype(np.float64)


@dataclass(frozen=True)
class EngineCase:
    """An engine under test.

    Attributes:
        make: A fresh source of the same input, each time it is called.
        temperature_k: What its thermostat keeps; None without a thermostat.
        masses: The masses that its integrator has, (N,) amu.
        box: The box that its bias has at a snapshot, (3, 3) nm with rows of zeros where there is no period, or None.
        box_moves: Whether a barostat changes it.
        repeats: Whether all runs that go on from one checkpoint, each in a fresh source, are the same bit for bit.
        strays_nm: How far such a run may be from the one that wrote the checkpoint and went on by itself, within some 20
            steps: 0 is bit for bit; None where chance goes its own way.
        conserves_energy: Whether its own energy changes only by the users' work, to the accuracy of its integrator.
        keeps_momentum: Whether nothing but the bias changes the total momentum by much within a few steps: no fixed
            particles, no field from outside, no removal of the motion of the centre of mass, friction below 10 / ps.
        equilibrated: Whether its first temperature is already near `temperature_k`.
        blow_up_steps: Steps within which a monstrous pull must be found out.
    """

    make: Callable[[], Source]
    temperature_k: float | None = 300.0
    masses: Callable[[Source], NDArray[np.float64]] = standard_masses
    box: Callable[[Source, Snapshot], NDArray[np.float64] | None] = frame_box
    box_moves: bool = False
    repeats: bool = True
    strays_nm: float | None = 0.0
    conserves_energy: bool = False
    keeps_momentum: bool = True
    equilibrated: bool = True
    blow_up_steps: int = 500

    def bias(self, source: Source, *interactions: Interaction) -> Bias:
        """What acts on the source, computed beside it: the interactions begin at its present instant."""
        snapshot = source.snapshot()
        bias = Bias(self.masses(source))
        positions = snapshot.positions.astype(np.float64)
        bias.set(interactions, positions, self.box(source, snapshot), snapshot.time_ps or 0.0)
        return bias

    def assert_acts(self, source: Source, bias: Bias) -> Snapshot:
        """The source's present user energy and forces are those of `bias`, to the precision of the frame's positions."""
        snapshot = source.snapshot()
        positions = snapshot.positions[bias.particles].astype(np.float64)
        energy, forces = bias.step(positions, self.box(source, snapshot), snapshot.time_ps or 0.0)
        assert snapshot.user_index.tolist() == bias.particles.tolist()
        size = np.abs(forces).max(initial=0.0)
        np.testing.assert_allclose(snapshot.user_forces, forces, rtol=1e-4, atol=2e-4 * size + 1e-3)
        assert snapshot.user_energy == pytest.approx(energy, rel=1e-4, abs=1e-3 + 1e-6 * size)
        assert snapshot.interaction_ids == tuple(item.id for item in bias.interactions)
        np.testing.assert_allclose(snapshot.interaction_energies, bias.energies, rtol=1e-4, atol=1e-3 + 1e-6 * size)
        np.testing.assert_allclose(snapshot.interaction_forces, bias.net_forces, rtol=1e-4, atol=2e-4 * size + 1e-3)
        return snapshot

    def four(self, source: Source) -> list[int]:
        """The first particle and three near it, as far from one plane as those near it can be."""
        snapshot = source.snapshot()
        positions = snapshot.positions.astype(np.float64)
        lattice = Lattice.of_box(self.box(source, snapshot))
        offsets = positions - positions[0]
        if lattice is not None:
            offsets = lattice.closest(offsets)
        near = np.argsort(np.linalg.norm(offsets, axis=1))[1 : CANDIDATES + 1]

        def solidity(three: tuple[int, ...]) -> float:
            rows = offsets[list(three)]
            return float(abs(np.linalg.det(rows / np.linalg.norm(rows, axis=1)[:, None])))

        return [0, *max(itertools.combinations((int(i) for i in near), 3), key=solidity)]


class CaseContract:
    """The fixtures that the parts of the contract share."""

    @pytest.fixture
    def case(self) -> EngineCase:
        raise NotImplementedError("define the fixture `case` in the class that inherits the contract")

    @pytest.fixture
    def source(self, case: EngineCase) -> Iterator[Source]:
        source = case.make()
        yield source
        source.close()
        source.close()


def pull(
    source: Source, particles: list[int], by: tuple[float, float, float] = (0.25, 0.1, 0), **fields: Any
) -> Interaction:
    """A spring on `particles` (or what `fields` say) whose handle is `by` (nm) away from the first of them."""
    here = source.snapshot().positions[particles[0]].astype(float) + by
    given: dict[str, Any] = {"id": "one", "kind": "spring", "scale": 500.0, "mass_weighted": False, **fields}
    return Interaction.parse(given.pop("id"), particles=particles, position=here.tolist(), **given)


def restorable(source: Source) -> Source:
    """The source, for tests of what only some can."""
    if not source.info.restorable:
        pytest.skip("an engine run by somebody else is neither reset nor restored")
    return source
