"""How many frames per second each of many subscribers gets.

`python benchmarks/fan_out.py [--subscribers N] [--atoms N] [--seconds S]`: a recording played at 30 frames/s, subscribers on
connections of their own in another process. Prints the slowest and the median subscriber, how often frames were encoded, and
what the service's process used.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
from ase import Atoms
from ase.io import write

from benchmarks.serving import frame_streams, served
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc


def recording(folder: Path, atoms: int, frames: int = 40) -> Path:
    """A trajectory file of `atoms` argon atoms at random places, of which a thousand have a box of 5 nm.

    From frame to frame each moves by some 0.01 nm in each direction, so that positions to 0.001 nm take the 2 bytes per atom that
    they take of a protein in water (`benchmarks/position_codec.py`); from the last to the first as well.
    """
    random = np.random.default_rng(1)
    side = 5.0 * atoms ** (1 / 3)  # A
    first = random.uniform(0, side, (atoms, 3))
    way = np.cumsum(random.normal(0.0, 0.1, (frames, atoms, 3)), axis=0)
    way -= np.linspace(0.0, 1.0, frames)[:, None, None] * (way[-1] - way[0])
    path = folder / "random.traj"
    write(path, [Atoms("Ar" * atoms, positions=first + each) for each in way])
    return path


def listener_process(address: str) -> psutil.Process:
    """The process of ours that listens on `address`."""
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        if any(item.laddr.port == port and item.status == psutil.CONN_LISTEN for item in child.net_connections()):
            return child
    raise RuntimeError(f"nothing of ours listens on {address}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = str(recording(Path(folder), options.atoms))
        with (
            served(source) as address,
            frame_streams(address, options.subscribers) as streams,
            grpc.insecure_channel(address) as channel,
        ):
            stub = trajectory_pb2_grpc.TrajectoryServiceStub(channel)
            time.sleep(2)
            process = listener_process(address)
            status, cpu = stub.GetStatus(trajectory_pb2.GetStatusRequest()), process.cpu_times()
            counts, start = [stream.count for stream in streams], time.perf_counter()
            time.sleep(options.seconds)
            after, elapsed = stub.GetStatus(trajectory_pb2.GetStatusRequest()), time.perf_counter() - start
            rates = [(stream.count - count) / elapsed for stream, count in zip(streams, counts, strict=True)]
            used = process.cpu_times()
    seconds = used.user + used.system - cpu.user - cpu.system
    made, encoded = after.frame_index - status.frame_index, after.frames_encoded - status.frames_encoded
    print(
        f"fan_out: {options.subscribers} subscribers, {options.atoms} atoms: slowest {min(rates):.1f} frames/s, "
        f"median {statistics.median(rates):.1f}; {encoded} encodings for {made} frames; "
        f"{sum(rates) * elapsed / seconds:.0f} frames delivered per server CPU-second ({100 * seconds / elapsed:.0f} % of a core)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
