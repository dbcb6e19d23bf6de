"""Frames that clients publish, at a service with a real engine: everybody sees the same, and the simulation returns."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

import narupa_client
from narupa_client.blocking import LoopThread
from narupa_shared import frame_keys as keys
from narupa_shared.auth import Identity, TokenSigner
from narupa_shared.daemon import serving
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError
from narupa_shared.frames import Frame, decode_compat_response, decode_frame_response_v1
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as compat_pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

LIMIT_S = 20.0
NATIVE = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"
COMPAT = "/narupa.protocol.trajectory.TrajectoryService/SubscribeLatestFrames"


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("inputs") / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    return f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"


@asynccontextmanager
async def running(source: str, **settings: Any) -> AsyncIterator[tuple[TrajectoryApp, str]]:
    """A trajectory service, and its address."""
    config = TrajectoryConfig(port=0, sources=(source,), lobby="127.0.0.1:1", drain_grace_s=0.2, **settings)
    app = TrajectoryApp(config)
    async with serving("trajectory", config, app) as bound:
        yield app, bound.address


class Watcher:
    """Merges the frames of one stream."""

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        native = path == NATIVE
        request: Any = pb.SubscribeFramesRequest() if native else compat_pb.GetFrameRequest()
        self.call: Any = channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=decode_frame_response_v1 if native else decode_compat_response,
        )(request)
        self.seen = Frame()
        self.restarts = 0

    async def until(self, condition: Any) -> Frame:
        async with asyncio.timeout(LIMIT_S):
            while not condition(self.seen):
                newer = await self.call.read()
                self.restarts += newer.index == 0
                self.seen = self.seen.merged(newer)
                self.seen.index = newer.index
        return self.seen


async def test_native_and_existing_clients_see_what_a_host_publishes_and_then_the_simulation(ethanol: str) -> None:
    places = np.arange(15, dtype=np.float32).reshape(5, 3)
    async with (
        running(ethanol) as (app, address),
        grpc.aio.insecure_channel(address) as channel,
        narupa_client.open(trajectory=address) as session,
    ):
        watchers = [Watcher(channel, path) for path in (NATIVE, COMPAT)]
        for watcher in watchers:
            await watcher.until(lambda seen: seen.values.get(keys.STEP, 0) > 0)
        run_id = app.playback.run_id
        colors = np.full((9, 4), 99, np.uint32)
        await session.publish_frame(arrays={keys.COLORS: colors})
        for watcher in watchers:
            seen = await watcher.until(lambda seen: keys.COLORS in seen.arrays)
            np.testing.assert_array_equal(seen.arrays[keys.COLORS], colors)
            assert watcher.restarts <= 1  # the first frame of all
        with pytest.raises(FailedPreconditionError, match="playback/pause"):
            await session.publish_frame(arrays={keys.POSITIONS: places})

        restarts = [watcher.restarts for watcher in watchers]
        mine: dict[str, Any] = {keys.POSITIONS: places, keys.NAMES: list("ABCDE")}
        assert await session.publish_frame({"mine": "model"}, mine, index=0) == 0
        watchers.append(Watcher(channel, COMPAT))  # who comes late
        for watcher in watchers:
            seen = await watcher.until(lambda seen: seen.values.get("mine") == "model")
            np.testing.assert_array_equal(seen.arrays[keys.POSITIONS], places)
            assert seen.arrays[keys.NAMES] == list("ABCDE")
            assert keys.COLORS not in seen.arrays and keys.ELEMENTS not in seen.arrays
            assert seen.values[keys.PARTICLE_COUNT] == 5
        assert [watcher.restarts for watcher in watchers[:2]] == [count + 1 for count in restarts]
        status = await session.status()
        assert (status.state.name, status.particle_count) == ("PAUSED", 5)
        assert status.run_id != run_id and status.run_id == seen.values[keys.RUN]
        np.testing.assert_array_equal((await session.get_frame()).positions, places)

        await session.publish_frame(arrays={keys.POSITIONS: places + 1}, index=7)
        with pytest.raises(InvalidArgumentError, match="as many"):
            await session.publish_frame(arrays={keys.POSITIONS: places[:4]})
        for watcher in watchers:
            seen = await watcher.until(lambda seen: seen.arrays[keys.POSITIONS][0, 0] == 1)
            assert seen.arrays[keys.NAMES] == list("ABCDE")

        restarts = [watcher.restarts for watcher in watchers]
        await session.run_command("playback/step")
        for watcher in watchers:
            seen = await watcher.until(lambda seen: keys.ELEMENTS in seen.arrays)
            assert seen.values[keys.RUN] == run_id and "mine" not in seen.values
            assert seen.arrays[keys.POSITIONS].shape == (9, 3)  # type: ignore[union-attr]
        assert [watcher.restarts for watcher in watchers] == [count + 1 for count in restarts]
        assert (await session.status()).particle_count == 9
        await session.publish_frame({"mine": "again"}, index=0)
        await session.run_command("playback/reset")
        for watcher in watchers:
            await watcher.until(lambda seen: seen.values.get(keys.COUNTER) == 1 and seen.values.get(keys.STEP) == 0)
            watcher.call.cancel()


async def test_a_restarted_engine_does_not_end_what_is_shown(ethanol: str) -> None:
    async with running(ethanol) as (app, address), narupa_client.open(trajectory=address) as session:
        await session.get_frame()
        await session.publish_frame(arrays={keys.POSITIONS: np.ones((2, 3))}, index=0)
        first = app.playback.engine.pid
        assert first is not None

        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(LIMIT_S):
            while app.playback.engine.pid in (None, first):
                await asyncio.sleep(0.02)
        async with asyncio.timeout(LIMIT_S):
            while (frame := await session.get_frame()).exception:  # until the engine has shown that it is back
                assert "SIGKILL" in frame.exception
                await asyncio.sleep(0.02)
        assert frame.particle_count == 2
        await session.run_command("playback/play")
        async with asyncio.timeout(LIMIT_S):
            while (await session.get_frame()).particle_count != 9:
                await asyncio.sleep(0.02)


async def test_only_hosts_publish_and_not_too_fast(ethanol: str) -> None:
    signer = TokenSigner.generate()
    settings: dict[str, Any] = {"open_access": False, "published_frames_per_s": 0.001, "published_frames_burst": 2}
    async with running(ethanol, **settings) as (app, address), grpc.aio.insecure_channel(address) as channel:
        app.verifier.trust([signer.public_key])
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]

        async def publish(user: str, role: Any, message: pb.Frame) -> Any:
            token = signer.sign(Identity(user, "Ada", "default", role, time.time() + 60))
            request = pb.PublishFrameRequest(frame=message)
            return await stub.PublishFrame(request, metadata=[("authorization", f"Bearer {token}")])

        async def refused(user: str, role: Any, message: pb.Frame) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await publish(user, role, message)
            return caught.value.code(), str(caught.value.details())

        plain = pb.Frame()
        plain.values["mine"].number_value = 1.0
        for role in ("viewer", "participant", "service"):
            assert (await refused("a", role, plain))[0] is grpc.StatusCode.PERMISSION_DENIED
        assert (await publish("a", "host", plain)).index == 0
        await publish("a", "host", plain)
        code, text = await refused("a", "host", plain)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "frames per second" in text
        empty, untyped, short = pb.Frame(), pb.Frame(), pb.Frame()
        empty.values["mine"].null_value = 0  # type: ignore[assignment]
        untyped.arrays["mine"].data = b"1234"
        short.arrays["mine"].dtype = pb.DTYPE_FLOAT32
        short.arrays["mine"].shape.append(3)
        for number, (wrong, reason) in enumerate(((empty, "a number, a text"), (untyped, "dtype"), (short, "fill"))):
            code, text = await refused(f"b{number}", "host", wrong)
            assert code is grpc.StatusCode.INVALID_ARGUMENT and reason in text and "mine" in text


def test_the_blocking_session_publishes(ethanol: str) -> None:
    thread = LoopThread()
    context = running(ethanol, published_frames_per_s=0.001, published_frames_burst=2)
    _, address = thread.call(context.__aenter__())
    try:
        with narupa_client.connect(trajectory=address) as session:
            assert session.publish_frame({"mine": 1.5}, {keys.POSITIONS: [[0.0, 0, 0]]}, index=0) == 0
            while session.frame is None or session.frame.values.get("mine") != 1.5:
                session.wait_frame(LIMIT_S)
            refused: list[dict[str, Any]] = [
                {"values": {"mine": [1]}},
                {"arrays": {"mine": [-1]}},
                {"arrays": {"mine": [{}]}},
                {"index": -1},
            ]
            for wrong in refused:
                with pytest.raises(InvalidArgumentError):
                    session.publish_frame(**wrong)
            assert session.publish_frame({"mine": 2.5}) > 0
            with pytest.raises(QuotaError):
                session.publish_frame({"mine": 3.5})
    finally:
        thread.call(context.__aexit__(None, None, None))
        thread.close()
