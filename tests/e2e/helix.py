"""What tests know of pulling an atom of a peptide, and where they have one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pytest

from narupa_client import CurrentFrame
from tests.e2e.sessions import DATA

# An alanine's atom in the middle of the 17-alanine helix. The system removes the motion of its centre of mass, so that the
# ends, pulled outwards, stretch the helix instead of taking it along.
ATOM: Final = 86


def any_peptide() -> str:
    """The helix where it is at hand, or else the peptide of the demos."""
    path = DATA / "17-ala.xml"
    return str(path) if path.is_file() else "demo:peptide"


def away(frame: CurrentFrame, atom: int, distance_nm: float) -> list[float]:
    """The point this far from the atom, away from the middle of everything, nm."""
    atom_at = frame.positions[atom].astype(np.float64)
    out = atom_at - frame.positions.mean(axis=0)
    return [float(x) for x in atom_at + distance_nm * out / np.linalg.norm(out)]


def distance(frame: CurrentFrame, handle: Sequence[float], atom: int = ATOM) -> float:
    """From the atom to the handle, nm."""
    return float(np.linalg.norm(frame.positions[atom] - handle))


def check_spring(frame: CurrentFrame, handle: Sequence[float], scale: float, atom: int = ATOM) -> None:
    """The frame's force and energy are those of a spring at the frame's own positions: E = s |d|^2, F = -2 s d."""
    d = frame.positions[atom] - handle
    indices, forces = frame.user_forces
    assert indices.tolist() == [atom]
    np.testing.assert_allclose(forces[0], -2 * scale * d, atol=0.05)
    assert frame.user_energy == pytest.approx(scale * float(d @ d), abs=0.05)
