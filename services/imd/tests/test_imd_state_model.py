"""The shared state against a plain dictionary: whatever happens, a watcher ends with exactly what is there."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_imd.state import Family, Limits, SharedState, Writer
from narupa_imd.wire import Encodings, compat_updates, watch_responses
from narupa_shared.errors import InvalidArgumentError, NarupaError, NoLongerKeptError
from narupa_shared.gen.narupa.imd.v1.imd_pb2 import WatchStateResponse
from narupa_shared.gen.narupa.protocol.state.state_service_pb2 import StateUpdate
from narupa_shared.structs import from_struct

WRITERS = [Writer(f"peer:{name}", name) for name in ("one", "two", "three")]
keys = st.sampled_from(["scene", "mine.a", "mine.b", "selection.a", "mine.c"])
values = st.floats(allow_nan=False) | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
updates = st.tuples(
    st.just("update"), st.sampled_from(WRITERS), st.dictionaries(keys, values, max_size=3), st.lists(keys, max_size=2)
)
ends = st.tuples(st.just("end"), st.sampled_from(WRITERS))
locks = st.tuples(
    st.just("lock"),
    st.sampled_from(WRITERS),
    st.dictionaries(keys, st.floats(1, 5), max_size=2),
    st.lists(keys, max_size=1),
)
looks = st.tuples(st.just("look"), st.integers(0, 2))
times = st.tuples(st.just("wait"), st.floats(0, 3))


class Watcher:
    """A client of either wire form that keeps a copy."""

    def __init__(self, state: SharedState, compat: bool) -> None:
        self.state = state
        self.compat = compat
        self.copy: dict[str, Any] = {}
        self.after: int | None = None
        self.encode = compat_updates if compat else watch_responses(state.epoch)

    def look(self, encodings: Encodings) -> None:
        try:
            changes = self.state.changes(self.after)
        except NoLongerKeptError:
            self.after, self.copy = None, {}
            changes = self.state.changes(None)
        for message in encodings.of(self.encode, changes, self.after, ""):
            if self.compat:
                changed = from_struct(StateUpdate.FromString(message).changed_keys)
                self.copy |= {key: value for key, value in changed.items() if value is not None}
                for key in [key for key, value in changed.items() if value is None]:
                    self.copy.pop(key, None)
                self.after = changes.revision
            else:
                response = WatchStateResponse.FromString(message)
                if response.whole:
                    self.copy = {}
                self.copy |= from_struct(response.updates)
                for key in response.removals:
                    self.copy.pop(key, None)
                self.after = response.revision


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(updates, updates, updates, ends, locks, looks, times), max_size=40))
def test_watchers_end_with_what_is_there(steps: list[tuple[Any, ...]]) -> None:
    now = [0.0]
    state = SharedState(
        lambda: now[0], "epoch", [Family("mine.", owned=True, max_per_owner=2)], Limits(keys=4, removals=2)
    )
    model: dict[str, Any] = {}
    owners: dict[str, Writer] = {}
    watchers = [Watcher(state, compat) for compat in (False, True, False)]
    encodings = Encodings()
    for step in steps:
        before = state.revision
        if step[0] == "update":
            _, writer, made, gone = step
            try:
                state.update(writer, made, gone)
            except NarupaError:
                assert state.revision == before
            else:
                for key in gone:
                    model.pop(key, None)
                model |= made
                owners |= dict.fromkeys(made, writer)
        elif step[0] == "end":
            state.end_connection(step[1].connection)
            for key in [key for key in model if key.startswith("mine.") and owners[key] is step[1]]:
                del model[key]
        elif step[0] == "lock":
            with contextlib.suppress(NarupaError):
                state.update_locks(*step[1:])
        elif step[0] == "wait":
            now[0] += step[1]
        else:
            watchers[step[1]].look(encodings)
            assert watchers[step[1]].copy == state.values()
        assert state.values() == model
    for watcher in watchers:
        watcher.look(encodings)
        assert watcher.copy == model
    for writer in WRITERS:
        state.end_connection(writer.connection)
    assert not state.connections()
    state.update(WRITERS[0], {}, list(state.values()))
    assert state.bytes == 0 and len(state) == 0


hostile = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), hostile, max_size=3))
def test_hostile_values_are_taken_whole_or_refused_whole(updates: dict[str, Any]) -> None:
    state = SharedState(lambda: 0.0, "epoch")
    try:
        state.update(WRITERS[0], updates)
    except InvalidArgumentError:
        assert not state.values() and state.revision == 0
    else:
        assert state.values() == updates
