"""NanoVer's own server, with a scripted simulation; it runs with NanoVer's packages alone.

`.venv-peers/bin/python benchmarks/nanover_server.py ATOMS`: atoms jump about in steps of 1/30 s. Prints the port; a line `play`
or `pause` on standard input says whether they do, and its end ends the server.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
from nanover.app import NanoverImdApplication
from nanover.trajectory import FrameData
from nanover.websocket.server import WebSocketServer

INTERVAL_S = 1 / 30


def publish(app: NanoverImdApplication, atoms: int, playing: threading.Event) -> None:
    """A frame with everything, and then one with what changes for each step of the clock."""
    random = np.random.default_rng(1)
    frames = random.uniform(0, 5, (40, atoms, 3)).astype(np.float32)
    topology = FrameData()
    topology.particle_count = atoms
    topology.particle_elements = np.full(atoms, 18, np.uint8)
    topology.particle_names = ["Ar"] * atoms
    topology.bond_pairs = np.zeros((0, 2), np.uint32)
    topology.particle_positions = frames[0]
    app.frame_publisher.send_frame(topology)
    step, due = 0, time.monotonic()
    while True:
        if not playing.is_set():
            playing.wait()
            due = time.monotonic()
        frame = FrameData()
        frame.particle_positions = frames[step % len(frames)]
        frame.simulation_time = 0.01 * step
        frame.user_energy = frame.user_work_done = 0.0
        frame.user_forces_index = np.zeros(0, np.uint32)
        frame.user_forces_sparse = np.zeros((0, 3), np.float32)
        app.frame_publisher.send_frame(frame)
        step, due = step + 1, due + INTERVAL_S
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    app = NanoverImdApplication(address="127.0.0.1")
    server = WebSocketServer(app)
    server.serve(host="127.0.0.1", port=0, service="ws")
    playing = threading.Event()
    threading.Thread(target=publish, args=(app, int(sys.argv[1]), playing), daemon=True).start()
    print(app.service_hub.services["ws"], flush=True)
    for line in sys.stdin:
        if line.strip() == "play":
            playing.set()
        else:
            playing.clear()
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main()
