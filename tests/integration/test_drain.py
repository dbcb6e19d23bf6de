"""Services in processes of their own that report what they do, and that are asked to leave: they serve until their users
could move, and end with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

import narupa_client
from narupa_client import CurrentFrame
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc

LIMIT_S = 60.0
MOVE_S = 2.0
RUNNING, DRAINING = pb.SERVICE_STATUS_RUNNING, pb.SERVICE_STATUS_DRAINING


class ServiceProcess:
    """A service, and what it logs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.address = ""
        self._reading = asyncio.create_task(self._read(), name="reading-log")

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            with contextlib.suppress(json.JSONDecodeError):
                self.log.append(json.loads(line))

    async def logged(self, event: str) -> dict[str, Any]:
        """The entry of this event, once it is there."""
        async with asyncio.timeout(LIMIT_S):
            while not (found := [entry for entry in self.log if entry["event"] == event]):
                assert not self._reading.done(), f"ended without {event}: {self.log}"
                await asyncio.sleep(0.02)
        return found[0]

    async def ended(self, within_s: float = LIMIT_S) -> int:
        """Its exit status."""
        async with asyncio.timeout(within_s):
            status = await self.process.wait()
            await self._reading
        return status

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a service's process and waits until it is ready; it is gone after the test."""
    started: list[ServiceProcess] = []

    async def starting(module: str, *flags: str) -> ServiceProcess:
        command = [
            sys.executable,
            "-m",
            module,
            "--port",
            "0",
            "--log-format",
            "json",
            "--drain-grace-s",
            "0.5",
            *flags,
        ]
        service = ServiceProcess(await asyncio.create_subprocess_exec(*command, stderr=PIPE))
        started.append(service)
        service.address = str((await service.logged("service_ready"))["address"])
        return service

    yield starting
    for service in reversed(started):
        await service.kill()


@pytest.fixture
async def lobby(start: Start) -> AsyncIterator[tuple[str, Any]]:
    """A lobby's address, and a stub for it."""
    lobby = await start("narupa_lobby", "--store", "memory")
    async with grpc.aio.insecure_channel(lobby.address) as channel:
        yield lobby.address, lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]


async def listed(lobby: Any, kind: str) -> dict[str, pb.Service]:
    reply = await lobby.ListServices(pb.ListServicesRequest(kind=kind))
    return {service.id: service for service in reply.services}


async def until_status(lobby: Any, kind: str, wanted: dict[str, int]) -> None:
    """The services of the kind are these, with these statuses, as the lobby sees it."""
    async with asyncio.timeout(LIMIT_S):
        while {id: each.status for id, each in (await listed(lobby, kind)).items()} != wanted:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def two_imds(start: Start, address: str, lobby: Any) -> AsyncIterator[tuple[ServiceProcess, Any]]:
    """Of two imd services the first one, with a watcher on it."""
    flags = ["--lobby", address, "--store", "memory", "--drain-move-s", str(MOVE_S)]
    first = await start("narupa_imd", *flags, "--service-id", "first")
    await start("narupa_imd", *flags, "--service-id", "second")
    await until_status(lobby, "imd", {"first": RUNNING, "second": RUNNING})
    async with grpc.aio.insecure_channel(first.address) as channel:
        watch = imd_pb2_grpc.StateServiceStub(channel).WatchState(imd_pb2.WatchStateRequest())  # type: ignore[no-untyped-call]
        assert (await watch.read()).whole
        yield first, watch


async def test_a_service_that_is_asked_to_drain_waits_for_its_users(start: Start, lobby: tuple[str, Any]) -> None:
    address, stub = lobby
    async with two_imds(start, address, stub) as (first, watch):
        await stub.DrainService(pb.DrainServiceRequest(service_id="first"))
        await first.logged("service_drains")
        await until_status(stub, "imd", {"first": DRAINING, "second": RUNNING})
        assert not watch.done()
        watch.cancel()  # it has moved
        assert await first.ended(within_s=MOVE_S + 5) == 0
    entry = await first.logged("service_drained")
    assert (entry["moved"], entry["left"]) == (1, 0)
    assert (await first.logged("service_drains"))["asked_by"] == "lobby"
    await until_status(stub, "imd", {"second": RUNNING})


