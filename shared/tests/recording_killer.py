"""Kills recorders with SIGKILL at random instants, and judges what they leave. Run as a program; prints its findings as JSON.

It forks, so that a recorder takes no time to start; that is why it is a program of its own, with one thread.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipReader, NanoverZipWriter
from narupa_shared.recordings.recording import StateChange

ACKNOWLEDGED = struct.Struct("<Qd")
PARTICLES = 500


def record(path: Path, notes: int, hurry: float) -> None:
    """Records for ever, and says what is written in a file, `notes`. Time passes `hurry` times as fast for the recording."""

    def clock() -> float:
        return time.monotonic() * hurry

    began = clock()
    # Little room, so that the tail of the file has to move out again and again.
    writer = NanoverZipWriter.create(path, clock=clock, room=8192, list_room=64)
    number = 0
    while True:
        at = clock() - began
        positions = np.full((PARTICLES, 3), number, np.float32)
        frame = Frame.of(number, {"particle.positions": positions, "system.simulation.time": float(number)})
        writer.write(at, frame, StateChange({"avatar.a": {"number": float(number)}}) if number % 3 == 0 else None)
        os.write(notes, ACKNOWLEDGED.pack(number, at))
        number += 1
        time.sleep(0.0002)


def judged(path: Path, acknowledged: list[tuple[int, float]]) -> dict[str, float]:
    """What is wrong is raised; how much was lost is returned."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with NanoverZipReader(path) as reader:
        count = len(reader)
        for number, moment in enumerate(reader):
            assert moment.frame is not None
            assert moment.frame.index == number
            assert (moment.frame.arrays["particle.positions"] == number).all()
        times = reader.contents.times_s
        first = acknowledged[0][1]
        lost = [at for number, at in acknowledged if number >= count]
        last = float(times[-1]) + first if count else first
    return {
        "kept": count,
        "written": len(acknowledged),
        "lost": len(lost),
        "lost_s": max(0.0, (lost[-1] - last) if lost else 0.0),
    }


def main(folder: Path, kills: int, hurry: float, longest_s: float, seed: int) -> None:
    chance = random.Random(seed)
    findings = []
    for number in range(kills):
        path = folder / f"killed-{hurry:g}-{number}.nanover.zip"
        notes = os.open(path.with_suffix(".notes"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        child = os.fork()
        if not child:
            record(path, notes, hurry)
        while not os.fstat(notes).st_size:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(notes, "rb") as file:
            file.seek(0)
            written = file.read()
        acknowledged = list(ACKNOWLEDGED.iter_unpack(written))
        findings.append(judged(path, acknowledged))
    print(json.dumps(findings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
