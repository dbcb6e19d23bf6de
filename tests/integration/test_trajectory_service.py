"""The trajectory service on a real socket with a real engine process, called by native and by existing clients."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from narupa_shared import frame_keys as keys
from narupa_shared.auth import Identity, TokenSigner
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame, decode_compat_response, decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from narupa_shared.structs import from_struct, to_struct
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

FAMILIES = ("narupa", "nanover")


@pytest.fixture(scope="module")
def molecule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine atoms that a calculator without any parameters can run."""
    path = tmp_path_factory.mktemp("inputs") / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    return path


@pytest.fixture(scope="module")
def recording_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames; the first atom's x is the frame's number, in A."""
    path = tmp_path_factory.mktemp("inputs") / "water.traj"
    frames = []
    for index in range(12):
        atoms = molecule("H2O")
        atoms.positions[0, 0] = index
        frames.append(atoms)
    write(path, frames)
    return path


@pytest.fixture
async def start(molecule_file: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts services with these settings; they stop after the test."""
    stack: list[Any] = []

    async def starting(**settings: Any) -> tuple[TrajectoryApp, Bound]:
        settings = {
            "sources": (f"{molecule_file}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01",),
            "lobby": "127.0.0.1:1",
            "drain_grace_s": 0.2,
            **settings,
        }
        config = TrajectoryConfig(port=0, **settings)
        app = TrajectoryApp(config)
        context = serving("trajectory", config, app)
        bound = await context.__aenter__()
        stack.append(context)
        return app, bound

    yield starting
    for context in reversed(stack):
        await context.__aexit__(None, None, None)


def native_frames(channel: grpc.aio.Channel, **request: Any) -> Any:
    method = channel.unary_stream(
        "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames",
        request_serializer=pb.SubscribeFramesRequest.SerializeToString,
        response_deserializer=decode_frame_response_v1,
    )
    return method(pb.SubscribeFramesRequest(**request))


def compat_call(channel: grpc.aio.Channel, family: str, method: str, kind: str = "unary_stream", **request: Any) -> Any:
    """A call as an existing client makes it, with its own messages; only decoding is ours."""
    if family == "narupa":
        from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as messages
    else:
        from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as messages  # type: ignore[no-redef]
    call = getattr(channel, kind)(
        f"/{family}.protocol.trajectory.TrajectoryService/{method}",
        request_serializer=messages.GetFrameRequest.SerializeToString,
        response_deserializer=decode_compat_response,
    )
    return call(messages.GetFrameRequest(**request))


async def take(call: Any, count: int, within_s: float = 20) -> list[Frame]:
    async with asyncio.timeout(within_s):
        return [await call.read() for _ in range(count)]


async def status_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(10):
            if isinstance(call, grpc.aio.UnaryStreamCall):
                while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    pass
            else:
                await call
    return caught.value


async def test_native_and_existing_clients_see_the_same_frames(start: Callable[..., Any]) -> None:
    _, bound = await start()
    async with grpc.aio.insecure_channel(bound.address) as channel:
        native = native_frames(channel)
        others = {family: compat_call(channel, family, "SubscribeLatestFrames") for family in FAMILIES}
        merged = Frame()
        seen: dict[int, Frame] = {}
        for frame in await take(native, 15):
            merged = merged.merged(frame)
            seen[frame.index] = merged
        first, *later = await take(others["narupa"], 15)
        assert first.arrays.keys() >= {keys.ELEMENTS, keys.NAMES, keys.BOND_PAIRS, keys.POSITIONS, keys.USER_INDEX}
        assert first.values[keys.PARTICLE_COUNT] == 9
        assert first.arrays[keys.ELEMENTS].tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]  # type: ignore[union-attr]
        assert all(keys.ELEMENTS not in frame.arrays for frame in later)
        common = [frame for frame in later if frame.index in seen]
        assert common
        for frame in common:
            np.testing.assert_array_equal(frame.arrays[keys.POSITIONS], seen[frame.index].arrays[keys.POSITIONS])
            assert frame.values[keys.POTENTIAL] == seen[frame.index].values[keys.POTENTIAL]
            assert {keys.KINETIC, keys.TEMPERATURE, keys.TIME, keys.TIMESTAMP, keys.USER_ENERGY} <= frame.values.keys()
        (nanover_first,) = await take(others["nanover"], 1)
        np.testing.assert_array_equal(nanover_first.arrays[keys.ELEMENTS], first.arrays[keys.ELEMENTS])
        times = [frame.values[keys.TIME] for frame in later]
        assert times == sorted(times)
        for call in (native, *others.values()):
            call.cancel()