async def test_after_a_time_a_draining_service_ends_all_the_same(start: Start, lobby: tuple[str, Any]) -> None:
    address, stub = lobby
    async with two_imds(start, address, stub) as (first, watch):
        asked_at = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        await until_status(stub, "imd", {"first": DRAINING, "second": RUNNING})
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                assert await watch.read() is not grpc.aio.EOF
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - asked_at >= MOVE_S
        assert await first.ended() == 0
    entry = await first.logged("service_drained")
    assert (entry["moved"], entry["left"]) == (0, 1)


async def test_a_second_signal_ends_it_at_once(start: Start, lobby: tuple[str, Any]) -> None:
    address, stub = lobby
    async with two_imds(start, address, stub) as (first, _):
        asked_at = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        await first.logged("service_drains")
        first.process.send_signal(signal.SIGTERM)
        assert await first.ended() == 0
        assert time.monotonic() - asked_at < MOVE_S + 1
    assert "service_drained" not in {entry["event"] for entry in first.log}


async def test_the_only_service_of_its_kind_ends_at_once(start: Start, lobby: tuple[str, Any], tmp_path: Path) -> None:
    address, stub = lobby
    path = tmp_path / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    source = f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"
    flags = ["--lobby", address, "--sources", source, "--drain-move-s", "60", "--service-id", "only"]
    trajectory = await start("narupa_trajectory", *flags)
    await until_status(stub, "trajectory", {"only": RUNNING})
    async with grpc.aio.insecure_channel(trajectory.address) as channel:
        request = trajectory_pb2.SubscribeFramesRequest()
        frames = trajectory_pb2_grpc.TrajectoryServiceStub(channel).SubscribeFrames(request)  # type: ignore[no-untyped-call]
        await frames.read()
        trajectory.process.send_signal(signal.SIGTERM)
        assert await trajectory.ended(within_s=20) == 0
        frames.cancel()
    assert (await trajectory.logged("service_leaves"))["subscribers"] == 1
    await until_status(stub, "trajectory", {})


async def test_a_trajectory_that_is_loading_says_so(start: Start, lobby: tuple[str, Any], tmp_path: Path) -> None:
    address, stub = lobby
    path = tmp_path / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    watch = stub.WatchSession(pb.WatchSessionRequest())
    assert (await watch.read()).HasField("snapshot")
    seen: list[tuple[int, str, float]] = []

    async def look() -> None:
        while True:
            event = await watch.read()
            if event is not grpc.aio.EOF and event.HasField("service_changed"):
                service = event.service_changed
                seen.append((service.status, service.reason, service.progress))

    looking = asyncio.create_task(look())
    try:
        flags = [
            "--lobby",
            address,
            "--sources",
            f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01",
            "--service-id",
            "loads",
        ]
        await start("narupa_trajectory", *flags)
        await until_status(stub, "trajectory", {"loads": RUNNING})
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        watch.cancel()
    starting = [(reason, progress) for status, reason, progress in seen if status == pb.SERVICE_STATUS_STARTING]
    assert any("loading" in reason and 0 < progress < 1 for reason, progress in starting), seen
    assert seen[-1][:2] == (RUNNING, "")


