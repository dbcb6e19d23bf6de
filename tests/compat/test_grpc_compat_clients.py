"""Clients of the Narupa and NanoVer gRPC protocols, made of the proto files alone, in a real session.

In both layouts that such clients know: one port for everything, which is the gateway's, and a port each for frames and state.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame, Session
from narupa_shared.errors import PermissionDeniedError
from narupa_shared.testing.leaks import GRACE_S, Leaks
from tests.compat.grpc_peer import Family, GrpcFrame, GrpcPeer, Protocol
from tests.e2e.helix import any_peptide, away, check_spring
from tests.e2e.sessions import RunningSession, at_rest, first, pulled, session

pytestmark = pytest.mark.e2e

ATOM: Final = 5
SCALE: Final = 1000.0
GONE_WITHIN_S: Final = 2.0
AVATAR: Final = {"playerid": "vr", "name": "Rosalind", "color": [0.25, 0.5, 1.0, 1.0], "components": []}
ORIGIN: Final = {"position": [1.0, 0.0, 0.0], "rotation": [0.0, 0.0, 0.0, 1.0]}
SCENE: Final = [0.5, 1.0, -0.25, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    gc.collect()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            while leaks.found():
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    """Two simulations, of which the first runs."""
    with session(tmp_path_factory.mktemp("grpc-peers"), any_peptide(), "demo:nanotube") as running:
        yield running


@pytest.fixture(scope="module", params=["narupa", "nanover"])
def protocol(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    family: Family = request.param
    return Protocol(family, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(params=["one port", "two ports"])
async def at(request: pytest.FixtureRequest, running: RunningSession) -> tuple[str, str]:
    """Where frames are, and where the state is."""
    if request.param == "one port":
        return (await running.address("gateway"),) * 2
    return await running.address("trajectory"), await running.address("imd")


@pytest.fixture
async def ada(running: RunningSession) -> AsyncIterator[Session]:
    """A native client."""
    async with narupa_client.join(running.lobby, "Ada") as ada:
        yield ada


@pytest.fixture
async def peer(protocol: Protocol, at: tuple[str, str]) -> AsyncIterator[GrpcPeer]:
    async with GrpcPeer(protocol, *at) as peer:
        yield peer


@asynccontextmanager
async def another(peer: GrpcPeer, at: tuple[str, str]) -> AsyncIterator[GrpcPeer]:
    """Somebody else, of the same kind."""
    async with GrpcPeer(peer.protocol, *at) as other:
        yield other


# Frames.


def check_equal(theirs: GrpcFrame, ours: CurrentFrame) -> None:
    """A frame, and the native client's of the same index: every key that it has, exactly."""
    assert theirs.index == ours.index
    assert theirs.values == ours.values
    assert theirs.arrays.keys() == ours.arrays.keys()
    for key, array in theirs.arrays.items():
        if isinstance(array, list):
            assert array == ours.arrays[key]
        else:
            np.testing.assert_array_equal(array, ours.arrays[key].ravel())


async def every_frame(client: Session, into: dict[int, CurrentFrame]) -> None:
    async with client.frames(mode="all") as frames:
        async for frame in frames:
            into[frame.index] = frame


@pytest.mark.parametrize("every", [True, False], ids=["every frame", "latest frames"])
async def test_frames_are_the_native_clients(ada: Session, peer: GrpcPeer, every: bool) -> None:
    ours: dict[int, CurrentFrame] = {}
    async with asyncio.TaskGroup() as group, peer.frames(every, 0.0 if every else 1 / 15) as frames:
        following = group.create_task(every_frame(ada, ours))
        theirs = [await frames.next() for _ in range(25)]
        async with asyncio.timeout(GONE_WITHIN_S):
            while max(ours, default=0) < theirs[-1].index:
                await asyncio.sleep(0.01)
        following.cancel()
    common = [frame for frame in theirs if frame.index in ours]
    assert len(common) >= 15
    for frame in common:
        check_equal(frame, ours[frame.index])
    steps = np.diff([frame.index for frame in theirs])
    if every:
        assert set(steps[1:]) == {1}  # behind what is shown to a newcomer
    else:
        assert min(steps) >= 1
        assert max(steps) >= 2  # it was to have half of them


async def test_one_frame_can_be_asked_for(ada: Session, peer: GrpcPeer) -> None:
    frame = await peer.get_frame()
    check_equal(frame, await ada.get_frame(frame.index))
    check_equal(await peer.get_frame(frame.index), await ada.get_frame(frame.index))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await peer.get_frame(10**9)
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_a_reset_starts_over_with_index_0(ada: Session, peer: GrpcPeer) -> None:
    async with peer.frames() as latest, peer.frames(every=True) as every:
        before = [await latest.next(), await every.next()]
        await ada.run_command("playback/reset")
        counter = before[0].values["system.simulation.counter"] + 1
        for frames in (latest, every):
            restarted = await frames.first(lambda frame: frame.values["system.simulation.counter"] == counter)
            assert restarted.index == 0
            assert len(restarted.arrays["particle.elements"]) == restarted.values["particle.count"]
            assert (await frames.next()).index > 0


