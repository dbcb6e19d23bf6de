"""Structs: what goes in comes out, hostile input is refused with its name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.structs import MAX_DEPTH, from_struct, to_struct

leaves = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def nested(levels: int) -> Any:
    value: Any = 1.0
    for _ in range(levels):
        value = [value]
    return value


@given(st.dictionaries(st.text(max_size=8), st.lists(leaves, max_size=4) | values, max_size=4))
def test_a_dictionary_survives_the_wire(plain: dict[str, Any]) -> None:
    assert from_struct(Struct.FromString(to_struct(plain).SerializeToString()), max_depth=64) == plain


def test_infinity_survives_and_nan_passes() -> None:
    back = from_struct(to_struct({"a": math.inf, "b": -math.inf, "c": math.nan}))
    assert back["a"] == math.inf and back["b"] == -math.inf and math.isnan(back["c"])


def test_integers_tuples_and_arrays_become_floats_and_lists() -> None:
    plain = {"a": 3, "b": (1, 2), "c": np.arange(3), "d": np.float32(0.5), "e": np.bool_(True), "f": np.ones((2, 2))}
    assert from_struct(to_struct(plain)) == {
        "a": 3.0,
        "b": [1.0, 2.0],
        "c": [0.0, 1.0, 2.0],
        "d": 0.5,
        "e": True,
        "f": [[1.0, 1.0], [1.0, 1.0]],
    }


def test_empty_lists_and_maps_stay() -> None:
    assert from_struct(to_struct({"a": [], "b": {}})) == {"a": [], "b": {}}


def test_an_unset_value_is_none() -> None:
    struct = Struct()
    struct.fields["a"].CopyFrom(Value())
    assert from_struct(struct) == {"a": None}


def test_depth_is_limited_both_ways() -> None:
    assert from_struct(to_struct({"a": nested(MAX_DEPTH - 1)}))
    with pytest.raises(InvalidArgumentError, match="'deep'"):
        to_struct({"deep": nested(MAX_DEPTH)})
    with pytest.raises(InvalidArgumentError, match=r"updates\['deep'\].*nested"):
        from_struct(to_struct({"deep": nested(4)}), "updates", max_depth=4)


def test_the_number_of_values_is_limited() -> None:
    assert from_struct(to_struct({"a": [1.0] * 9}), max_items=10)
    with pytest.raises(InvalidArgumentError, match=r"updates\['a'\].*at most 10"):
        from_struct(to_struct({"a": [1.0] * 10}), "updates", max_items=10)


@pytest.mark.parametrize("value", [object(), b"bytes", 1j, 10**400, "\ud800", {1: 2}, {"\ud800": 1}, [{None: 1}]])
def test_what_has_no_place_on_the_wire_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="key"):
        to_struct({"key": value})
