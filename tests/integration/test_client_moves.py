"""Following a service that drains to another of its kind: nothing is lost, nothing goes back, nobody notices."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import pytest

import narupa_client
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import UnavailableError
from narupa_shared.frames import Frame
from narupa_shared.testing.waiting import until

DRAINING = 5


@dataclass
class Pair:
    lobby: FakeLobby
    old: FakeTrajectory
    new: FakeTrajectory

    async def drain_old(self) -> None:
        await self.lobby.add_service("trajectory", self.old.address, id="old", status=DRAINING)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with FakeLobby() as lobby, FakeTrajectory() as old, FakeTrajectory() as new:
        old.publish(whole(5, "old"))
        new.publish(whole(5, "new"))
        await lobby.add_service("trajectory", old.address, id="old")
        await lobby.add_service("trajectory", new.address, id="new", load=3)
        yield Pair(lobby, old, new)


def whole(index: int, name: str, step: int | None = None, run: str = "run") -> Frame:
    """A frame of the service `name`; a recording's frame number is `step`."""
    facts = {"system.simulation.name": name, "system.simulation.run": run, "particle.count": float(index)}
    return Frame(index, {**facts, "system.simulation.step": float(index if step is None else step)})


def seen(frame: narupa_client.CurrentFrame) -> tuple[int, int | None, str | None]:
    """What tells a frame from others: its index, its number in the recording, and whose it is."""
    return frame.index, frame.step, frame.simulation_name


async def test_a_replica_goes_on_where_the_draining_service_was(pair: Pair) -> None:
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).simulation_name == "old"
        await pair.drain_old()
        await until(lambda: pair.new.subscribers and not pair.old.subscribers)
        pair.new.recording = {6: whole(6, "new"), 7: whole(7, "new")}
        pair.new.publish(whole(8, "new"))
        assert [seen(await anext(frames)) for _ in range(3)] == [(index, index, "new") for index in (6, 7, 8)]
        pair.old.publish(whole(9, "old"))
        pair.new.publish(whole(9, "new"))
        assert (await anext(frames)).simulation_name == "new"
        assert frames.trouble is None
        assert (await session.get_frame()).simulation_name == "new"


async def test_the_draining_service_goes_on_until_the_next_is_near(pair: Pair) -> None:
    pair.old.publish(whole(100, "old"))
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await pair.drain_old()
        await until(lambda: pair.new.subscribers)
        pair.old.publish(whole(101, "old"))
        assert (await anext(frames)).simulation_name == "old"
        pair.new.publish(whole(99, "new"))
        await until(lambda: not pair.old.subscribers)
        pair.new.publish(whole(101, "new"))
        pair.new.publish(whole(102, "new"))
        assert (await anext(frames)).index == 102


def play_recording(pair: Pair, count: int, there: int) -> None:
    """Both play the same recording; the next service is at frame `there`, in its own numbering of frames sent."""
    for service, name in ((pair.old, "old"), (pair.new, "new")):
        service.live = False
        service.recording = {index: whole(index, name) for index in range(count)}
    pair.new.publish(whole(1, "new", there))


async def test_a_recording_that_was_taken_over_goes_on_at_the_frame_after_the_last(pair: Pair) -> None:
    play_recording(pair, count=10, there=6)
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert seen(await anext(frames)) == (5, 5, "old")
        await pair.drain_old()
        assert seen(await anext(frames)) == (6, 6, "new")
        (place,) = pair.new.places
        assert (place.run_id, place.frame, place.paused, place.dynamics_interval_s) == ("run", 5, False, 0.0)
        await until(lambda: not pair.old.subscribers)
        pair.new.publish(whole(2, "new", 7))
        assert seen(await anext(frames)) == (7, 7, "new")
        pair.new.publish(whole(0, "new", 0))  # a reset, for everybody
        assert seen(await anext(frames)) == (0, 0, "new")
        pair.new.publish(whole(1, "new", 1))
        assert seen(await anext(frames)) == (1, 1, "new")


