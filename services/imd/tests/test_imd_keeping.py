"""What lasts of the shared state is kept before it is acknowledged, restored with suspicion, and refused when it cannot be."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import structlog.testing

from narupa_imd.keeping import COLLECTION, Keeping
from narupa_imd.session import SIMULATION_NAME, ImdSession
from narupa_imd.state import Limits, Writer
from narupa_shared.errors import PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.store import NO_LEASES, Commit, Contents, LeaseChanges, StoreError

ANNA = Writer("user:anna", "ipv4:127.0.0.1:1001")
PULL = {"position": [0.0, 1.0, 2.0], "particles": [3.0], "interaction_type": "spring"}


class Disk(MemoryStore):
    """A store that a test stops, and that fails on purpose.

    Attributes:
        failure: What the next commits end with; None makes them.
        made_all_the_same: Whether commits that fail are made nevertheless, as when only the answer was lost.
        free: Commits wait until it is set.
        commits: Those that were asked for.
    """

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.failure: Exception | None = None
        self.made_all_the_same = False
        self.free = asyncio.Event()
        self.free.set()
        self.commits: list[Commit] = []

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        self.commits.append(commit)
        await self.free.wait()
        if self.failure:
            if self.made_all_the_same:
                await super().commit(commit, leases)
            raise self.failure
        await super().commit(commit, leases)

    async def asked(self, commits: int) -> None:
        """So many commits were asked for."""
        async with asyncio.timeout(5):
            while len(self.commits) < commits:
                await asyncio.sleep(0)


class SharedDisk(Disk):
    """A store that several have open at once."""

    @property
    def shared(self) -> bool:
        return True

    async def open(self) -> Contents:
        self._is_open = False
        return await super().open()


@pytest.fixture
def disk() -> Disk:
    return Disk()


def new_session(**limits: int) -> ImdSession:
    return ImdSession(lambda: 0.0, "epoch", limits=Limits(**limits) if limits else None)


async def kept_by(store: MemoryStore) -> dict[str, Any]:
    """What a store that nobody has open holds."""
    contents = await store.open()
    await store.close()
    return {key: json.loads(text) for (_, key), text in contents.records.items()}


def disk_holds(disk: Disk) -> dict[str, Any]:
    """What has been committed so far."""
    held: dict[str, Any] = {}
    for commit in disk.commits:
        held.update({key: text for (_, key), text in commit.changes.items()})
    return {key: json.loads(text) for key, text in held.items() if text is not None}


async def keep(store: MemoryStore, values: Mapping[str, Any]) -> None:
    """The store holds these, whoever wrote them."""
    number = (await store.open()).number
    await store.commit(Commit(number + 1, f"test-{number}", {(COLLECTION, key): text for key, text in values.items()}))
    await store.close()


@pytest.fixture
async def session(disk: Disk) -> ImdSession:
    return new_session()


@pytest.fixture
async def keeping(session: ImdSession, disk: Disk) -> AsyncIterator[Keeping]:
    keeping = Keeping(session, disk, commit_limit_s=1.0)
    async with keeping.running():
        yield keeping


async def test_what_lasts_is_there_in_the_next_life(disk: Disk) -> None:
    first = new_session()
    keeping = Keeping(first, disk)
    async with keeping.running():
        await keeping.update(ANNA, {"selection.a": {"particles": [1.0, 2.0]}, "custom": [math.inf, "é", True, {}]})
        await keeping.update(ANNA, {"avatar.anna": {"x": 1.0}, "interaction.a": PULL, "playarea.a": 1.0})
        await keeping.update(ANNA, {"gone": 1.0})
        await keeping.update(ANNA, {}, ["gone"])
    second = new_session()
    async with Keeping(second, disk).running():
        assert second.state.values() == {
            "imd.velocity_reset_available": False,
            "selection.a": {"particles": [1.0, 2.0]},
            "custom": [math.inf, "é", True, {}],
        }


async def test_an_update_is_answered_once_it_is_kept(keeping: Keeping, session: ImdSession, disk: Disk) -> None:
    disk.free.clear()
    answer = asyncio.create_task(keeping.update(ANNA, {"scene": [1.0]}))
    await disk.asked(1)
    assert session.state.values("scene") == {"scene": [1.0]} and not answer.done()
    await keeping.update(ANNA, {"interaction.a": PULL})  # does not wait for any store
    disk.free.set()
    assert await answer == 2


async def test_what_comes_while_one_commit_is_made_is_the_next(keeping: Keeping, disk: Disk) -> None:
    disk.free.clear()
    answers = [asyncio.create_task(keeping.update(ANNA, {"k0": 0.0}))]
    await disk.asked(1)
    answers += [asyncio.create_task(keeping.update(ANNA, {f"k{number % 7}": float(number)})) for number in range(50)]
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(*answers)
    assert len(disk.commits) == 2 and keeping.commits == 2
    assert len(disk.commits[1].changes) == 7


async def test_what_does_not_last_is_not_written(keeping: Keeping, disk: Disk) -> None:
    await keeping.update(ANNA, {"avatar.anna": 1.0, "update.index.anna": 1.0})
    await keeping.update(ANNA, {"scene": 1.0})
    assert [set(commit.changes) for commit in disk.commits] == [{(COLLECTION, "scene")}]


async def test_writes_are_applied_while_those_before_are_still_being_kept(
    keeping: Keeping, session: ImdSession, disk: Disk
) -> None:
    disk.free.clear()
    first, kept = keeping.apply(ANNA, {"scene": [1.0]})
    second, also_kept = keeping.apply(ANNA, {"scene": [2.0], "avatar.anna": 1.0})
    third, nothing = keeping.apply(ANNA, {"avatar.anna": 2.0})
    assert (first, second, third) == (2, 3, 4) and nothing is None and kept and also_kept
    assert session.state.values("avatar.") == {"avatar.anna": 2.0}
    kept.cancel()
    disk.free.set()
    await also_kept


async def test_what_a_recording_shows_is_not_kept(keeping: Keeping, session: ImdSession, disk: Disk) -> None:
    follower = session.add_follower()
    await keeping.update(ANNA, {"custom": 1.0})
    follower.replay.show({"custom": "replayed", "scene": "replayed"})
    await keeping.update(ANNA, {"note": 1.0}, ["custom"])
    follower.replay.show({"custom": "replayed"})
    await keeping.update(ANNA, {"note": 2.0})
    assert session.state.values() == {
        "imd.velocity_reset_available": False,
        "custom": "replayed",
        "scene": "replayed",
        "note": 2.0,
    }
    await keeping.update(ANNA, {"scene": "mine"})
    assert disk_holds(disk) == {"note": 2.0, "scene": "mine"}


async def test_a_key_that_is_replayed_before_its_removal_is_kept_is_gone_from_the_store(
    keeping: Keeping, session: ImdSession, disk: Disk
) -> None:
    follower = session.add_follower()
    await keeping.update(ANNA, {"custom": 1.0})
    disk.free.clear()
    removal = asyncio.create_task(keeping.update(ANNA, {}, ["custom"]))
    await asyncio.sleep(0)
    follower.replay.show({"custom": "replayed"})
    disk.free.set()
    await removal
    assert disk_holds(disk) == {}


async def test_what_is_simulated_is_kept_and_no_client_says_it(disk: Disk) -> None:
    first = new_session()
    async with (keeping := Keeping(first, disk)).running():
        first.report(first.add_follower(), 10, False, 1, "nanotube", 2)
        first.update(ANNA, {"avatar.a": 1.0, "user-origin.a": 1.0})
        with pytest.raises(PermissionDeniedError, match=r"simulation\.name is written by the service only"):
            await keeping.update(ANNA, {SIMULATION_NAME: "mine"})
        with pytest.raises(PermissionDeniedError):
            await keeping.update(ANNA, {}, [SIMULATION_NAME])
    second = new_session()
    async with Keeping(second, disk).running():
        assert second.state.values("simulation.") == {"simulation.name": "nanotube", "simulation.index": 2.0}
        assert not second.state.values("user-origin.")
        with pytest.raises(PermissionDeniedError):
            second.update(ANNA, {SIMULATION_NAME: "mine"})


async def test_without_a_store_nobody_waits() -> None:
    session = new_session()
    async with (keeping := Keeping(session, None)).running():
        assert await keeping.update(ANNA, {"scene": 1.0}) == session.state.revision


async def test_before_it_is_restored_nothing_that_lasts_is_changed(disk: Disk) -> None:
    keeping = Keeping(new_session(), disk)
    with pytest.raises(UnavailableError, match="still being read"):
        await keeping.update(ANNA, {"scene": 1.0})
    await keeping.update(ANNA, {"avatar.anna": 1.0})


async def test_a_store_in_trouble_refuses_and_changes_nothing(
    keeping: Keeping, session: ImdSession, disk: Disk
) -> None:
    await keeping.update(ANNA, {"scene": "before", "other": "before"})
    disk.failure = StoreError("disk full")
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(UnavailableError, match=r"disk full.*try again"):
            await keeping.update(ANNA, {"scene": "after", "new": 1.0}, ["other"])
        assert session.state.values() == {
            "imd.velocity_reset_available": False,
            "scene": "before",
            "other": "before",
        }
        revision = session.state.revision
        with pytest.raises(UnavailableError, match="disk full"):
            await keeping.update(ANNA, {"scene": "again"})
        assert session.state.revision == revision
        await keeping.update(ANNA, {"interaction.a": PULL, "avatar.anna": 1.0})  # these go on
        disk.failure = None
        async with asyncio.timeout(5):
            while keeping.trouble:
                await asyncio.sleep(0.01)
        await keeping.update(ANNA, {"scene": "again"})
    events = [entry["event"] for entry in logs if entry["event"].startswith("state_")]
    assert events == ["state_store_trouble", "state_store_back"]


async def test_a_commit_that_was_made_after_all_is_undone_in_the_store(disk: Disk) -> None:
    async with (keeping := Keeping(new_session(), disk)).running():
        await keeping.update(ANNA, {"scene": "before"})
        disk.failure, disk.made_all_the_same = StoreError("connection lost"), True
        with pytest.raises(UnavailableError):
            await keeping.update(ANNA, {"scene": "after", "new": 1.0})
        disk.failure = None
        async with asyncio.timeout(5):
            while keeping.trouble:
                await asyncio.sleep(0.01)
        await keeping.update(ANNA, {"more": 1.0})
    assert await kept_by(disk) == {"scene": "before", "more": 1.0}


async def test_a_store_that_does_not_answer_is_in_trouble(session: ImdSession, disk: Disk) -> None:
    async with (keeping := Keeping(session, disk, commit_limit_s=0.05)).running():
        disk.free.clear()
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.05 s"):
            await keeping.update(ANNA, {"scene": 1.0})
        assert "scene" not in session.state.values()
        disk.free.set()


async def test_a_refusal_leaves_what_the_service_itself_has_changed_since(
    keeping: Keeping, session: ImdSession, disk: Disk
) -> None:
    follower = session.add_follower()
    session.report(follower, 5, False, 0, "one")
    await keeping.update(ANNA, {"selection.a": [1.0]})
    disk.free.clear()
    disk.failure = StoreError("gone")
    answer = asyncio.create_task(keeping.update(ANNA, {"selection.a": [2.0]}))
    await disk.asked(len(disk.commits) + 1)
    session.report(follower, 5, False, 1, "two")  # selections of another system are dropped
    disk.free.set()
    with pytest.raises(UnavailableError):
        await answer
    assert session.state.values("s") == {SIMULATION_NAME: "two", "simulation.index": 0.0}


async def test_what_was_kept_is_no_more_trusted_than_a_client(disk: Disk) -> None:
    bad = {
        "not json": "{",
        "deep": "[" * 100_000 + "]" * 100_000,
        "nan": "NaN",
        "null": "null",
        "nested": "[" * 20 + "]" * 20,
        "interaction.a": json.dumps(PULL),
        "avatar.a": "1.0",
        "imd.velocity_reset_available": "true",
        "new\nline": "1.0",
        "large": json.dumps("x" * 70_000),
    }
    await keep(disk, {**bad, "fine": "1.0"})
    session = new_session()
    with structlog.testing.capture_logs() as logs:
        async with Keeping(session, disk).running():
            assert session.state.values() == {"imd.velocity_reset_available": False, "fine": 1.0}
    refused = {entry["key"]: entry["reason"] for entry in logs if entry["event"] == "key_not_restored"}
    assert refused.keys() == bad.keys() and all(refused.values())


async def test_the_limits_of_the_state_hold_for_what_was_kept(disk: Disk) -> None:
    await keep(disk, {f"k{number}": "1.0" for number in range(20)})
    session = new_session(keys=10)
    async with (keeping := Keeping(session, disk)).running():
        assert len(session.state) == 10
        with pytest.raises(QuotaError):
            await keeping.update(ANNA, {"one more": 1.0})


@pytest.mark.parametrize(("runs_now", "left"), [("one", {"selection.a", "scene"}), ("two", set())])
async def test_selections_of_another_simulation_are_dropped(disk: Disk, runs_now: str, left: set[str]) -> None:
    first = new_session()
    async with (keeping := Keeping(first, disk)).running():
        first.report(first.add_follower(), 5, False, 3, "one")
        await keeping.update(ANNA, {"selection.a": [1.0], "scene": 1.0, "custom": 1.0})
    second = new_session()
    async with (keeping := Keeping(second, disk)).running():
        await keeping.update(ANNA, {"interaction.a": PULL})
        second.report(second.add_follower(), 5, False, 0, runs_now)
        lasting = {"custom", SIMULATION_NAME, "simulation.index", "imd.velocity_reset_available", "interaction.a"}
        assert set(second.state.values()) == left | lasting
    assert set(await kept_by(disk)) == left | {"custom", SIMULATION_NAME, "simulation.index"}


async def test_more_removals_than_are_remembered_are_kept_all_the_same(disk: Disk) -> None:
    session = new_session(removals=3)
    async with (keeping := Keeping(session, disk)).running():
        await keeping.update(ANNA, {f"k{number}": 1.0 for number in range(20)})
        disk.free.clear()
        answers = [asyncio.create_task(keeping.update(ANNA, {"k0": 2.0}))]
        await disk.asked(2)
        answers += [asyncio.create_task(keeping.update(ANNA, {}, [f"k{number}"])) for number in range(1, 20)]
        await asyncio.sleep(0)
        disk.free.set()
        await asyncio.gather(*answers)
    assert await kept_by(disk) == {"k0": 2.0}


async def test_the_last_changes_are_kept_when_the_service_stops(disk: Disk) -> None:
    session = new_session()
    async with Keeping(session, disk).running():
        session.report(session.add_follower(), 5, False, 0, "one")
    assert (await kept_by(disk))[SIMULATION_NAME] == "one"


async def test_two_that_share_a_store_take_in_what_the_other_writes() -> None:
    disk = SharedDisk()
    old, new = new_session(), new_session()
    async with (of_old := Keeping(old, disk)).running(), (of_new := Keeping(new, disk)).running():
        await of_old.update(ANNA, {"a": "old", "b": "old"})
        await of_new.update(ANNA, {"a": "new"})  # its number is behind, or the other's commit has come in already
        await of_old.update(ANNA, {}, ["b"])
        async with asyncio.timeout(5):
            while old.state.values("a") != {"a": "new"} or "b" in new.state.values():
                await asyncio.sleep(0)
        assert old.state.values() == new.state.values() == {"imd.velocity_reset_available": False, "a": "new"}
        assert len(disk.commits) - 3 <= 2, "taking in is no change to be written again"
