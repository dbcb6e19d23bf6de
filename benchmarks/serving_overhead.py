"""What serving costs the simulation: steps per second of a served engine against the raw engine, in one run.

`python benchmarks/serving_overhead.py [INPUT.xml] [--seconds S] [--rounds N]`

Raw and served runs alternate, each in fresh processes with the engine on one thread. Served runs play unpaced, with four
subscribers at 30 frames/s. Prints one line per round and the median ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.serving import frame_streams, served
from narupa_shared.frames import decode_frame_response_v1

RAW = """
import sys, time
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
source = open_source(SourceSpec.parse(sys.argv[1]))
source.advance(200)
steps, start = 0, time.perf_counter()
while time.perf_counter() - start < float(sys.argv[2]):
    source.advance(100)
    steps += 100
print(steps / (time.perf_counter() - start))
"""


def raw_steps_per_second(source: str, seconds: float) -> float:
    """The engine alone, stepped in long blocks, asked for nothing."""
    environment = {**os.environ, "OPENMM_CPU_THREADS": "1"}
    command = [sys.executable, "-c", RAW, source, str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def served_steps_per_second(source: str, seconds: float, subscribers: int = 4) -> tuple[float, float]:
    """Steps per second, from the step counter in the frames themselves, and frames per second of the slowest subscriber."""
    flags = ["--frame-interval-s", "0"]
    with served(source, flags, {"OPENMM_CPU_THREADS": "1"}) as address, frame_streams(address, subscribers) as streams:
        time.sleep(1.0)
        before = [stream.count for stream in streams]
        first, start = decode_frame_response_v1(streams[0].newest), time.perf_counter()
        time.sleep(seconds)
        last, elapsed = decode_frame_response_v1(streams[0].newest), time.perf_counter() - start
        frames = min(stream.count - count for stream, count in zip(streams, before, strict=True))
        wall = float(last.values["server.timestamp"]) - float(first.values["server.timestamp"])
        steps = float(last.values["system.simulation.step"]) - float(first.values["system.simulation.step"])
        return steps / wall, frames / elapsed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="demo:peptide")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ratios: list[float] = []
    for round in range(options.rounds):
        before = raw_steps_per_second(options.source, options.seconds / 2)
        steps, frames = served_steps_per_second(options.source, options.seconds)
        after = raw_steps_per_second(options.source, options.seconds / 2)
        raw = (before + after) / 2
        ratios.append(steps / raw)
        print(
            f"round {round + 1}: raw {raw:8.0f} steps/s   served {steps:8.0f} steps/s, 4 x {frames:.1f} frames/s   "
            f"ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"serving_overhead {Path(options.source).name}: median ratio {statistics.median(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
