"""Following a service that drains to another of its kind: nothing is lost, nothing goes back, nobody notices."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

import narupa_client
from narupa_client.frames import CatchUp
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import UnavailableError
from narupa_shared.frames import Frame

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


def whole(index: int, name: str) -> Frame:
    return Frame(index, {"system.simulation.name": name, "particle.count": float(index)})


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_replica_goes_on_where_the_draining_service_was(pair: Pair) -> None:
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).simulation_name == "old"
        await pair.drain_old()
        await until(lambda: pair.new.subscribers and not pair.old.subscribers)
        pair.new.recording = {6: whole(6, "new"), 7: whole(7, "new")}
        pair.new.publish(whole(8, "new"))
        seen = [await anext(frames) for _ in range(3)]
        assert [(frame.index, frame.simulation_name) for frame in seen] == [(6, "new"), (7, "new"), (8, "new")]
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


async def test_a_recording_goes_on_at_the_frame_after_the_last(pair: Pair) -> None:
    pair.new.live = False
    pair.new.recording = {index: whole(index, "new") for index in range(10)}
    pair.new.publish(whole(1, "new"))
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).index == 5
        await pair.drain_old()
        assert (await anext(frames)).index == 6  # though that service plays frame 1
        await until(lambda: not pair.old.subscribers)
        pair.new.publish(whole(2, "new"))
        pair.new.publish(whole(4, "new"))
        assert [(await anext(frames)).index for _ in range(2)] == [7, 9]
        pair.new.publish(whole(5, "new"))  # ours is at its end, and waits
        pair.new.publish(whole(0, "new"))  # it starts over, for everybody
        assert (await anext(frames)).index == 0
        pair.new.publish(whole(1, "new"))
        assert (await anext(frames)).index == 1


async def test_another_simulation_is_taken_as_it_is(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narupa_client.frames._PATIENCE_S", 0.0)
    pair.new.publish(whole(2, "new"))
    async with narupa_client.join(pair.lobby.address) as session, session.frames(mode="all") as frames:
        assert (await anext(frames)).index == 5
        await pair.drain_old()
        assert (await anext(frames)).index == 2


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


async def test_catching_up_asks_once_what_a_service_is(pair: Pair) -> None:
    catch_up = CatchUp(None, lambda: 10, "latest")  # type: ignore[arg-type]  # ahead already: nobody is asked
    async with narupa_client.open(trajectory=pair.old.address) as session:
        frame = await session.get_frame()
    ahead = narupa_client.CurrentFrame(12, frame.values, frame.arrays)
    assert await catch_up.frames_after(ahead) == [ahead]
    behind = narupa_client.CurrentFrame(3, frame.values, frame.arrays)
    assert await catch_up.frames_after(behind) == [behind]  # from then on it is the only one there is
