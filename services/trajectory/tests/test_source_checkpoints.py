"""Checkpoints come back as they were written, and nothing else is taken for one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources.checkpoints import Checkpoint

WRITTEN = Checkpoint(
    positions=np.array([[0.1, -0.0, 1 / 3], [1e-300, 2.0, 3.0]]),
    velocities=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    time_ps=0.1 + 0.2,
    step=7,
    work=-1.5,
    box=np.eye(3) * 2,
    parameters={"context:k": 1.0},
    exact=b"\x00exact\x00\x00",
    bias={"work": 0.1 + 0.2, "live": {"a": {"origin": [1.0, None]}}},
)


def altered(**members: Any) -> bytes:
    with np.load(io.BytesIO(WRITTEN.to_bytes())) as archive:
        arrays = {**{name: archive[name] for name in archive.files}, **members}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def text(value: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(value.encode(), np.uint8)


def test_every_bit_comes_back() -> None:
    read = Checkpoint.from_bytes(WRITTEN.to_bytes(), 2)
    assert read.positions.tobytes() == WRITTEN.positions.tobytes()
    assert read.velocities.tobytes() == WRITTEN.velocities.tobytes()
    assert (read.time_ps, read.step, read.work) == (WRITTEN.time_ps, 7, -1.5)
    assert (read.exact, read.bias, read.parameters) == (WRITTEN.exact, WRITTEN.bias, WRITTEN.parameters)
    assert read.box is not None and read.box.tobytes() == (np.eye(3) * 2).tobytes()


def test_what_an_engine_has_none_of_is_empty() -> None:
    plain = Checkpoint(np.zeros((1, 3)), np.zeros((1, 3)), 0.0, 0, 0.0)
    read = Checkpoint.from_bytes(plain.to_bytes(), 1)
    assert (read.exact, read.bias, read.box, read.parameters) == (b"", {}, None, {})


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"version": np.array(1)}, "version 1"),
        ({"positions": np.zeros((3, 3))}, "checkpoint positions"),
        ({"velocities": np.full((2, 3), np.nan)}, "not finite"),
        ({"box": np.ones((2, 2))}, "no box"),
        ({"scalars": np.array([np.inf, 0])}, "not finite"),
        ({"scalars": np.zeros(3)}, "cannot be read"),
        ({"step": np.array(-1)}, "checkpoint step"),
        ({"exact": None}, "exact"),
        ({"exact": np.zeros(3)}, "block of bytes"),
        ({"bias": text("[1]")}, "checkpoint bias"),
        ({"bias": text('{"work": NaN}')}, "checkpoint bias.*NaN"),
        ({"bias": text('{"work": 1e999}')}, "checkpoint bias.*1e999"),
        ({"bias": text("[" * 100_000)}, "checkpoint bias"),
        ({"bias": np.array([0xFF, 0xFE], np.uint8)}, "checkpoint bias"),
        ({"names": np.array(["a", "b"])}, "cannot be read"),
        ({"bias": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_what_is_not_right_is_refused_by_name(members: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"(?s)checkpoint.*{named}|{named}"):
        Checkpoint.from_bytes(altered(**members), 2)


def test_a_compressed_archive_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, positions=np.zeros((1000, 1000)))
    with pytest.raises(InvalidArgumentError, match="compressed"):
        Checkpoint.from_bytes(buffer.getvalue(), 2)


def test_a_bias_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Checkpoint(np.zeros((1, 3)), np.zeros((1, 3)), 0.0, 0, 0.0, bias={"work": float("nan")}).to_bytes()