@pytest.mark.parametrize("family", FAMILIES)
async def test_existing_clients_run_commands(start: Callable[..., Any], family: str) -> None:
    from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as commands

    _, bound = await start(paused=True)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        listing = channel.unary_unary(
            f"/{family}.protocol.command.Command/GetCommands",
            request_serializer=commands.GetCommandsRequest.SerializeToString,
            response_deserializer=commands.GetCommandsReply.FromString,
        )
        names = {command.name for command in (await listing(commands.GetCommandsRequest())).commands}
        expected = {
            f"playback/{verb}" for verb in ("play", "pause", "step", "reset", "next", "list", "load", "get-state")
        }
        expected |= {f"trajectory/{verb}-{what}-interval" for verb in ("get", "set") for what in ("dynamics", "frame")}
        assert names >= expected | {"imd/get-force-interval", "imd/set-force-interval"}
        run = channel.unary_unary(
            f"/{family}.protocol.command.Command/RunCommand",
            request_serializer=commands.CommandMessage.SerializeToString,
            response_deserializer=commands.CommandReply.FromString,
        )

        async def result(name: str, **arguments: Any) -> dict[str, Any]:
            reply = await run(commands.CommandMessage(name=name, arguments=to_struct(arguments)))
            return from_struct(reply.result)

        await result("trajectory/set-frame-interval", interval=3)
        assert await result("trajectory/get-frame-interval") == {"interval": 3.0}
        await result("trajectory/set-dynamics-interval", interval=0.01)
        assert (await result("trajectory/get-dynamics-interval"))["interval"] == pytest.approx(0.01)
        assert await result("playback/list") == {"simulations": ["ethanol"]}
        call = compat_call(channel, family, "SubscribeLatestFrames")
        (start_frame,) = await take(call, 1)
        assert await result("playback/get-state") == {"playing": False}
        await result("playback/step")
        (stepped,) = await take(call, 1)
        assert stepped.values[keys.STEP] == float(start_frame.values[keys.STEP]) + 3
        await result("playback/reset")
        (again,) = await take(call, 1)
        assert again.index == 0
        assert again.values[keys.STEP] == 0
        assert again.values[keys.COUNTER] == float(start_frame.values[keys.COUNTER]) + 1
        assert keys.ELEMENTS in again.arrays
        wrong = {
            "playback/nope": {},
            "playback/load": {"index": 5},
            "playback/pause": {"now": True},
            "trajectory/set-frame-interval": {"interval": 0},
            "trajectory/set-dynamics-interval": {"interval": float("nan")},
        }
        for name, arguments in wrong.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await result(name, **arguments)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (next(iter(arguments), name)) in str(caught.value.details())
        call.cancel()


async def test_recording_any_frame_and_the_commands_of_a_player(
    start: Callable[..., Any], recording_file: Path
) -> None:
    _, bound = await start(sources=(str(recording_file),), frame_interval_s=0.005)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        get = channel.unary_unary(
            "/narupa.trajectory.v1.TrajectoryService/GetFrame",
            request_serializer=pb.GetFrameRequest.SerializeToString,
            response_deserializer=decode_frame_response_v1,
        )
        frame = await get(pb.GetFrameRequest(index=7))
        assert frame.index == 7
        assert frame.arrays[keys.POSITIONS][0, 0] == pytest.approx(0.7)
        assert frame.values[keys.PARTICLE_COUNT] == 3
        error = await status_of(get(pb.GetFrameRequest(index=12)))
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "12" in str(error.details()) and "0 to 11" in str(error.details())
        many = channel.unary_stream(
            "/narupa.trajectory.v1.TrajectoryService/GetFrames",
            request_serializer=pb.GetFramesRequest.SerializeToString,
            response_deserializer=decode_frame_response_v1,
        )(pb.GetFramesRequest(start=1, stride=4))
        assert [frame.index async for frame in many] == [1, 5, 9]
        compat = compat_call(channel, "narupa", "GetFrame", "unary_unary", data=to_struct({"index": 3}))
        assert (await compat).index == 3
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.live, status.frame_count) == (False, 12)
        call = compat_call(channel, "narupa", "SubscribeFrames")
        steps = [frame.values[keys.STEP] for frame in await take(call, 30)]
        assert set(steps) == set(range(12))
        await stub.RunCommand(pb.RunCommandRequest(name="playback/pause"))
        await stub.RunCommand(pb.RunCommandRequest(name="playback/seek", arguments=to_struct({"index": 4})))
        async with asyncio.timeout(5):
            while (await call.read()).values[keys.STEP] != 4:
                pass
        call.cancel()