@pytest.mark.parametrize("mode", ["latest", "all"])
async def test_what_was_shown_meanwhile_does_not_come_twice(pair: Pair, mode: Literal["latest", "all"]) -> None:
    play_recording(pair, count=10, there=9)
    pair.old.publish(whole(8, "old", 8))
    await pair.new.stop()
    async with narupa_client.join(pair.lobby.address) as session, session.frames(0, mode=mode) as frames:
        assert (await anext(frames)).step == 8
        await pair.drain_old()
        for index, step in ((9, 9), (10, 0), (11, 1)):  # it goes round
            pair.old.publish(whole(index, "old", step))
            assert seen(await anext(frames)) == (index, step, "old")
        pair.new.publish(whole(7, "new", 0))
        await pair.new.start()
        await until(lambda: not pair.old.subscribers)
        assert pair.new.places[-1].frame == 1
        for index, step in ((8, 1), (9, 2)):
            pair.new.publish(whole(index, "new", step))
        assert seen(await anext(frames)) == (12, 2, "new")


async def test_frames_between_the_two_are_fetched(pair: Pair) -> None:
    play_recording(pair, count=40, there=9)  # somebody else watches it there
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await pair.drain_old()
        assert [seen(await anext(frames)) for _ in range(4)] == [(index, index, "new") for index in range(6, 10)]


async def test_a_recording_that_others_watch_is_not_moved_away_from_them(pair: Pair) -> None:
    play_recording(pair, count=1000, there=500)
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await pair.drain_old()
        await until(lambda: not pair.old.subscribers)
        for index in (2, 3):
            pair.new.publish(whole(index, "new", 499 + index))
            assert seen(await anext(frames)) == (4 + index, 4 + index, "new")  # our own place, at their pace
        pair.new.publish(whole(4, "new", 700))  # somebody seeks, for everybody
        assert seen(await anext(frames)) == (8, 700, "new")
    await pair.lobby.add_service("trajectory", pair.old.address, id="old")
    async with narupa_client.join(pair.lobby.address) as session:
        session.use(next(service for service in session.services if service.id == "old"))
        async with session.frames(0) as frames:
            assert (await anext(frames)).step == 5
            await pair.drain_old()
            assert seen(await anext(frames)) == (6, 700, "new")  # the latest is where they are


async def test_a_paused_recording_stays_where_it_is(pair: Pair) -> None:
    play_recording(pair, count=10, there=5)
    pair.old.paused = True
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).step == 5
        await pair.drain_old()
        await until(lambda: not pair.old.subscribers)
        assert pair.new.places[-1].paused
        pair.new.publish(whole(2, "new", 6))
        assert seen(await anext(frames)) == (6, 6, "new")


async def test_another_run_is_taken_as_it_is(pair: Pair) -> None:
    pair.new.publish(whole(2, "new", run="another"))
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        first = await anext(frames)
        assert (first.index, first.run_id) == (5, "run")
        await pair.drain_old()
        frame = await anext(frames)
        assert (frame.index, frame.step, frame.run_id) == (0, 2, "another")  # whole, and nothing of before
        pair.new.publish(whole(3, "new", run="another"))
        assert (await anext(frames)).index == 3


async def test_latest_mode_sees_no_gap(pair: Pair) -> None:
    indices: list[int] = []

    async def read(frames: AsyncIterator[narupa_client.CurrentFrame]) -> None:
        async for frame in frames:
            indices.append(frame.index)

    async with narupa_client.join(pair.lobby.address) as session, session.frames(0) as frames:
        reading = asyncio.create_task(read(frames))
        for index in range(6, 60):
            pair.old.publish(whole(index, "old"))
            pair.new.publish(whole(index, "new"))
            if index == 20:
                await pair.drain_old()
            await asyncio.sleep(0.01)
        await until(lambda: indices[-1] == 59)
        assert not pair.old.subscribers
        assert indices == sorted(set(indices))
        assert max(after - before for before, after in itertools.pairwise(indices)) < 20
        reading.cancel()
        await asyncio.wait([reading])


