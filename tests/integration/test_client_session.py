"""The client against small services on real sockets: joining, frames, pulls, state, and everything going away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import narupa_client
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.frames import Frame
from narupa_shared.testing.waiting import until

NOBODY = "127.0.0.1:1"


@dataclass
class Fakes:
    lobby: FakeLobby
    trajectory: FakeTrajectory
    imd: FakeImd


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with FakeLobby() as lobby, FakeTrajectory() as trajectory, FakeImd() as imd:
        trajectory.publish(whole(2))
        await lobby.add_service("trajectory", trajectory.address)
        await lobby.add_service("imd", imd.address)
        yield Fakes(lobby, trajectory, imd)


def whole(count: int, index: int = 0) -> Frame:
    arrays: dict[str, Any] = {
        "particle.positions": np.zeros((count, 3), np.float32),
        "particle.elements": np.full(count, 6, np.uint32),
    }
    return Frame(index, {"particle.count": float(count)}, arrays)


def moving(index: int) -> Frame:
    return Frame(
        index,
        {"system.simulation.time": index * 0.5},
        {"particle.positions": np.full((2, 3), index, np.float32)},
    )


async def raised(call: Awaitable[object]) -> NarupaError | None:
    try:
        await call
    except NarupaError as error:
        return error
    return None


async def test_join_shows_people_and_services(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        assert session.user_id == "user-1"
        assert [user.name for user in session.users] == ["Ada"]
        assert [(item.kind, item.status) for item in session.services] == [
            ("imd", "running"),
            ("trajectory", "running"),
        ]
        async with narupa_client.join(fakes.lobby.address, "Bob"):
            await until(lambda: sorted(user.name for user in session.users) == ["Ada", "Bob"])
        await until(lambda: [user.name for user in session.users] == ["Ada"])
    assert fakes.lobby.users == {}


async def test_join_of_no_lobby_says_where_it_looked() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 \(connection refused\)"):
        async with narupa_client.join(NOBODY, wait_s=0):
            pass


async def test_join_waits_for_a_lobby_that_starts() -> None:
    lobby = FakeLobby()
    async with lobby:
        pass
    joining = asyncio.create_task(_join_and_leave(lobby.address, wait_s=10))
    await asyncio.sleep(0.2)
    async with lobby:
        assert await joining == "user-1"


async def _join_and_leave(address: str, wait_s: float) -> str | None:
    async with narupa_client.join(address, "Ada", wait_s=wait_s) as session:
        return session.user_id


async def test_a_wrong_join_code_is_refused(fakes: Fakes) -> None:
    fakes.lobby.join_code = "sesame"
    with pytest.raises(PermissionDeniedError, match="join code"):
        async with narupa_client.join(fakes.lobby.address, join_code="open"):
            pass
    async with narupa_client.join(fakes.lobby.address, join_code="sesame") as session:
        assert session.user_id


@pytest.mark.parametrize("address", ["", "somewhere", "host:", ":1", "host:99999", "host:1x"])
async def test_a_bad_address_is_named(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="HOST:PORT"):
        async with narupa_client.join(address):
            pass


async def test_errors_of_the_block_pass_through_unwrapped(fakes: Fakes) -> None:
    with pytest.raises(ZeroDivisionError):
        async with narupa_client.join(fakes.lobby.address):
            raise ZeroDivisionError


async def test_frames_are_whole_and_merged(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session, session.frames(mode="all") as frames:
        first = await anext(frames)
        assert (first.index, first.particle_count) == (0, 2)
        fakes.trajectory.publish(moving(1))
        second = await anext(frames)
        assert second.index == 1
        assert second.time_ps == 0.5
        assert second.elements is not None and second.elements.tolist() == [6, 6]
        assert second.positions.tolist() == [[1, 1, 1], [1, 1, 1]]


async def test_two_clients_see_the_same_frame(fakes: Fakes) -> None:
    address = fakes.lobby.address
    async with narupa_client.join(address) as one, narupa_client.join(address) as two:
        a, b = one.frames(mode="all"), two.frames(mode="all")
        await anext(a), await anext(b)
        fakes.trajectory.publish(moving(1))
        np.testing.assert_array_equal((await anext(a)).positions, (await anext(b)).positions)


async def test_frames_go_on_when_the_trajectory_service_comes_back(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await fakes.trajectory.stop()
        await until(lambda: frames.trouble)
        await fakes.trajectory.start()
        assert (await anext(frames)).particle_count == 2
        assert frames.trouble is None


async def test_frames_go_on_where_the_service_is_by_then(fakes: Fakes) -> None:
    async with (
        narupa_client.join(fakes.lobby.address) as session,
        session.frames(mode="all") as frames,
        FakeTrajectory() as other,
    ):
        await anext(frames)
        other.publish(whole(5))
        await fakes.trajectory.stop()
        await fakes.lobby.remove_service("trajectory")
        await fakes.lobby.add_service("trajectory", other.address, id="another")
        assert (await anext(frames)).particle_count == 5


async def test_frames_go_on_by_the_last_address_while_the_lobby_is_away(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session, session.frames(mode="all") as frames:
        await anext(frames)
        await fakes.lobby.stop()
        fakes.trajectory.publish(moving(1))
        assert (await anext(frames)).index == 1
        await fakes.trajectory.stop()
        await fakes.trajectory.start()
        assert (await anext(frames)).particle_count == 2


async def test_frames_give_up_when_told_to(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, give_up_after_s=0.3) as session:
        frames = session.frames(mode="all")
        await anext(frames)
        await fakes.trajectory.stop()
        with pytest.raises(UnavailableError, match=r"gave up after 0\.3 s"):
            await anext(frames)


async def test_endpoints_are_tried_in_order_and_unknown_names_skipped(fakes: Fakes) -> None:
    await fakes.lobby.remove_service("trajectory")
    await fakes.lobby.add_service("trajectory", "no-such-host.invalid:38811", NOBODY, fakes.trajectory.address)
    async with narupa_client.join(fakes.lobby.address) as session:
        assert (await session.get_frame()).particle_count == 2
    await asyncio.get_running_loop().shutdown_default_executor()  # which looked the name up


async def test_a_lobby_that_lost_its_memory_is_joined_again(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        await until(lambda: len(session.users) == 1)
        await fakes.lobby.stop()
        fakes.lobby.forget()
        await fakes.lobby.start()
        await until(lambda: session.user_id == "user-2")
        assert [user.name for user in fakes.lobby.users.values()] == ["Ada"]
        # The services have yet to register again; where they were last still serves.
        assert (await session.get_frame()).particle_count == 2
        await fakes.lobby.add_service("trajectory", fakes.trajectory.address)
        await until(lambda: len(session.services) == 1)
    assert fakes.lobby.users == {}


async def test_a_watch_that_cannot_resume_starts_over(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address, "Ada") as session:
        await until(lambda: len(session.users) == 1)
        await fakes.lobby.stop()
        fakes.lobby.forget_history()
        await fakes.lobby.add_service("gateway", NOBODY)
        await fakes.lobby.start()
        await until(lambda: any(item.kind == "gateway" for item in session.services))
    assert fakes.lobby.joins == 1


async def test_a_refused_token_is_swapped(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        frames = session.frames(mode="all")
        await anext(frames)
        fakes.trajectory.tokens = {f"token-{number}" for number in range(2, 10)}
        assert (await session.get_frame()).particle_count == 2
        await fakes.trajectory.stop()
        await fakes.trajectory.start()
        assert (await anext(frames)).particle_count == 2
    assert fakes.lobby.joins == 1


async def test_a_token_is_renewed_before_it_expires(fakes: Fakes) -> None:
    fakes.lobby.token_life_s = 0.3
    async with narupa_client.join(fakes.lobby.address):
        await until(lambda: "token-3" in fakes.lobby.users)
    assert fakes.lobby.joins == 1


async def test_a_pull_lives_as_long_as_its_block(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        async with session.pull([1, 0], to=(0, 0, 1), scale=50, max_force=float("inf")) as pull:
            made = fakes.imd.interactions[pull.id]
            assert (list(made.particles), made.scale, made.max_force) == ([0, 1], 50.0, float("inf"))
            await pull.move((0, 2, np.float32(1.5)))
            assert list(made.position) == [0, 2, 1.5]
            assert (await session.interactions())[0]["kind"] == "spring"
        assert fakes.imd.interactions == {}
        with pytest.raises(UnavailableError, match="released"):
            await pull.move((0, 0, 0))


async def test_a_refused_pull_raises_the_reason(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        with pytest.raises(InvalidArgumentError, match="particles is 99"):
            async with session.pull([99], to=(0, 0, 0)):
                pass
        with pytest.raises(InvalidArgumentError, match="named twice"):
            session.pull([1, 1], to=(0, 0, 0))
        async with session.pull([1], to=(0, 0, 0)) as pull:
            with pytest.raises(InvalidArgumentError, match="finite"):
                await pull.move((0, float("nan"), 0))
            fakes.imd.interactions.clear()
            with pytest.raises(NotFoundError):
                await pull.move((0, 1, 0))


async def test_a_held_pull_is_made_again_where_it_was_moved(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session, session.pull([0], to=(0, 0, 0)) as pull:
        await fakes.imd.stop()
        fakes.imd.forget()
        await until(lambda: not pull.active)
        await pull.move((3, 0, 0))
        await fakes.imd.start()
        await until(lambda: pull.active)
        assert list(fakes.imd.interactions[pull.id].position) == [3, 0, 0]


async def test_a_pull_not_to_be_made_again_ends_with_an_error(fakes: Fakes) -> None:
    async with (
        narupa_client.join(fakes.lobby.address) as session,
        session.pull([0], to=(0, 0, 0), reestablish=False) as pull,
    ):
        holding = asyncio.create_task(raised(pull.hold(20)))
        await fakes.imd.stop()
        assert isinstance(await holding, UnavailableError)
        with pytest.raises(UnavailableError):
            await pull.move((0, 0, 1))


async def test_leaving_the_session_releases_everything(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        pull = session.pull([0], to=(0, 0, 0))
        await pull.__aenter__()
        assert fakes.imd.interactions
    await until(lambda: not fakes.imd.interactions)


async def test_state(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        async with session.state.watch("scene") as changes:
            assert (await anext(changes)).whole
            assert await session.state.update({"scene": [1, 2.5], "other": None}, remove=["gone"]) == 1
            change = await anext(changes)
            assert (change.updates, change.removals) == ({"scene": [1.0, 2.5]}, ("gone",))
        assert await session.state.get("sc") == {"scene": [1.0, 2.5]}
        await session.state.lock("scene", 2.0)
        await session.state.release("scene")
        with pytest.raises(PermissionDeniedError, match="locked"):
            await session.state.update({"locked.by.another": 1})


async def test_a_state_watch_resumes_or_starts_over(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session, session.state.watch() as changes:
        await anext(changes)
        await session.state.update({"a": 1})
        await anext(changes)
        await fakes.imd.stop()
        await fakes.imd.start()
        await until(lambda: changes.trouble)
        await session.state.update({"b": 2})
        resumed = await anext(changes)
        assert (resumed.whole, dict(resumed.updates)) == (False, {"b": 2.0})
        await fakes.imd.stop()
        fakes.imd.forget()
        await fakes.imd.start()
        assert (await anext(changes)).whole


async def test_commands(fakes: Fakes) -> None:
    async with narupa_client.join(fakes.lobby.address) as session:
        assert await session.commands() == {"playback/pause": {}, "playback/load": {"index": 0.0}}
        result = await session.run_command("playback/load", {"index": 2})
        assert result == {"ran": "playback/load", "arguments": {"index": 2.0}}
        with pytest.raises(InvalidArgumentError, match="no such command"):
            await session.run_command("playback/fly")
        with pytest.raises(NoLongerKeptError):
            await session.get_frame(12345)


async def test_without_a_lobby(fakes: Fakes) -> None:
    async with narupa_client.open(trajectory=[NOBODY, fakes.trajectory.address], imd=fakes.imd.address) as session:
        assert session.user_id is None
        assert (await anext(session.frames())).particle_count == 2
        async with session.pull([0], to=(0, 0, 0)):
            assert fakes.imd.interactions
        fakes.trajectory.tokens = set()
        assert isinstance(await raised(session.get_frame()), UnauthenticatedError)


async def test_a_service_that_nobody_runs_is_named(fakes: Fakes) -> None:
    async with narupa_client.open(trajectory=fakes.trajectory.address) as session:
        error = await raised(session.state.get())
        assert isinstance(error, UnavailableError) and "no imd service" in str(error)
        assert not isinstance(error, FailedPreconditionError)


async def test_garbage_instead_of_a_service_is_an_error() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-nonsense\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with narupa_client.open(trajectory=f"127.0.0.1:{port}") as session:
            assert isinstance(await raised(session.get_frame()), UnavailableError)
