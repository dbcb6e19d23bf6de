"""Which keys changed after a revision, and for whom removals are remembered."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.changed_keys import ChangedKeys


def test_keys_that_changed_come_latest_first_and_once_each() -> None:
    keys = ChangedKeys()
    keys.change([], ["a", "b"])
    keys.change(["b"], ["c"])
    keys.change([], ["a"])
    assert list(keys.since(0)) == ["a", "c", "b"]
    assert list(keys.since(1)) == ["a", "c", "b"]
    assert list(keys.since(2)) == ["a"]
    assert list(keys.since(3)) == []
    assert keys.at("b") == 2
    assert keys.at("z") is None


def come_and_go(keys: ChangedKeys, count: int) -> None:
    for number in range(count):
        name = f"{keys.revision}-{number}"
        keys.change([], [name])
        keys.change([name], [])


def test_of_what_all_have_been_told_the_last_removals_are_remembered() -> None:
    keys = ChangedKeys(most=10, told=3)
    come_and_go(keys, 20)
    assert len(list(keys.since(keys.forgotten))) == 3
    with keys.watching(keys.revision) as place:
        come_and_go(keys, 5)
        place.revision = keys.revision
        come_and_go(keys, 1)
        assert len(list(keys.since(keys.forgotten))) == 3


def test_what_somebody_has_not_been_told_is_remembered_until_it_is_too_much() -> None:
    keys = ChangedKeys(most=10, told=3)
    with keys.watching(keys.revision), keys.watching(keys.revision) as quick:
        come_and_go(keys, 10)
        quick.revision = keys.revision
        assert keys.forgotten == 0
        assert len(list(keys.since(0))) == 10
        come_and_go(keys, 1)
        assert keys.forgotten == 2
        assert len(list(keys.since(2))) == 10
    come_and_go(keys, 1)
    assert len(list(keys.since(keys.forgotten))) == 3, "nobody waits to be told any more"


def test_a_key_that_is_there_again_is_not_forgotten() -> None:
    keys = ChangedKeys(most=2, told=1)
    keys.change([], ["a", "b", "c"])
    keys.change(["a", "b"], [])
    keys.change([], ["a"])
    come_and_go(keys, 5)
    assert keys.at("a") == 3
    assert keys.at("c") == 1
    assert keys.at("b") is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.lists(st.integers(0, 2), max_size=2)), max_size=60
    ),
    st.integers(1, 6),
    st.integers(0, 6),
)
def test_whoever_watches_misses_nothing_unless_they_are_told_so(
    steps: list[tuple[str, bool, list[int]]], most: int, told: int
) -> None:
    keys = ChangedKeys(most, told)
    there: set[str] = set()
    known: list[set[str]] = [set(), set(), set()]
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(keys.watching()) for _ in known]
        for key, removed, looks in steps:
            if removed and key in there:
                keys.change([key], [])
                there.discard(key)
            elif not removed:
                keys.change([], [key])
                there.add(key)
            for number in looks:
                if places[number].revision < keys.forgotten:
                    known[number] = set(there)
                for changed in keys.since(max(places[number].revision, keys.forgotten)):
                    (known[number].add if changed in there else known[number].discard)(changed)
                places[number].revision = keys.revision
                assert known[number] == there
            gone = [key for key in keys.since(0) if key not in there]
            assert len(gone) <= most
