"""What a viewer costs the gateway, against what it costs NanoVer's own server, in one run.

`python -m benchmarks.gateway [--seconds S] [--rounds N] [--atoms N --viewers N]`

A session with a recording of that many atoms, and NanoVer's server with a scripted simulation as large, both at 30 frames/s,
take turns, a slice of time each, one paused while the other plays. The viewers are in processes of their own. They refuse
compression of messages, or ask for it (NanoVer's server then compresses for each of them, the gateway refuses), or are gRPC
clients of the gateway's single port, which NanoVer's server is compared with as its viewers that refuse.

The figure is CPU time of the server's process per viewer and second, where a second is 30 frames: a server that delivers less
of them is not better for it. Medians over the slices. What the trajectory service's process uses meanwhile stands beside it; it
has the gateway for its one subscriber. Without `.venv-peers` (`make peers`) there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import psutil

from benchmarks.fan_out import recording
from narupa_client import Endpoint
from narupa_client.lobby import list_services
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc
from narupa_shared.testing.ports import unused_port

ROOT: Final = Path(__file__).resolve().parents[1]
PEER_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
RATE: Final = 30.0
SETTLE_S: Final = 0.5
SIZES: Final = ((1_000, 20), (100_000, 4))


@dataclass(frozen=True, slots=True)
class Slice:
    """What was used and delivered in one slice of time.

    Attributes:
        cpu_s: Of the server's process, per viewer and `RATE` frames.
        other_cpu_s: Of the trajectory service's process, per second.
        rate: Frames per second that a viewer had on average.
    """

    cpu_s: float
    other_cpu_s: float
    rate: float


class Viewers:
    """A process with many viewers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def frames(self) -> list[int]:
        """How many each has had."""
        assert self._process.stdin and self._process.stdout
        print(file=self._process.stdin, flush=True)
        return [int(word) for word in self._process.stdout.readline().split()]


@contextlib.contextmanager
def viewers(kind: str, address: str, count: int) -> Iterator[Viewers]:
    """They are connected and have had a frame each."""
    with child([sys.executable, "-m", "benchmarks.viewers", kind, address, str(count)]) as process:
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
        websocket, grpc: Where it listens, HOST:PORT.
    """

    websocket: str
    grpc: str = ""
    process: psutil.Process
    other: psutil.Process | None = None

    def play(self, on: bool) -> None:
        """Frames come, or do not."""
        raise NotImplementedError

    def measured(self, kind: str, count: int, seconds: float) -> Slice:
        """A slice of so many seconds, in which it plays to viewers that have just come.

        NanoVer's server sends frames by a clock of each viewer's own, which would run behind for good after a pause, and then
        never wait: that costs it less than its waiting does.
        """
        self.play(True)
        with viewers(kind, self.grpc if kind == "grpc" else self.websocket, count) as watching:
            time.sleep(SETTLE_S)
            started, counts, used, other = time.perf_counter(), watching.frames(), cpu(self.process), cpu(self.other)
            time.sleep(seconds)
            after, used_after, other_after = watching.frames(), cpu(self.process), cpu(self.other)
            elapsed = time.perf_counter() - started
        self.play(False)
        time.sleep(SETTLE_S)
        delivered = sum(after) - sum(counts)
        return Slice(
            (used_after - used) * RATE / max(delivered, 1),
            (other_after - other) / elapsed,
            delivered / len(counts) / elapsed,
        )


def cpu(process: psutil.Process | None) -> float:
    """CPU time that the process has used so far, s."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


class Ours(Server):
    """A session: lobby, imd, trajectory and gateway."""

    def __init__(self, lobby: str, session: int) -> None:
        services = {service.kind: service for service in asyncio.run(list_services(Endpoint.parse(lobby)))}
        gateway = services["gateway"]
        self.grpc = str(gateway.endpoints[0])
        self.websocket = f"127.0.0.1:{gateway.metadata['ws']}"
        self.process = _running("narupa_gateway", session)
        self.other = _running("narupa_trajectory", session)
        self._trajectory = str(services["trajectory"].endpoints[0])

    def play(self, on: bool) -> None:
        with grpc.insecure_channel(self._trajectory) as channel:
            name = "playback/play" if on else "playback/pause"
            trajectory_pb2_grpc.TrajectoryServiceStub(channel).RunCommand(trajectory_pb2.RunCommandRequest(name=name))


