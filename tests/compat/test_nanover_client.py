"""NanoVer's own client, as it comes from PyPI, in a real session: what it sees, changes, pulls, runs, provides and records."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame, Session
from narupa_shared.errors import CommandFailedError, NarupaError
from tests.compat.nanover_peer import Peer, PeerError, nanover_peer, needs_nanover, positions, websocket_address
from tests.e2e.helix import any_peptide, away, check_spring
from tests.e2e.sessions import RunningSession, at_rest, first, pulled, session

pytestmark = [pytest.mark.e2e, needs_nanover]

ATOM: Final = 5
SCALE: Final = 1000.0
# How soon what a client had is gone once it has said so, or its process is dead.
GONE_WITHIN_S: Final = 2.0
AVATAR: Final = {
    "playerid": "vr",
    "name": "Rosalind",
    "color": [0.25, 0.5, 1.0, 1.0],
    "components": [
        {"name": "headset", "position": [0.5, 1.75, -0.25], "rotation": [0.0, 0.0, 0.0, 1.0]},
        {"name": "hand.left", "position": [0.25, 1.25, -0.5], "rotation": [0.5, 0.5, 0.5, 0.5]},
    ],
}
PLAY_AREA: Final = {"A": [1.0, 0.0, 1.0], "B": [-1.0, 0.0, 1.0], "C": [-1.0, 0.0, -1.0], "D": [1.0, 0.0, -1.0]}
SCENE: Final = [0.5, 1.0, -0.25, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    """Two simulations, of which the first runs."""
    with session(tmp_path_factory.mktemp("peers"), any_peptide(), "demo:nanotube") as running:
        yield running


@pytest.fixture
async def ada(running: RunningSession) -> AsyncIterator[Session]:
    """A native client."""
    async with narupa_client.join(running.lobby, "Ada") as ada:
        yield ada


@pytest.fixture
async def peer(running: RunningSession) -> AsyncIterator[Peer]:
    """NanoVer's client, which has met with nothing that it could not handle."""
    async with nanover_peer(await websocket_address(running)) as peer:
        yield peer
        assert await peer.complaints() == []


# Frames.


def check_equal(theirs: dict[str, Any], ours: CurrentFrame) -> None:
    """One frame as the peer described it, and the native client's of the same index: every position, and every number."""
    assert theirs["index"] == ours.index
    np.testing.assert_array_equal(positions(theirs), ours.positions)
    numbers = {key: value for key, value in ours.values.items() if isinstance(value, float)}
    assert {key: theirs[key] for key in numbers} == numbers
    assert theirs["users"] == ours.user_forces.indices.tolist()


async def every_frame(client: Session, into: list[CurrentFrame]) -> None:
    async with client.frames(mode="all") as frames:
        async for frame in frames:
            into.append(frame)


async def test_topology_and_frames_are_the_native_clients(ada: Session, peer: Peer) -> None:
    ours: list[CurrentFrame] = []
    async with asyncio.TaskGroup() as group:
        following = group.create_task(every_frame(ada, ours))
        topology = await peer("topology")
        theirs = await peer("next_frames", count=40)
        async with asyncio.timeout(GONE_WITHIN_S):
            while ours[-1].index < theirs[-1]["index"]:
                await asyncio.sleep(0.01)
        following.cancel()
    by_index = {frame.index: frame for frame in ours}
    common = [frame for frame in theirs if frame["index"] in by_index]
    assert len(common) >= 30
    for frame in common:
        check_equal(frame, by_index[frame["index"]])
    assert [frame["index"] for frame in theirs] == sorted({frame["index"] for frame in theirs})

    frame = ours[-1]
    assert topology["particle.count"] == frame.particle_count == len(topology["particle.names"])
    for key in ("particle.elements", "bond.pairs", "particle.residues", "residue.chains"):
        np.testing.assert_array_equal(topology[key], frame.arrays[key])
    for key in ("particle.names", "residue.names", "residue.ids", "chain.names"):
        assert topology[key] == frame.arrays[key]
    for key in ("residue.count", "chain.count", "system.simulation.name"):
        assert topology[key] == frame.values[key]


