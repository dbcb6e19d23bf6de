"""Many atoms that never stop moving: peptides in water, as a recording that plays round and round."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import MDAnalysis
import numpy as np

from tests.e2e.still_life import WATER, pdb, peptide

FRAMES: Final = 60
# How far atoms go from where they belong, and how far apart peptides and waters are, A.
SWAY: Final = 0.4
ROOM: Final = 6.0
WATER_APART: Final = 3.6
# Of all atoms, the part that is in peptides.
IN_PEPTIDES: Final = 0.2


def write_crowd(folder: Path, atoms: int) -> str:
    """Writes a recording of at least so many atoms, and returns it as the input of a session that plays 30 frames a second."""
    names, shape = peptide()
    shape = shape - shape.min(axis=0)
    copies = max(1, round(IN_PEPTIDES * atoms / len(names)))
    across = int(np.ceil(np.sqrt(copies)))
    spots = np.array([(at % across, at // across, 0) for at in range(copies)])
    peptides = (spots[:, None, :] * (shape.max(axis=0) + ROOM) + shape).reshape(-1, 3)

    waters = -(-(atoms - len(peptides)) // 3)
    wide, deep, tall = peptides.max(axis=0)
    columns, rows = int(wide / WATER_APART) + 1, int(deep / WATER_APART) + 1
    at = np.arange(waters)
    cells = np.column_stack([at % columns, at // columns % rows, at // (columns * rows)])
    water = ((0.0, 0.0, tall + ROOM) + cells[:, None, :] * WATER_APART + WATER).reshape(-1, 3)

    everything = [
        (name, residue, chr(65 + copy % 25), number) for copy in range(copies) for name, residue, number in names
    ]
    everything += [(name, "HOH", "Z", each % 9999 + 1) for each in range(waters) for name in ("O", "H1", "H2")]
    places = np.concatenate([peptides, water])
    top, recording = folder / "crowd.pdb", folder / "crowd.dcd"
    top.write_text(pdb(everything, places))

    # Neighbours sway together, so that bonds stay as long as they are.
    wave = places @ np.array([[0.11, 0.07, -0.05], [-0.06, 0.1, 0.08], [0.09, -0.04, 0.12]])
    shown = MDAnalysis.Universe.empty(len(places), trajectory=True)
    shown.dimensions = [*(places.max(axis=0) + ROOM), 90.0, 90.0, 90.0]
    with MDAnalysis.Writer(str(recording), len(places)) as writer:
        for frame in range(FRAMES):
            shown.atoms.positions = places + SWAY * np.sin(wave + 2 * np.pi * frame / FRAMES)
            writer.write(shown.atoms)
    return f"{recording}?topology={top}&dt={1 / 30:.5f}"