def _running(module: str, session: int) -> psutil.Process:
    for process in psutil.Process(session).children(recursive=True):
        command = process.cmdline()
        if "-m" in command and command[command.index("-m") + 1] == module:
            return process
    raise RuntimeError(f"no {module} runs")


@contextlib.contextmanager
def our_session(source: str) -> Iterator[Ours]:
    """A session that plays `source` at 30 frames/s, once it is paused."""
    lobby = f"127.0.0.1:{unused_port()}"
    ports = [f"--{name}-port=0" for name in ("trajectory", "imd", "gateway", "websocket")]
    command = [str(Path(sys.executable).with_name("narupa")), "session", "--lobby", lobby, *ports, "--paused", source]
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
        yield Ours(lobby, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Theirs(Server):
    """NanoVer's server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self._process = process
        self.process = psutil.Process(process.pid)
        self.websocket = f"127.0.0.1:{int(process.stdout.readline())}"

    def play(self, on: bool) -> None:
        assert self._process.stdin
        print("play" if on else "pause", file=self._process.stdin, flush=True)


@contextlib.contextmanager
def nanover_server(atoms: int) -> Iterator[Theirs | None]:
    """NanoVer's server with that many atoms; None without `.venv-peers`."""
    if not PEER_PYTHON.is_file():
        yield None
        return
    with child([str(PEER_PYTHON), str(ROOT / "benchmarks" / "nanover_server.py"), str(atoms)]) as process:
        yield Theirs(process)


def compared(ours: Ours, theirs: Theirs | None, kind: str, count: int, seconds: float, rounds: int) -> str:
    """One line: medians of slices that take turns."""
    mine: list[Slice] = []
    others: list[Slice] = []
    for _ in range(rounds):
        mine.append(ours.measured(kind, count, seconds))
        if theirs is not None:
            others.append(theirs.measured("websocket" if kind == "grpc" else kind, count, seconds))
    line = f"{_described(mine)}, trajectory beside it {1000 * _median(mine, 'other_cpu_s'):.1f} ms/s"
    if others:
        ratios = [other.cpu_s / our.cpu_s for our, other in zip(mine, others, strict=True)]
        line += f"; NanoVer {_described(others)}; ratio {statistics.median(ratios):.1f}"
        line += f" ({min(ratios):.1f} to {max(ratios):.1f})"
    return line


def _described(slices: Sequence[Slice]) -> str:
    return f"{1000 * _median(slices, 'cpu_s'):.2f} ms per viewer and second ({_median(slices, 'rate'):.1f} frames/s)"


def _median(slices: Sequence[Slice], name: str) -> float:
    return statistics.median(getattr(each, name) for each in slices)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--atoms", type=int)
    parser.add_argument("--viewers", type=int)
    parser.add_argument("--kinds", nargs="+", default=["websocket", "deflate", "grpc"])
    options = parser.parse_args()
    sizes = SIZES if options.atoms is None else ((options.atoms, options.viewers or 4),)
    if not PEER_PYTHON.is_file():
        print("gateway: NanoVer's server is not there to compare with; `make peers` sets it up")
    names = {"websocket": "refuse compression", "deflate": "ask for compression", "grpc": "gRPC, one port"}
    for atoms, count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source = str(recording(Path(folder), atoms))
            with our_session(source) as ours, nanover_server(atoms) as theirs:
                for kind in options.kinds:
                    line = compared(ours, theirs, kind, count, options.seconds, options.rounds)
                    print(f"gateway: {atoms} atoms, {count} viewers, {names[kind]}: {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