# The shared state.


async def until_state(client: Session, condition: Any, within_s: float = 10.0) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        while not condition(state := await client.state.get()):
            await asyncio.sleep(0.02)
    return state


async def test_state_goes_both_ways(ada: Session, peer: Peer) -> None:
    await peer("update", updates={"avatar.vr": AVATAR, "playarea.vr": PLAY_AREA, "scene": SCENE, "update.index.vr": 7})
    selection = await peer("select", name="Ring", particles=[3, 1, 2], renderer="cartoon", interaction_method="group")
    # NanoVer's client makes a selection first, and says then how it is drawn.
    drawn = "nanover.rendering.renderer"
    seen = await until_state(
        ada,
        lambda state: (
            "update.index.vr" in state and state.get(selection, {}).get("properties", {}).get(drawn) == "cartoon"
        ),
    )
    assert (seen["avatar.vr"], seen["playarea.vr"], seen["scene"]) == (AVATAR, PLAY_AREA, SCENE)
    assert sorted(seen[selection]["selected"]["particle_ids"]) == [1, 2, 3]
    assert seen[selection]["properties"]["nanover.rendering.renderer"] == "cartoon"
    echoed = await peer.until("state", lambda state: "update.index.vr" in state and selection in state)
    assert (echoed["avatar.vr"], echoed["scene"]) == (AVATAR, SCENE)
    assert echoed["update.index.vr"] == 7
    assert isinstance(echoed["update.index.vr"], int)

    ours = {"id": "selection.ada", "name": "Ours", "selected": {"particle_ids": [4, 5]}, "properties": {}}
    await ada.state.update({"avatar.ada": {"playerid": "ada"}, "scene": [0.0] * 10, "selection.ada": ours})
    state = await peer.until("state", lambda state: "selection.ada" in state)
    assert state["avatar.ada"] == {"playerid": "ada"}
    assert state["scene"] == [0.0] * 10
    read = await peer("selections")
    assert read["selection.ada"]["particles"] == [4, 5]
    assert read[selection] == {
        "name": "Ring",
        "particles": [1, 2, 3],
        "renderer": "cartoon",
        "hide": False,
        "interaction": "group",
    }

    await ada.state.update(remove=["selection.ada", "avatar.ada"])
    await peer("update", removals=[selection, "scene"])
    await peer.until("state", lambda state: not {selection, "selection.ada", "avatar.ada", "scene"} & state.keys())
    await until_state(ada, lambda state: not {selection, "selection.ada", "avatar.ada", "scene"} & state.keys())


async def test_a_refused_write_changes_nothing(ada: Session, peer: Peer) -> None:
    await ada.state.update({"avatar.ada": {"playerid": "ada"}})
    await peer.until("state", lambda state: "avatar.ada" in state)
    await peer("update", updates={"avatar.ada": {"playerid": "impostor"}, "free": 1})
    await peer("update", updates={"after": True})  # NanoVer has no answer to a write, but they are made in their order
    for state in (
        await until_state(ada, lambda state: "after" in state),
        await peer.until("state", lambda state: "after" in state),
    ):
        assert state["avatar.ada"] == {"playerid": "ada"}
        assert "free" not in state
    await peer("update", removals=["after"])


# Pulls.


def spring(handle: list[float]) -> dict[str, Any]:
    return {
        "position": handle,
        "particles": [ATOM],
        "interaction_type": "spring",
        "scale": SCALE,
        "mass_weighted": False,
        "max_force": float("inf"),
        "label": "a free property",
    }


