"""Checkpoints of live sources: a portable part, readable on another machine and engine platform, and an exact one."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError

VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One instant of a simulation at full precision, and the accounts of the users' work up to it.

    The arrays are what any engine can go on from. `exact` is what the engine that wrote it needs to go on bit for bit; it
    carries that engine's own signature, and an engine that does not recognise it uses the arrays.
    """

    positions: NDArray[np.float64]  # (N, 3) nm
    velocities: NDArray[np.float64]  # (N, 3) nm/ps
    time_ps: float
    step: int
    work: float  # kJ/mol
    box: NDArray[np.float64] | None = None  # (3, 3) nm
    parameters: Mapping[str, float] = field(default_factory=dict)  # the engine's own, by name
    exact: bytes = b""  # opaque: the engine's own state with its signature; empty where it has none
    bias: Mapping[str, Any] = field(default_factory=dict)  # `Bias.state()`: what JSON holds, every number finite

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
            exact=np.frombuffer(self.exact, np.uint8),
            bias=np.frombuffer(json.dumps(dict(self.bias), allow_nan=False).encode(), np.uint8),
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
            read = members(data)
            version = int(read["version"])
            if version != VERSION:
                raise InvalidArgumentError("checkpoint", f"version {version}", f"this program reads version {VERSION}")
            time_ps, work = (float(value) for value in read["scalars"])
            checkpoint = cls(
                positions=np.asarray(read["positions"], np.float64),
                velocities=np.asarray(read["velocities"], np.float64),
                time_ps=time_ps,
                step=int(read["step"]),
                work=work,
                box=np.asarray(read["box"], np.float64) if read["box"].any() else None,
                parameters=dict(zip(read["names"].tolist(), read["values"].tolist(), strict=True)),
                exact=block(read["exact"]),
                bias=parsed_bias(block(read["bias"])),
            )
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, MemoryError) as error:
            raise InvalidArgumentError("checkpoint", shown, f"cannot be read ({error})") from error
        for name in ("positions", "velocities"):
            shape = getattr(checkpoint, name).shape
            if shape != (particle_count, 3):
                raise InvalidArgumentError(
                    f"checkpoint {name}", shape, f"the system has {particle_count} particles: it is of another one"
                )
        if checkpoint.step < 0:
            raise InvalidArgumentError("checkpoint step", checkpoint.step, "must be 0 or more")
        arrays = (checkpoint.positions, checkpoint.velocities, read["scalars"], read["box"], read["values"])
        if read["box"].shape != (3, 3) or not all(np.isfinite(array).all() for array in arrays):
            raise InvalidArgumentError(
                "checkpoint", shown, "holds numbers that are not finite, or a box that is no box"
            )
        return checkpoint


def members(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of the archive. None of them is compressed, so that none can be larger than the checkpoint itself."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        squeezed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if squeezed:
        raise ValueError(f"{squeezed[0]!r} is compressed, and checkpoints are not")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def block(array: NDArray[Any]) -> bytes:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"a block of bytes is an array {array.shape} of {array.dtype}")
    return array.tobytes()


def parsed_bias(text: bytes) -> dict[str, Any]:
    """The state of the bias that JSON `text` holds.

    Raises:
        InvalidArgumentError: not a JSON object, or one with numbers that are not finite.
    """

    def refused(name: str) -> NoReturn:
        raise ValueError(f"{name[:40]} is no finite number")

    def finite(digits: str) -> float:
        return number if math.isfinite(number := float(digits)) else refused(digits)

    try:
        state = json.loads(text, parse_constant=refused, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError("checkpoint bias", f"{len(text)} bytes", f"is not JSON ({error})") from error
    if not isinstance(state, dict):
        raise InvalidArgumentError("checkpoint bias", type(state).__name__, "must be a JSON object")
    return state
