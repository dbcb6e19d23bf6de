"""Whole frames as MDAnalysis universes. Units there: Å, ps, Å/ps, kJ/(mol Å), amu."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_client.conversion.packages import imported
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.units import ANGSTROM_IN_NM, NM_IN_ANGSTROM

# A box may differ by this from what its lengths and angles say, nm.
_BOX_TOLERANCE: Final = 1e-4


def universe_of(frame: Frame) -> Any:
    """A universe of the particles of a whole frame, with its positions, and room for velocities and forces.

    Masses are those of the elements; 0 where a particle is no atom.

    Raises:
        InvalidArgumentError: the frame does not fit itself.
    """
    mda = imported("MDAnalysis")
    from MDAnalysis.guesser.tables import Z2SYMB, masses

    positions: Any = frame.arrays.get(keys.POSITIONS, np.empty((0, 3), np.float32))
    count = len(positions)
    residues = _per_particle(frame, keys.RESIDUES, count, np.zeros(count, np.uint32))
    known = max(len(frame.arrays.get(key, ())) for key in (keys.RESIDUE_NAMES, keys.RESIDUE_IDS, keys.RESIDUE_CHAINS))
    residue_count = _groups(keys.RESIDUES, residues, max(count, known))
    chains: Any = frame.arrays.get(keys.RESIDUE_CHAINS, np.empty(0, np.uint32))
    chains = chains[:residue_count] if len(chains) >= residue_count else np.zeros(residue_count, np.uint32)
    known = len(frame.arrays.get(keys.CHAIN_NAMES, ()))
    chain_count = _groups(keys.RESIDUE_CHAINS, chains, max(residue_count, known))
    universe = mda.Universe.empty(
        count,
        residue_count,
        chain_count,
        atom_resindex=residues,
        residue_segindex=chains,
        trajectory=True,
        velocities=True,
        forces=True,
    )
    elements = _per_particle(frame, keys.ELEMENTS, count, np.zeros(count, np.uint32))
    kinds, kind = np.unique(elements, return_inverse=True)
    names = [Z2SYMB.get(int(number), "X").capitalize() for number in kinds]
    symbols = np.array(names, object)[kind]
    resids = _texts(frame, keys.RESIDUE_IDS, residue_count, "1")
    segids = _texts(frame, keys.CHAIN_NAMES, chain_count, "A")
    attributes = {
        "elements": symbols,
        "types": symbols,
        "masses": np.array([masses.get(name, masses.get(name.upper(), 0.0)) for name in names], np.float64)[kind],
        "names": _texts(frame, keys.NAMES, count, "X"),
        "resnames": _texts(frame, keys.RESIDUE_NAMES, residue_count, "UNK"),
        "resids": [_leading_number(text, number + 1) for number, text in enumerate(resids)],
        "segids": segids,
        "chainIDs": np.array([name[:1] for name in segids], object)[chains][residues],
    }
    for name, values in attributes.items():
        universe.add_TopologyAttr(name, values)
    pairs: Any = frame.arrays.get(keys.BOND_PAIRS)
    if pairs is not None and pairs.size:
        if int(pairs.max()) >= count:
            raise InvalidArgumentError(keys.BOND_PAIRS, int(pairs.max()), f"must be below {count}")
        universe.add_TopologyAttr("bonds", [tuple(pair) for pair in pairs.reshape(-1, 2).tolist()])
    universe.atoms.positions = positions * NM_IN_ANGSTROM
    return universe


def universe_over(
    first: Frame,
    positions: NDArray[np.float32],
    velocities: NDArray[np.float32] | None,
    forces: NDArray[np.float32] | None,
    boxes: Sequence[NDArray[np.float32] | None],
    times_ps: NDArray[np.float64] | None,
) -> Any:
    """A universe of the particles of `first` with F frames in memory.

    Args:
        positions: (F, N, 3), nm.
        velocities: (F, N, 3), nm/ps.
        forces: (F, N, 3), kJ/(mol nm).
        boxes: Of each frame (3, 3), its vectors as rows, nm; None where it has none.
        times_ps: (F,); None numbers the frames instead.

    Raises:
        InvalidArgumentError: `first` does not fit itself.
    """
    imported("MDAnalysis")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from narupa_client.conversion.series_reader import SeriesReader

        universe = universe_of(first)
    dimensions, turned = np.zeros((len(positions), 6), np.float32), False
    for number, box in enumerate(boxes):
        if box is not None:
            dimensions[number], also = dimensions_of(box)
            turned |= also
    if turned:
        message = "MDAnalysis keeps lengths and angles of a box, and not its directions; this one is turned"
        warnings.warn(f"{message}, so that distances across its boundary will be wrong", stacklevel=3)
    times = np.arange(len(positions), dtype=np.float64) if times_ps is None else times_ps
    universe.trajectory = SeriesReader(
        positions * np.float32(NM_IN_ANGSTROM),
        times=times,
        dimensions=dimensions,
        velocities=None if velocities is None else velocities * np.float32(NM_IN_ANGSTROM),
        forces=None if forces is None else forces * np.float32(ANGSTROM_IN_NM),
    )
    return universe


def dimensions_of(box: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """Lengths and angles of a box of vectors in nm, (6,) in Å and degrees, and whether they do not say how it lies."""
    from MDAnalysis.lib.mdamath import triclinic_box, triclinic_vectors

    vectors = box.reshape(3, 3)
    dimensions: NDArray[np.float32] = triclinic_box(*(vectors * NM_IN_ANGSTROM))
    back = triclinic_vectors(dimensions) * ANGSTROM_IN_NM
    return dimensions, not np.allclose(back, vectors, atol=_BOX_TOLERANCE)


def _groups(key: str, members: NDArray[np.uint32], limit: int) -> int:
    """How many residues or chains there are, of which each of `members` is in one."""
    count = int(members.max()) + 1 if len(members) else 0
    if count > limit:
        raise InvalidArgumentError(key, count - 1, f"must be below {limit}")
    return count


def _per_particle(frame: Frame, key: str, count: int, default: Any) -> Any:
    array: Any = frame.arrays.get(key, default)
    if len(array) != count:
        raise InvalidArgumentError(key, len(array), f"must be {count}, one for each particle")
    return array


def _texts(frame: Frame, key: str, count: int, default: str) -> list[str]:
    texts: Any = frame.arrays.get(key)
    if not isinstance(texts, list) or len(texts) < count:
        return [default] * count
    return texts[:count]


def _leading_number(text: str, default: int) -> int:
    digits = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ")
    try:
        return int(digits)
    except ValueError:
        return default
