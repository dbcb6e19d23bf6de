"""The shared state: revisions, ownership, locks, limits. All or nothing, always."""

from __future__ import annotations

import math
from typing import Any

import pytest

from narupa_imd.state import SERVER, Family, Limits, SharedState, Writer
from narupa_shared.errors import (
    InvalidArgumentError,
    NoLongerKeptError,
    PermissionDeniedError,
    QuotaError,
)

ANNA = Writer("user:anna", "ipv4:127.0.0.1:1001")
BERT = Writer("user:bert", "ipv4:127.0.0.1:1002")
FAMILIES = (
    Family("mine.", owned=True, max_per_owner=2, max_keys=3),
    Family("fixed.", read_only=True),
    Family("beside.", fleeting=True, follows="mine."),
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> SharedState:
    return SharedState(clock, "epoch", FAMILIES, Limits(keys=6, total_bytes=2000, removals=3))


def test_each_update_is_one_revision_however_many_keys(state: SharedState) -> None:
    assert state.update(ANNA, {"a": 1.0, "b": "x"}) == 1
    assert state.update(BERT, {"a": 2.0}, ["b"]) == 2
    assert state.values() == {"a": 2.0}


def test_removing_what_is_not_there_changes_nothing(state: SharedState) -> None:
    assert state.update(ANNA, {}, ["nothing"]) == 0
    assert not state.changes(0)


def test_a_watch_sees_everything_and_then_only_what_changed_merged(state: SharedState) -> None:
    state.update(ANNA, {"a": 1.0, "b": 1.0})
    whole = state.changes(None)
    assert whole.whole and {key for key, _ in whole.updated} == {"a", "b"}
    for value in range(5):
        state.update(ANNA, {"a": float(value)})
    state.update(ANNA, {"c": 1.0}, ["b"])
    changes = state.changes(whole.revision)
    assert {key: entry.value for key, entry in changes.updated} == {"a": 4.0, "c": 1.0}
    assert changes.removed == ["b"] and not changes.whole
    assert not state.changes(changes.revision)


def test_a_watch_may_be_of_a_prefix(state: SharedState) -> None:
    state.update(ANNA, {"scene": 1.0, "mine.a": 1.0})
    state.update(ANNA, {}, ["scene"])
    assert [key for key, _ in state.changes(None, "mine.").updated] == ["mine.a"]
    assert state.changes(1, "mine.").removed == []


def test_a_revision_is_kept_until_too_much_was_removed(state: SharedState) -> None:
    for name in "abcd":
        state.update(ANNA, {name: 1.0})
    for name in "abcd":
        state.update(ANNA, {}, [name])
    with pytest.raises(NoLongerKeptError, match=r"after_revision is 4.*from 5 on"):
        state.changes(4)
    assert set(state.changes(5).removed) == {"b", "c", "d"}


def test_a_revision_to_come_and_another_epoch_are_refused(state: SharedState) -> None:
    with pytest.raises(NoLongerKeptError, match="at 0"):
        state.changes(1)
    with pytest.raises(NoLongerKeptError, match="'old' is over"):
        state.resume("old", 0)
    assert state.resume("epoch", 0) == 0


@pytest.mark.parametrize("key", ["", "x" * 257, "tab\t", "\x00", "line\n"])
def test_a_bad_key_is_refused(state: SharedState, key: str) -> None:
    for updates, removals in (({key: 1.0}, []), ({}, [key])):
        with pytest.raises(InvalidArgumentError, match="key is"):
            state.update(ANNA, updates, removals)


def deep(levels: int) -> Any:
    value: Any = 1.0
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, [1.0, math.nan], {"a": [{"b": math.nan}]}, None, object(), b"x", {1: 2.0}, [math.nan, "x"], deep(16)],
)
def test_a_bad_value_is_refused_by_its_key_and_nothing_is_applied(state: SharedState, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="bad is"):
        state.update(ANNA, {"good": 1.0, "bad": value})
    assert state.revision == 0 and not state.values()


def test_nested_and_infinite_values_are_fine(state: SharedState) -> None:
    state.update(ANNA, {"a": deep(15), "b": math.inf, "c": [1, "x", None, True, []]})
    assert state.get("b").value == math.inf  # type: ignore[union-attr]


