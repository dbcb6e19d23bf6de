"""NanoVer and gRPC clients in a real session, through the gateway: what they see, what they do, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from structlog.testing import capture_logs

from narupa_client import CurrentFrame, Session
from narupa_shared import frame_keys as keys
from narupa_shared.errors import CommandFailedError, InvalidArgumentError
from narupa_shared.testing.leaks import GRACE_S, Leaks
from narupa_shared.testing.waiting import until
from tests.compat.grpc_peer import GrpcPeer, Protocol
from tests.integration.gateway_scene import LIMIT_S, Scene

AVATAR = {"playerid": "vr", "name": "Rosalind", "color": [0.25, 0.5, 1.0, 1.0], "components": []}
PULL = {"position": [0.0, 0.0, 0.0], "particles": [0], "interaction_type": "spring", "scale": 100.0}


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    gc.collect()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not leaks.found(), GRACE_S)


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("inputs") / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    return f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"


@pytest.fixture(scope="module", params=["narupa", "nanover"])
def protocol(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    return Protocol(request.param, tmp_path_factory.mktemp("compiled"))


@pytest.fixture
async def still(free_port: Callable[[], int], tmp_path: Path, ethanol: str) -> AsyncIterator[Scene]:
    """A session without a simulation."""
    scene = Scene(free_port, tmp_path, ethanol)
    await scene.start("lobby", "imd", "gateway")
    try:
        yield scene
    finally:
        await scene.stop()


@pytest.fixture
async def scene(still: Scene) -> Scene:
    """A session with one."""
    await still.start("trajectory")
    return still


def peer_of(scene: Scene, protocol: Protocol) -> GrpcPeer:
    return GrpcPeer(protocol, *(scene.address("gateway"),) * 2)


# What they see.


async def test_topology_and_frames_are_the_native_clients_by_their_index(scene: Scene) -> None:
    native: dict[int, CurrentFrame] = {}

    async def collect(session: Session) -> None:
        async with session.frames(mode="all") as frames:
            async for frame in frames:
                native[frame.index] = frame

    async with scene.native() as ada, scene.headset() as headset:
        collecting = asyncio.create_task(collect(ada))
        await until(lambda: len(set(headset.indices) & set(native)) > 10)
        await ada.run_command("playback/pause")
        ours = await ada.get_frame()
        await until(lambda: headset.frame.get("frame.index") == ours.index)
        collecting.cancel()
        await asyncio.wait([collecting])
        for frame in headset.frames:
            if keys.POSITIONS in frame and (same := native.get(frame["frame.index"])):
                np.testing.assert_array_equal(np.frombuffer(frame[keys.POSITIONS], "<f4"), same.positions.ravel())
                assert frame[keys.TIME] == same.time_ps
        assert sum(keys.ELEMENTS in frame for frame in headset.frames) == 1
        assert list(headset.frame[keys.ELEMENTS]) == list(ours.elements)  # type: ignore[arg-type]
        assert headset.frame[keys.PARTICLE_COUNT] == 9

        async with scene.headset() as late:
            await until(lambda: late.frames)
            assert late.frame == headset.frame
        await ada.run_command("playback/reset")
        await until(lambda: 0 in headset.indices and headset.frame[keys.COUNTER] == 1)
        assert list(headset.frame[keys.ELEMENTS]) == list(ours.elements)  # type: ignore[arg-type]


async def test_state_goes_both_ways(still: Scene, protocol: Protocol) -> None:
    async with (
        still.native() as ada,
        still.headset() as headset,
        peer_of(still, protocol) as peer,
        peer.states() as there,
    ):
        await headset.write({"from.headset": {"a": [1, None, "x"]}, "update.index.vr": 7})
        await until(lambda: "from.headset" in headset.state)
        assert headset.state["update.index.vr"] == 7 and isinstance(headset.state["update.index.vr"], int)
        assert await peer.update({"from.peer": 2.5})
        await ada.state.update({"from.ada": True})
        everything = {"from.headset": {"a": [1.0, None, "x"]}, "from.peer": 2.5, "from.ada": True}
        await there.first(lambda state: everything.items() <= state.items())
        await until(lambda: everything.items() <= headset.state.items())
        assert everything.items() <= (await ada.state.get()).items()

        await headset.write({}, "from.headset", "from.peer")
        await there.first(lambda state: not {"from.headset", "from.peer"} & set(state))
        await until(lambda: "from.headset" not in headset.state)
        async with still.headset() as late:
            await until(lambda: late.states)
            assert late.state == headset.state


# What is left of them.


@pytest.mark.parametrize("how", ["close", "vanish"])
@pytest.mark.parametrize("avatar", [True, False])
async def test_what_a_headset_owned_goes_with_its_connection(still: Scene, how: str, avatar: bool) -> None:
    owned = {"interaction.vr": PULL, "playarea.vr": {"A": [0.0, 0.0, 0.0]}} | ({"avatar.vr": AVATAR} if avatar else {})
    async with still.native() as ada, still.headset() as headset, still.headset() as other:
        await headset.write(owned | {"scene.of.all": 1})
        await until(lambda: owned.keys() <= other.state.keys())
        assert [item["id"] for item in await ada.interactions()] == ["vr"]
        assert len(still.users) == 3
        with capture_logs() as logs:
            await getattr(headset, how)()
            await until(lambda: not owned.keys() & other.state.keys())
        (ended,) = (entry for entry in logs if entry["event"] == "connection_ended")
        assert ended["reason"] == "its stream ended" and set(ended["keys"]) == set(owned)
        assert "scene.of.all" in other.state
        assert await ada.interactions() == []
        await until(lambda: len(still.users) == 2)


@pytest.mark.parametrize("avatar", [True, False])
async def test_what_a_grpc_client_owned_goes_with_its_connection(
    still: Scene, protocol: Protocol, avatar: bool
) -> None:
    owned = {"interaction.vr": PULL} | ({"avatar.vr": AVATAR} if avatar else {})
    async with still.headset() as other, contextlib.AsyncExitStack() as stack:
        async with peer_of(still, protocol) as peer:
            async with peer.states() as states:
                assert await peer.update(owned)
                await states.first(lambda state: owned.keys() <= state.keys())
            await until(lambda: owned.keys() <= other.state.keys())
            logs = stack.enter_context(capture_logs())
        await until(lambda: not owned.keys() & other.state.keys())
        assert [entry["reason"] for entry in logs if entry["event"] == "connection_ended"] == ["its stream ended"]
        await until(lambda: len(still.users) == 1)


async def test_a_grpc_client_without_a_stream_is_missed_too(still: Scene, protocol: Protocol) -> None:
    async with still.headset() as other:
        async with peer_of(still, protocol) as peer:
            assert await peer.update({"avatar.vr": AVATAR})
            await until(lambda: "avatar.vr" in other.state)
        gc.collect()
        await until(lambda: "avatar.vr" not in other.state)


async def test_nobody_touches_what_others_own_and_the_writer_sees_the_truth(still: Scene) -> None:
    async with still.headset() as one, still.headset() as other:
        await one.write({"avatar.vr": AVATAR})
        await until(lambda: "avatar.vr" in other.state)
        other.state["avatar.vr"] = "what it believes"
        await other.write({"avatar.vr": "mine now"})
        await until(lambda: other.state["avatar.vr"] == AVATAR)
        await other.write({}, "avatar.vr")
        await other.write({"mine": 1})
        await until(lambda: "mine" in one.state)
        assert one.state["avatar.vr"] == AVATAR


async def test_what_is_no_interaction_is_refused_and_ends_no_connection(still: Scene) -> None:
    async with still.headset() as headset:
        for wrong in ({**PULL, "particles": []}, {**PULL, "interaction_type": "odd"}, {**PULL, "scale": float("nan")}):
            headset.state["interaction.x"] = "what it believes"
            await headset.write({"interaction.x": wrong})
            await until(lambda: "interaction.x" not in headset.state)
        assert headset.ended is None


# Commands.


async def test_commands_of_the_simulation_and_of_others_are_run(scene: Scene, protocol: Protocol) -> None:
    async with (
        scene.headset() as headset,
        scene.headset() as other,
        scene.native() as ada,
        peer_of(scene, protocol) as peer,
    ):
        assert (await headset.run("playback/pause"))["response"] is None
        listed = (await headset.run("commands/list", id=2))["response"]
        assert "playback/play" in listed["list"] and "multiuser/radially-orient-origins" in listed["list"]
        failed = await headset.run("no/such", {"x": [1]}, id=3)
        assert failed["request"] == {"name": "no/such", "arguments": {"x": [1]}, "id": 3} and failed["exception"]

        await headset.say(command={"register": {"name": "vr/greet", "arguments": {"name": "you"}, "label": "Greet"}})
        await _listed(ada, "vr/greet")

        async def answer(count: int, **result: Any) -> None:
            def calls() -> list[dict[str, Any]]:
                return [said["request"] for said in headset.said if set(said) == {"request"}]

            await until(lambda: len(calls()) == count)
            await headset.say(command={"request": calls()[-1], **result})

        async def called(call: Any, count: int, **result: Any) -> Any:
            answering = asyncio.create_task(answer(count, **result))
            try:
                return await call
            finally:
                await answering

        assert await called(ada.run_command("vr/greet"), 1, response={"said": "Hello, you"}) == {"said": "Hello, you"}
        through = await called(other.run("vr/greet", {"name": "Ada"}, id=4), 2, response={"said": "Hello, Ada"})
        assert through["response"] == {"said": "Hello, Ada"}
        assert headset.said[-1]["request"]["arguments"] == {"name": "Ada"}
        assert await called(peer.run("vr/greet"), 3, response=None) == {}
        with pytest.raises(CommandFailedError, match="it broke"):
            await called(ada.run_command("vr/greet"), 4, exception="it broke")

        await headset.vanish()
        await _listed(ada, "vr/greet", False)
        with pytest.raises(InvalidArgumentError, match="vr/greet"):
            await ada.run_command("vr/greet")
        assert "vr/greet" in (await other.run("vr/greet", id=5))["exception"]


async def _listed(session: Session, name: str, there: bool = True) -> None:
    async with asyncio.timeout(LIMIT_S):
        while (name in await session.commands()) is not there:
            await asyncio.sleep(0.02)


# Frames of theirs.


async def test_a_host_shows_frames_of_its_own_and_a_participant_does_not(scene: Scene) -> None:
    places = np.arange(6, dtype="<f4").reshape(2, 3)
    mine = {"frame.index": 0, keys.POSITIONS: places.tobytes(), "title": "mine"}
    async with scene.as_operator() as lobby, scene.native() as ada:
        await lobby.set_guest_role("participant")
        async with scene.headset() as participant:
            with capture_logs() as logs:
                await participant.say(frame=mine)
                await until(lambda: any(entry["event"] == "refused" for entry in logs))
            assert "host" in next(entry["reason"] for entry in logs if entry["event"] == "refused")
            await lobby.set_guest_role("host")
            async with scene.headset() as host:
                await host.say(frame=mine)
                for headset in (participant, host):
                    await until(lambda headset=headset: headset.frame.get("title") == "mine")  # type: ignore[misc]
                    assert headset.frame[keys.POSITIONS] == places.tobytes()
                    assert keys.ELEMENTS not in headset.frame
                assert (await ada.get_frame()).particle_count == 2
                await host.run("playback/step")
                await until(lambda: keys.ELEMENTS in participant.frame and "title" not in participant.frame)


# Who does not read.


async def test_whoever_does_not_read_costs_the_others_nothing(scene: Scene, protocol: Protocol) -> None:
    async with scene.native() as ada, scene.headset(reading=False, ping_interval=None) as stalled:
        await stalled.write({"avatar.stalled": AVATAR})
        async with scene.headset() as headset, peer_of(scene, protocol) as peer, peer.frames(every=True) as every:
            await until(lambda: "avatar.stalled" in headset.state)
            await ada.state.update({f"large.{number}": "x" * 60_000 for number in range(40)})
            first = await every.next()
            indices = [first.index]
            while len(indices) < 100:
                indices.append((await every.next()).index)
            assert indices == list(range(indices[0], indices[0] + 100))
            await until(lambda: headset.indices[-1] >= indices[-1])
            assert "large.39" in headset.state
            for subscription in scene.gateway.feed.broadcaster.subscriptions:
                assert len(subscription._queue) < 100
            waiting = [each._socket.transport.get_write_buffer_size() for each in scene.gateway.websockets._clients]  # type: ignore[attr-defined]
            assert max(waiting) < 8 * 1024 * 1024
        await stalled.vanish()


async def test_what_cannot_be_asked_for_is_refused_with_its_status(still: Scene, protocol: Protocol) -> None:
    async with peer_of(still, protocol) as peer:
        for interval_s in (-1.0, float("nan"), float("inf")):
            async with peer.frames(interval_s=interval_s) as frames:
                with pytest.raises(Exception, match="frame_interval") as refusal:
                    await frames.next()
                assert "INVALID_ARGUMENT" in str(refusal.value)
        with pytest.raises(Exception, match="index"):
            await peer.get_frame(-1)