async def test_a_recording_nobody_watches_goes_on_from_a_subscribers_place(
    start: Callable[..., Any], recording_file: Path
) -> None:
    app, bound = await start(sources=(str(recording_file),), frame_interval_s=0.01)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        run_id = (await stubs.TrajectoryServiceStub(channel).GetStatus(pb.GetStatusRequest())).run_id  # type: ignore[no-untyped-call]

        def subscribe(**place: Any) -> Any:
            given = pb.Place(**{"run_id": run_id, **place})
            return native_frames(channel, mode=pb.FRAME_MODE_ALL, place=given)

        for wrong in ({"frame": 12}, {"frame": 3, "dynamics_interval_s": -1.0}):
            with pytest.raises(grpc.aio.AioRpcError, match=next(reversed(wrong))) as refused:
                await subscribe(**wrong).read()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert app.playback.playing
        steps = {}
        for frame, paused in ((11, False), (6, True)):
            frames = subscribe(frame=frame, paused=paused, dynamics_interval_s=0.02)
            steps[frame] = [(await frames.read()).values[keys.STEP]]
            if not paused:
                steps[frame] += [(await frames.read()).values[keys.STEP] for _ in range(3)]
            else:
                watching = native_frames(channel)
                await watching.read()
                other = subscribe(frame=2)  # somebody watches: it stays where it is
                assert (await other.read()).values[keys.STEP] == 6
                other.cancel()
                watching.cancel()
            frames.cancel()
            async with asyncio.timeout(5):
                while app.playback.watched:
                    await asyncio.sleep(0.01)
        assert steps == {11: [0, 1, 2, 3], 6: [6]}
        assert not app.playback.playing
        assert app.playback.frame_interval_s == 0.02
        elsewhere = subscribe(run_id="another", frame=2)
        whole = await elsewhere.read()
        assert (whole.values[keys.STEP], whole.values[keys.RUN]) == (6, run_id)
        elsewhere.cancel()


async def test_live_source_keeps_recent_frames(start: Callable[..., Any]) -> None:
    _, bound = await start(recent_frames=5)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        call = native_frames(channel)
        frames = await take(call, 12)
        newest = frames[-1]
        get = channel.unary_unary(
            "/narupa.trajectory.v1.TrajectoryService/GetFrame",
            request_serializer=pb.GetFrameRequest.SerializeToString,
            response_deserializer=decode_frame_response_v1,
        )
        kept = await get(pb.GetFrameRequest(index=newest.index))
        np.testing.assert_array_equal(kept.arrays[keys.POSITIONS], newest.arrays[keys.POSITIONS])
        error = await status_of(get(pb.GetFrameRequest(index=frames[0].index)))
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        assert (await get(pb.GetFrameRequest())).index >= newest.index
        call.cancel()