# The shared state.


async def test_state_goes_both_ways(ada: Session, peer: GrpcPeer) -> None:
    async with peer.states() as states, ada.state.watch() as changes:
        whole = await states.next()
        assert "imd.velocity_reset_available" in whole
        assert whole == (await anext(changes)).updates
        selection = {"id": "selection.x", "name": "x", "selected": {"particle_ids": [1.0, 2.0]}, "properties": {}}
        assert await peer.update({"avatar.vr": AVATAR, "scene": SCENE, "selection.x": selection, "nothing": [None, {}]})
        seen = await ada.state.get()
        assert (seen["avatar.vr"], seen["scene"], seen["selection.x"]) == (AVATAR, SCENE, selection)
        assert seen["nothing"] == [None, {}]
        mine = await states.first(lambda state: "scene" in state)
        assert {key: mine[key] for key in ("avatar.vr", "scene", "selection.x", "nothing")} == {
            key: seen[key] for key in ("avatar.vr", "scene", "selection.x", "nothing")
        }
        await ada.state.update({"avatar.ada": AVATAR, "scene": [0.0] * 10}, remove=["selection.x"])
        mine = await states.first(lambda state: "avatar.ada" in state)
        assert mine["scene"] == [0.0] * 10
        assert "selection.x" not in mine
        assert not await peer.update({"avatar.ada": {"name": "impostor"}, "free": 1.0})
        assert await peer.update({"scene": None, "nothing": None, "avatar.vr": None})
        left = await states.first(lambda state: "scene" not in state)
        assert left.keys() == (await ada.state.get()).keys()
        assert not {"nothing", "avatar.vr", "free"} & left.keys()
        await ada.state.update(remove=["avatar.ada"])


async def test_locks_keep_others_out(ada: Session, peer: GrpcPeer, at: tuple[str, str]) -> None:
    async with another(peer, at) as other:
        assert await peer.lock({"scene": 60.0, "board": 60.0})
        assert not await other.update({"scene": SCENE, "free": 1.0})
        assert not await other.lock({"free": 60.0, "board": 60.0})
        with pytest.raises(PermissionDeniedError):
            await ada.state.update({"board": 1.0})
        assert await peer.update({"scene": SCENE, "board": 2.0})
        assert await peer.lock({"scene": None, "board": None})
        assert await other.update({"scene": None, "board": None})
        assert "free" not in await ada.state.get()


@pytest.mark.parametrize("watching", [True, False])
async def test_an_avatar_goes_with_its_connection(
    ada: Session, peer: GrpcPeer, at: tuple[str, str], watching: bool
) -> None:
    async with AsyncExitStack() as stack:
        states = await stack.enter_async_context(peer.states())
        leaving = await stack.enter_async_context(another(peer, at))
        if watching:
            await (await stack.enter_async_context(leaving.states())).next()
        assert await leaving.update({"avatar.vr": AVATAR, "playarea.vr": {"A": [0.0, 0.0, 0.0]}, "left": "behind"})
        await states.first(lambda state: "avatar.vr" in state)
        await leaving.close()
        # A connection without a stream is missed when somebody looks, once a second.
        left = await states.first(lambda state: "avatar.vr" not in state, GONE_WITHIN_S if watching else 5.0)
        assert left["left"] == "behind"
        assert "playarea.vr" not in await ada.state.get()
        await ada.state.update(remove=["left"])


# Pulls.


def spring(handle: list[float]) -> dict[str, Any]:
    return {
        "position": handle,
        "particles": [float(ATOM)],
        "interaction_type": "spring",
        "scale": SCALE,
        "mass_weighted": False,
        "max_force": math.inf,
    }


@pytest.mark.parametrize("end", ["released", "disconnected"])
async def test_a_pull_is_felt_by_everybody_and_ends(
    ada: Session, peer: GrpcPeer, at: tuple[str, str], end: str
) -> None:
    async with ada.frames() as frames, another(peer, at) as puller, puller.frames() as its_own:
        before = await first(frames, at_rest)
        handle = away(before, ATOM, 0.3)
        assert await puller.update({"interaction.x": spring(handle)})
        check_spring(await first(frames, pulled), handle, SCALE, ATOM)
        own = await its_own.first(lambda frame: frame.users == [ATOM])
        assert own.values["energy.user.total"] > 0
        moved = [handle[0], handle[1], handle[2] + 0.1]
        assert await puller.update({"interaction.x": spring(moved)})
        frame = await first(
            frames,
            lambda frame: np.allclose(
                frame.user_forces.forces, -2 * SCALE * (frame.positions[ATOM] - moved), atol=0.05
            ),
        )
        check_spring(frame, moved, SCALE, ATOM)
        if end == "released":
            assert await puller.update({"interaction.x": None})
            await its_own.first(lambda frame: not frame.users, GONE_WITHIN_S)
        else:
            await puller.close()
        await first(frames, at_rest, GONE_WITHIN_S)


