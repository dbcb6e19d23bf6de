"""Frames as pandas tables. Units: nm, ps, nm/ps, kJ/mol, kJ/(mol nm), K."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_client.conversion.packages import imported
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError

if TYPE_CHECKING:
    import pandas as pd

    from narupa_client.frames import CurrentFrame

# What a table of frames has of each, by the name of the frame's own property.
NUMBERS: Final = (
    "step",
    "time_ps",
    "potential_energy",
    "kinetic_energy",
    "total_energy",
    "temperature",
    "user_energy",
    "user_work",
)
# By atomic number; 0 is no atom.
_SYMBOLS: Final = tuple(
    re.findall(
        "[A-Z][a-z]?",
        "XHHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCePrNdPmSmEu"
        "GdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
    )
)


def particle_table(frame: CurrentFrame) -> pd.DataFrame:
    """A row for each particle, by its index in the whole system: what and where it is, how fast, and what users' force it feels.

    Raises:
        InvalidArgumentError: the frame does not fit itself.
    """
    count = len(frame.positions)
    elements = _column(frame, keys.ELEMENTS, count)
    residues = _column(frame, keys.RESIDUES, count)
    chains = _of_groups(frame.arrays.get(keys.RESIDUE_CHAINS), residues)
    table: dict[str, Any] = {
        "name": _column(frame, keys.NAMES, count),
        "element": None if elements is None else _symbols(elements),
        "residue": _of_groups(frame.arrays.get(keys.RESIDUE_NAMES), residues),
        "residue_id": _of_groups(frame.arrays.get(keys.RESIDUE_IDS), residues),
        "chain": _of_groups(frame.arrays.get(keys.CHAIN_NAMES), chains),
    }
    vectors = {"{}": frame.positions, "v{}": frame.velocities, "user_force_{}": _user_forces(frame, count)}
    for name, rows in vectors.items():
        if rows is not None and len(rows) != count:
            raise InvalidArgumentError(keys.VELOCITIES, len(rows), f"must be {count}, one for each particle")
        for axis, letter in enumerate("xyz" if rows is not None else ""):
            table[name.format(letter)] = rows[:, axis]  # type: ignore[index] # letters only where there are rows
    if len(frame.particle_indices) != count:
        raise InvalidArgumentError(keys.INDICES, len(frame.particle_indices), f"must be {count}, one for each particle")
    index = imported("pandas").Index(frame.particle_indices.astype(np.int64), name="particle")
    made: pd.DataFrame = imported("pandas").DataFrame(table, index=index)
    return made


def frame_table(frames: Sequence[CurrentFrame]) -> pd.DataFrame:
    """A row for each frame, by its index: `NUMBERS`, and NaN where the source has none."""
    pandas = imported("pandas")
    index = pandas.Index([frame.index for frame in frames], dtype="int64", name="index")
    made: pd.DataFrame = pandas.DataFrame({name: numbers(frames, name) for name in NUMBERS}, index=index)
    return made


def numbers(frames: Sequence[CurrentFrame], name: str) -> NDArray[np.float64]:
    """The property `name` of each frame, (F,); NaN where it has none."""
    return np.array([np.nan if (value := getattr(frame, name)) is None else value for frame in frames], np.float64)


def _symbols(elements: NDArray[Any]) -> NDArray[Any]:
    return np.array(_SYMBOLS, object)[np.where(elements < len(_SYMBOLS), elements, 0)]


def _user_forces(frame: CurrentFrame, count: int) -> NDArray[np.float32]:
    indices = frame.user_forces.indices
    if len(indices) and int(indices.max()) >= count:
        raise InvalidArgumentError(keys.USER_INDEX, int(indices.max()), f"must be below {count}")
    return frame.dense_user_forces()


def _column(frame: CurrentFrame, key: str, count: int) -> NDArray[Any] | None:
    array = frame.arrays.get(key)
    if array is None:
        return None
    if len(array) != count:
        raise InvalidArgumentError(key, len(array), f"must be {count}, one for each particle")
    return np.array(array, object) if isinstance(array, list) else array.astype(np.int64)


def _of_groups(facts: Any, members: NDArray[Any] | None) -> NDArray[Any] | None:
    """The fact of the residue or chain that each is in; None where there are none, or not of all of them."""
    if facts is None or members is None or (len(members) and int(members.max()) >= len(facts)):
        return None
    return np.array(facts, object)[members.astype(np.int64)]