async def test_killed_engine_leaves_streams_open_says_why_and_resumes(start: Callable[..., Any]) -> None:
    app, bound = await start(checkpoint_interval_s=0.1)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        native, compat = native_frames(channel), compat_call(channel, "nanover", "SubscribeLatestFrames")
        before = (await take(native, 40))[-1]
        killed_at = time.monotonic()
        os.kill(app.playback.engine.pid or 0, signal.SIGKILL)
        told, resumed = "", None
        async with asyncio.timeout(10):
            while resumed is None:
                frame = await native.read()
                reason = frame.values.get(keys.EXCEPTION)
                if reason:
                    told = str(reason)
                elif told:
                    resumed = frame
        assert time.monotonic() - killed_at < 3.0 + 2.0 * (os.getloadavg()[0] > 2)
        assert "SIGKILL" in told
        assert "checkpoint" in told
        assert resumed.values[keys.EXCEPTION] == ""
        assert 0 < resumed.values[keys.TIME] < before.values[keys.TIME] + 1
        assert resumed.index > before.index
        assert app.playback.engine.restarts == 1
        async with asyncio.timeout(5):
            while not (await compat.read()).values.get(keys.EXCEPTION):
                pass
        native.cancel()
        compat.cancel()


async def test_engine_that_keeps_dying_stays_down_until_reset(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from narupa_trajectory.engine import supervisor

    monkeypatch.setattr(supervisor, "BACK_OFF_S", (0.0,))
    app, bound = await start()
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(30):
            while not app.playback.failed:
                if app.playback.engine.pid:
                    os.kill(app.playback.engine.pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.state == pb.ENGINE_STATE_FAILED
        assert "SIGKILL" in status.exception
        error = await status_of(stub.RunCommand(pb.RunCommandRequest(name="playback/pause")))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await stub.RunCommand(pb.RunCommandRequest(name="playback/reset"))
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.state, status.exception) == (pb.ENGINE_STATE_RUNNING, "")


async def test_source_that_cannot_be_loaded_leaves_the_running_one_alone(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<OpenMMSimulation><pdb>nothing</pdb></OpenMMSimulation>")
    _, bound = await start(sources=("demo:nanotube", str(broken)))
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        call = native_frames(channel)
        await take(call, 3)
        error = await status_of(
            stub.RunCommand(pb.RunCommandRequest(name="playback/load", arguments=to_struct({"index": 1})))
        )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "broken.xml" in str(error.details())
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.source_index, status.state) == (0, pb.ENGINE_STATE_RUNNING)
        frames = await take(call, 5)
        assert all(frame.index > 0 for frame in frames)
        call.cancel()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("nowhere.xml", "nowhere.xml"),
        ("{molecule}?calculator=nope", "nope"),
        ("{molecule}?calculator=emt&colour=red", "colour"),
        ("demo:castle", "castle"),
    ],
)
def test_wrong_source_stops_the_service_before_it_starts(source: str, named: str, molecule_file: Path) -> None:
    config = TrajectoryConfig(port=0, sources=(source.format(molecule=molecule_file),))
    with pytest.raises(InvalidArgumentError, match=named):
        TrajectoryApp(config)


async def test_every_subscriber_shares_one_encoding(start: Callable[..., Any]) -> None:
    app, bound = await start()
    async with grpc.aio.insecure_channel(bound.address) as channel:
        calls = [native_frames(channel) for _ in range(20)]
        await asyncio.gather(*(take(call, 10) for call in calls))
        broadcaster = app.playback.broadcaster
        assert broadcaster.encoded <= app.playback.frames_made
        assert broadcaster.sent >= 200
        for call in calls:
            call.cancel()


async def test_engine_makes_no_frame_for_nobody(start: Callable[..., Any]) -> None:
    app, bound = await start(frame_interval_s=0.001)
    async with grpc.aio.insecure_channel(bound.address) as channel, asyncio.timeout(20):
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        while not (await stub.GetStatus(pb.GetStatusRequest())).steps_per_second:
            pass
        assert app.playback.frames_made <= 1
        call = native_frames(channel, frame_interval_s=0.1)
        (first,) = await take(call, 1)
        assert first.values[keys.STEP] > 0  # not the frame that was shown before anybody came
        call.cancel()


