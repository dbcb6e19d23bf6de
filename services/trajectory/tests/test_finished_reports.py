from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError, QuotaError, UnavailableError
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.reports import MAX_BATCH, MAX_BATCH_PARTICLES, MAX_KEPT_PARTICLES, FinishedReports


def account(name: str = "a", particles: int = 1) -> FinishedInteraction:
    return FinishedInteraction(name, "user:u", "spring", tuple(range(particles)), 100.0, 2.0, 1.0, 3.0, 4.5)


def sequences(reports: FinishedReports, epoch: str = "", after: int = 0) -> list[int]:
    return [report.sequence for report in reports.after(epoch, after)]


def test_reports_are_numbered_and_kept_in_order() -> None:
    reports = FinishedReports("e")
    assert reports.after() == []
    reports.add([account("a"), account("b")], "run-1")
    reports.add([account("c")], "run-2")
    kept = reports.after()
    told = [(item.sequence, item.account.id, item.run_id) for item in kept]
    assert told == [(1, "a", "run-1"), (2, "b", "run-1"), (3, "c", "run-2")]
    assert sequences(reports, "e", 2) == [3]
    assert sequences(reports, "e", 3) == []


@given(
    kept=st.integers(1, 8), added=st.lists(st.integers(0, 5), max_size=12), epoch=st.sampled_from(["", "e", "x"]),
    after=st.integers(0, 70),
)  # fmt: skip
def test_a_watcher_that_resumes_gets_exactly_what_it_missed_or_an_error(
    kept: int, added: list[int], epoch: str, after: int
) -> None:
    reports = FinishedReports("e", kept)
    for count in added:
        reports.add([account()] * count, "run")
    total = sum(added)
    everything = list(range(max(total - kept, 0) + 1, total + 1))
    try:
        got = sequences(reports, epoch, after)
    except InvalidArgumentError:
        assert not epoch and after
    except NoLongerKeptError:
        assert epoch == "x" or after > total or after < total - kept
    else:
        if epoch:
            assert epoch == "e" and got == list(range(after + 1, total + 1))
        else:
            assert got == everything


def test_what_is_kept_is_limited_by_particles_too() -> None:
    reports = FinishedReports("e")
    big = account(particles=100_000)
    reports.add([big] * (MAX_KEPT_PARTICLES // 100_000 + 5), "run")
    assert len(reports.after()) == MAX_KEPT_PARTICLES // 100_000
    with pytest.raises(NoLongerKeptError, match="kept from 6 on"):
        reports.after("e", 4)


async def test_a_watch_gives_what_is_there_then_what_comes_in_batches() -> None:
    reports = FinishedReports("e")
    reports.add([account()] * (MAX_BATCH + 1), "run")
    async with aclosing(reports.watch()) as watch:
        assert [item.sequence for item in await anext(watch)] == list(range(1, MAX_BATCH + 1))
        assert [item.sequence for item in await anext(watch)] == [MAX_BATCH + 1]
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not waiting.done()
        reports.add([account("late")], "run")
        assert [item.account.id for item in await waiting] == ["late"]
        assert reports.watchers == 1
    assert reports.watchers == 0


async def test_a_watch_tells_at_once_that_there_is_nothing_yet() -> None:
    reports = FinishedReports("e")
    async with aclosing(reports.watch()) as watch:
        assert await anext(watch) == []


async def test_a_batch_does_not_grow_with_the_particles() -> None:
    reports = FinishedReports("e")
    reports.add([account(particles=MAX_BATCH_PARTICLES)] * 2, "run")
    async with aclosing(reports.watch()) as watch:
        assert len(await anext(watch)) == 1
        assert len(await anext(watch)) == 1


async def test_a_watcher_that_falls_too_far_behind_is_told() -> None:
    reports = FinishedReports("e", kept=2)
    async with aclosing(reports.watch()) as watch:
        await anext(watch)
        reports.add([account()] * 3, "run")
        with pytest.raises(NoLongerKeptError, match="after_sequence is 0"):
            await anext(watch)


async def test_every_watch_ends_with_the_service() -> None:
    reports = FinishedReports("e")
    watch = reports.watch()
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    reports.add([account("last")], "run")
    reports.drain(UnavailableError("stopping"))
    assert [item.account.id for item in await waiting] == ["last"]
    with pytest.raises(UnavailableError, match="stopping"):
        await anext(watch)
    with pytest.raises(UnavailableError, match="stopping"):
        await anext(reports.watch())


async def test_watches_are_limited() -> None:
    reports = FinishedReports("e", max_watchers=1)
    async with aclosing(reports.watch()) as watch:
        await anext(watch)
        with pytest.raises(QuotaError, match="1 watches"):
            await anext(reports.watch())
