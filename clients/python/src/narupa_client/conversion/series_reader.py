"""Frames in memory as MDAnalysis reads them, each at its own time."""

from __future__ import annotations

from typing import Any

import numpy as np
from MDAnalysis.coordinates.memory import MemoryReader
from numpy.typing import NDArray


class SeriesReader(MemoryReader):  # type: ignore[misc] # it has no types
    """As MDAnalysis's own reader of arrays, which knows only one interval between all frames."""

    def __init__(self, coordinate_array: NDArray[np.float32], *, times: NDArray[np.float64], **options: Any) -> None:
        """
        Args:
            coordinate_array: (F, N, 3), Å.
            times: (F,), ps.
        """
        self._times = times
        steps = np.diff(times)
        dt = float(np.median(steps)) if len(steps) else 1.0
        super().__init__(coordinate_array, times=times, **{"dt": dt if dt > 0 else 1.0, **options})

    def _read_next_timestep(self, ts: Any = None) -> Any:
        ts = super()._read_next_timestep(ts)
        ts.time = float(self._times[ts.frame])
        return ts
