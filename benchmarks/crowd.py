"""A crowd of viewers at one service: how late frames are, how many come, what memory a viewer costs, and one that stalls.

`python -m benchmarks.crowd [--viewers N] [--atoms N] [--seconds S] [--stall S]`

A session plays a recording at 30 frames/s to so many viewers on connections of their own, first at the trajectory service over
gRPC, then at the gateway over WebSockets. A frame's age is the time from the service's making it, out of what the engine has
written into shared memory, to the viewer's having all of it, by the one clock of the machine. Then one viewer stops reading, for
`--stall` seconds, and the others are looked at again. Memory is what all services have grown by with the viewers, not counting
what processes share.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.fan_out import recording
from benchmarks.figures import Figure, note
from benchmarks.servers import Ours, Viewers, cpu, our_session, viewers

KINDS: Final = ("native", "websocket")
SETTLE_S: Final = 3.0
# After so long the trajectory service has all the recent frames that it keeps, with or without viewers.
WARM_S: Final = 11.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the viewers had in one stretch of time.

    Attributes:
        slowest, median: Frames per second.
        p50_ms, p99_ms, longest_ms: The age of a frame when a viewer has it.
        cores: CPU time of the service per second.
        memory: Bytes that each service keeps, at the end.
    """

    slowest: float
    median: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    cores: float
    memory: Mapping[str, int]

    def __str__(self) -> str:
        return (
            f"slowest {self.slowest:.1f} frames/s, median {self.median:.1f}; age {self.p50_ms:.1f} ms median, "
            f"{self.p99_ms:.1f} ms p99, {self.longest_ms:.1f} ms longest; {100 * self.cores:.0f} % of a core"
        )


def looked_at(ours: Ours, watching: Viewers, process: psutil.Process, seconds: float, leaving_out: int = 0) -> Crowd:
    """The viewers but the first `leaving_out`, of the service that this process is, for so many seconds."""
    counts, used, start = watching.frames(), cpu(process), time.perf_counter()
    time.sleep(seconds)
    after, elapsed = watching.frames(), time.perf_counter() - start
    rates = [(then - before) / elapsed for before, then in zip(counts, after, strict=True)][leaving_out:]
    ages = sorted(watching.ages_ms)
    return Crowd(
        min(rates),
        statistics.median(rates),
        ages[len(ages) // 2],
        ages[int(0.99 * len(ages))],
        ages[-1],
        (cpu(process) - used) / elapsed,
        ours.memory(),
    )


def measured(
    ours: Ours, kind: str, count: int, seconds: float, stall_s: float
) -> tuple[Crowd, Crowd | None, dict[str, float]]:
    """All viewers; all others while one stalls; and the bytes of memory that each viewer costs each service."""
    process = ours.other if kind == "native" else ours.process
    assert process is not None
    ours.play(True)
    with viewers(kind, ours.addresses[kind], 1, 0):
        time.sleep(WARM_S)
        alone = ours.memory()
        with viewers(kind, ours.addresses[kind], count, 0) as watching:
            time.sleep(SETTLE_S)
            crowd = looked_at(ours, watching, process, seconds)
            others = None
            if stall_s:
                watching.frames("stall")
                others = looked_at(ours, watching, process, stall_s, leaving_out=1)
    ours.play(False)
    return crowd, others, {name: (crowd.memory[name] - alone[name]) / count for name in alone}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=300)
    parser.add_argument("--atoms", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stall", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, "grpc", "writing"), default=KINDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, our_session(str(recording(Path(folder), options.atoms))) as ours:
        for kind in options.kinds:
            crowd, others, memory = measured(ours, kind, options.viewers, options.seconds, options.stall)
            name = f"crowd: {options.viewers} viewers, {options.atoms} atoms, {kind}"
            whole = sum(memory.values()) / 1000
            parts = ", ".join(f"{service} {grown / 1000:.0f}" for service, grown in memory.items())
            print(f"{name}: {crowd}; {whole:.0f} kB of memory per viewer ({parts})", flush=True)
            of = f"{kind}, {options.viewers} viewers"
            note(Figure("crowd", f"median, {of}", crowd.p50_ms, "ms of age"))
            note(Figure("crowd", f"p99, {of}", crowd.p99_ms, "ms of age", 50.0, at_least=False))
            note(Figure("crowd", f"slowest viewer, {of}", crowd.slowest, "frames/s", 29.0))
            note(Figure("crowd", f"memory of all services, {of}", whole, "kB per viewer", 100.0, at_least=False))
            if others is not None:
                note(
                    Figure(
                        "crowd",
                        f"p99 of the others, one stalled, {of}",
                        others.p99_ms,
                        "ms of age",
                        50.0,
                        at_least=False,
                    )
                )
                note(Figure("crowd", f"slowest of the others, one stalled, {of}", others.slowest, "frames/s", 29.0))
                grown_mb = (sum(others.memory.values()) - sum(crowd.memory.values())) / 1e6
                note(Figure("crowd", f"memory that one who stalls costs, {of}", grown_mb, "MB", 5.0, at_least=False))
                print(
                    f"{name}, one stalled for {options.stall:g} s: the others {others}; {grown_mb:+.1f} MB", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
