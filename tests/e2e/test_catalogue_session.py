"""Simulations of the catalogue, started by name: watched, killed, taken on by the next lobby, and in a container."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from narupa_shared.sdk.narupa.lobby.v1 import (
    CreateSessionRequest,
    EndSessionRequest,
    GetServiceLogRequest,
    ListServicesRequest,
    ListSimulationsRequest,
    LobbyServiceStub,
    Service,
    ServiceStatus,
    Simulation,
    StartServiceRequest,
    StopServiceRequest,
)
from narupa_shared.sdk.narupa.trajectory.v1 import (
    SubscribeFramesRequest,
    SubscribeFramesResponse,
    TrajectoryServiceStub,
)
from narupa_shared.testing.ports import unused_port
from narupa_shared.testing.redis_server import RedisServer
from tests.e2e.sessions import ROOT, Running, narupa_soon

CATALOGUE: Final = ROOT / "examples" / "catalogue"
LOBBY: Final = str(Path(sys.executable).with_name("narupa-lobby"))
LIMIT_S: Final = 60.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


class Lobby:
    """A lobby with a catalogue, and what it has started."""

    def __init__(self, folder: Path, catalogue: Path = CATALOGUE, flags: Sequence[str] = (), address: str = "") -> None:
        self.folder = folder
        self.address = address or f"127.0.0.1:{unused_port()}"
        self._catalogue = catalogue
        self._flags = flags
        self._starts = 0
        self.start()

    def start(self) -> None:
        """The lobby runs, again."""
        self._starts += 1
        command = (
            LOBBY, "--port", self.address.rpartition(":")[2], "--catalogue", str(self._catalogue),
            "--state-dir", str(self.folder / "state"), *self._flags,
        )  # fmt: skip
        port = self.address.rpartition(":")[2]
        self.running = Running(command, self.folder / f"lobby-{port}-{self._starts}.log")
        self.running.wait_for("service_ready")

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[LobbyServiceStub]:
        host, _, port = self.address.rpartition(":")
        channel = Channel(host, int(port))
        try:
            yield LobbyServiceStub(channel)
        finally:
            channel.close()

    async def started(self, simulation: str) -> Service:
        async with self.stub() as stub:
            service = (await stub.start_service(StartServiceRequest(simulation=simulation))).service
            assert service is not None
            return service

    async def service(self, service_id: str) -> Service | None:
        async with self.stub() as stub:
            listed = (await stub.list_services(ListServicesRequest())).services
            return next((service for service in listed if service.id == service_id), None)

    async def until(self, service_id: str, holds: Callable[[Service], bool]) -> Service:
        """The service, once this holds for it."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(GRPCError, OSError):
                    service = await self.service(service_id)
                    if service is not None and holds(service):
                        return service
                await asyncio.sleep(0.1)

    def end(self) -> None:
        self.running.end()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "--service-id" in process.cmdline() and str(self.folder) in str(process.open_files()):
                    process.kill()