def test_a_key_cannot_be_set_and_removed_at_once(state: SharedState) -> None:
    with pytest.raises(InvalidArgumentError, match="removals is 'a'"):
        state.update(ANNA, {"a": 1.0}, ["a"])


def test_limits_are_refused_whole_and_freed_by_removal(state: SharedState) -> None:
    state.update(ANNA, dict.fromkeys("abcdef", 1.0))
    with pytest.raises(QuotaError, match="7 keys; at most 6"):
        state.update(BERT, {"g": 1.0})
    state.update(BERT, {"g": 1.0}, ["a"])
    with pytest.raises(QuotaError, match="at most 2000"):
        state.update(BERT, {"b": "x" * 2000})
    with pytest.raises(QuotaError, match=r"b has a value of .*65536"):
        state.update(BERT, {"b": "x" * 70_000})
    before = state.bytes
    state.update(BERT, {"b": "x" * 100})
    state.update(BERT, {"b": 1.0})
    assert state.bytes == before
    state.update(BERT, {}, list(state.values()))
    assert state.bytes == 0


def test_only_its_owner_changes_an_owned_key(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0})
    for updates, removals in (({"mine.a": 2.0, "x": 1.0}, []), ({"x": 1.0}, ["mine.a"])):
        with pytest.raises(PermissionDeniedError, match=r"mine.a belongs to user:anna"):
            state.update(BERT, updates, removals)
    assert state.values() == {"mine.a": 1.0}
    state.update(ANNA, {"mine.a": 3.0})
    state.update(SERVER, {}, ["mine.a"])
    state.update(BERT, {"mine.a": 4.0})


def test_owned_keys_are_limited_per_owner_and_in_all(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0, "mine.b": 1.0})
    with pytest.raises(QuotaError, match=r"2 mine\.\* keys of user:anna"):
        state.update(ANNA, {"mine.c": 1.0})
    state.update(ANNA, {"mine.a": 2.0})
    state.update(ANNA, {"mine.c": 1.0}, ["mine.a"])
    state.update(BERT, {"mine.d": 1.0})
    with pytest.raises(QuotaError, match=r"3 mine\.\* keys in all"):
        state.update(BERT, {"mine.e": 1.0})


def test_the_services_own_keys_are_read_only(state: SharedState) -> None:
    state.update(SERVER, {"fixed.a": True})
    with pytest.raises(PermissionDeniedError, match=r"fixed.a is written by the service"):
        state.update(ANNA, {"fixed.a": False})


def test_a_lock_keeps_others_out_until_it_is_released_or_over(state: SharedState, clock: Clock) -> None:
    state.update_locks(ANNA, {"scene": 10.0})
    state.update(ANNA, {"scene": 1.0})
    with pytest.raises(PermissionDeniedError, match="scene is locked by user:anna"):
        state.update(BERT, {"scene": 2.0})
    state.update_locks(BERT, {}, ["scene"])
    with pytest.raises(PermissionDeniedError):
        state.update(BERT, {}, ["scene"])
    clock.now += 10.0
    state.update(BERT, {"scene": 2.0})
    state.update_locks(ANNA, {"scene": 10.0})
    state.update_locks(ANNA, {}, ["scene"])
    state.update(BERT, {"scene": 3.0})


def test_locks_are_taken_all_or_none_and_releases_always_happen(state: SharedState) -> None:
    state.update_locks(ANNA, {"a": 5.0})
    state.update_locks(BERT, {"b": 5.0})
    with pytest.raises(PermissionDeniedError, match="a is locked"):
        state.update_locks(BERT, {"c": 5.0, "a": 5.0}, ["b"])
    state.update(ANNA, {"b": 1.0, "c": 1.0})


@pytest.mark.parametrize("duration", [0, -1.0, math.nan, math.inf, "long", True, None, 1e9])
def test_a_bad_duration_is_refused_and_nothing_is_done(state: SharedState, duration: object) -> None:
    state.update_locks(ANNA, {"b": 5.0})
    with pytest.raises(InvalidArgumentError, match="lock on a"):
        state.update_locks(ANNA, {"c": 1.0, "a": duration}, ["b"])
    with pytest.raises(PermissionDeniedError):
        state.update(BERT, {"b": 1.0})
    state.update(BERT, {"c": 1.0})