async def test_the_draining_service_serves_until_the_next_one_answers(pair: Pair) -> None:
    await pair.new.stop()
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await pair.drain_old()
        pair.old.publish(whole(6, "old"))
        assert (await anext(frames)).index == 6
        pair.new.publish(whole(7, "new"))
        await pair.new.start()
        assert (await anext(frames)).simulation_name == "new"
        assert frames.trouble is None


async def test_there_is_no_move_without_another_that_runs(pair: Pair) -> None:
    await pair.lobby.remove_service("new")
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await pair.drain_old()
        await until(lambda: session.services[0].status == "draining")
        pair.old.publish(whole(6, "old"))
        assert (await anext(frames)).simulation_name == "old"
        await pair.lobby.add_service("trajectory", pair.new.address, id="new")
        pair.new.publish(whole(7, "new"))
        assert (await anext(frames)).simulation_name == "new"


async def test_a_draining_service_is_not_connected_to_while_another_runs(pair: Pair) -> None:
    await pair.drain_old()
    await pair.new.stop()
    async with narupa_client.join(pair.lobby.address, give_up_after_s=0.2) as session:
        with pytest.raises(UnavailableError, match=pair.new.address):
            await anext(session.frames())
    assert pair.old.subscriptions == 0


async def test_a_service_can_be_chosen(pair: Pair) -> None:
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).simulation_name == "old"
        session.use(next(service for service in session.services if service.id == "new"))
        pair.new.publish(whole(6, "new"))
        assert (await anext(frames)).simulation_name == "new"
        assert (await session.get_frame()).simulation_name == "new"


async def test_pulls_and_state_follow_too() -> None:
    async with FakeLobby() as lobby, FakeImd() as old, FakeImd() as new:
        await lobby.add_service("imd", old.address, id="old")
        new.state["where"] = "new"
        async with (
            narupa_client.join(lobby.address) as session,
            session.state.watch() as changes,
            session.pull([0], to=(0, 0, 0)) as pull,
        ):
            assert dict((await anext(changes)).updates) == {}
            await pull.move((1, 0, 0))
            await lobby.add_service("imd", new.address, id="new")
            await lobby.add_service("imd", old.address, id="old", status=DRAINING)
            await until(lambda: new.interactions and not old.interactions)
            assert list(new.interactions[pull.id].position) == [1, 0, 0]
            await pull.move((2, 0, 0))
            assert list(new.interactions[pull.id].position) == [2, 0, 0]
            change = await anext(changes)
            assert (change.whole, dict(change.updates)) == (True, {"where": "new"})
            await old.stop()
            await session.state.update({"a": 1})
            assert dict((await anext(changes)).updates) == {"a": 1.0}
        assert not new.interactions


async def test_writers_and_commands_leave_a_draining_imd_for_the_next(pair: Pair) -> None:
    async with FakeImd() as old, FakeImd() as new:
        await pair.lobby.add_service("imd", old.address, id="imd-old")
        async with (
            narupa_client.join(pair.lobby.address) as session,
            session.provide_command("here", lambda: {"yes": True}) as command,
            session.state.writer() as writer,
        ):
            await writer.write({"avatar.me": 1.0})
            assert "here" in old.commands.provided and old.writers == 1
            await pair.lobby.add_service("imd", new.address, id="imd-new")
            await pair.lobby.add_service("imd", old.address, id="imd-old", status=DRAINING)
            assert isinstance(await asyncio.wait_for(writer.wait_lost(), 10), UnavailableError)
            await until(lambda: "here" in new.commands.provided and not old.commands.provided and not old.writers)
            await until(lambda: command.trouble is None)
            assert "avatar.me" not in old.state
            async with session.state.writer() as again:
                await again.write({"avatar.me": 2.0})
                assert new.state == {"avatar.me": 2.0}
            assert await session.run_command("here") == {"yes": True}
