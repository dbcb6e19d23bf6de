"""What viewers see when the leader of three replicas is killed: `python -m benchmarks.failover --viewers 50`.

Starts a lobby, imd and replicas as processes on this machine, has viewers subscribe through the lobby's list, kills the leader
with SIGKILL (or stops it with SIGSTOP, and lets it go on later), and prints figures as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from benchmarks.figures import Figure, note
from narupa_client import Endpoint, Service, TlsConfig
from narupa_client.lobby import list_services
from narupa_shared import frame_keys as keys
from narupa_shared.errors import NarupaError
from narupa_shared.frames import decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.testing.ports import unused_port

LIMIT_S: Final = 90.0
GROUP: Final = "trajectory"
_SUBSCRIBE: Final = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame, as a viewer had it."""

    at: float
    index: int
    epoch: int
    time_ps: float
    run: str


@dataclass(slots=True)
class Viewer:
    """One stream of frames from one replica, and whether it has ended."""

    service: str
    mode: Any
    frames: list[Seen] = field(default_factory=list)
    ended: str = ""

    async def watch(self, address: str) -> None:
        """Frames are taken down until the stream ends."""
        run = ""
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call: Any = channel.unary_stream(_SUBSCRIBE, pb.SubscribeFramesRequest.SerializeToString, None)(
                pb.SubscribeFramesRequest(mode=self.mode)
            )
            try:
                async for response in call:
                    frame = decode_frame_response_v1(response)
                    values = frame.values
                    run = str(values.get(keys.RUN, run))
                    epoch, time_ps = float(values.get(keys.EPOCH, 0)), float(values.get(keys.TIME, 0))
                    self.frames.append(Seen(time.monotonic(), frame.index, int(epoch), time_ps, run))
            except grpc.aio.AioRpcError as error:
                self.ended = error.details() or error.code().name


class Group:
    """A lobby, imd and replicas as processes.

    Attributes:
        lobby: HOST:PORT.
        replicas: How many there are.
        through: Where a replica finds the lobby, where that is another address, by service id.
        processes: Of the replicas, by service id.
        checkpoints: The folder or URL where they keep them.
        settings: More settings of a replica, as on the command line, by service id.
    """

    def __init__(
        self,
        folder: Path,
        replicas: int,
        sources: Sequence[str],
        through: dict[str, str],
        flags: Sequence[str] = (),
        tls: TlsConfig | None = None,
    ) -> None:
        """Nothing runs yet. Every service gets `flags`; with `tls` the lobby is asked over it."""
        self.lobby = f"127.0.0.1:{unused_port()}"
        self.imd = f"127.0.0.1:{unused_port()}"
        self.processes: dict[str, Process] = {}
        self.checkpoints = str(folder / "checkpoints")
        self.settings: dict[str, Sequence[str]] = {}
        self._folder = folder
        self.replicas = replicas
        self.through = through
        self._sources = sources
        self._flags = flags
        self._tls = tls
        self._others: dict[str, Process] = {}
        self._all: list[Process] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All of them run, and one leads, while this is open."""
        try:
            await self.start_lobby()
            await self.start("imd", "imd", "--port", self.imd.rpartition(":")[2], "--lobby", self.lobby)
            for number in range(self.replicas):
                await self.start_replica(f"replica-{number}")
            if self.replicas:
                await self.whole()
            yield
        finally:
            for process in self._all:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGCONT)
                        process.kill()
            for process in self._all:
                await process.wait()

    async def start_lobby(self) -> None:
        """The lobby runs, on what it kept."""
        port = self.lobby.rpartition(":")[2]
        self._others["lobby"] = await self.start("lobby", "lobby", "--port", port, "--state-dir", str(self._folder))

    async def kill_lobby(self) -> None:
        """The lobby has ended without a word."""
        self._others["lobby"].kill()
        await self._others["lobby"].wait()

    async def logged(self, name: str, event: str) -> None:
        """The replica has logged this event."""
        log = self._folder / f"{name}.log"
        async with asyncio.timeout(LIMIT_S):
            while event not in log.read_text():  # noqa: ASYNC110 - a few lines, which wake nobody
                await asyncio.sleep(0.05)

    async def start(self, name: str, service: str, *arguments: str) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NARUPA_")}
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"narupa_{service}", *arguments, *self._flags, env=environment, stdin=DEVNULL,
                stderr=log,
            )  # fmt: skip
        self._all.append(process)
        return process

    async def start_replica(self, name: str) -> None:
        self.processes[name] = await self.start(
            name, "trajectory", "--port", "0", "--group", GROUP, "--service-id", name,
            "--lobby", self.through.get(name, self.lobby), "--sources", json.dumps(list(self._sources)),
            "--checkpoint-dir", self.checkpoints, "--log-format", "json",
            *self.settings.get(name, ()),
        )  # fmt: skip

    async def services(self) -> list[Service]:
        try:
            found = await list_services(Endpoint.parse(self.lobby), tls=self._tls)
            return [each for each in found if each.kind == "trajectory"]
        except NarupaError:
            return []

    async def whole(self) -> list[Service]:
        """The replicas, once all run and one leads."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await self.services()
                running = [each for each in found if each.status == "running"]
                if len(running) == self.replicas and await self.leader():
                    return running
                await asyncio.sleep(0.1)

    async def leader(self) -> str:
        """The id of the one that leads; empty where none does."""
        return next((each.id for each in await self.services() if each.epoch), "")


