"""How late the trajectory service's event loop runs while a pure-Python calculator works flat out beside it.

`python benchmarks/loop_lag.py [--seconds S]`: 108 argon atoms by plain Python loops, unpaced, ten subscribers at 30 frames/s.
The figures are the service's own metric, read from its Prometheus endpoint.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from ase.build import bulk
from ase.io import write
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving import frame_streams, served


def lag_buckets(port: int) -> dict[float, float]:
    """The cumulative counts of the lag histogram, by upper bound in s."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "narupa_event_loop_lag_seconds_bucket"
    }


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The upper bound of the bucket in which `share` of the new observations is reached, s."""
    total = after[float("inf")] - before[float("inf")]
    return next(bound for bound in sorted(after) if after[bound] - before[bound] >= share * total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        structure = Path(folder) / "argon.xyz"
        atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat(3)
        atoms.pbc = False
        write(structure, atoms)
        source = f"{structure}?calculator=benchmarks.python_calculator:LoopingLennardJones&temperature_k=40"
        flags = ["--frame-interval-s", "0", "--metrics-port", str(port)]
        root = str(Path(__file__).parent.parent)
        with served(source, flags, {"PYTHONPATH": root}) as address, frame_streams(address, 10) as streams:
            time.sleep(1)
            before, frames = lag_buckets(port), streams[0].count
            time.sleep(options.seconds)
            after, frames = lag_buckets(port), streams[0].count - frames
    figures = ", ".join(
        f"p{100 * share:g} <= {1000 * quantile(before, after, share):g} ms" for share in (0.5, 0.99, 0.999)
    )
    print(f"loop_lag: {figures} ({frames / options.seconds:.1f} frames/s to each of 10 subscribers)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