def test_locks_are_limited_per_owner_and_expired_ones_do_not_count(state: SharedState, clock: Clock) -> None:
    state.update_locks(ANNA, {f"k{number}": 1.0 for number in range(1000)})
    with pytest.raises(QuotaError, match="user:anna would hold 1001 locks"):
        state.update_locks(ANNA, {"more": 1.0})
    state.update_locks(BERT, {"more": 1.0})
    clock.now += 1.0
    state.update_locks(ANNA, {"other": 1.0})
    assert len(state.locks) == 1


def test_nobody_locks_another_owners_key_nor_the_services(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0})
    for key in ("mine.a", "fixed.a"):
        with pytest.raises(PermissionDeniedError):
            state.update_locks(BERT, {key: 5.0})


def test_with_a_connection_go_its_owned_keys_and_locks_and_nothing_else(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0, "scene": 1.0})
    state.update_locks(ANNA, {"scene": 5.0})
    state.update(BERT, {"mine.b": 1.0})
    assert state.connections() == {ANNA.connection, BERT.connection}
    ended = state.end_connection(ANNA.connection)
    assert ended.keys == ["mine.a"] and ended.locks == ["scene"]
    assert state.values() == {"scene": 1.0, "mine.b": 1.0}
    state.update(BERT, {"scene": 2.0})
    revision = state.revision
    assert not state.end_connection(ANNA.connection) and state.revision == revision


def test_an_owned_key_follows_its_owner_to_another_connection(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0})
    state.update(Writer(ANNA.owner, "ipv4:127.0.0.1:1003"), {"mine.a": 2.0})
    assert not state.end_connection(ANNA.connection)
    assert state.values() == {"mine.a": 2.0}


def test_every_change_is_told_once(clock: Clock) -> None:
    told: list[int] = []
    state = SharedState(clock, "epoch", on_change=lambda: told.append(state.revision))
    state.update(ANNA, {"a": 1.0, "b": 1.0})
    state.update(ANNA, {}, ["a"])
    state.update(ANNA, {}, ["a"])
    assert told == [1, 2]


def test_a_key_of_ones_own_lives_as_long_as_the_connection_that_wrote_it_last(state: SharedState) -> None:
    second = Writer(ANNA.owner, "ipv4:127.0.0.1:1003")
    state.update(ANNA, {"mine.a": 1.0})
    state.update(second, {"mine.a": 2.0})
    assert state.end_connection(ANNA.connection).keys == [] and state.values() == {"mine.a": 2.0}
    state.update(second, {}, ["mine.a"])
    state.update(second, {"mine.a": 3.0})
    state.update(ANNA, {"mine.a": 4.0})
    assert state.end_connection(second.connection).keys == []
    assert state.end_connection(ANNA.connection).keys == ["mine.a"] and not state.connections()


def test_a_key_goes_with_the_one_that_it_follows_in_one_change(state: SharedState) -> None:
    state.update(ANNA, {"mine.a": 1.0})
    state.update(SERVER, {"beside.a": 1.0, "beside.b": 1.0})
    before = state.revision
    assert state.end_connection(ANNA.connection).keys == ["mine.a"]
    assert state.values() == {"beside.b": 1.0} and state.revision == before + 1
    assert set(state.changes(before).removed) == {"mine.a", "beside.a"}
    state.update(ANNA, {"mine.a": 1.0, "beside.a": 1.0})
    state.update(ANNA, {"mine.a": 2.0})
    assert state.values("beside.a") == {"beside.a": 1.0}
    state.update(ANNA, {"beside.a": 2.0}, ["mine.a"])
    assert state.values("beside.a") == {"beside.a": 2.0}
    state.update(ANNA, {"mine.a": 1.0})
    state.update(ANNA, {}, ["mine.a", "beside.a"])
    assert state.values("beside.") == {"beside.b": 1.0}
    assert not state.lasts("beside.a") and not state.lasts("mine.a") and state.lasts("fixed.a")