def processes(service_id: str) -> list[psutil.Process]:
    """The processes of a service."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if service_id in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def lobby(tmp_path: Path) -> Iterator[Lobby]:
    lobby = Lobby(tmp_path)
    try:
        yield lobby
    finally:
        lobby.end()


def is_running(service: Service) -> bool:
    return service.status == ServiceStatus.RUNNING


async def test_frames_come_from_a_simulation_by_name_with_one_command(lobby: Lobby) -> None:
    print(
        f"from the command to the third frame: {await watched(lobby, 'peptide'):.1f} s"
    )  # `benchmarks.start` measures it
    (offer,) = [each for each in await offers(lobby) if each.name == "peptide"]
    assert offer.status == ServiceStatus.RUNNING
    lobby.running.kill(signal.SIGTERM)
    assert lobby.running.ended(10) == 0
    assert processes(offer.service_id) == [], "local services stop with their lobby"


async def watched(lobby: Lobby, simulation: str) -> float:
    """Seconds from the command to the third frame."""
    began = time.monotonic()
    command = ("watch", "--start", simulation, "--json", "--frames", "3")
    done = await narupa_soon(*command, lobby=lobby.address, within_s=LIMIT_S)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(frames) == 3 and all(frame["particle_count"] > 0 for frame in frames)
    return took


async def offers(lobby: Lobby) -> list[Simulation]:
    async with lobby.stub() as stub:
        told = await stub.list_simulations(ListSimulationsRequest())
        assert told.problems == []
        return told.simulations


async def test_a_killed_service_comes_back_under_its_id(lobby: Lobby) -> None:
    service = await lobby.started("peptide")
    await lobby.until(service.id, is_running)
    (process,) = processes(service.id)
    process.kill()
    again = await lobby.until(service.id, lambda each: is_running(each) and each.restarts == 1)
    assert again.simulation == "peptide" and again.endpoints
    (other,) = processes(service.id)
    assert other.pid != process.pid


async def test_a_lobby_that_was_killed_goes_on_with_what_it_had_started(lobby: Lobby) -> None:
    service = await lobby.started("peptide")
    await lobby.until(service.id, is_running)
    (process,) = processes(service.id)
    lobby.running.kill()
    lobby.running.ended(10)
    assert process.is_running()
    lobby.start()
    await lobby.until(service.id, is_running)
    assert [each.pid for each in processes(service.id)] == [process.pid]
    async with lobby.stub() as stub:
        lines = (await stub.get_service_log(GetServiceLogRequest(service_id=service.id))).lines
        assert any("service_ready" in line for line in lines)
        await stub.stop_service(StopServiceRequest(service_id=service.id))
    stopped = await lobby.until(service.id, lambda each: each.status == ServiceStatus.STOPPED)
    assert stopped.reason == "stopped on request"
    assert processes(service.id) == []


async def test_another_lobby_takes_over_what_a_killed_one_had_started_while_its_frames_go_on(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    addresses = [f"127.0.0.1:{unused_port()}" for _ in range(2)]
    with RedisServer(tmp_path / "redis") as redis, contextlib.ExitStack() as stack:
        flags = (
            "--store", redis.url, "--launchers.lobby", ",".join(addresses),
            "--launchers.lost-after-s", "5", "--launchers.take-over-s", "2",
        )  # fmt: skip
        first, second = (Lobby(tmp_path, flags=flags, address=address) for address in addresses)
        stack.callback(second.end)
        stack.callback(first.end)
        service = await first.started("peptide")
        running = await second.until(service.id, is_running)
        (process,) = processes(service.id)
        async with frames_of(running) as frames:
            await frames.more(3)
            first.running.kill()
            first.running.ended(10)
            await frames.more(3)
            await asyncio.to_thread(second.running.wait_for, "launch_taken_over")
            async with asyncio.timeout(LIMIT_S):
                while frames.seconds < 7:  # longer than it may be lost before it is started again
                    await frames.more(1)
            listed = await second.until(service.id, is_running)
            assert listed.restarts == 0
            assert [each.pid for each in processes(service.id)] == [process.pid]
            async with second.stub() as stub:
                asked = (await stub.stop_service(StopServiceRequest(service_id=service.id))).service
            assert asked is not None and asked.status == ServiceStatus.DRAINING
            stopped = await second.until(service.id, lambda each: each.status == ServiceStatus.STOPPED)
        assert (stopped.reason, processes(service.id)) == ("stopped on request", [])
        await asyncio.get_running_loop().shutdown_default_executor()


class Frames:
    """One stream of frames, from its beginning on."""

    def __init__(self, stream: AsyncIterator[SubscribeFramesResponse]) -> None:
        self._stream = stream
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._since

    async def more(self, count: int) -> None:
        """So many more have come."""
        async with asyncio.timeout(LIMIT_S):
            for _ in range(count):
                await anext(self._stream)


@asynccontextmanager
async def frames_of(service: Service) -> AsyncIterator[Frames]:
    at = service.endpoints[0]
    async with Channel(at.host, at.port) as channel:
        yield Frames(TrajectoryServiceStub(channel).subscribe_frames(SubscribeFramesRequest()))


async def test_a_session_from_a_template_starts_its_simulations_and_stops_them_at_its_end(lobby: Lobby) -> None:
    async with lobby.stub() as stub:
        made = await stub.create_session(CreateSessionRequest(template="workshop"))
        assert made.session is not None
        session_id = made.session.id
        assert (made.session.template, made.session.max_users) == ("workshop", 40)
        async with asyncio.timeout(LIMIT_S):
            while True:
                listed = (await stub.list_services(ListServicesRequest(session_id=session_id))).services
                if listed and is_running(listed[0]):
                    break
                await asyncio.sleep(0.1)
        assert [service.simulation for service in listed] == ["peptide"]
        assert len(processes(listed[0].id)) == 1
        await stub.end_session(EndSessionRequest(session_id=session_id))
        async with asyncio.timeout(LIMIT_S):
            while processes(listed[0].id):
                await asyncio.sleep(0.1)


async def test_what_cannot_run_is_stopped_with_the_reason_and_names_that_are_not_there_are_told(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    (catalogue / "lost.yaml").write_text("kind: simulation\nname: lost\ninputs: [nowhere.pdb?calculator=emt]\n")
    (catalogue / "wrong.yaml").write_text("kind: simulation\nname: wrong\ninputs: demo:peptide\n")
    lobby = Lobby(tmp_path, catalogue)
    try:
        service = await lobby.started("lost")
        stopped = await lobby.until(service.id, lambda each: each.status == ServiceStatus.STOPPED)
        assert "nowhere.pdb" in stopped.reason and stopped.restarts == 0
        assert any("nowhere.pdb" in line for line in stopped.log_tail)
        async with lobby.stub() as stub:
            problems = (await stub.list_simulations(ListSimulationsRequest())).problems
            assert problems == ["wrong.yaml, line 3: inputs is 'demo:peptide': Input should be a valid tuple"]
            with pytest.raises(GRPCError) as told:
                await stub.start_service(StartServiceRequest(simulation="penguin"))
            assert told.value.status is Status.NOT_FOUND and "the catalogue has: lost" in str(told.value.message)
    finally:
        lobby.end()


@pytest.mark.containers
@pytest.mark.timeout(1200)  # it may have to build the image first
async def test_a_simulation_runs_in_a_container_and_outlives_its_lobby(lobby: Lobby) -> None:
    from tests.e2e.test_compose import engine_problem

    if problem := await asyncio.to_thread(engine_problem):
        pytest.skip(problem)
    build = ["docker", "compose", "build", "trajectory"]
    built = await asyncio.to_thread(subprocess.run, build, cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert built.returncode == 0, built.stderr
    service = await lobby.started("nanotube-in-a-container")
    name = f"narupa-{service.id}"
    try:
        await lobby.until(service.id, is_running)
        done = await narupa_soon("watch", "--json", "--frames", "3", lobby=lobby.address, within_s=LIMIT_S)
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
        lobby.running.kill(signal.SIGTERM)
        assert lobby.running.ended(10) == 0
        assert await docker("inspect", "--format", "{{.State.Running}}", name) == "true"
        lobby.start()
        await lobby.until(service.id, is_running)
        async with lobby.stub() as stub:
            await stub.stop_service(StopServiceRequest(service_id=service.id))
        await lobby.until(service.id, lambda each: each.status == ServiceStatus.STOPPED)
        assert await docker("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", name) == "false 0"
    finally:
        await docker("rm", "--force", name)
        await asyncio.get_running_loop().shutdown_default_executor()


async def docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()
