"""What a view and the notebook keep in common: values of plain types, checked on both of their ways in."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import traitlets

MAX_SELECTED: Final = 1_000_000
MAX_INDEX: Final = 2**32 - 1
# Further away than any simulation is large, nm.
FARTHEST: Final = 1e6


class Indices(traitlets.TraitType[list[int], Any]):
    """Indices of particles: a sorted list without duplicates, from anything that numpy makes a row of whole numbers of."""

    info_text = f"a row of at most {MAX_SELECTED} whole numbers from 0 on"
    default_value: Any = ()

    def validate(self, obj: Any, value: Any) -> list[int]:
        try:
            given = np.asarray(list(value) if isinstance(value, (set, range)) else value)
        except (ValueError, TypeError, OverflowError):
            self.error(obj, value)
        if given.size == 0:
            return []
        if given.ndim != 1 or given.dtype.kind not in "iu" or given.size > MAX_SELECTED:
            self.error(obj, value)
        if int(given.min()) < 0 or int(given.max()) > MAX_INDEX:
            self.error(obj, value)
        chosen: list[int] = np.unique(given).tolist()
        return chosen


class CameraPlace(traitlets.TraitType[dict[str, list[float]] | None, Any]):
    """Where the camera is and what it looks at, nm; None as long as nobody knows."""

    info_text = "a dict with `position` and `target`, two different points of 3 finite numbers each, nm; or None"
    default_value: Any = None

    def validate(self, obj: Any, value: Any) -> dict[str, list[float]] | None:
        if value is None:
            return None
        if not isinstance(value, dict) or value.keys() != {"position", "target"}:
            self.error(obj, value)
        place: dict[str, list[float]] = {}
        for name in ("position", "target"):
            try:
                point = np.asarray(value[name], np.float64)
            except (ValueError, TypeError, OverflowError):
                self.error(obj, value)
            if point.shape != (3,) or not bool(np.all(np.abs(point) < FARTHEST)):
                self.error(obj, value)
            place[name] = point.tolist()
        if place["position"] == place["target"]:
            self.error(obj, value)
        return place
