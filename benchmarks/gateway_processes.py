"""How many frames a gateway delivers per second of wall time, in one process and in several on the same port.

`python -m benchmarks.gateway_processes [--processes N ...] [--kind KIND] [--viewers N] [--atoms N] [--seconds S] [--rounds N]`

So many viewers want 30 frames/s of a recording, together more than one core can send. Sessions that differ in the
gateway's processes take turns, and the median of the rounds is told. Viewers and services share the machine: what is delivered
grows with the processes only as far as there are cores for them. So it is also told what the gateway could deliver if each of
its processes had a core to itself: what was delivered over the cores that the busiest used.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.fan_out import recording
from benchmarks.figures import Figure, note
from benchmarks.servers import Ours, cpu, our_session, viewers

SETTLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a gateway did in one stretch of time.

    Attributes:
        rate: Frames delivered per second.
        cores: CPU time of each process per second.
    """

    rate: float
    cores: tuple[float, ...]

    @property
    def possible(self) -> float:
        """Frames per second, if each process had a core to itself and the viewers were shared out as they were."""
        return self.rate / max(max(self.cores), 1e-3)


def measured(ours: Ours, kind: str, count: int, seconds: float) -> Delivered:
    ours.play(True)
    with viewers(kind, ours.addresses[kind], count, 0) as watching:
        time.sleep(SETTLE_S)
        start, had, used = time.perf_counter(), sum(watching.frames()), [cpu(process) for process in ours.serving]
        time.sleep(seconds)
        now_had, now_used = sum(watching.frames()), [cpu(process) for process in ours.serving]
        elapsed = time.perf_counter() - start
    ours.play(False)
    cores = tuple((after - before) / elapsed for before, after in zip(used, now_used, strict=True))
    return Delivered((now_had - had) / elapsed, cores)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kind", choices=("grpc", "websocket"), default="grpc")  # of which a core serves fewer
    parser.add_argument("--viewers", type=int, default=450)
    parser.add_argument("--atoms", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    of = f"{options.atoms:,} atoms, {options.viewers} viewers, {options.kind}"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        source = str(recording(Path(folder), options.atoms))
        sessions = {number: stack.enter_context(our_session(source, number)) for number in options.processes}
        rounds = [
            {
                number: measured(ours, options.kind, options.viewers, options.seconds)
                for number, ours in sessions.items()
            }
            for _ in range(options.rounds)
        ]
    for number in options.processes:
        rate = statistics.median(each[number].rate for each in rounds)
        possible = statistics.median(each[number].possible for each in rounds)
        cores = statistics.median(sum(each[number].cores) for each in rounds)
        what = f"{number} process{'es' if number > 1 else ''}, {of}"
        print(
            f"gateway_processes: {what}: {rate:,.0f} frames/s with {cores:.2f} cores; {possible:,.0f} frames/s if each "
            "process had a core to itself",
            flush=True,
        )
        note(Figure("gateway_processes", f"delivered, {what}", rate, "frames/s"))
        note(Figure("gateway_processes", f"with a core for each, {what}", possible, "frames/s"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
