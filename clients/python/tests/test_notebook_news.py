"""What a view in a notebook is told, and what it may tell, without any session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import traitlets

from narupa_client.frames import CurrentFrame
from narupa_client.notebook.news import FrameNews, StateNews
from narupa_client.notebook.traits import CameraPlace, Indices
from narupa_client.state import StateChange
from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.nanover_messages import frame_of, state_change_of, unpacked


def frame_in(message: bytes | None) -> Frame:
    assert message is not None
    return frame_of(unpacked(message)["frame"])


def state_in(message: bytes) -> tuple[dict[str, Any], list[str]]:
    return state_change_of(unpacked(message)["state"])


def frame(index: int, x: float = 0.0, **values: Any) -> CurrentFrame:
    arrays = {keys.POSITIONS: np.full((2, 3), x, np.float32), keys.ELEMENTS: np.array([6, 1], np.uint32)}
    return CurrentFrame(index, {keys.RUN: "a", **values}, arrays)


def test_a_viewer_is_sent_everything_once_and_then_what_changed() -> None:
    news = FrameNews()
    whole = frame_in(news.message(frame(7, 1.0, time=1.0)))
    assert (whole.index, set(whole.arrays)) == (0, {keys.POSITIONS, keys.ELEMENTS})
    assert whole.values == {keys.RUN: "a", "time": 1.0}
    # Frames between them were skipped; the arrays that are equal are other objects, as after a lost connection.
    moved = frame_in(news.message(frame(12, 2.0, time=1.0)))
    assert (moved.index, set(moved.arrays), moved.values) == (12, {keys.POSITIONS}, {})
    np.testing.assert_array_equal(moved.arrays[keys.POSITIONS], np.full((2, 3), 2.0, np.float32))


@pytest.mark.parametrize(
    "another",
    [
        frame(0, 3.0),
        frame(5, 3.0),
        CurrentFrame(13, {**frame(13).values, keys.RUN: "b"}, frame(13).arrays),
        CurrentFrame(13, frame(13).values, {keys.POSITIONS: np.zeros((1, 3), np.float32)}),
    ],
    ids=["reset", "step back", "another run", "less is known"],
)
def test_another_run_is_sent_whole(another: CurrentFrame) -> None:
    news = FrameNews()
    news.message(frame(12))
    sent = frame_in(news.message(another))
    assert sent.index == 0 and set(sent.arrays) == set(another.arrays)


def test_a_viewer_is_told_once_of_a_trouble_and_that_it_is_over() -> None:
    news = FrameNews()
    news.message(frame(1))
    told = frame_in(news.trouble("nobody listens"))
    assert told.index > 0 and "nobody listens" in str(told.values[keys.EXCEPTION])
    assert news.trouble("nobody listens") is None
    assert frame_in(news.message(frame(2))).values[keys.EXCEPTION] == ""
    assert keys.EXCEPTION not in frame_in(news.message(frame(3))).values


def test_state_is_merged_until_it_is_told() -> None:
    news = StateNews()
    assert not news.any
    news.apply(StateChange(True, {"a": 1, "b": 1}, (), 1))
    assert state_in(news.message()) == ({"a": 1, "b": 1}, []) and not news.any
    for number in range(100):
        news.apply(StateChange(False, {"a": number}, (), 2 + number))
    news.apply(StateChange(False, {}, ("b",), 200))
    assert state_in(news.message()) == ({"a": 99}, ["b"])
    # After a watch that began anew, what is gone is told as well.
    news.apply(StateChange(True, {"c": 3}, (), 1))
    assert state_in(news.message()) == ({"c": 3}, ["a"])


def test_an_empty_state_is_told_too() -> None:
    news = StateNews()
    news.apply(StateChange(True, {}, (), 0))
    assert news.any and state_in(news.message()) == ({}, []) and not news.any


def test_keys_that_are_in_doubt_are_told_as_they_are() -> None:
    news = StateNews()
    news.apply(StateChange(True, {"a": 1}, (), 1))
    news.message()
    news.doubt(["a", "b"])
    assert state_in(news.message()) == ({"a": 1}, ["b"])


class Traits(traitlets.HasTraits):
    particles = Indices()
    camera = CameraPlace(allow_none=True)


def test_particles_are_taken_from_any_row_of_whole_numbers() -> None:
    traits = Traits()
    assert list(traits.particles) == []
    for given in ([3, 1, 1], (1, 3), np.array([1, 3], np.uint32), {3, 1}):
        traits.particles = given
        assert traits.particles == [1, 3] and all(type(each) is int for each in traits.particles)
    traits.particles = range(0)
    assert traits.particles == []


@pytest.mark.parametrize(
    "nonsense", [[-1], [2**32], [0.5], ["a"], [[1, 2]], [[1], [2, 3]], [None], "12", 7, {"a": 1}, [True], [2**70]]
)
def test_what_are_no_particles_is_refused(nonsense: object) -> None:
    with pytest.raises(traitlets.TraitError):
        Traits(particles=nonsense)


def test_a_camera_is_two_points() -> None:
    traits = Traits(camera={"position": np.array([0, 1, 2.5]), "target": (0, 0, 0)})
    assert traits.camera == {"position": [0.0, 1.0, 2.5], "target": [0.0, 0.0, 0.0]}
    traits.camera = None
    assert traits.camera is None


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"position": [0, 0, 1]},
        {"position": [0, 0, 1], "target": [0, 0, 1]},
        {"position": [0, 0], "target": [0, 0, 1]},
        {"position": [0, 0, float("nan")], "target": [0, 0, 1]},
        {"position": [0, 0, 1e300], "target": [0, 0, 1]},
        {"position": "abc", "target": [0, 0, 1]},
        {"position": [0, 0, 1], "target": [0, 0, 0], "up": [0, 1, 0]},
        [0, 0, 1],
        1,
    ],
)
def test_what_is_no_camera_is_refused(nonsense: object) -> None:
    with pytest.raises(traitlets.TraitError):
        Traits(camera=nonsense)
