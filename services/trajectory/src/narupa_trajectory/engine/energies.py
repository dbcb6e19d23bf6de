"""Which frames have energies of their own, where reading them takes the engine as long as a step. Does no I/O."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from narupa_trajectory.sources.source import Snapshot

# However long it takes, energies are read at least this often, s.
LONGEST_S: Final = 1.0


class EnergyTurns:
    """Has energies read as often as a share of the engine's time allows; in between, frames have the last ones."""

    def __init__(self, share: float) -> None:
        """None have been read. `share` is the most of the engine's time that reading them may take, above 0, up to 1."""
        self._share = share
        self._due_at = -math.inf
        self._last: Snapshot | None = None

    def due(self, now: float) -> bool:
        """Whether the snapshot that is taken at `now`, s, is to have its own."""
        return self._last is None or now >= self._due_at

    def read(self, snapshot: Snapshot, began: float, now: float) -> Snapshot:
        """`snapshot`, which has energies of its own, and says so. Taking it began at `began` and has ended at `now`, s."""
        self._due_at = began + min((now - began) / self._share, LONGEST_S)
        self._last = snapshot
        return replace(snapshot, energies_at_ps=snapshot.time_ps)

    def filled(self, snapshot: Snapshot) -> Snapshot:
        """`snapshot`, which has none, with those that were read last, and the instant that they are of."""
        last = self._last
        if last is None:
            return snapshot
        return replace(
            snapshot,
            potential_energy=last.potential_energy,
            kinetic_energy=last.kinetic_energy,
            temperature=last.temperature,
            energies_at_ps=last.time_ps,
        )

    def forget(self) -> None:
        """What was read is of another course of the simulation."""
        self._last = None
