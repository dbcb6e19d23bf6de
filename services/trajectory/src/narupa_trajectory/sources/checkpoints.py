"""Checkpoints of live sources: portable bytes, readable on another machine and engine platform."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One instant of a simulation at full precision, and the account of the users' work up to it."""

    positions: NDArray[np.float64]  # (N, 3) nm
    velocities: NDArray[np.float64]  # (N, 3) nm/ps
    time_ps: float
    step: int
    work: float  # kJ/mol
    box: NDArray[np.float64] | None = None  # (3, 3) nm
    parameters: Mapping[str, float] = field(default_factory=dict)  # the engine's own, by name

    def to_bytes(self) -> bytes:
        """An uncompressed npz archive of plain arrays: no pickled objects."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            version=np.array(VERSION),
            positions=self.positions,
            velocities=self.velocities,
            box=np.zeros((3, 3)) if self.box is None else self.box,
            scalars=np.array([self.time_ps, self.work]),
            step=np.array(self.step, np.int64),
            names=np.array(list(self.parameters), dtype=np.str_),
            values=np.array(list(self.parameters.values()), dtype=np.float64),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, particle_count: int) -> Checkpoint:
        """The checkpoint that `to_bytes` wrote for a system of `particle_count` particles.

        Raises:
            InvalidArgumentError: not a checkpoint, of another system, or not finite.
        """
        shown = f"{len(data)} bytes"
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                read = {name: archive[name] for name in archive.files}
            version = int(read["version"])
            time_ps, work = (float(value) for value in read["scalars"])
            checkpoint = cls(
                positions=np.asarray(read["positions"], np.float64),
                velocities=np.asarray(read["velocities"], np.float64),
                time_ps=time_ps,
                step=int(read["step"]),
                work=work,
                box=np.asarray(read["box"], np.float64) if read["box"].any() else None,
                parameters=dict(zip(read["names"].tolist(), read["values"].tolist(), strict=True)),
            )
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, MemoryError) as error:
            raise InvalidArgumentError("checkpoint", shown, f"cannot be read ({error})") from error
        if version != VERSION:
            raise InvalidArgumentError("checkpoint", f"version {version}", f"this program reads version {VERSION}")
        for name in ("positions", "velocities"):
            shape = getattr(checkpoint, name).shape
            if shape != (particle_count, 3):
                raise InvalidArgumentError(
                    f"checkpoint {name}", shape, f"the system has {particle_count} particles: it is of another one"
                )
        arrays = (checkpoint.positions, checkpoint.velocities, read["scalars"], read["box"], read["values"])
        if read["box"].shape != (3, 3) or not all(np.isfinite(array).all() for array in arrays):
            raise InvalidArgumentError(
                "checkpoint", shown, "holds numbers that are not finite, or a box that is no box"
            )
        return checkpoint
