"""The event log: order, resuming, and bounded buffers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_lobby.watch import EventLog, Watcher
from narupa_shared.errors import NoLongerKeptError, QuotaError, UnavailableError


async def waiting(watcher: Watcher[str]) -> list[tuple[int, str]]:
    """What has arrived so far."""
    found = []
    try:
        async with asyncio.timeout(0):
            while True:
                found.append(await anext(watcher))
    except TimeoutError:
        return found


async def test_a_watcher_sees_what_comes_after_it() -> None:
    log: EventLog[str] = EventLog("epoch", kept=10)
    log.append("before")
    watcher = log.watch()
    assert log.append("a") == 2
    log.append("b")
    assert await anext(watcher) == (2, "a")
    assert await anext(watcher) == (3, "b")


async def test_a_waiting_watcher_is_woken() -> None:
    log: EventLog[str] = EventLog("epoch", kept=10)
    following = asyncio.create_task(anext(log.watch()))
    await asyncio.sleep(0)
    log.append("a")
    assert await following == (1, "a")


@pytest.mark.parametrize(("epoch", "after"), [("other", 3), ("epoch", 1), ("epoch", 6)])
def test_what_is_not_kept_cannot_be_resumed(epoch: str, after: int) -> None:
    log: EventLog[str] = EventLog("epoch", kept=3)
    for name in "abcde":
        log.append(name)
    with pytest.raises(NoLongerKeptError, match="watch again without it"):
        log.resume(epoch, after)
    assert log.watcher_count == 0


async def test_a_stalled_watcher_is_ended_and_costs_nothing() -> None:
    log: EventLog[str] = EventLog("epoch", kept=3)
    stalled, quick = log.watch(), log.watch()
    for number in range(10):
        log.append(str(number))
        await anext(quick)
    assert log.watcher_count == 1
    assert not stalled._waiting
    with pytest.raises(QuotaError, match="3 events behind"):
        await anext(stalled)


async def test_watchers_end_with_the_reason_after_what_they_had() -> None:
    log: EventLog[str] = EventLog("epoch", kept=3)
    watcher = log.watch()
    log.append("a")
    log.end(UnavailableError("stopping"))
    assert await anext(watcher) == (1, "a")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await anext(watcher)


async def test_an_orderly_end_ends_the_iteration() -> None:
    log: EventLog[str] = EventLog("epoch", kept=3)
    watcher = log.watch()
    log.end(None)
    assert [each async for each in watcher] == []
    watcher.close()
    assert log.watcher_count == 0


@given(
    kept=st.integers(1, 8),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(["keep", "drop"])), max_size=40),
)
def test_a_follower_that_resumes_anywhere_ends_with_the_truth(kept: int, steps: list[tuple[str, bool, str]]) -> None:
    """Model: a set of names. A follower that loses its watch at any time and resumes, or starts over, agrees with it."""

    async def follow() -> None:
        log: EventLog[tuple[str, bool]] = EventLog("epoch", kept)
        truth: set[str] = set()
        seen: set[str] = set()
        revision = 0
        watcher: Watcher[tuple[str, bool]] | None = log.watch()

        async def catch_up() -> None:
            nonlocal watcher, revision, seen
            if watcher is None:
                try:
                    watcher = log.resume("epoch", revision)
                except NoLongerKeptError:
                    assert log.revision - revision > kept, "resuming is refused only when an event is gone"
                    watcher, seen, revision = log.watch(), set(truth), log.revision
            try:
                while revision < log.revision:
                    number, (name, present) = await anext(watcher)
                    assert number == revision + 1, "no gap and no repetition"
                    revision = number
                    (seen.add if present else seen.discard)(name)
            except QuotaError:
                watcher = None
                await catch_up()

        for name, present, fate in steps:
            (truth.add if present else truth.discard)(name)
            log.append((name, present))
            if fate == "drop" and watcher is not None:
                watcher.close()
                watcher = None
            elif revision % 3 == 0:
                await catch_up()
        await catch_up()
        assert seen == truth
        assert revision == log.revision

    asyncio.run(follow())