@pytest.mark.parametrize("end", ["release", "close", "kill"])
async def test_a_pull_is_felt_by_everybody_and_ends_with_the_peer(
    running: RunningSession, ada: Session, end: str
) -> None:
    async with nanover_peer(await websocket_address(running)) as peer, ada.frames() as frames:
        await peer("update", updates={"avatar.vr": AVATAR})
        before = await first(frames, at_rest)
        handle = away(before, ATOM, 0.3)
        key = await peer("pull", **spring(handle))
        check_spring(await first(frames, pulled), handle, SCALE, ATOM)
        (listed,) = await ada.interactions()
        assert (listed["id"], listed["kind"]) == (key.removeprefix("interaction."), "spring")
        assert (await ada.state.get())[key]["label"] == "a free property"
        mine = await peer.until("latest", lambda frame: frame["forces.user.index"] == [ATOM])
        assert mine["energy.user.total"] > 0
        await peer.until("interactions", lambda each: each == {key: [ATOM]})

        moved = [handle[0], handle[1], handle[2] + 0.1]
        await peer("move", key=key, **spring(moved))
        # Which of the two the frame is of can be told by its force.
        frame = await first(
            frames,
            lambda frame: np.allclose(
                frame.user_forces.forces, -2 * SCALE * (frame.positions[ATOM] - moved), atol=0.05
            ),
        )
        check_spring(frame, moved, SCALE, ATOM)

        if end == "release":
            await peer("release", key=key)
        elif end == "close":
            await peer("close")
        else:
            peer.kill()
        await first(frames, at_rest, GONE_WITHIN_S)
        assert await ada.interactions() == []
        if end != "release":
            await until_state(ada, lambda state: "avatar.vr" not in state, GONE_WITHIN_S)


async def test_a_native_pull_is_seen_by_the_peer(ada: Session, peer: Peer) -> None:
    async with ada.frames() as frames:
        before = await first(frames, at_rest)
    async with ada.pull([ATOM, ATOM + 1], away(before, ATOM, 0.2), kind="gaussian", scale=50):
        frame = await peer.until("latest", lambda frame: frame["forces.user.index"] == [ATOM, ATOM + 1])
        assert len(frame["forces.user.sparse"]) == 2
        assert frame["energy.user.total"] < 0
        await peer.until("interactions", lambda each: list(each.values()) == [[ATOM, ATOM + 1]])
    released = await peer.until("latest", lambda frame: frame["forces.user.index"] == [], GONE_WITHIN_S)
    assert released["energy.user.total"] == 0
    assert await peer.until("interactions", lambda each: not each, GONE_WITHIN_S) == {}


async def test_what_is_no_interaction_is_refused_and_hurts_nobody(ada: Session, peer: Peer) -> None:
    for wrong in ({"particles": [10**6]}, {"particles": []}, {"interaction_type": "magic"}, {"position": [0.0, 0.0]}):
        await peer("update", updates={"interaction.wrong": spring([0.0, 0.0, 0.0]) | wrong})
    await peer("update", updates={"after": True})
    await peer.until("state", lambda state: "after" in state)
    assert "interaction.wrong" not in await ada.state.get()
    await peer.until("state", lambda state: "interaction.wrong" not in state)
    await peer("next_frames", count=2)  # and it goes on
    await peer("update", removals=["after"])


# Commands.

# Every command, with arguments that make sense, and what it answers.
RUN: Final[dict[str, tuple[dict[str, Any], Any]]] = {
    "playback/pause": ({}, None),
    "playback/step": ({}, None),
    "playback/get-state": ({}, {"playing": False}),
    "playback/play": ({}, None),
    "playback/reset": ({}, None),
    "trajectory/set-dynamics-interval": ({"interval": 0.02}, None),
    "trajectory/get-dynamics-interval": ({}, {"interval": 0.02}),
    "trajectory/set-frame-interval": ({"interval": 4}, None),
    "trajectory/get-frame-interval": ({}, {"interval": 4.0}),
    "imd/set-force-interval": ({"interval": 3}, {"interval": 1.0}),
    "imd/get-force-interval": ({}, {"interval": 1.0}),
    "trajectory/set-wait-for-recorders": ({"wait": False}, None),
    "trajectory/get-wait-for-recorders": ({}, {"wait": False}),
    "multiuser/radially-orient-origins": ({"radius": 2}, None),
    "playback/next": ({}, None),
    "playback/load": ({"index": 0}, None),
}
# Of these there is more to say.
APART: Final = {"commands/list", "playback/list", "playback/seek"}


