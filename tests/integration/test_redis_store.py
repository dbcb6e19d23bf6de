"""Several stores over one real Redis: racing, following each other, and living through its death."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import chain
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from narupa_shared.stores.redis import RedisStore
from narupa_shared.stores.store import (
    BehindError,
    Commit,
    LeaseChanges,
    LeaseHeldError,
    StoreError,
    StoreReplacedError,
)
from narupa_shared.testing.redis_server import RedisServer

SECRET = "correct-horse"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def committed(store: RedisStore, name: str, after: int = 0, wait_s: float = 20.0) -> int:
    """The number under which a commit named `name` was made, after as many attempts as it took."""
    number, deadline = after + 1, time.monotonic() + wait_s
    while True:
        try:
            await store.commit(Commit(number, name, {("by", name): f"{number}"}))
            return number
        except BehindError:
            number += 1
        except StoreError:  # perhaps it was made: the same commit again tells
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def until_number(store: RedisStore, last: int) -> list[Commit]:
    commits: list[Commit] = []
    async with asyncio.timeout(30), aclosing(store.since(0)) as stream:  # type: ignore[type-var]
        async for commit in stream:
            commits.append(commit)
            if commit.number == last:
                return commits
    raise AssertionError("the log ended")


async def test_two_stores_that_race_take_turns_and_both_see_everything(server: RedisServer) -> None:
    async with opened(server) as one, opened(server) as other:
        followers = [asyncio.create_task(until_number(store, 200)) for store in (one, other)]

        async def writer(store: RedisStore, name: str) -> list[int]:
            numbers = [0]
            for turn in range(100):
                numbers.append(await committed(store, f"{name}-{turn}", numbers[-1]))
            return numbers[1:]

        numbers = await asyncio.gather(writer(one, "one"), writer(other, "other"))
        assert sorted(numbers[0] + numbers[1]) == list(range(1, 201))
        logs = await asyncio.gather(*followers)
        assert logs[0] == logs[1]
        assert [commit.number for commit in logs[0]] == list(range(1, 201))
        assert {commit.id for commit in logs[0]} == {
            f"{name}-{turn}" for name in ("one", "other") for turn in range(100)
        }


async def test_one_store_sweeps_what_another_held_but_only_once_and_only_when_it_has_lapsed(
    server: RedisServer,
) -> None:
    async with opened(server) as one, opened(server) as other:
        await one.commit(Commit(1, "join", {}), LeaseChanges(hold={"user/a": 0.5, "user/b": 60}))
        with pytest.raises(LeaseHeldError):
            await other.commit(Commit(2, "early", {}), LeaseChanges(only_if_lapsed=frozenset({"user/a"})))
        while await other.lapsed() != ("user/a",):
            await asyncio.sleep(0.02)
        sweep = LeaseChanges(only_if_lapsed=frozenset({"user/a"}))
        outcomes = await asyncio.gather(
            one.commit(Commit(2, "sweep-1", {}), sweep),
            other.commit(Commit(2, "sweep-2", {}), sweep),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["BehindError", "NoneType"]
        assert await one.renew({"user/a": 1, "user/b": 1}) == {"user/a"}


async def test_nothing_acknowledged_is_lost_when_redis_is_killed_and_started_again(server: RedisServer) -> None:
    moments = random.Random(5)
    async with opened(server) as one, opened(server) as other:
        ending = asyncio.Event()

        async def writer(store: RedisStore, name: str) -> list[int]:
            numbers = [0]
            while not ending.is_set():
                numbers.append(await committed(store, f"{name}-{len(numbers)}", numbers[-1]))
            return numbers[1:]

        writers = [asyncio.create_task(writer(store, name)) for store, name in ((one, "one"), (other, "other"))]
        follower = asyncio.create_task(until_number(other, 10**9))
        for _ in range(4):
            await asyncio.sleep(moments.uniform(0.2, 0.4))
            server.kill()
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            server.start()
        await asyncio.sleep(0.2)
        ending.set()
        numbers = sorted(chain.from_iterable(await asyncio.gather(*writers)))
        assert numbers == list(range(1, numbers[-1] + 1)), "a commit is missing, or was made twice"
        follower.cancel()
        log = await until_number(one, numbers[-1])
        assert await until_number(other, numbers[-1]) == log
        assert len({commit.id for commit in log}) == len(log) == numbers[-1]
    async with opened(server) as store:
        await store.close()
        contents = await store.open()
        assert contents.log == tuple(log) and len(contents.records) == numbers[-1]


async def test_a_follower_goes_on_where_it_was_when_redis_is_back(server: RedisServer) -> None:
    async with opened(server) as store, opened(server) as other:
        with capture_logs() as logs:
            follower = asyncio.create_task(until_number(store, 3))
            await other.commit(Commit(1, "a", {}))
            await asyncio.sleep(0.2)
            server.kill()
            await asyncio.sleep(0.3)
            server.start()
            assert await committed(other, "b", 1) == 2
            assert await committed(other, "c", 2) == 3
            assert [commit.number for commit in await follower] == [1, 2, 3]
        assert [entry["log_level"] for entry in logs] == ["warning", "info"]


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_redis_away_fails_within_a_second_and_recovers_by_itself(server: RedisServer, how: str) -> None:
    async with opened(server) as store:
        await store.commit(Commit(1, "a", {}), LeaseChanges(hold={"x": 60}))
        back: Callable[[], None] = server.start if how == "kill" else server.thaw
        getattr(server, how)()
        try:
            calls = [store.commit(Commit(2, "b", {})), store.renew({"x": 1}), store.lapsed()]
            started = time.monotonic()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < 2.0
            assert [type(outcome) for outcome in outcomes] == [StoreError] * 3, outcomes
            other = RedisStore(server.url)
            if how == "kill":
                with pytest.raises(StoreError, match=f"127.0.0.1:{server.port}"):
                    await other.open()
        finally:
            back()
        await store.commit(Commit(2, "b", {}))
        assert await store.renew({"x": 1}) == frozenset()


async def test_a_committer_that_is_cancelled_is_never_left_running(server: RedisServer) -> None:
    moments = random.Random(7)
    async with opened(server) as store:

        async def writer(name: str) -> None:
            last = 0
            for turn in itertools.count():
                last = await committed(store, f"{name}-{turn}", last)

        for turn in range(100):
            task = asyncio.create_task(writer(f"writer-{turn}"))
            await asyncio.sleep(moments.uniform(0, 0.01))
            task.cancel()
            await asyncio.wait([task], timeout=0.5)
            assert task.cancelled()
        await committed(store, "last")


async def test_closing_does_not_wait_for_a_redis_that_is_away(server: RedisServer) -> None:
    store = RedisStore(server.url)
    await store.open()
    server.freeze()
    try:
        committing = asyncio.create_task(store.commit(Commit(1, "a", {})))
        following = asyncio.create_task(until_number(store, 1))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await store.close()
        assert time.monotonic() - started < 0.5
        for task in (committing, following):
            with pytest.raises(StoreError, match="closed"):
                await task
    finally:
        server.thaw()


async def test_a_redis_that_was_emptied_is_noticed(server: RedisServer) -> None:
    async with opened(server) as store:
        await store.commit(Commit(1, "a", {}))
        follower = asyncio.create_task(until_number(store, 2))
        await asyncio.sleep(0.1)
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        async with opened(server):  # makes a new store in its place
            for call in (store.commit(Commit(2, "b", {})), store.renew({"x": 1.0}), store.lapsed(), follower):
                with pytest.raises(StoreReplacedError, match="restart"):
                    await call


async def test_commits_that_redis_has_lost_are_noticed(server: RedisServer) -> None:
    async with opened(server) as store:
        for number in range(1, 6):
            await store.commit(Commit(number, f"id-{number}", {}))
        with redis.Redis.from_url(server.url) as client:
            client.hset("{narupa}:store", "number", 3)
        with pytest.raises(StoreReplacedError, match="lost commits"):
            await store.commit(Commit(6, "id-6", {}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda client: client.set("{narupa}:store", "mine"), "WRONGTYPE"),
        (lambda client: client.set("{narupa}:records", "mine"), "no store"),
        (lambda client: client.hset("{narupa}:store", "version", 2), "layout 2"),
        (lambda client: client.hset("{narupa}:records", "not json", "x"), "records is damaged"),
        (lambda client: client.xtrim("{narupa}:log", maxlen=0), "commits are missing"),
        (lambda client: client.xadd("{narupa}:log", {"body": "{}"}, id="2-0"), "damaged"),
    ],
)
async def test_what_is_not_a_store_of_ours_is_refused(
    server: RedisServer, spoil: Callable[[redis.Redis], object], message: str
) -> None:
    with redis.Redis.from_url(server.url) as client:
        if message not in ("WRONGTYPE", "no store"):
            async with opened(server) as store:
                await store.commit(Commit(1, "a", {}))
        spoil(client)
    with pytest.raises(StoreError, match=message):
        await RedisStore(server.url).open()


async def test_a_wrong_password_is_not_repeated(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", SECRET) as server:
        address = f"127.0.0.1:{server.port}"
        store = RedisStore(f"redis://:{SECRET}@{address}")
        await store.open()
        await store.commit(Commit(1, "a", {}))
        await store.close()
        for url in (f"redis://{address}", f"redis://:wr%40ng-{SECRET}@{address}", f"redis://me:wr%40ng@{address}"):
            with pytest.raises(StoreError, match=address) as caught:
                await RedisStore(url).open()
            assert SECRET not in str(caught.value) and "wr@ng" not in str(caught.value)


async def test_a_redis_that_may_forget_is_warned_of(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as server,
        capture_logs() as logs,
    ):
        async with opened(server):
            pass
        assert {entry["setting"] for entry in logs} == {"appendonly", "maxmemory-policy"}


async def test_two_services_share_a_redis_without_meeting(server: RedisServer) -> None:
    lobby, imd = RedisStore(server.url, "narupa:lobby"), RedisStore(server.url, "narupa:imd")
    assert (await lobby.open()).epoch != (await imd.open()).epoch
    await lobby.commit(Commit(1, "same", {("c", "k"): "lobby"}), LeaseChanges(hold={"x": 60}))
    await imd.commit(Commit(1, "same", {("c", "k"): "imd"}))
    assert await imd.renew({"x": 60}) == {"x"}
    await lobby.close()
    await imd.close()
