"""Commands that clients provide, from the Python client to a real imd service and back to whoever runs them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import narupa_client
from narupa_client.testing import FakeTrajectory
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import (
    CommandFailedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    UnavailableError,
)
from narupa_shared.testing.ports import unused_port
from narupa_shared.testing.waiting import until

Session = narupa_client.Session
ORIENT = "multiuser/radially-orient-origins"


def config(**settings: Any) -> ImdConfig:
    return ImdConfig(lobby="127.0.0.1:1", store="memory", drain_grace_s=0.5, **{"port": 0, **settings})


@contextlib.asynccontextmanager
async def imd(**settings: Any) -> AsyncIterator[Bound]:
    made = config(**settings)
    async with serving("imd", made, ImdApp(made)) as bound:
        yield bound


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    async with imd() as bound:
        yield bound


@pytest.fixture
async def trajectory() -> AsyncIterator[FakeTrajectory]:
    async with FakeTrajectory() as trajectory:
        trajectory.commands["commands/list"] = {}
        yield trajectory


@pytest.fixture
async def provider(bound: Bound, trajectory: FakeTrajectory) -> AsyncIterator[Session]:
    async with narupa_client.open(trajectory.address, bound.address) as session:
        yield session


@pytest.fixture
async def other(bound: Bound, trajectory: FakeTrajectory) -> AsyncIterator[Session]:
    async with narupa_client.open(trajectory.address, bound.address) as session:
        yield session


async def gone(session: Session, name: str) -> None:
    async with asyncio.timeout(10):
        while name in await session.commands():
            await asyncio.sleep(0.01)


async def test_a_command_is_run_by_others_with_defaults_overlaid(provider: Session, other: Session) -> None:
    async def greet(greeting: str, name: str = "you", **more: Any) -> dict[str, Any]:
        return {"said": f"{greeting}, {name}", **more}

    async with provider.provide_command("greet", greet, arguments={"greeting": "Hello"}, label="Greet", icon="👋"):
        assert (await other.commands())["greet"] == {"greeting": "Hello"}
        assert await other.run_command("greet") == {"said": "Hello, you"}
        assert await other.run_command("greet", {"greeting": "Hi", "name": "Ada", "n": [1, None]}) == {
            "said": "Hi, Ada",
            "n": [1.0, None],
        }
        assert await provider.run_command("greet", {"name": "me"}) == {"said": "Hello, me"}
        listed = await other.run_command("commands/list")
        assert listed["list"]["greet"] == {"greeting": "Hello"}
        assert {"name": "greet", "arguments": {"greeting": "Hello"}, "label": "Greet", "icon": "👋"} in listed[
            "commands"
        ]
        assert ORIENT in listed["list"]
    await gone(other, "greet")
    with pytest.raises(InvalidArgumentError, match="greet"):
        await other.run_command("greet")


async def test_handlers_may_be_plain_functions_and_give_nothing(provider: Session, other: Session) -> None:
    seen: list[str] = []
    async with provider.provide_command("note", lambda text: seen.append(text)):
        assert await other.run_command("note", {"text": "x"}) == {}
    assert seen == ["x"]


async def test_what_a_handler_raises_is_told_to_the_caller(provider: Session, other: Session) -> None:
    def fail(how: str) -> Any:
        match how:
            case "named":
                raise InvalidArgumentError("how", how, "is wrong")
            case "list":
                return [1]
            case "unsendable":
                return {"x": object()}
        raise KeyError(how)

    async with provider.provide_command("fail", fail):
        for how, says in (
            ("named", "failed: how is 'named': is wrong"),
            ("list", "result is a list"),
            ("unsendable", "an? object cannot be sent"),
            ("?", "KeyError"),
        ):
            with pytest.raises(CommandFailedError, match=says):
                await other.run_command("fail", {"how": how})
        with pytest.raises(CommandFailedError, match="unexpected keyword argument 'speed'"):
            await other.run_command("fail", {"speed": 1})


async def test_calls_are_answered_side_by_side(provider: Session, other: Session) -> None:
    first = asyncio.Event()

    async def meet(order: float) -> dict[str, Any]:
        if order == 1:
            await first.wait()
        first.set()
        return {"order": order}

    async with provider.provide_command("meet", meet):
        waiting = asyncio.create_task(other.run_command("meet", {"order": 1}))
        assert await other.run_command("meet", {"order": 2}) == {"order": 2.0}
        assert await waiting == {"order": 1.0}


@pytest.mark.parametrize("name", [ORIENT, "playback/dance", "commands/list", "imd/x", "trajectory/x", "", "a\nb"])
async def test_names_that_are_not_for_clients_are_refused(provider: Session, name: str) -> None:
    with pytest.raises(FailedPreconditionError):
        async with provider.provide_command(name, dict):
            pass


async def test_a_name_that_is_taken_is_refused_and_leaves_the_stream_open(provider: Session, other: Session) -> None:
    async with provider.command_provider() as mine, other.command_provider() as theirs:
        await mine.register("a", {"x": 1.0})
        with pytest.raises(FailedPreconditionError, match="provided by somebody else"):
            await theirs.register("a")
        await theirs.register("b")
        await mine.register("a", {"x": 2.0})
        assert (await other.commands())["a"] == {"x": 2.0}
        await mine.withdraw("a")
        await mine.withdraw("never")
        await theirs.register("a")
        assert theirs.problem is None


async def test_calls_come_with_their_caller_and_are_answered_in_any_order(provider: Session, other: Session) -> None:
    async with provider.command_provider() as mine:
        await mine.register("slow")
        runs = [asyncio.create_task(other.run_command("slow", {"n": n})) for n in range(3)]
        calls = [await anext(mine) for _ in runs]
        assert {call.arguments["n"] for call in calls} == {0.0, 1.0, 2.0}
        assert all(call.name == "slow" and call.caller.startswith("ipv4:127.0.0.1:") for call in calls)
        for call in reversed(calls):
            await mine.answer(call, {"n": call.arguments["n"]})
            await mine.answer(call, error="once more")  # is over already
        assert [(await run)["n"] for run in runs] == [0.0, 1.0, 2.0]


async def test_a_provider_that_leaves_fails_its_calls(provider: Session, other: Session) -> None:
    async with provider.command_provider() as mine:
        await mine.register("slow")
        run = asyncio.create_task(other.run_command("slow"))
        await anext(mine)
    with pytest.raises(UnavailableError, match="is gone"):
        await run


async def test_a_silent_provider_is_given_up(trajectory: FakeTrajectory) -> None:
    async with (
        imd(command_answer_s=0.2) as bound,
        narupa_client.open(trajectory.address, bound.address) as session,
        session.command_provider() as mine,
    ):
        await mine.register("slow")
        with pytest.raises(UnavailableError, match="did not answer within"):
            await session.run_command("slow")
        late = await anext(mine)
        await mine.answer(late, {"too": "late"})
        await mine.register("next")
        assert mine.problem is None


async def test_a_command_is_there_again_after_the_service_was_away(trajectory: FakeTrajectory) -> None:
    port = unused_port()
    async with contextlib.AsyncExitStack() as first:
        bound = await first.enter_async_context(imd(port=port))
        async with (
            narupa_client.open(trajectory.address, bound.address) as session,
            session.provide_command("here", lambda: {"yes": True}) as command,
        ):
            assert await session.run_command("here") == {"yes": True}
            await first.aclose()
            await until(lambda: command.trouble)
            async with imd(port=port):
                await until(lambda: command.trouble is None)
                assert await session.run_command("here") == {"yes": True}


async def test_the_trajectory_service_has_what_imd_has_not(
    provider: Session, trajectory: FakeTrajectory, bound: Bound
) -> None:
    assert {"playback/pause", ORIENT, "commands/list"} <= set(await provider.commands())
    assert (await provider.run_command("playback/pause"))["ran"] == "playback/pause"
    assert await provider.run_command(ORIENT) == {}
    with pytest.raises(InvalidArgumentError, match="no such command"):
        await provider.run_command("playback/dance")
    with pytest.raises(InvalidArgumentError, match="radius"):
        await provider.run_command(ORIENT, {"radius": "far"})
    # Without imd the simulation's commands are all there is; without the simulation nothing is.
    async with narupa_client.open(trajectory.address, "127.0.0.1:1") as session:
        assert set(await session.commands()) == set(trajectory.commands)
        assert (await session.run_command("playback/pause"))["ran"] == "playback/pause"
    async with narupa_client.open("127.0.0.1:1", bound.address) as session:
        with pytest.raises(UnavailableError, match="trajectory"):
            await session.commands()
        assert await session.run_command(ORIENT) == {}


async def test_closing_the_session_ends_what_it_provides(bound: Bound, other: Session) -> None:
    async with narupa_client.open("127.0.0.1:1", bound.address) as session:
        provider = session.command_provider()
        await provider.__aenter__()
        await provider.register("left")
    await gone(other, "left")
    with pytest.raises(NarupaError):
        await anext(provider)
    with pytest.raises(NarupaError):
        await provider.register("more")
    await provider.__aexit__()


async def test_a_plain_program_provides_a_command_that_uses_its_session(bound: Bound, other: Session) -> None:
    def program() -> None:
        with narupa_client.connect(imd=bound.address) as session:

            def note(text: str) -> dict[str, Any]:
                if not text:
                    raise ValueError("nothing to note")
                session.state.update({"note": text})
                return {"length": len(text)}

            with session.provide_command("note", note, arguments={"text": ""}, label="Note") as command:
                assert command.name == "note" and command.trouble is None
                assert session.run_command("note", {"text": "mine"}) == {"length": 4.0}
                with (
                    pytest.raises(FailedPreconditionError, match="own"),
                    session.provide_command("imd/note", note),
                ):
                    pass
                ready.set()
                over.wait(10)
            command.withdraw()

    ready, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = asyncio.get_running_loop().run_in_executor(pool, program)
        try:
            await until(lambda: ready.is_set() or running.done())
            assert await other.run_command("note", {"text": "theirs"}) == {"length": 6.0}
            assert await other.state.get("note") == {"note": "theirs"}
            with pytest.raises(CommandFailedError, match="ValueError: nothing to note"):
                await other.run_command("note")
        finally:
            over.set()
            await running
    await gone(other, "note")
