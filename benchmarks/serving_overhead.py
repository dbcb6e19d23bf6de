"""What serving costs the simulation: steps per second of a served engine against the raw engine, in one run.

`python -m benchmarks.serving_overhead [INPUT] [--seconds S] [--rounds N]`

Two processes live through the whole run, each with its engine on one thread: the raw engine, stepped in long blocks and asked
for nothing, and a trajectory service, unpaced, with subscribers at 30 frames/s. They take turns, a slice of wall time
each, one resting while the other runs, so that a machine that slows down slows both. Prints the median of the ratios, and what
a step costs the engine's process, which others on the machine change less.

Either engine has the first core and serving the others. Left to the scheduler, OpenMM's two threads (the caller's and its one
worker's) land on one core or two, and on a virtual machine, where waking a halted core takes long, that alone changes the raw
engine's speed several times over.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil

from benchmarks.figures import Figure, note
from benchmarks.serving import frame_streams, served
from narupa_shared.frames import decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc

ENVIRONMENT = {"OPENMM_CPU_THREADS": "1"}
ENGINE_CORES = {0}
SERVING_CORES = set(range(1, os.cpu_count() or 1)) or ENGINE_CORES
# A slice is measured once this much of it has passed.
SETTLE_S = 0.15
RAW = """
import sys, time
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
source = open_source(SourceSpec.parse(sys.argv[1]))
source.advance(200)
print("ready", flush=True)
for line in sys.stdin:
    steps, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < float(line):
        source.advance(50)
        steps += 50
    print(steps / (time.perf_counter() - start), (time.process_time() - used) / steps, flush=True)
"""


@contextlib.contextmanager
def raw_engine(source: str) -> Iterator[Callable[[float], tuple[float, float]]]:
    """A function that runs the engine alone for some seconds and returns steps/s and processor seconds per step."""
    process = subprocess.Popen(
        [sys.executable, "-c", RAW, source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.stdin and process.stdout
    stdin, stdout = process.stdin, process.stdout
    stdout.readline()
    pin(process.pid, ENGINE_CORES)

    def run(seconds: float) -> tuple[float, float]:
        print(seconds, file=stdin, flush=True)
        rate, cost = map(float, stdout.readline().split())
        return rate, cost

    try:
        yield run
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def served_engine(source: str, subscribers: int) -> Iterator[Callable[[float], tuple[float, float, float]]]:
    """A function that plays the served engine for some seconds, and returns steps/s, processor seconds of the engine's process
    per step, and the slowest subscriber's frames/s."""
    with (
        served(source, ["--frame-interval-s", "0"], ENVIRONMENT) as address,
        frame_streams(address, subscribers) as streams,
        grpc.insecure_channel(address) as channel,
    ):
        stub = trajectory_pb2_grpc.TrajectoryServiceStub(channel)

        def command(name: str) -> None:
            stub.RunCommand(trajectory_pb2.RunCommandRequest(name=name))

        def run(seconds: float) -> tuple[float, float, float]:
            command("playback/play")
            time.sleep(SETTLE_S)
            counts, start = [stream.count for stream in streams], time.perf_counter()
            first, used = decode_frame_response_v1(streams[0].newest).values, processor_s(engine)
            time.sleep(seconds)
            last, used = decode_frame_response_v1(streams[0].newest).values, processor_s(engine) - used
            elapsed = time.perf_counter() - start
            frames = min(stream.count - count for stream, count in zip(streams, counts, strict=True))
            command("playback/pause")
            steps = float(last["system.simulation.step"]) - float(first["system.simulation.step"])
            wall = float(last["server.timestamp"]) - float(first["server.timestamp"])
            return steps / wall, used / steps, frames / elapsed

        command("playback/pause")
        engine = 0
        for process in psutil.Process().children(recursive=True):
            command_line = " ".join(process.cmdline())
            if "-m narupa_trajectory" in command_line:
                runs = "engine.process" in command_line
                engine = process.pid if runs else engine
                pin(process.pid, ENGINE_CORES if runs else SERVING_CORES)
        pin(os.getpid(), SERVING_CORES)
        yield run


def pin(pid: int, cores: set[int]) -> None:
    """Every thread of the process runs on `cores` only (Linux; elsewhere nothing happens)."""
    if hasattr(os, "sched_setaffinity"):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def processor_s(pid: int) -> float:
    """Processor time that the process has used so far, s; to the nanosecond where the system tells."""
    try:
        return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    except OSError:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default="demo:peptide")
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--subscribers", type=int, default=10)
    options = parser.parse_args()
    raw: list[tuple[float, float]] = []
    results: list[tuple[float, float, float]] = []
    with raw_engine(options.source) as run_raw, served_engine(options.source, options.subscribers) as run_served:
        for _ in range(options.rounds):
            raw.append(run_raw(options.seconds))
            results.append(run_served(options.seconds))
        raw.append(run_raw(options.seconds))
    # Each served slice against the raw ones before and after it.
    trios = list(zip(results, raw, raw[1:], strict=False))
    ratios = [served[0] / ((before[0] + after[0]) / 2) for served, before, after in trios]
    costs = [(before[1] + after[1]) / 2 / served[1] for served, before, after in trios]
    low, _, high = statistics.quantiles(ratios, n=4)
    steps, _, rates = map(statistics.median, zip(*results, strict=True))
    print(
        f"serving_overhead {Path(options.source).name}: raw {statistics.median(rate for rate, _ in raw):.0f} steps/s, served "
        f"{steps:.0f} steps/s to {options.subscribers} subscribers, {rates:.1f} frames/s; "
        f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)}, quartiles {low:.3f} to {high:.3f}), "
        f"by processor time per step {statistics.median(costs):.3f}"
    )
    what = f"steps served over raw, {Path(options.source).name}, {options.subscribers} viewers"
    note(Figure("serving_overhead", what, statistics.median(ratios), "", 0.97))
    return 0


if __name__ == "__main__":
    sys.exit(main())
