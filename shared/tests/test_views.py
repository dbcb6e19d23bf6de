"""Views: equal ones are equal however they were put, and what cannot be is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.views import EVERYTHING, View


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({}, {"fields": [], "particles": [], "selection": "", "precision_nm": 0}),
        ({"fields": ["energy", "system"]}, {"fields": ["system", "energy.kinetic", "energy", "energy"]}),
        ({"fields": ["topology"]}, {"fields": sorted(keys.TOPOLOGY)}),
        ({"fields": ["energy"]}, {"fields": ["energy", keys.RUN]}),
        ({"particles": [4, 2, 9]}, {"particles": np.array([9, 4, 2], np.uint64)}),
        ({"selection": "protein and  name CA"}, {"selection": " protein and name CA\n"}),
    ],
)
def test_equal_views_are_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert View.of(**left) == View.of(**right)
    assert hash(View.of(**left)) == hash(View.of(**right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({}, {"fields": ["energy"]}),
        ({"fields": ["energy"]}, {"fields": ["energy.kinetic"]}),
        ({"particles": [1]}, {"particles": [1, 2]}),
        ({"selection": "name CA"}, {"selection": "name ca"}),
        ({"precision_nm": 0.001}, {"precision_nm": 0.01}),
    ],
)
def test_other_views_are_not(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert View.of(**left) != View.of(**right)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"fields": ["positions"]}, "particle.positions"),
        ({"fields": [""]}, "view.fields"),
        ({"fields": ["x" * 129]}, "128"),
        ({"fields": [f"a{n}" for n in range(65)]}, "64"),
        ({"particles": [3, 1, 3]}, "3: is there more than once"),
        ({"particles": [-1]}, "-1"),
        ({"particles": [2**32]}, str(2**32)),
        ({"particles": [0.5]}, "whole numbers"),
        ({"particles": [[1, 2]]}, "in one row"),
        ({"particles": [1], "selection": "all"}, "not both"),
        ({"selection": "x" * 1001}, "1001"),
        ({"selection": "  "}, "blank"),
        ({"precision_nm": -0.001}, "-0.001"),
        ({"precision_nm": 2.0}, "2.0"),
        ({"precision_nm": float("nan")}, "nan"),
        ({"precision_nm": float("inf")}, "inf"),
    ],
)
def test_views_that_cannot_be_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match="view") as refused:
        View.of(**given)
    assert named in str(refused.value)


def test_a_view_crosses_the_wire_unchanged() -> None:
    view = View.of(["energy", "topology"], [7, 3], precision_nm=0.01)
    message = view.message()
    assert message is not None
    assert View.from_message(v1.View.FromString(message.SerializeToString())) == view
    assert EVERYTHING.message() is None
    assert View.from_message(v1.View()) == EVERYTHING
    with pytest.raises(InvalidArgumentError, match="1000 names"):
        View.from_message(v1.View(fields=["energy"] * 1000))


def test_fields_are_keys_and_groups_up_to_a_dot() -> None:
    view = View.of(["energy", keys.BOX, "my"])
    shown = ["energy.kinetic", "energy.user.total", keys.BOX, "my", "my.own.key", keys.RUN, keys.INDICES]
    assert all(map(view.shows, shown))
    assert not any(map(view.shows, ["energyless", "system.box", keys.POSITIONS, "mine"]))
    frame = Frame(5, {"energy.kinetic": 1.0, "server.name": "x"}, {keys.POSITIONS: np.zeros((1, 3), np.float32)})
    assert view.shown(frame) == Frame(5, {"energy.kinetic": 1.0})
    assert EVERYTHING.shown(frame) is frame
