"""Replicas that pause when nobody watches: the leader's simulation stands unless somebody looks at any of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from ase.build import molecule
from ase.io import write

from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.daemon import serving
from narupa_shared.frames import decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.testing.waiting import until
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

LIMIT_S: Final = 60.0
_PATH: Final = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"


@contextlib.asynccontextmanager
async def viewer(port: int, mode: Any) -> AsyncIterator[list[int]]:
    """The indices of the frames that a viewer has while this is open."""
    seen: list[int] = []

    async def read() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_stream(_PATH, pb.SubscribeFramesRequest.SerializeToString, None)
            async for response in call(pb.SubscribeFramesRequest(mode=mode)):
                seen.append(decode_frame_response_v1(response).index)

    task = asyncio.create_task(read())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_stands_until_somebody_watches_anywhere(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narupa_trajectory.relay.LINGER_S", 0.2)
    source = tmp_path / "ethanol.xyz"
    write(source, molecule("CH3CH2OH"))
    lobby = LobbyConfig(port=free_port(), store="memory", state_dir=tmp_path)
    common: dict[str, Any] = {
        "lobby": f"127.0.0.1:{lobby.port}",
        "sources": (f"{source}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01",),
        "port": 0,
        "group": "g",
        "pause_when_idle_s": 0.3,
        "warm_standby": False,
        "drain_grace_s": 0.2,
        "drain_move_s": 0.2,
    }
    apps, ports = [], []
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving("lobby", lobby, LobbyApp(lobby)))
        for name, relay_from in (("a", "leader"), ("b", "leader"), ("c", "relays")):
            config = TrajectoryConfig(**common, service_id=name, relay_from=relay_from)
            app = TrajectoryApp(config)
            bound = await stack.enter_async_context(serving("trajectory", config, app))
            apps.append(app)
            ports.append(bound.port)
        leader, near, far = (app.playback for app in apps)
        assert apps[0].replica is not None
        assert apps[0].replica.leads
        await until(lambda: len(near.broadcaster.subscriptions) == len(leader.broadcaster.subscriptions) == 1)
        await until(lambda: leader.idle)
        assert not leader.broadcaster.every_frame_wanted
        for port, watching in ((ports[2], (far, near, leader)), (ports[1], (near, leader))):
            for mode in (pb.FRAME_MODE_ALL, pb.FRAME_MODE_LATEST):
                async with viewer(port, mode) as seen:
                    await until(lambda: len(seen) > 20)
                    assert not leader.idle
                    assert all(each.watched for each in watching)
                    assert leader.broadcaster.every_frame_wanted
                    if mode == pb.FRAME_MODE_ALL:
                        assert seen == list(range(seen[0], seen[0] + len(seen)))
                await until(lambda: leader.idle)
                assert not any(each.watched for each in (leader, near, far))
                assert leader.playing
                count = leader.frames_made
        async with viewer(ports[0], pb.FRAME_MODE_ALL) as seen:
            await until(lambda: len(seen) > 5)
            assert not near.watched
        assert leader.frames_made > count