async def test_every_command_that_is_listed_can_be_run(ada: Session, peer: Peer) -> None:
    listed = await peer("commands")
    assert listed == await ada.commands()
    assert listed.keys() == RUN.keys() | APART
    before = {name: (await ada.run_command(f"trajectory/get-{name}"))["interval"] for name in INTERVALS}
    await peer("update", updates={"avatar.vr": AVATAR})
    await peer.until("state", lambda state: "avatar.vr" in state)
    for name, (arguments, result) in RUN.items():
        assert (name, await peer("run", name=name, arguments=arguments)) == (name, result)
    origin = (await peer.until("state", lambda state: "user-origin.vr" in state))["user-origin.vr"]
    np.testing.assert_allclose(origin["position"], [2.0, 0.0, 0.0], atol=1e-6)
    listing = await peer("run", name="commands/list")
    assert listing["list"] == listed
    assert {each["name"] for each in listing["commands"]} == listed.keys()
    for name, interval in before.items():
        await ada.run_command(f"trajectory/set-{name}", {"interval": interval})
    await peer("update", removals=["user-origin.vr"])


INTERVALS: Final = ("dynamics-interval", "frame-interval")


async def test_nanovers_own_methods_play_and_load(ada: Session, peer: Peer) -> None:
    names = await peer("playback", method="run_list")
    assert names == (await ada.run_command("playback/list"))["simulations"]
    async with ada.frames() as frames:
        atoms = (await first(frames)).particle_count
        counter = (await peer("latest"))["system.simulation.counter"]
        await peer("playback", method="run_pause")
        paused = (await ada.get_frame()).step
        await peer("playback", method="run_step")
        assert (await ada.get_frame()).step > paused
        await peer("playback", method="run_play")
        await peer("playback", method="run_reset")
        await peer.until("latest", lambda frame: frame["system.simulation.counter"] == counter + 1)
        await peer("playback", method="run_load", index=1)
        other = await peer.until("latest", lambda frame: frame["system.simulation.name"] == names[1])
        assert other["particle.count"] == len(other["particle.elements"]) == len(other["particle.positions"]) != atoms
        assert (await peer("state"))["simulation.index"] == 1
        await peer("playback", method="run_next")
        back = await peer.until("latest", lambda frame: frame["system.simulation.name"] == names[0])
        assert back["particle.count"] == atoms


async def test_a_command_that_fails_says_why(peer: Peer) -> None:
    for name, arguments, says in (
        ("playback/fly", {}, "playback/fly"),
        ("playback/load", {"index": 99}, "99"),
        ("playback/load", {}, "index"),
        ("playback/seek", {"index": 3}, "recording"),
        ("trajectory/set-frame-interval", {"interval": 0}, "interval is 0"),
    ):
        with pytest.raises(PeerError, match=says):
            await peer("run", name=name, arguments=arguments)