async def test_a_trajectory_that_pauses_itself_says_so(start: Start, lobby: tuple[str, Any], tmp_path: Path) -> None:
    address, stub = lobby
    path = tmp_path / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    flags = [
        "--lobby",
        address,
        "--sources",
        f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01",
        "--pause-when-idle-s",
        "0.3",
    ]
    trajectory = await start("narupa_trajectory", *flags, "--service-id", "idle")

    async def until_paused(wanted: bool) -> None:
        async with asyncio.timeout(LIMIT_S):
            while ("paused" in (await listed(stub, "trajectory"))["idle"].metadata) is not wanted:
                await asyncio.sleep(0.02)

    await until_status(stub, "trajectory", {"idle": RUNNING})
    await until_paused(True)
    async with grpc.aio.insecure_channel(trajectory.address) as channel:
        request = trajectory_pb2.SubscribeFramesRequest()
        frames = trajectory_pb2_grpc.TrajectoryServiceStub(channel).SubscribeFrames(request)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(LIMIT_S):
            for _ in range(20):  # it goes on
                assert await frames.read() is not grpc.aio.EOF
        await until_paused(False)
        frames.cancel()
    await until_paused(True)
    events = [entry["event"] for entry in trajectory.log if entry["event"].startswith("simulation_")]
    assert events == ["simulation_paused", "simulation_resumed", "simulation_paused"]


RECORDED = 50


@pytest.fixture
async def recordings(start: Start, lobby: tuple[str, Any], tmp_path: Path) -> dict[str, ServiceProcess]:
    """Two services, each with its own copy of one recording, in which frame i has its first atom at x = i nm."""
    address, stub = lobby
    services = {}
    for name in ("first", "second"):
        path = tmp_path / name / "run.extxyz"
        path.parent.mkdir()
        write(path, [Atoms("CO", [(10.0 * index, 0, 0), (0, 0, 1.1)]) for index in range(RECORDED)])
        flags = ["--lobby", address, "--sources", str(path), "--service-id", name, "--drain-move-s", "5"]
        services[name] = await start("narupa_trajectory", *flags, "--frame-interval-s", "0.02")
        await until_status(stub, "trajectory", dict.fromkeys(services, RUNNING))
    return services


def place_of(frame: CurrentFrame) -> int:
    """Where the recording is, by what it shows."""
    assert frame.step == round(float(frame.positions[0, 0]))
    assert frame.elements is not None and list(frame.elements) == [6, 8]
    return frame.step


async def used(session: narupa_client.Session, lobby: Any, first: str) -> None:
    """`session` takes its frames from `first`."""
    async with asyncio.timeout(LIMIT_S):
        while not (found := [one for one in session.services if one.id == first and one.status == "running"]):
            await asyncio.sleep(0.02)
    session.use(found[0])


async def test_viewers_of_a_recording_go_on_at_its_next_frame(
    lobby: tuple[str, Any], recordings: dict[str, ServiceProcess]
) -> None:
    address, stub = lobby
    first, second = recordings["first"], recordings["second"]

    async def view(number: int) -> tuple[list[int], list[int]]:
        async with narupa_client.join(address, name=f"viewer {number}") as session:
            await used(session, stub, "first")
            places, indices, after = list[int](), list[int](), 0
            async with session.frames(mode="all") as frames:
                async for frame in frames:
                    places.append(place_of(frame))
                    indices.append(frame.index)
                    if len(places) == 30 + 3 * number:
                        ready.release()
                    after += first.process.returncode is not None
                    if after == 30:
                        return places, indices
            raise AssertionError("the frames ended")

    ready = asyncio.Semaphore(0)
    async with asyncio.timeout(LIMIT_S):
        viewing = [asyncio.create_task(view(number)) for number in range(3)]
        for _ in viewing:
            await ready.acquire()
        await stub.DrainService(pb.DrainServiceRequest(service_id="first"))
        for places, indices in await asyncio.gather(*viewing):
            assert {(after - before) % RECORDED for before, after in itertools.pairwise(places)} == {1}, places
            assert {after - before for before, after in itertools.pairwise(indices)} == {1}
    assert await first.ended() == 0
    assert (await first.logged("service_drained"))["moved"] == 3
    assert len([entry for entry in second.log if entry["event"] == "recording_taken_over"]) == 1