async def watch(group: Group, viewers: int, leaders: int) -> list[tuple[Viewer, asyncio.Task[None]]]:
    """Viewers spread over the replicas that do not lead, and `leaders` at the one that does."""
    services = {each.id: str(each.endpoints[0]) for each in await group.whole()}
    leading = await group.leader()
    relays = [id for id in services if id != leading]
    chosen = [relays[number % len(relays)] for number in range(viewers)] + [leading] * leaders
    modes = (pb.FRAME_MODE_LATEST, pb.FRAME_MODE_ALL)
    made = [Viewer(id, modes[number % 2]) for number, id in enumerate(chosen)]
    tasks = [(viewer, asyncio.create_task(viewer.watch(services[viewer.service]))) for viewer in made]
    async with asyncio.timeout(LIMIT_S):
        while any(len(viewer.frames) < 30 for viewer in made):  # noqa: ASYNC110 - frames wake nobody else
            await asyncio.sleep(0.05)
    return tasks


def figures(viewers: Sequence[Viewer], killed_at: float) -> dict[str, Any]:
    """What the viewers saw of a failover at `killed_at` (time.monotonic)."""
    gaps, repeated, order, epochs, runs = [], [], 0, 0, 0
    for viewer in viewers:
        frames = viewer.frames
        for before, after in itertools.pairwise(frames):
            epochs += after.epoch < before.epoch
            runs += after.run != before.run
            order += after.index <= before.index and after.run == before.run
        old = frames[0].epoch
        last = max((each for each in frames if each.epoch == old), key=lambda each: each.at)
        new = [each for each in frames if each.epoch > old]
        if new:
            gaps.append(new[0].at - killed_at)
            repeated.append(last.time_ps - new[0].time_ps)
    return {
        "viewers": len(viewers),
        "resumed": len(gaps),
        "streams_ended": sum(bool(viewer.ended) for viewer in viewers),
        "without_frames_s": {"median": sorted(gaps)[len(gaps) // 2], "longest": max(gaps)} if gaps else None,
        "repeated_ps": {"longest": max(repeated)} if repeated else None,
        "out_of_order": order,
        "epochs_back": epochs,
        "other_runs": runs,
    }


async def measure(viewers: int, replicas: int, sources: Sequence[str], stop: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        group = Group(Path(folder), replicas, sources, {})
        async with group.running():
            watching = await watch(group, viewers, 2 if stop else 0)
            seen = [viewer for viewer, _ in watching]
            leading = await group.leader()
            pace_ps = _pace_ps(seen)
            killed_at = time.monotonic()
            group.processes[leading].send_signal(signal.SIGSTOP if stop else signal.SIGKILL)
            await resumed([viewer for viewer in seen if viewer.service != leading])
            if stop:
                group.processes[leading].send_signal(signal.SIGCONT)
                await resumed(seen)  # those at the stale leader, too, which relays by then
            result = figures(seen, killed_at)
            for _, task in watching:
                task.cancel()
            await asyncio.gather(*(task for _, task in watching), return_exceptions=True)
            return {**result, "simulated_ps_per_s": round(pace_ps, 3), "signal": "SIGSTOP" if stop else "SIGKILL"}


async def resumed(viewers: Sequence[Viewer]) -> None:
    """Everybody has had frames of a later leader."""
    async with asyncio.timeout(LIMIT_S):
        while not all(viewer.ended or viewer.frames[-1].epoch > viewer.frames[0].epoch for viewer in viewers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)


def _pace_ps(viewers: Sequence[Viewer]) -> float:
    first, last = viewers[0].frames[0], viewers[0].frames[-1]
    return (last.time_ps - first.time_ps) / max(last.at - first.at, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--source", action="append", default=[])
    parser.add_argument("--stop", action="store_true", help="SIGSTOP and SIGCONT instead of SIGKILL")
    given = parser.parse_args()
    sources = given.source or ["demo:nanotube"]
    result = asyncio.run(measure(given.viewers, given.replicas, sources, given.stop))
    print(json.dumps(result, indent=2))
    of = f"{given.viewers} viewers, {result['signal']} of the leader"
    if (gap := result["without_frames_s"]) is not None:
        note(Figure("failover", f"longest without frames, {of}", gap["longest"], "s", 3.0, at_least=False))
        note(Figure("failover", f"simulated time repeated, {of}", result["repeated_ps"]["longest"], "ps"))
    for what in ("out_of_order", "epochs_back", "other_runs"):
        note(Figure("failover", f"{what.replace('_', ' ')}, {of}", result[what], "frames", 0.0, at_least=False))


if __name__ == "__main__":
    main()