async def test_commands_that_clients_provide_are_run_by_the_others(
    running: RunningSession, ada: Session, peer: Peer
) -> None:
    async with nanover_peer(await websocket_address(running)) as other:
        await other("register", name="lab/echo", label="Echo", icon="E", default_arguments={"times": 2})

        async def is_there() -> dict[str, Any]:
            async with asyncio.timeout(10):
                while "lab/echo" not in (listed := await ada.commands()):
                    await asyncio.sleep(0.02)
            return listed

        assert (await is_there())["lab/echo"] == {"times": 2}
        told = {each["name"]: each for each in (await peer("run", name="commands/list"))["commands"]}["lab/echo"]
        assert (told["label"], told["icon"], told["arguments"]) == ("Echo", "E", {"times": 2})
        assert await ada.run_command("lab/echo", {"text": "hm"}) == {"echo": {"times": 2, "text": "hm"}}
        assert await peer("run", name="lab/echo", arguments={"times": 3}) == {"echo": {"times": 3}}
        with pytest.raises(PeerError, match="out of echoes"):
            await peer("run", name="lab/echo", arguments={"fail": "out of echoes"})
        with pytest.raises(CommandFailedError, match="out of echoes"):
            await ada.run_command("lab/echo", {"fail": "out of echoes"})
        assert len(await other("called")) == 4
        assert await other("run", name="lab/echo", arguments={}) == {"echo": {"times": 2}}  # its own
        other.kill()
        async with asyncio.timeout(10):
            while "lab/echo" in await ada.commands():
                await asyncio.sleep(0.02)
    with pytest.raises(NarupaError, match="lab/echo"):
        await ada.run_command("lab/echo")

    async def double(number: float) -> dict[str, Any]:
        return {"double": 2 * number}

    async with ada.provide_command("lab/double", double, arguments={"number": 1}):
        assert (await peer("commands"))["lab/double"] == {"number": 1}
        assert await peer("run", name="lab/double", arguments={"number": 21}) == {"double": 42}


# Recordings.


async def test_nanover_records_the_session_and_plays_what_it_recorded(ada: Session, peer: Peer, tmp_path: Path) -> None:
    path = str(tmp_path / "of-nanover.nanover.zip")
    ours: list[CurrentFrame] = []
    async with asyncio.TaskGroup() as group:
        following = group.create_task(every_frame(ada, ours))
        await peer("record", path=path)
        await peer("next_frames", count=15)
        await peer("update", updates={"scene": SCENE, "avatar.vr": AVATAR})
        await peer("next_frames", count=10)
        await ada.run_command("playback/reset")
        await peer("next_frames", count=15)
        await peer("stop_recording")
        recorded = await peer("recorded", path=path)
        async with asyncio.timeout(GONE_WITHIN_S):
            while ours[-1].index < recorded["frames"][-1]["index"]:
                await asyncio.sleep(0.01)
        following.cancel()
    by_time = {frame.values["server.timestamp"]: frame for frame in ours}
    common = [frame for frame in recorded["frames"] if frame["server.timestamp"] in by_time]
    assert len(common) >= 30
    for frame in common:
        native = by_time[frame["server.timestamp"]]
        # Who skipped the first frame of a run has 0 for the one that it got instead.
        check_equal({**frame, "index": frame["index"] or native.index}, native)
    assert [frame["index"] for frame in recorded["frames"]].count(0) == 1  # the reset
    assert (recorded["state"]["scene"], recorded["state"]["avatar.vr"]) == (SCENE, AVATAR)

    played = await peer("played", path=path)
    told = [frame["positions"] for frame in recorded["frames"]]
    assert [frame["positions"] for frame in played["frames"]] == told
    assert played["cleared"] == 1
    assert (played["state"]["scene"], played["state"]["avatar.vr"]) == (SCENE, AVATAR)
    await peer("update", removals=["scene"])
    await check_replay(path, recorded, tmp_path)


async def check_replay(path: str, recorded: dict[str, Any], folder: Path) -> None:
    """A session of ours plays the recording: the same positions in the same order, and the state that belongs to them."""
    places = {frame["positions"]: number for number, frame in enumerate(recorded["frames"])}
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(1) as starting:
            opening = stack.enter_context, session(folder, path)
            replaying = await asyncio.get_running_loop().run_in_executor(starting, *opening)
        async with narupa_client.join(replaying.lobby, "Ada") as ada, ada.frames(mode="all") as frames:
            await ada.run_command("playback/reset")
            await first(frames, lambda frame: frame.index == 0)
            seen = [await anext(frames) for _ in range(20)]
            numbers = [places[base64.b64encode(frame.positions.tobytes()).decode()] for frame in seen]
            assert numbers == sorted(set(numbers))
            for number, frame in zip(numbers, seen, strict=True):
                assert frame.time_ps == recorded["frames"][number]["system.simulation.time"]
            assert (await until_state(ada, lambda state: "avatar.vr" in state))["scene"] == SCENE