@pytest.mark.parametrize("interval", [-1.0, float("nan"), float("inf")])
async def test_wrong_intervals_are_refused(start: Callable[..., Any], interval: float) -> None:
    _, bound = await start()
    async with grpc.aio.insecure_channel(bound.address) as channel:
        error = await status_of(native_frames(channel, frame_interval_s=interval))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "frame_interval_s" in str(error.details())
        error = await status_of(compat_call(channel, "narupa", "SubscribeLatestFrames", frame_interval=interval))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_garbage_and_oversized_messages_disturb_nobody(
    start: Callable[..., Any], garbage: tuple[bytes, ...]
) -> None:
    _, bound = await start(max_message_bytes=64 * 1024)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        call = native_frames(channel)
        await take(call, 2)
        for bytes_ in garbage:
            with socket.create_connection((bound.host, bound.port), timeout=5) as stranger:
                stranger.sendall(bytes_)
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        huge = pb.RunCommandRequest(name="x" * 100_000)
        error = await status_of(stub.RunCommand(huge))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await take(call, 10)
        call.cancel()


async def test_tokens_are_checked_even_where_none_is_needed(start: Callable[..., Any]) -> None:
    app, bound = await start()
    signer = TokenSigner.generate()
    app.verifier.trust([signer.public_key])
    now = time.time()

    def identity(**changes: Any) -> Identity:
        fields = {"user_id": "u", "name": "Ada", "session_id": "default", "role": "participant", "expires_at": now + 60}
        return Identity(**{**fields, **changes})

    tokens = {
        "expired": signer.sign(identity(expires_at=now - 3600)),
        "forged": TokenSigner.generate().sign(identity()),
        "of another session": signer.sign(identity(session_id="elsewhere")),
        "garbled": "not.a.token",
    }
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        for why, token in tokens.items():
            error = await status_of(
                stub.GetStatus(pb.GetStatusRequest(), metadata=[("authorization", f"Bearer {token}")])
            )
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, why
        good = [("authorization", f"Bearer {signer.sign(identity())}")]
        assert (await stub.GetStatus(pb.GetStatusRequest(), metadata=good)).particle_count == 9
        assert (await stub.GetStatus(pb.GetStatusRequest())).particle_count == 9


async def test_closed_service_wants_a_token_on_every_call(start: Callable[..., Any]) -> None:
    _, bound = await start(open_access=False)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        calls = [stub.GetStatus(pb.GetStatusRequest()), native_frames(channel)]
        calls += [compat_call(channel, family, "SubscribeLatestFrames") for family in FAMILIES]
        for call in calls:
            assert (await status_of(call)).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_streams_end_with_a_reason_when_the_service_stops(molecule_file: Path) -> None:
    config = TrajectoryConfig(
        port=0,
        sources=(f"{molecule_file}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01",),
        lobby="127.0.0.1:1",
        drain_grace_s=0.5,
    )
    app = TrajectoryApp(config)
    async with serving("trajectory", config, app) as bound:
        channel = grpc.aio.insecure_channel(bound.address)
        call = native_frames(channel)
        await take(call, 2)
        pid = app.playback.engine.pid or 0
        stopped = asyncio.create_task(status_of(call))
    error = await stopped
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "stopping" in str(error.details())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await channel.close()


async def test_flat_out_and_never_faster_than_the_slowest_recorder(start: Callable[..., Any]) -> None:
    """A thousand frames, large enough that gRPC holds few of them back, to somebody who reads them one by one."""
    app, bound = await start(frame_interval_s=0.0, steps_per_frame=1, max_message_bytes=2**24)
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await stub.RunCommand(
                pb.RunCommandRequest(name="trajectory/set-wait-for-recorders", arguments=to_struct({"wait": 1}))
            )
        assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        request = pb.RunCommandRequest(name="trajectory/set-wait-for-recorders", arguments=to_struct({"wait": True}))
        await stub.RunCommand(request)
        call = channel.unary_stream(
            "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames",
            request_serializer=pb.SubscribeFramesRequest.SerializeToString,
            response_deserializer=decode_frame_response_v1,
        )(pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL))
        first = await call.read()
        # What is read late is never lost, however much faster than its reader the engine is.
        stood = -1
        async with asyncio.timeout(60):
            while not (app.playback.recorders.waiting and app.playback.frames_made == stood):
                stood = app.playback.frames_made  # more come for as long as gRPC takes them in
                await asyncio.sleep(0.3)
        assert [(await call.read()).index for _ in range(1000)] == list(range(first.index + 1, first.index + 1001))
        call.cancel()
