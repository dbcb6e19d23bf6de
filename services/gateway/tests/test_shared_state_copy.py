"""The copy of the shared state, and the messages that tell of its changes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_client.state import StateChange
from narupa_gateway import shared_state
from narupa_gateway.shared_state import SharedStateCopy, compat_messages, nanover_messages
from narupa_shared.errors import QuotaError, UnavailableError
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as state_pb
from narupa_shared.structs import from_struct
from narupa_shared.testing.waiting import until


def change(updates: Mapping[str, Any] | None = None, *removals: str, whole: bool = False) -> StateChange:
    return StateChange(whole, updates or {}, removals, 1)


def read_compat(messages: list[bytes]) -> dict[str, Any]:
    """What a gRPC client has after these messages: None for keys that were removed."""
    known: dict[str, Any] = {}
    for data in messages:
        known |= from_struct(state_pb.StateUpdate.FromString(data).changed_keys)
    return known


def read_nanover(messages: list[bytes]) -> tuple[dict[str, Any], set[str]]:
    (data,) = messages
    state = msgpack.unpackb(data)["state"]
    return state["updates"], set(state["removals"])


def test_changes_since_a_revision_are_its_keys_as_they_are_now() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"a": 1.0, "b": 2.0}))
    before = copy.revision
    copy.apply(change({"b": 3.0, "c": 4.0}))
    copy.apply(change({}, "a"))
    assert copy.changes(None) == ({"b": 3.0, "c": 4.0}, [])
    assert copy.changes(before) == ({"b": 3.0, "c": 4.0}, ["a"])
    assert copy.changes(copy.revision) == ({}, [])


def test_a_key_that_comes_back_is_no_removal_any_more() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"a": 1.0}))
    before = copy.revision
    copy.apply(change({}, "a"))
    copy.apply(change({"a": 2.0}))
    assert copy.changes(before) == ({"a": 2.0}, [])


def test_what_changes_nothing_is_no_change() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"a": 1.0}))
    revision = copy.revision
    copy.apply(change({}, "unknown"))
    copy.apply(change({"a": 1.0}, whole=True))
    copy.apply(change())
    assert copy.revision == revision


def test_a_whole_change_after_a_restart_removes_what_is_gone_and_tells_only_what_differs() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"kept": 1.0, "other": 1.0, "gone": 1.0}))
    before = copy.revision
    copy.apply(change({"kept": 1.0, "other": 2.0, "new": 3.0}, whole=True))
    assert copy.values == {"kept": 1.0, "other": 2.0, "new": 3.0}
    updates, removals = copy.changes(before)
    assert (updates, removals) == ({"other": 2.0, "new": 3.0}, ["gone"])


def test_whoever_is_too_far_behind_is_told_so() -> None:
    copy = SharedStateCopy(most_removals=3)
    copy.apply(change({str(number): 1.0 for number in range(10)}))
    before = copy.revision
    for number in range(10):
        copy.apply(change({}, str(number)))
    with pytest.raises(QuotaError, match="too far behind"):
        copy.changes(before)
    assert copy.changes(None) == ({}, [])
    assert len(copy.changes(copy.revision - 3)[1]) == 3


async def test_a_reader_who_stalls_is_told_of_all_that_went_meanwhile() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"there": 1.0}))
    async with contextlib.aclosing(copy.stream("nanover", 0.0)) as stalls:
        await anext(stalls)
        for number in range(2000):
            copy.apply(change({str(number): 1.0}))
            copy.apply(change({}, str(number)))
        message = await anext(stalls)
        assert len(msgpack.unpackb(message)["state"]["removals"]) == 2000


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)),
            st.lists(st.sampled_from("abcdef")),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_whoever_follows_from_anywhere_ends_with_the_same_state(
    changes: list[tuple[dict[str, int], list[str], bool]], start: int
) -> None:
    copy = SharedStateCopy()
    known: dict[str, Any] = {}
    told: dict[str, Any] = {}
    at = 0
    for number, (updates, removals, whole) in enumerate(changes):
        copy.apply(change({key: float(value) for key, value in updates.items()}, *removals, whole=whole))
        known = {} if whole else {key: value for key, value in known.items() if key not in removals}
        known |= {key: float(value) for key, value in updates.items()}
        assert copy.values == known
        if number == start:
            told, at = dict(copy.values), copy.revision
    updates_since, removed_since = copy.changes(at)
    assert not set(updates_since) & set(removed_since)
    for key in removed_since:
        told.pop(key, None)
    if start < len(changes):
        assert told | updates_since == known


@pytest.mark.parametrize("form", ["compat", "nanover"])
async def test_a_change_is_encoded_once_for_everybody_at_the_same_revision(form: Any) -> None:
    copy = SharedStateCopy()
    copy.apply(change({"a": 1.0}))
    streams = [copy.stream(form, 0.0) for _ in range(3)]
    first = [await anext(stream) for stream in streams]
    assert first[0] is first[1] is first[2]
    later = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await until(lambda: len(copy._waiting) == 3)
    copy.apply(change({"b": 2.0}))
    second = await asyncio.gather(*later)
    assert second[0] is second[1] is second[2]
    assert second[0] != first[0]
    for stream in streams:
        await stream.aclose()
    assert not copy._waiting


async def test_changes_are_merged_for_who_reads_seldom() -> None:
    copy = SharedStateCopy()
    stream = copy.stream("nanover", 0.0)
    assert read_nanover([await anext(stream)]) == ({}, set())
    for number in range(50):
        copy.apply(change({"a": float(number)}))
    assert read_nanover([await anext(stream)]) == ({"a": 49.0}, set())
    await stream.aclose()


async def test_everybody_hears_why_the_state_ends() -> None:
    copy = SharedStateCopy()
    waiting, sleeping = copy.stream("nanover", 0.0), copy.stream("compat", 0.0)
    await anext(waiting)
    pending = asyncio.ensure_future(anext(waiting))
    await anext(sleeping)
    await until(lambda: copy._waiting)
    copy.end(UnavailableError("the gateway is stopping"))
    for reading in (pending, anext(sleeping), anext(copy.stream("nanover", 0.0))):
        with pytest.raises(UnavailableError, match="stopping"):
            await reading


def test_removed_keys_are_null_for_grpc_and_a_list_for_websocket() -> None:
    copy = SharedStateCopy()
    copy.apply(change({"a": 1.0, "b": "x"}))
    before = copy.revision
    copy.apply(change({"c": None, "d": [True, None]}, "a"))
    assert read_nanover(copy.messages("nanover", before)) == ({"c": None, "d": [True, None]}, {"a"})
    assert read_compat(copy.messages("compat", before)) == {"a": None, "c": None, "d": [True, None]}
    assert read_nanover(copy.as_it_is(["a", "b", "never"])) == ({"b": "x"}, {"a", "never"})


def test_a_large_state_reaches_grpc_clients_in_messages_that_they_accept() -> None:
    large = {f"key-{number}": "x" * 100_000 for number in range(60)}
    messages = compat_messages(large, ["gone"])
    assert len(messages) > 1
    assert max(map(len, messages)) < 4 * 1024 * 1024
    assert read_compat(messages) == {**large, "gone": None}


def test_one_value_that_is_large_by_itself_stands_alone() -> None:
    large = {"a": 1.0, "big": "x" * 2 * shared_state.MAX_BODY, "z": 2.0}
    messages = compat_messages(large, [])
    assert [set(read_compat([data])) for data in messages] == [{"a"}, {"big"}, {"z"}]


def test_no_change_at_all_is_still_a_message() -> None:
    assert read_compat(compat_messages({}, [])) == {} and len(compat_messages({}, [])) == 1
    assert read_nanover(nanover_messages({}, [])) == ({}, set())


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("interaction.1", {"particles": [1.0, 2.0], "scale": 1.0}, {"particles": [1, 2], "scale": 1.0}),
        ("interaction.1", {"groups": [[1.0], [2.0]]}, {"groups": [[1], [2]]}),
        ("interaction.1", "odd", "odd"),
        (
            "selection.a",
            {"selected": {"particle_ids": [3.0]}, "id": "a"},
            {"selected": {"particle_ids": [3]}, "id": "a"},
        ),
        ("selection.a", {"selected": {"particle_ids": None}}, {"selected": {"particle_ids": None}}),
        ("selection.a", {"selected": None}, {"selected": None}),
        ("update.index.me", 17.0, 17),
        ("simulation.index", 2.0, 2),
        ("update.index.me", math.inf, math.inf),
        ("update.index.me", 0.5, 0.5),
        ("other", 17.0, 17.0),
    ],
)
def test_whole_numbers_are_such_where_clients_expect_them(key: str, value: Any, written: Any) -> None:
    (data,) = nanover_messages({key: value}, [])
    given = msgpack.unpackb(data)["state"]["updates"][key]
    assert repr(given) == repr(written)
