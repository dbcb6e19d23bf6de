"""How long services take to start.

`python -m benchmarks.start [--runs N]`: the times from the command that starts a process to the lobby's and the trajectory
service's readiness (the latter with its first simulation loaded), and from `narupa watch --start peptide` to its first frame,
each run against a new lobby. Prints medians of wall time, and of the processor time of all processes that took part: the one to
compare on a machine that others use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

CATALOGUE: Final = Path(__file__).parent.parent / "examples" / "catalogue"
SIMULATION: Final = "peptide"

Times = tuple[float, float]  # wall and processor time, s


@contextlib.contextmanager
def running(module: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `module` whose standard output is to be read; it ends with the context."""
    command = [sys.executable, "-m", module, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def processor_time(process: subprocess.Popen[bytes]) -> float:
    """What the process and all that it started have used so far, s."""
    total = 0.0
    parent = psutil.Process(process.pid)
    for each in (parent, *parent.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system
    return total


@contextlib.contextmanager
def ready(module: str, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A service that is ready, and its address."""
    with running(module, "--port", "0", "--log-format", "json", *flags) as process:
        assert process.stderr is not None
        for line in process.stderr:
            entry = json.loads(line) if line.startswith(b"{") else {}
            if entry.get("event") == "service_ready":
                yield process, entry["address"]
                return
        raise RuntimeError(f"{module} ended at its start")


def lobby_start() -> Times:
    """A lobby without state of earlier ones, to its readiness."""
    began = time.perf_counter()
    with ready("narupa_lobby", "--store", "memory") as (process, _):
        return time.perf_counter() - began, processor_time(process)


def trajectory_start() -> Times:
    """A trajectory service that no lobby listens to, to its readiness."""
    began = time.perf_counter()
    # A lobby that is not there: the service runs alone.
    with ready("narupa_trajectory", "--sources", f"demo:{SIMULATION}", "--lobby", "127.0.0.1:1") as (process, _):
        return time.perf_counter() - began, processor_time(process)


def first_frame() -> Times:
    """From the command that starts a simulation of the catalogue by its name to its first frame."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--store", "memory", "--state-dir", folder, "--catalogue", str(CATALOGUE))
        with ready("narupa_lobby", *flags) as (lobby, address):
            before = processor_time(lobby)
            began = time.perf_counter()
            with running("narupa_client.cli", "--lobby", address, "watch", "--start", SIMULATION, "--json") as watch:
                assert watch.stdout is not None
                if not watch.stdout.readline():
                    raise RuntimeError("no frame came")
                took = time.perf_counter() - began
                return took, processor_time(lobby) + processor_time(watch) - before


MEASURED: Final[dict[str, Callable[[], Times]]] = {
    "lobby, to ready": lobby_start,
    "trajectory service, to ready": trajectory_start,
    "watch --start, to first frame": first_frame,
}


def main() -> None:
    """Prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured")
    runs = parser.parse_args().runs
    for name, measured in MEASURED.items():
        walls, processor = zip(*(measured() for _ in range(runs)), strict=True)
        longest = f"longest {max(walls):.2f} s"
        print(f"{name:30} {statistics.median(walls):5.2f} s ({longest}), {statistics.median(processor):5.2f} s of CPU")


if __name__ == "__main__":
    main()