async def test_what_is_no_interaction_is_an_error(peer: GrpcPeer) -> None:
    for wrong in ({"particles": [1e6]}, {"particles": []}, {"interaction_type": "magic"}, {"position": [0.0, 0.0]}):
        with pytest.raises(grpc.aio.AioRpcError, match=r"interaction\.wrong") as refused:
            await peer.update({"interaction.wrong": spring([0.0, 0.0, 0.0]) | wrong, "free": 1.0})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    async with peer.states() as states:
        assert not {"interaction.wrong", "free"} & (await states.next()).keys()


# Commands.

# Every command that answers nothing, or always the same, with arguments that make sense.
RUN: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "playback/pause": ({}, {}),
    "playback/step": ({}, {}),
    "playback/get-state": ({}, {"playing": False}),
    "playback/play": ({}, {}),
    "playback/reset": ({}, {}),
    "imd/set-force-interval": ({"interval": 3}, {"interval": 1.0}),
    "imd/get-force-interval": ({}, {"interval": 1.0}),
    "trajectory/set-wait-for-recorders": ({"wait": False}, {}),
    "trajectory/get-wait-for-recorders": ({}, {"wait": False}),
    "multiuser/radially-orient-origins": ({"radius": 2}, {}),
    "playback/next": ({}, {}),
    "playback/load": ({"index": 0}, {}),
}
INTERVALS: Final = {"trajectory/{}-dynamics-interval": 0.02, "trajectory/{}-frame-interval": 4.0}
APART: Final = {"commands/list", "playback/list", "playback/seek"}


async def test_every_command_that_is_listed_can_be_run(ada: Session, peer: GrpcPeer) -> None:
    listed = await peer.commands()
    assert listed == await ada.commands()
    intervals = {name.format(verb) for name in INTERVALS for verb in ("get", "set")}
    assert listed.keys() == RUN.keys() | APART | intervals
    assert await peer.update({"avatar.vr": AVATAR})
    for name, (arguments, result) in RUN.items():
        assert (name, await peer.run(name, arguments)) == (name, result)
    assert (await ada.state.get())["user-origin.vr"]["position"] == pytest.approx([2.0, 0.0, 0.0])
    for name, value in INTERVALS.items():
        before = await peer.run(name.format("get"))
        assert await peer.run(name.format("set"), {"interval": value}) == {}
        assert await peer.run(name.format("get")) == {"interval": value}
        await peer.run(name.format("set"), before)
    assert len((await peer.run("playback/list"))["simulations"]) == 2
    assert (await peer.run("commands/list"))["list"].items() <= listed.items()
    await peer.update({"user-origin.vr": None, "avatar.vr": None})


async def test_loading_shows_the_other_simulation(peer: GrpcPeer) -> None:
    names = (await peer.run("playback/list"))["simulations"]
    async with peer.frames() as frames:
        before = await frames.next()
        await peer.run("playback/load", {"index": 1})
        other = await frames.first(lambda frame: frame.values["system.simulation.name"] == names[1])
        assert other.index == 0
        assert len(other.positions) == len(other.arrays["particle.elements"]) != len(before.positions)
        await peer.run("playback/load", {"index": 0})
        back = await frames.first(lambda frame: frame.values["system.simulation.name"] == names[0])
        assert len(back.positions) == len(before.positions)


async def test_a_command_that_cannot_be_run_says_why(peer: GrpcPeer) -> None:
    for name, arguments, code, says in (
        ("playback/fly", {}, grpc.StatusCode.INVALID_ARGUMENT, "playback/fly"),
        ("playback/load", {"index": 99}, grpc.StatusCode.INVALID_ARGUMENT, "99"),
        ("playback/load", {}, grpc.StatusCode.INVALID_ARGUMENT, "index"),
        ("playback/seek", {"index": 3}, grpc.StatusCode.FAILED_PRECONDITION, "recording"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
            await peer.run(name, arguments)
        assert refused.value.code() is code


async def test_commands_that_clients_provide_are_run(ada: Session, peer: GrpcPeer) -> None:
    async def double(number: float) -> dict[str, Any]:
        return {"double": 2 * number}

    async with ada.provide_command("lab/double", double, arguments={"number": 1}):
        assert (await peer.commands())["lab/double"] == {"number": 1.0}
        assert await peer.run("lab/double", {"number": 21}) == {"double": 42.0}


# Both families at once.


@pytest.fixture
async def both(running: RunningSession, tmp_path: Path) -> AsyncIterator[list[GrpcPeer]]:
    """One of each family, at the gateway."""
    address = await running.address("gateway")
    async with AsyncExitStack() as stack:
        families: tuple[Family, ...] = ("narupa", "nanover")
        peers = [GrpcPeer(Protocol(family, tmp_path), address, address) for family in families]
        yield [await stack.enter_async_context(peer) for peer in peers]


async def test_the_two_families_meet_on_one_port(both: list[GrpcPeer]) -> None:
    narupa, nanover = both
    async with nanover.states() as states:
        await states.next()
        assert await narupa.update({"avatar.vr": AVATAR})
        assert (await states.first(lambda state: "avatar.vr" in state))["avatar.vr"] == AVATAR
        assert not await nanover.update({"avatar.vr": None})
        assert await narupa.update({"avatar.vr": None})
