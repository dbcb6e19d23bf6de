"""The whole frame that a reader sees, from the changes that come."""

import numpy as np
import pytest

from narupa_client.frames import CurrentFrame
from narupa_shared.frames import Frame


def test_a_newer_frame_overlays_and_keeps_the_topology() -> None:
    first = Frame(3, {"particle.count": 2.0}, {"particle.elements": np.array([6, 1], np.uint32)})
    second = Frame(4, {"energy.potential": -1.5}, {"particle.positions": np.ones((2, 3), np.float32)})
    current = CurrentFrame.after(CurrentFrame.after(None, first), second)
    assert current.index == 4
    assert current.elements is not None and current.elements.tolist() == [6, 1]
    assert current.particle_count == 2
    assert current.positions.shape == (2, 3)
    assert current.potential_energy == -1.5


def test_index_zero_drops_everything_older() -> None:
    older = CurrentFrame.after(None, Frame(7, {"energy.kinetic": 2.0}))
    current = CurrentFrame.after(older, Frame(0, {"particle.count": 1.0}))
    assert current.kinetic_energy is None
    assert current.index == 0
    assert CurrentFrame.after(current, Frame(1)).index == 1


def test_what_a_source_has_not_is_none_or_empty() -> None:
    empty = CurrentFrame.after(None, Frame(0))
    assert empty.positions.shape == (0, 3)
    assert empty.particle_count == 0
    assert empty.user_forces.indices.size == 0
    assert [empty.time_ps, empty.temperature, empty.box, empty.elements, empty.exception] == [None] * 5


def test_sparse_user_forces_become_dense() -> None:
    arrays = {
        "particle.positions": np.zeros((3, 3), np.float32),
        "forces.user.index": np.array([2], np.uint32),
        "forces.user.sparse": np.array([[0, 0, 5]], np.float32),
    }
    frame = CurrentFrame.after(None, Frame(1, {}, arrays))  # type: ignore[arg-type]
    assert frame.dense_user_forces().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 5]]


@pytest.mark.parametrize("text", [True, "warm"])
def test_a_value_that_is_no_number_reads_as_none(text: object) -> None:
    assert CurrentFrame.after(None, Frame(1, {"system.temperature": text})).temperature is None  # type: ignore[dict-item]
