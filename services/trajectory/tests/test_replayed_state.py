"""What a recording says of the shared state, until imd has been told."""

from __future__ import annotations

from typing import Any

from narupa_shared.recordings.recording import StateChange
from narupa_shared.structs import from_struct
from narupa_trajectory import replayed_state
from narupa_trajectory.replayed_state import ReplayedState


def told(state: ReplayedState) -> list[tuple[bool, dict[str, Any], list[str]]]:
    """All messages that are waiting."""
    messages = []
    while (message := state.next_message()) is not None:
        messages.append((message.whole, from_struct(message.updates), list(message.removals)))
    return messages


def test_changes_that_wait_become_one() -> None:
    state = ReplayedState()
    assert state.changed(StateChange({"a": 1.0, "b": 1.0}, whole=True))
    assert told(state) == [(True, {"a": 1.0, "b": 1.0}, [])]
    assert not state.waiting
    state.changed(StateChange({"a": 2.0, "c": 3.0}))
    state.changed(StateChange({"a": 4.0}, ("c", "b")))
    state.changed(StateChange({"b": 5.0}))
    assert told(state) == [(False, {"a": 4.0, "b": 5.0}, ["c"])]
    assert told(state) == []


def test_another_imd_is_told_everything() -> None:
    state = ReplayedState()
    state.changed(StateChange({"a": 1.0}, whole=True))
    state.changed(StateChange({"b": 2.0}))
    told(state)
    state.forget_told()
    assert told(state) == [(True, {"a": 1.0, "b": 2.0}, [])]


def test_where_nothing_is_replayed_nothing_is_told() -> None:
    state = ReplayedState()
    assert not state.changed(StateChange(whole=True))
    state.forget_told()
    assert told(state) == []
    state.changed(StateChange({"a": 1.0}))
    told(state)
    assert state.changed(StateChange(whole=True))
    assert told(state) == [(True, {}, [])]


def test_a_large_state_is_told_in_parts_and_a_huge_value_not_at_all() -> None:
    state = ReplayedState()
    values = {f"key{number}": "x" * 400_000 for number in range(10)}
    odd = {"huge": "x" * (replayed_state.MAX_VALUE_BYTES + 1), "foreign": b"bytes"}
    state.changed(StateChange({**values, **odd}, whole=True))
    messages = told(state)
    assert len(messages) > 3
    assert [whole for whole, _, _ in messages] == [True] + [False] * (len(messages) - 1)
    together: dict[str, Any] = {}
    for _, updates, _ in messages:
        together |= updates
        assert sum(map(len, updates.values())) < 2 * replayed_state.MESSAGE_BYTES
    assert together == values
