"""What every store promises, wherever it keeps things."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.redis import RedisStore
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import (
    BehindError,
    Commit,
    Contents,
    Key,
    LeaseChanges,
    LeaseHeldError,
    Store,
    StoreError,
)
from narupa_shared.testing.clock import FakeClock
from narupa_shared.testing.redis_server import RedisServer


class Place(Protocol):
    """Where a store keeps things: opened there again, it finds them."""

    def store(self) -> Store: ...

    def pass_time(self, seconds: float) -> None:
        """Leases are `seconds` nearer to their end."""


class MemoryPlace:
    def __init__(self, kept_commits: int) -> None:
        self._clock = FakeClock()
        self._store = MemoryStore(self._clock, kept_commits=kept_commits)

    def store(self) -> Store:
        return self._store

    def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class SqlitePlace:
    def __init__(self, path: Path, kept_commits: int) -> None:
        self._clock = FakeClock()
        self._path, self._kept = path, kept_commits

    def store(self) -> Store:
        return SqliteStore(self._path, self._clock, kept_commits=self._kept)

    def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class RedisPlace:
    """Redis has its own clock: time passes by moving every deadline the other way."""

    def __init__(self, url: str, prefix: str, kept_commits: int) -> None:
        self._url, self._prefix, self._kept = url, prefix, kept_commits

    def store(self) -> Store:
        return RedisStore(self._url, self._prefix, kept_commits=self._kept, timeout_s=5.0)

    def pass_time(self, seconds: float) -> None:
        leases = f"{{{self._prefix}}}:leases"
        with redis.Redis.from_url(self._url) as client, client.pipeline() as together:
            for name in client.zrange(leases, 0, -1):
                together.zincrby(leases, -seconds * 1e6, name)
            together.execute()


MakePlace = Callable[..., Place]


@pytest.fixture(scope="module", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_place(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> MakePlace:
    numbers = itertools.count()

    def make(kept_commits: int = 10_000) -> Place:
        number = next(numbers)
        if request.param == "memory":
            return MemoryPlace(kept_commits)
        if request.param == "sqlite":
            return SqlitePlace(tmp_path / f"{number}.sqlite", kept_commits)
        return RedisPlace(redis_server.url, f"{tmp_path.name}-{number}", kept_commits)

    return make


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    return make_place()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[tuple[Store, Contents]]:
    store = place.store()
    contents = await store.open()
    try:
        yield store, contents
    finally:
        await store.close()


def a_commit(number: int, changes: Mapping[Key, str | None] | None = None, id: str = "", note: str = "") -> Commit:
    return Commit(number, id or f"commit-{number}", changes or {("things", f"k{number}"): f"{number}"}, note)


async def contents_of(place: Place) -> Contents:
    async with opened(place) as (_, contents):
        return contents


async def first(commits: AsyncIterator[Commit], count: int) -> list[Commit]:
    async with asyncio.timeout(10), aclosing(commits) as stream:  # type: ignore[type-var]
        return [await anext(stream) for _ in range(count)]


async def test_a_new_store_is_empty_and_has_an_epoch_of_its_own(make_place: MakePlace) -> None:
    one, other = await contents_of(make_place()), await contents_of(make_place())
    assert (one.number, one.records, one.log, one.leases) == (0, {}, (), frozenset())
    assert one.epoch and one.epoch != other.epoch


async def test_what_was_committed_is_there_after_reopening(place: Place) -> None:
    commits = [
        a_commit(1, {("sessions", "a"): '{"name": "A"}', ("users", "a"): "1"}, note='{"why": "joined"}'),
        a_commit(2, {("sessions", "a"): '{"name": "B"}', ("users", "a"): None, ("users", "not there"): None}),
        a_commit(3, {("sessions", "b"): ""}),
    ]
    async with opened(place) as (store, before):
        for commit in commits:
            await store.commit(commit)
    after = await contents_of(place)
    assert after.epoch == before.epoch
    assert (after.number, after.log) == (3, tuple(commits))
    assert after.records == {("sessions", "a"): '{"name": "B"}', ("sessions", "b"): ""}


@pytest.mark.parametrize(
    "text",
    ["", "\0", "a\0b", "'; DROP TABLE records; --", '"\\\n\r\t', "é 🧪 \u2028", "{}", "[1]", "null", "x" * 200_000],
)
async def test_any_text_is_kept_as_it_is(place: Place, text: str) -> None:
    commit = Commit(1, f"id {text}", {(text, "key"): text, ("collection", text): text}, text)
    async with opened(place) as (store, _):
        await store.commit(commit, LeaseChanges(hold={text: 5.0}))
        assert await store.renew({text: 5.0}) == frozenset()
    contents = await contents_of(place)
    assert (contents.log, contents.records) == ((commit,), commit.changes)


async def test_keys_that_look_alike_are_different_records(place: Place) -> None:
    changes = {("a", "b/c"): "1", ("a/b", "c"): "2", ("a", 'b","c'): "3", ('a","b', "c"): "4"}
    async with opened(place) as (store, _):
        await store.commit(a_commit(1, changes))
    assert (await contents_of(place)).records == changes


@pytest.mark.parametrize("number", [1, 2, 4, 1000])
async def test_a_commit_out_of_turn_is_refused_and_changes_nothing(place: Place, number: int) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1))
        await store.commit(a_commit(2))
        if number <= 3:
            with pytest.raises(BehindError, match="2"):
                await store.commit(a_commit(number, id="late"), LeaseChanges(hold={"x": 5}))
        else:  # a copy that is ahead of the store: its commits are lost, or its owner is confused
            with pytest.raises((BehindError, StoreError)):
                await store.commit(a_commit(number, id="early"), LeaseChanges(hold={"x": 5}))
        assert await store.renew({"x": 5}) == {"x"}
    assert (await contents_of(place)).number == 2


async def test_a_repeated_commit_is_made_once(place: Place) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"x": 5}))
        await store.commit(a_commit(2), LeaseChanges(release=frozenset({"x"})))
        await store.commit(a_commit(1), LeaseChanges(hold={"x": 5}))
        await store.commit(a_commit(3, id="commit-2"))
        assert await store.renew({"x": 5}) == {"x"}
        await store.commit(a_commit(3))
    async with opened(place) as (store, _):
        await store.commit(a_commit(3))
    contents = await contents_of(place)
    assert [commit.id for commit in contents.log] == ["commit-1", "commit-2", "commit-3"]


async def test_many_changes_are_made_together(place: Place) -> None:
    changes: dict[Key, str | None] = {("many", f"{i}"): "v" * 2000 for i in range(3000)}
    async with opened(place) as (store, _):
        await store.commit(a_commit(1, changes))
        await store.commit(a_commit(2, dict.fromkeys(changes)))
    contents = await contents_of(place)
    assert not contents.records and contents.log[0].changes == changes


async def test_a_lease_lapses_unless_it_is_renewed(place: Place) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"short": 100, "long": 300, "shorter": 50}))
        assert await store.lapsed() == ()
        place.pass_time(150)
        assert await store.lapsed() == ("shorter", "short")
        assert await store.lapsed(at_most=1) == ("shorter",)
        assert await store.renew({"short": 100, "long": 20, "unknown": 100}) == {"unknown"}
        assert await store.lapsed() == ("shorter",)
        place.pass_time(50)
        assert set(await store.lapsed()) == {"shorter", "long"}


async def test_a_lease_ends_when_it_is_released_and_can_begin_anew(place: Place) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"a": 10, "b": 10}))
        await store.commit(a_commit(2), LeaseChanges(release=frozenset({"a", "unknown"})))
        assert await store.renew({"a": 10, "b": 10}) == {"a"}
        await store.commit(a_commit(3), LeaseChanges(hold={"a": 500, "b": 500}, release=frozenset({"b"})))
        place.pass_time(100)
        assert await store.lapsed() == ()


async def test_a_commit_that_needs_a_lease_to_have_lapsed(place: Place) -> None:
    sweep = LeaseChanges(only_if_lapsed=frozenset({"a", "not there"}), hold={"b": 500})
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"a": 100}))
        with pytest.raises(LeaseHeldError, match="'a'"):
            await store.commit(a_commit(2, id="too early"), sweep)
        assert await store.renew({"a": 100, "b": 100}) == {"b"}
        place.pass_time(200)
        await store.commit(a_commit(2), sweep)
        assert await store.renew({"a": 100, "b": 100}) == {"a"}
    contents = await contents_of(place)
    assert (contents.number, contents.records) == (2, {("things", "k1"): "1", ("things", "k2"): "2"})


async def test_a_lease_that_was_renewed_in_time_is_not_swept(place: Place) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"a": 100}))
        place.pass_time(150)
        assert await store.lapsed() == ("a",)
        await store.renew({"a": 100})
        with pytest.raises(LeaseHeldError):
            await store.commit(a_commit(2), LeaseChanges(only_if_lapsed=frozenset({"a"})))


async def test_shared_stores_remember_leases_and_others_forget_them(place: Place) -> None:
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold={"a": 100, "b": 300}))
        place.pass_time(200)
    async with opened(place) as (store, contents):
        assert contents.leases == ({"a", "b"} if store.shared else set())
        assert await store.lapsed() == (("a",) if store.shared else ())


async def test_thousands_of_leases_are_renewed_in_one_call(place: Place) -> None:
    leases = {f"user/default/{i}": 100.0 for i in range(5000)}
    async with opened(place) as (store, _):
        await store.commit(a_commit(1), LeaseChanges(hold=leases))
        place.pass_time(150)
        assert len(await store.lapsed()) == 1000
        assert await store.renew(leases | {"other": 1.0}) == {"other"}
        assert await store.lapsed() == ()


async def test_followers_hear_old_and_new_commits_in_order(place: Place) -> None:
    async with opened(place) as (store, _):
        commits = [a_commit(number) for number in range(1, 601)]
        for commit in commits[:300]:
            await store.commit(commit)
        everything = asyncio.create_task(first(store.since(0), 600))
        new_ones = asyncio.create_task(first(store.since(300), 300))
        for commit in commits[300:]:
            await store.commit(commit)
        assert await everything == commits
        assert await new_ones == commits[300:]


async def test_a_waiting_follower_is_woken_at_once(place: Place) -> None:
    async with opened(place) as (store, _):
        loop = asyncio.get_running_loop()
        follower = asyncio.create_task(first(store.since(0), 1))
        await asyncio.sleep(0.2)
        await store.commit(a_commit(1))
        committed = loop.time()
        await follower
        assert loop.time() - committed < 0.5


async def test_the_log_keeps_the_last_commits_only(make_place: MakePlace) -> None:
    place = make_place(kept_commits=5)
    commits = [a_commit(number) for number in range(1, 13)]
    async with opened(place) as (store, _):
        for commit in commits:
            await store.commit(commit)
        assert await first(store.since(7), 5) == commits[7:]
        for number in (0, 6):
            with pytest.raises(NoLongerKeptError, match="8"):
                await first(store.since(number), 1)
        with pytest.raises(NoLongerKeptError):  # not come yet
            await first(store.since(13), 1)
        with pytest.raises(BehindError):  # too old to be known as repeated
            await store.commit(commits[0])
    contents = await contents_of(place)
    assert contents.log == tuple(commits[7:]) and contents.number == 12 and len(contents.records) == 12


async def test_racing_committers_take_turns(place: Place) -> None:
    """Many decide upon the same state; one is first, the others take it in and decide again."""
    async with opened(place) as (store, _):
        state = {"last": 0}

        async def committer(name: int) -> None:
            while True:
                number = state["last"] + 1
                try:
                    await store.commit(a_commit(number, {("by", f"{name}"): f"{number}"}, id=f"{name}-{number}"))
                except BehindError:
                    await asyncio.sleep(0)
                    continue
                state["last"] = max(state["last"], number)
                return

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for name in range(30):
                tasks.create_task(committer(name))
    contents = await contents_of(place)
    assert contents.number == 30
    assert {json.loads(value) for value in contents.records.values()} == set(range(1, 31))


async def test_what_no_store_can_keep_is_refused(place: Place) -> None:
    bad: list[tuple[Commit, LeaseChanges]] = [
        (Commit(1, "id", {("c", "k"): "\ud800"}), LeaseChanges()),
        (Commit(1, "id", {("c", "\udfff"): "v"}), LeaseChanges()),
        (Commit(1, "", {}), LeaseChanges()),
        (Commit(0, "id", {}), LeaseChanges()),
        (Commit(1, "id", {}), LeaseChanges(hold={"x": float("nan")})),
        (Commit(1, "id", {}), LeaseChanges(hold={"x": float("inf")})),
        (Commit(1, "id", {}), LeaseChanges(hold={"x": -1.0})),
        (Commit(1, "id", {}), LeaseChanges(release=frozenset({"\ud800"}))),
    ]
    async with opened(place) as (store, _):
        for commit, leases in bad:
            with pytest.raises(InvalidArgumentError):
                await store.commit(commit, leases)
        with pytest.raises(InvalidArgumentError):
            await store.renew({"x": float("nan")})
    assert (await contents_of(place)).number == 0


async def test_a_store_that_is_not_open_says_so(place: Place) -> None:
    store = place.store()
    with pytest.raises(StoreError, match="not open"):
        await store.commit(a_commit(1))
    await store.open()
    with pytest.raises(StoreError, match="open already"):
        await store.open()
    follower = asyncio.create_task(first(store.since(0), 1))
    await asyncio.sleep(0.05)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await follower
    for call in (store.commit(a_commit(1)), store.renew({"x": 1.0}), store.lapsed(), first(store.since(0), 1)):
        with pytest.raises(StoreError, match="not open"):
            await call


async def test_a_committer_that_is_cancelled_leaves_the_store_usable(place: Place) -> None:
    async with opened(place) as (store, _):
        impatient = asyncio.create_task(store.commit(a_commit(1)))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        await store.commit(a_commit(1))  # whether or not it had been made
        await store.commit(a_commit(2))
    assert [commit.number for commit in (await contents_of(place)).log] == [1, 2]


KEYS = st.sampled_from([("sessions", "a"), ("sessions", "b"), ("users", "a")])
CHANGES = st.dictionaries(KEYS, st.none() | st.sampled_from(["1", "2"]), max_size=3)
LEASES = st.sampled_from(["user/a", "user/b", "service/c", "service/d"])
# Between what passes and what is held there is always half a step, far more than a test takes.
STEP_S = 100.0
TIMES = st.integers(0, 3).map(lambda steps: (steps + 0.5) * STEP_S)
KEPT = 6


class StoreMachine(RuleBasedStateMachine):
    """A store beside the simplest thing that could be one."""

    make_place: Callable[[], Place]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = self.make_place()
        self.store = self.place.store()
        self.epoch = self.run(self.store.open()).epoch
        self.records: dict[Key, str] = {}
        self.log: list[Commit] = []
        self.leases: dict[str, float] = {}
        self.now = 0.0
        self.ids = itertools.count()

    def run(self, call: Any) -> Any:
        async def within() -> Any:
            async with asyncio.timeout(20):
                return await call

        return self.runner.run(within())

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    @rule(
        changes=CHANGES,
        hold=st.dictionaries(LEASES, TIMES, max_size=2),
        release=st.frozensets(LEASES, max_size=1),
        only_if_lapsed=st.frozensets(LEASES, max_size=1),
        late_by=st.sampled_from([0, 0, 0, 0, 1, 2]),
    )
    def commit(
        self,
        changes: dict[Key, str | None],
        hold: dict[str, float],
        release: frozenset[str],
        only_if_lapsed: frozenset[str],
        late_by: int,
    ) -> None:
        number = max(1, len(self.log) + 1 - late_by)
        commit = Commit(number, f"id-{next(self.ids)}", changes, "note")
        call = self.store.commit(commit, LeaseChanges(hold, release, only_if_lapsed))
        if number != len(self.log) + 1:
            with pytest.raises(BehindError):
                self.run(call)
        elif any(self.leases.get(name, self.now) > self.now for name in only_if_lapsed):
            with pytest.raises(LeaseHeldError):
                self.run(call)
        else:
            self.run(call)
            self.log.append(commit)
            for key, value in changes.items():
                self.records.pop(key, None)
                if value is not None:
                    self.records[key] = value
            for name in release | only_if_lapsed:
                self.leases.pop(name, None)
            self.leases.update({name: self.now + seconds for name, seconds in hold.items()})

    @precondition(lambda self: self.log)
    @rule(back=st.integers(1, KEPT))
    def commit_again(self, back: int) -> None:
        self.run(self.store.commit(self.log[-min(back, len(self.log))], LeaseChanges(hold={"user/a": 50.0})))

    @rule(leases=st.dictionaries(LEASES, TIMES, max_size=3))
    def renew(self, leases: dict[str, float]) -> None:
        assert self.run(self.store.renew(leases)) == leases.keys() - self.leases.keys()
        self.leases.update({name: self.now + seconds for name, seconds in leases.items() if name in self.leases})

    @rule(steps=st.integers(1, 3))
    def pass_time(self, steps: int) -> None:
        self.place.pass_time(steps * STEP_S)
        self.now += steps * STEP_S

    @rule(back=st.integers(0, KEPT))
    def follow(self, back: int) -> None:
        wanted = self.log[len(self.log) - min(back, len(self.log)) :]
        assert self.run(first(self.store.since(len(self.log) - len(wanted)), len(wanted))) == wanted

    @precondition(lambda self: len(self.log) > KEPT)
    @rule()
    def follow_from_too_far_back(self) -> None:
        with pytest.raises(NoLongerKeptError):
            self.run(first(self.store.since(len(self.log) - KEPT - 1), 1))

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.place.store()
        contents = self.run(self.store.open())
        if not self.store.shared:
            self.leases.clear()
        assert contents == Contents(
            self.epoch, len(self.log), self.records, tuple(self.log[-KEPT:]), frozenset(self.leases)
        )

    @invariant()
    def the_overdue_are_known_longest_first(self) -> None:
        lapsed = self.run(self.store.lapsed())
        assert set(lapsed) == {name for name, deadline in self.leases.items() if deadline <= self.now}
        assert [self.leases[name] for name in lapsed] == sorted(self.leases[name] for name in lapsed)


def test_any_history_leaves_what_the_simplest_store_would_hold(make_place: MakePlace) -> None:
    class Machine(StoreMachine):
        make_place = staticmethod(lambda: make_place(kept_commits=KEPT))

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        ),
    )
