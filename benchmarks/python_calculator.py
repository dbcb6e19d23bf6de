"""A Lennard-Jones calculator in plain Python loops: the kind of calculator that would starve an event loop beside it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class LoopingLennardJones(Calculator):
    """Every pair, one by one, holding the interpreter all the while. Energies in eV, lengths in A."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        positions = self.atoms.positions.tolist()
        forces = [[0.0, 0.0, 0.0] for _ in positions]
        energy, epsilon, sigma = 0.0, 0.0104, 3.4
        for i, (xi, yi, zi) in enumerate(positions):
            for j in range(i):
                xj, yj, zj = positions[j]
                dx, dy, dz = xi - xj, yi - yj, zi - zj
                r2 = dx * dx + dy * dy + dz * dz
                s6 = (sigma * sigma / r2) ** 3
                energy += 4 * epsilon * (s6 * s6 - s6)
                f = 24 * epsilon * (2 * s6 * s6 - s6) / r2
                for axis, d in enumerate((dx, dy, dz)):
                    forces[i][axis] += f * d
                    forces[j][axis] -= f * d
        self.results = {"energy": energy, "forces": np.array(forces)}