async def test_the_latest_frames_of_a_recording_go_on_without_a_gap(
    lobby: tuple[str, Any], recordings: dict[str, ServiceProcess]
) -> None:
    address, stub = lobby
    async with narupa_client.join(address) as session, asyncio.timeout(LIMIT_S):
        await used(session, stub, "first")
        places, pauses = list[int](), list[float]()
        async with session.frames(1 / 30) as frames:
            before = time.monotonic()
            async for frame in frames:
                now = time.monotonic()
                places.append(place_of(frame))
                pauses.append(now - before)
                before = now
                if len(places) == 20:
                    await stub.DrainService(pb.DrainServiceRequest(service_id="first"))
                if len(places) > 120 and recordings["first"].process.returncode is not None:
                    break
        steps = [(after - before) % RECORDED for before, after in itertools.pairwise(places)]
        assert max(steps) < RECORDED / 2, steps  # never back, and never far ahead
        assert max(pauses[20:]) < 1.0, pauses
    assert await recordings["first"].ended() == 0


async def test_how_a_recording_is_played_moves_with_it(
    lobby: tuple[str, Any], recordings: dict[str, ServiceProcess]
) -> None:
    address, stub = lobby
    async with narupa_client.join(address) as session, asyncio.timeout(LIMIT_S):
        await used(session, stub, "first")
        async with session.frames(mode="all") as frames:
            await anext(frames)
            await session.run_command("playback/pause")
            await session.run_command("playback/seek", {"index": 17})
            await session.run_command("trajectory/set-dynamics-interval", {"interval": 0.05})
            while place_of(await anext(frames)) != 17:
                pass
            await stub.DrainService(pb.DrainServiceRequest(service_id="first"))
            assert await recordings["first"].ended() == 0
            taken = await recordings["second"].logged("recording_taken_over")
            assert (taken["frame"], taken["paused"]) == (17, True)
            assert await session.run_command("trajectory/get-dynamics-interval") == {"interval": 0.05}
            await session.run_command("playback/play")
            while (place := place_of(await anext(frames))) == 17:  # shown again for as long as it stands there
                pass
            assert [place, *[place_of(await anext(frames)) for _ in range(2)]] == [18, 19, 20]


async def test_viewers_of_a_simulation_are_told_that_it_is_another_run(
    start: Start, lobby: tuple[str, Any], tmp_path: Path
) -> None:
    address, stub = lobby
    services = {}
    for name, formula in (("first", "CH3CH2OH"), ("second", "H2O")):
        write(tmp_path / f"{name}.xyz", molecule(formula))
        source = f"{tmp_path / name}.xyz?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"
        flags = ["--lobby", address, "--sources", source, "--service-id", name, "--frame-interval-s", "0.02"]
        services[name] = await start("narupa_trajectory", *flags)
        await until_status(stub, "trajectory", dict.fromkeys(services, RUNNING))
    async with narupa_client.join(address) as session, asyncio.timeout(LIMIT_S):
        await used(session, stub, "first")
        async with session.frames(mode="all") as frames:
            before = await anext(frames)
            for _ in range(20):
                before = await anext(frames)
            await stub.DrainService(pb.DrainServiceRequest(service_id="first"))
            while (frame := await anext(frames)).run_id == before.run_id:
                assert (frame.index, frame.particle_count) == (before.index + 1, 9)
                before = frame
            assert (frame.index, frame.particle_count, len(frame.positions)) == (0, 3, 3)
            assert frame.elements is not None and sorted(frame.elements) == [1, 1, 8]
            assert np.all(np.isfinite(frame.positions))
            indices = [(await anext(frames)) for _ in range(10)]
            assert {one.run_id for one in indices} == {frame.run_id}
            assert {one.particle_count for one in indices} == {3}
            run_id = frame.run_id
            await session.run_command("playback/reset")
            while (frame := await anext(frames)).run_id == run_id:
                pass
            assert frame.index == 0
    assert await services["first"].ended() == 0
