"""What clients of the gateway notice when services of the session go and come back, and when the gateway goes itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
from ase.build import molecule
from ase.io import write

from narupa_gateway import frame_feed
from narupa_shared import frame_keys as keys
from narupa_shared.testing.leaks import GRACE_S, Leaks
from narupa_shared.testing.waiting import until
from tests.compat.grpc_peer import GrpcPeer, Protocol
from tests.integration.gateway_scene import Scene

GOING_AWAY = 1001
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
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    return Protocol("nanover", tmp_path_factory.mktemp("compiled"))


@pytest.fixture
async def scene(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Scene]:
    path = tmp_path / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    scene = Scene(free_port, tmp_path, f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01")
    await scene.start("lobby", "imd", "gateway")
    try:
        yield scene
    finally:
        await scene.stop()


def peer_of(scene: Scene, protocol: Protocol) -> GrpcPeer:
    return GrpcPeer(protocol, *(scene.address("gateway"),) * 2)


async def test_when_imd_restarts_clients_stay_and_what_was_owned_is_gone(scene: Scene, protocol: Protocol) -> None:
    async with (
        scene.headset() as headset,
        scene.headset() as other,
        peer_of(scene, protocol) as peer,
        peer.states() as states,
    ):
        await headset.write({"interaction.vr": PULL, "avatar.vr": {"name": "x"}, "lasting": 1})
        await headset.say(command={"register": {"name": "vr/x"}})
        await states.first(lambda state: "lasting" in state)
        await until(lambda: "vr/x" in scene.apps["imd"].commands.provided)
        await scene.stop("imd")
        await headset.write({"meanwhile": 1})
        answer = await other.run("vr/x")
        assert answer["exception"]
        await scene.start("imd")
        await until(lambda: not {"interaction.vr", "avatar.vr", "lasting"} & other.state.keys())
        await states.first(lambda state: not {"interaction.vr", "lasting"} & state.keys())
        await until(lambda: "vr/x" in scene.apps["imd"].commands.provided)
        async with asyncio.timeout(30):
            while "avatar.vr" not in other.state:
                await headset.write({"avatar.vr": {"name": "x"}})
                await asyncio.sleep(0.05)
        await states.first(lambda state: "avatar.vr" in state)
        assert headset.ended is None and other.ended is None


async def test_when_the_simulation_restarts_viewers_go_on_with_the_next_one(
    scene: Scene, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_feed, "TELL_AFTER_S", 0.1)
    monkeypatch.setattr(frame_feed, "_LOOK_EVERY_S", 0.1)
    await scene.start("trajectory")
    async with scene.headset() as headset, peer_of(scene, protocol) as peer, peer.frames() as frames:
        await until(lambda: headset.frame.get("frame.index", 0) > 2)
        await frames.first(lambda frame: frame.index > 2)
        run = headset.frame[keys.RUN]
        await scene.stop("trajectory")
        await until(lambda: "cannot be reached" in headset.frame.get(keys.EXCEPTION, ""))
        assert keys.POSITIONS in headset.frame
        await frames.first(lambda frame: "cannot be reached" in str(frame.values.get(keys.EXCEPTION, "")))
        async with scene.headset() as late:
            await until(lambda: late.frame)
            assert keys.POSITIONS in late.frame and "cannot be reached" in late.frame[keys.EXCEPTION]
        await scene.start("trajectory")
        await until(lambda: headset.frame[keys.RUN] != run)
        assert 0 in headset.indices[1:] and not headset.frame.get(keys.EXCEPTION) and keys.ELEMENTS in headset.frame
        await frames.first(lambda frame: frame.values[keys.RUN] != run)
        assert headset.ended is None


async def test_when_the_lobby_goes_streams_go_on_and_when_it_comes_back_all_is_as_before(scene: Scene) -> None:
    await scene.start("trajectory")
    async with scene.headset() as headset, scene.headset() as other:
        await until(lambda: headset.frames and other.frames)
        await scene.stop("lobby")
        count = len(other.frames)
        await headset.write({"avatar.vr": {"name": "x"}})
        await until(lambda: "avatar.vr" in other.state and len(other.frames) > count + 3)
        await scene.start("lobby")
        await until(lambda: set(scene.users) == {"NanoVer guest 1", "NanoVer guest 2"})
        async with scene.headset() as late:
            await until(lambda: late.frames and "avatar.vr" in late.state)
        assert headset.ended is None and other.ended is None


async def test_a_gateway_that_stops_tells_everybody_and_leaves_nothing(scene: Scene, protocol: Protocol) -> None:
    await scene.start("trajectory")
    async with (
        scene.headset() as headset,
        peer_of(scene, protocol) as peer,
        peer.frames(every=True) as frames,
        peer.states() as states,
    ):
        await headset.write({"avatar.vr": {"name": "x"}, "lasting": 1})
        await until(lambda: headset.frames)
        await frames.next()
        await states.first(lambda state: "lasting" in state)
        stopping = asyncio.create_task(scene.stop("gateway"))
        code, reason = await headset.until_ended()
        assert code == GOING_AWAY and "stopping" in reason
        for stream in (frames, states):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stream.first(lambda _: False)  # type: ignore[attr-defined]
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE and "stopping" in str(refusal.value.details())
        await stopping
    await until(lambda: scene.users == {})
    async with scene.native() as ada:
        state = await ada.state.get()
        assert "lasting" in state and "avatar.vr" not in state
    await scene.start("gateway")
    async with scene.headset() as headset:
        await until(lambda: headset.frames and "lasting" in headset.state)


async def test_a_gateway_stops_although_some_do_not_read_and_others_never_say_what_they_want(scene: Scene) -> None:
    async with scene.headset(reading=False, ping_interval=None) as stalled:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.ports["websocket"])
        _, half = await asyncio.open_connection("127.0.0.1", scene.ports["websocket"])
        half.write(b"GET / HTTP/1.1\r\nUpgrade: webso")
        async with asyncio.timeout(20):
            await scene.stop("gateway")
        for each in (writer, half):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()
        await stalled.vanish()
