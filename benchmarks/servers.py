"""Servers of frames that take turns in a measurement, a session of ours, NanoVer's own and plain sockets, and their viewers.

The viewers are in processes of their own. A server plays only while it is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import psutil

from narupa_client import Endpoint
from narupa_client.lobby import list_services
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc
from narupa_shared.testing.ports import unused_port

ROOT: Final = Path(__file__).resolve().parents[1]
PEER_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
SETTLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Slice:
    """What was used and delivered in one slice of time.

    Attributes:
        per_cpu_s: Frames delivered per second of CPU time of the server's process.
        rate: Frames per second that a viewer had on average.
        cpu_ms: CPU time that each of the server's processes used per frame, however many viewers had that, ms.
    """

    per_cpu_s: float
    rate: float
    cpu_ms: Mapping[str, float]


class Viewers:
    """A process with many viewers.

    Attributes:
        ages_ms: How old the frames were that came between the last two times of asking, ms.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.ages_ms: list[float] = []

    def frames(self, line: str = "") -> list[int]:
        """How many each has had. With the line `stall` the first one reads no more."""
        assert self._process.stdin and self._process.stdout
        print(line, file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        self.ages_ms = answer["ages_ms"]
        return list(answer["frames"])


@contextlib.contextmanager
def viewers(kind: str, address: str, count: int, frame_bytes: int) -> Iterator[Viewers]:
    """They are connected and have had a frame each."""
    with child([sys.executable, "-m", "benchmarks.viewers", kind, address, str(count), str(frame_bytes)]) as process:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the viewers of {address} ended")
        yield Viewers(process)


@contextlib.contextmanager
def child(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Server:
    """A server that is measured.

    Attributes:
        addresses: Where it listens, HOST:PORT, by the kind of its viewers.
        process: The one that serves those, for all kinds but `native` and `packed`.
        other: The trajectory service's, which serves those.
        processes: All that take part in a frame, by name.
    """

    addresses: Mapping[str, str]
    process: psutil.Process
    other: psutil.Process | None = None
    processes: Mapping[str, psutil.Process]

    def play(self, on: bool) -> None:
        """Frames come, or do not."""
        raise NotImplementedError

    def measured(self, kind: str, count: int, atoms: int, seconds: float) -> Slice:
        """A slice of so many seconds, in which it plays to viewers of that kind that have just come.

        NanoVer's server sends frames by a clock of each viewer's own, which would run behind for good after a pause, and then
        never wait: that costs it less than its waiting does.
        """
        process = self.other if kind in ("native", "packed") else self.process
        self.play(True)
        with viewers(kind, self.addresses[kind], count, 12 * atoms) as watching:
            time.sleep(SETTLE_S)
            started, counts, used, each = time.perf_counter(), watching.frames(), cpu(process), self._cpu()
            time.sleep(seconds)
            after, used_after, each_after = watching.frames(), cpu(process), self._cpu()
            elapsed = time.perf_counter() - started
        self.play(False)
        time.sleep(SETTLE_S)
        delivered = sum(after) - sum(counts)
        return Slice(
            delivered / max(used_after - used, 1e-3),
            delivered / len(counts) / elapsed,
            {name: 1000 * (each_after[name] - each[name]) * len(counts) / max(delivered, 1) for name in each},
        )

    def _cpu(self) -> dict[str, float]:
        return {name: cpu(process) for name, process in self.processes.items()}


def cpu(process: psutil.Process | None) -> float:
    """CPU time that the process has used so far, s."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


class Ours(Server):
    """A session: lobby, imd, trajectory and gateway.

    Attributes:
        serving: The processes of the gateway that serve viewers.
        services: Every service's processes, by its name.
    """

    def __init__(self, lobby: str, session: int) -> None:
        services = {service.kind: service for service in asyncio.run(list_services(Endpoint.parse(lobby)))}
        gateway = services["gateway"]
        websocket = f"127.0.0.1:{gateway.metadata['ws']}"
        self._trajectory = str(services["trajectory"].endpoints[0])
        self.addresses = {
            "websocket": websocket,
            "deflate": websocket,
            "writing": websocket,
            "grpc": str(gateway.endpoints[0]),
            "native": self._trajectory,
            "packed": self._trajectory,
        }
        (self.process,) = _running("narupa_gateway", session)
        self.serving = _running("narupa_gateway.worker", session) or [self.process]
        (self.other,) = _running("narupa_trajectory", session)
        (engine,) = _running("narupa_trajectory.engine.process", session)
        self.services = {
            "gateway": self.serving,
            "lobby": _running("narupa_lobby", session),
            "trajectory": [self.other],
            "imd": _running("narupa_imd", session),
        }
        self.processes = {"engine": engine, "trajectory": self.other, "gateway": self.process}

    def memory(self) -> dict[str, int]:
        """What each service's processes would give back if they ended now, bytes."""
        return {
            name: sum(process.memory_full_info().uss for process in processes)
            for name, processes in self.services.items()
        }

    def play(self, on: bool) -> None:
        with grpc.insecure_channel(self._trajectory) as channel:
            name = "playback/play" if on else "playback/pause"
            trajectory_pb2_grpc.TrajectoryServiceStub(channel).RunCommand(trajectory_pb2.RunCommandRequest(name=name))


def _running(module: str, session: int) -> list[psutil.Process]:
    processes = [(process, process.cmdline()) for process in psutil.Process(session).children(recursive=True)]
    return [process for process, command in processes if "-m" in command and command[command.index("-m") + 1] == module]


@contextlib.contextmanager
def our_session(source: str, gateway_processes: int = 1) -> Iterator[Ours]:
    """A session that plays `source` at 30 frames/s, once it is paused."""
    lobby = f"127.0.0.1:{unused_port()}"
    flags = [f"--{name}-port=0" for name in ("trajectory", "imd", "gateway", "websocket")]
    flags += ["--gateway-processes", str(gateway_processes), "--paused", source]
    command = [str(Path(sys.executable).with_name("narupa")), "session", "--lobby", lobby, *flags]
    environment = {**os.environ, "NARUPA_GATEWAY_DISCOVERY": "false"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert process.stderr
    try:
        for line in process.stderr:
            if "Ctrl-C ends the session" in line:
                break
        else:
            raise RuntimeError(f"the session ended with status {process.wait()}")
        # What it says is read to the end, or it would wait for somebody to read it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Ours(lobby, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


class Child(Server):
    """A server that is a program of its own, which prints its port and is told to play and to pause by lines."""

    def __init__(self, process: subprocess.Popen[str], kinds: Sequence[str]) -> None:
        assert process.stdout
        self._process = process
        self.process = psutil.Process(process.pid)
        self.processes = {"server": self.process}
        self.addresses = dict.fromkeys(kinds, f"127.0.0.1:{int(process.stdout.readline())}")

    def play(self, on: bool) -> None:
        assert self._process.stdin
        print("play" if on else "pause", file=self._process.stdin, flush=True)


@contextlib.contextmanager
def nanover_server(atoms: int) -> Iterator[Child | None]:
    """NanoVer's server with that many atoms; None without `.venv-peers`."""
    if not PEER_PYTHON.is_file():
        yield None
        return
    with child([str(PEER_PYTHON), str(ROOT / "benchmarks" / "nanover_server.py"), str(atoms)]) as process:
        yield Child(process, ("websocket", "deflate"))


@contextlib.contextmanager
def plain_sockets(atoms: int) -> Iterator[Child]:
    """Blocking sockets, on which a frame is the positions of that many atoms and nothing else."""
    with child([sys.executable, str(ROOT / "benchmarks" / "plain_sockets.py"), str(atoms)]) as process:
        yield Child(process, ("plain",))
