"""A recorded trajectory, played frame by frame: whatever MDAnalysis or ASE reads."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import ase.io
import MDAnalysis
import numpy as np
from ase.io.formats import UnknownFileTypeError
from MDAnalysis.lib.mdamath import triclinic_vectors

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NoLongerKeptError, shown
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.recordings.recording import StateChange
from narupa_shared.units import ANGSTROM_IN_NM, EV_IN_KJ_MOL
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.ase_calculator import frame_box, temperature_of
from narupa_trajectory.sources.ase_source import ASE_VELOCITY_IN_NM_PS
from narupa_trajectory.sources.recorded import Moved, Pace
from narupa_trajectory.sources.source import Snapshot, SourceInfo, TopologyValue

# Formats where ASE keeps what MDAnalysis drops: cells and energies.
ASE_FIRST = (".xyz", ".extxyz", ".traj", ".db", ".json", ".cif")
# A file up to this size is read whole to tell it from others, of a larger one only samples of this many bytes.
WHOLE_BYTES: Final = 64 * 1024 * 1024
SAMPLE_BYTES: Final = 64 * 1024
SAMPLES: Final = 1024


class Frames(Protocol):
    """The frames of one file, by index."""

    particle_count: int

    def __len__(self) -> int: ...

    def topology(self) -> Mapping[str, TopologyValue]: ...

    def read(self, index: int, velocities: bool) -> Snapshot: ...

    def close(self) -> None: ...


class RecordingSource:
    """Frames of a file. Nothing in it can be pulled."""

    def __init__(self, name: str, frames: Frames, content_id: str = "", pace: Pace | None = None) -> None:
        self._frames = frames
        self._pace = pace or Pace()
        self._index = 0
        self._topology = frames.topology()
        own = self._pace.frame_interval_s
        interval_s = None if own is None else self._pace.scaled(own)
        self._info = SourceInfo(
            name, frames.particle_count, False, len(frames), content_id=content_id, frame_interval_s=interval_s
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        if self._index + 1 >= len(self._frames):
            return False
        self._index += 1
        return True

    @property
    def loops(self) -> bool:
        return self._pace.loops

    def pace_s(self, interval_s: float) -> float:
        own = self._pace.frame_interval_s
        return self._pace.scaled(interval_s if own is None else own)

    def move(self) -> Moved:
        return "frame" if self.advance(1) else "end"

    def seek_time(self, time_s: float) -> None:
        if self._pace.frame_interval_s is None:
            reason = "has no times of its own; seek by index, or play it with ?dt=SECONDS between frames"
            raise FailedPreconditionError(f"the recording {self._info.name} {reason}")
        self.seek(min(int(time_s / self._pace.frame_interval_s + 1e-9), len(self._frames) - 1))

    def peek(self, index: int, velocities: bool) -> Snapshot:
        here = self._index
        self.seek(index)
        self._index = here
        return self._frames.read(index, velocities)

    def take_topology(self) -> Mapping[str, TopologyValue] | None:
        return None

    def take_state(self) -> StateChange | None:
        return None

    def snapshot(self, velocities: bool = False) -> Snapshot:
        return self._frames.read(self._index, velocities)

    def seek(self, index: int) -> None:
        if not 0 <= index < len(self._frames):
            raise NoLongerKeptError(
                f"frame {index} is not in the recording, which has frames 0 to {len(self._frames) - 1}"
            )
        self._index = index

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """Nothing: what is recorded cannot be pulled."""

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return ()

    def suspects(self) -> Sequence[str]:
        return ()

    def reset(self) -> None:
        self._index = 0

    def checkpoint(self) -> bytes:
        return b"frame %d" % self._index

    def restore(self, checkpoint: bytes) -> None:
        word, _, digits = checkpoint.partition(b" ")
        if word != b"frame" or not digits.isdigit() or len(digits) > 12 or int(digits) >= len(self._frames):
            raise InvalidArgumentError(
                "checkpoint", checkpoint[:40], f"is not of a recording of {len(self._frames)} frames"
            )
        self._index = int(digits)

    def close(self) -> None:
        self._frames.close()


class MDAnalysisFrames:
    """Frames read when they are asked for, so that a recording of any length opens at once."""

    def __init__(self, universe: Any) -> None:
        self._universe = universe
        self.particle_count = len(universe.atoms)

    def __len__(self) -> int:
        return len(self._universe.trajectory)

    def topology(self) -> Mapping[str, TopologyValue]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return topologies.from_mdanalysis(self._universe)

    def read(self, index: int, velocities: bool) -> Snapshot:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = self._universe.trajectory[index]
            dimensions = frame.dimensions
            box = None if dimensions is None or not np.all(dimensions[:3] > 0) else triclinic_vectors(dimensions)
            return Snapshot(
                positions=(frame.positions * ANGSTROM_IN_NM).astype(np.float32),
                # A reader that finds no times in its file makes some up, and does not put them here.
                time_ps=float(frame.time) if {"time", "dt"} & set(frame.data) else None,
                step=index,
                box=None if box is None else (box * ANGSTROM_IN_NM).astype(np.float32),
                velocities=(frame.velocities * ANGSTROM_IN_NM).astype(np.float32)
                if velocities and frame.has_velocities
                else None,
            )

    def close(self) -> None:
        self._universe.trajectory.close()


class AseFrames:
    """Frames that ASE read, with their energies where the file has them."""

    def __init__(self, images: Sequence[ase.Atoms]) -> None:
        self._images = images
        self.particle_count = len(images[0])

    def __len__(self) -> int:
        return len(self._images)

    def topology(self) -> Mapping[str, TopologyValue]:
        return topologies.from_ase(self._images[0])

    def read(self, index: int, velocities: bool) -> Snapshot:
        atoms = self._images[index]
        box = frame_box(atoms)
        results = atoms.calc.results if atoms.calc is not None else {}
        moving = atoms.has("momenta")
        return Snapshot(
            positions=(atoms.positions * ANGSTROM_IN_NM).astype(np.float32),
            time_ps=None,
            step=index,
            box=None if box is None else box.astype(np.float32),
            potential_energy=float(results["energy"]) * EV_IN_KJ_MOL if results.get("energy") is not None else None,
            kinetic_energy=float(atoms.get_kinetic_energy()) * EV_IN_KJ_MOL if moving else None,
            temperature=temperature_of(atoms) if moving else None,
            velocities=(atoms.get_velocities() * ASE_VELOCITY_IN_NM_PS).astype(np.float32)
            if velocities and moving
            else None,
        )

    def close(self) -> None:
        self._images = ()


def open_recording(path: Path, name: str, topology: Path | None = None, pace: Pace | None = None) -> RecordingSource:
    """The recording in the file at `path`, its topology from another file where it has none of its own.

    Raises:
        InvalidArgumentError: neither MDAnalysis nor ASE can read it, or the two files do not fit.
    """
    readers = (
        [read_mdanalysis, read_ase] if topology or path.suffix.lower() not in ASE_FIRST else [read_ase, read_mdanalysis]
    )
    problems = []
    for reader in readers:
        try:
            frames = reader(path, topology)
        except FailedPreconditionError as error:
            problems.append(str(error))
            continue
        if not len(frames) or not frames.particle_count:
            raise InvalidArgumentError("input", str(path), "holds no frames, or frames without particles")
        return RecordingSource(name, frames, content_id(path, topology), pace)
    hint = "" if topology else "; a file of coordinates alone needs ?topology=FILE"
    raise InvalidArgumentError("input", str(path), f"cannot be read: {'; '.join(problems)}{hint}")


def content_id(path: Path, topology: Path | None) -> str:
    """The same text for the same recording: a digest of its files and how they are read, wherever they lie.

    Of large files it takes the size and samples, so that a recording of any length opens at once; two recordings
    whose files differ elsewhere only are taken for one.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (path, topology):
        digest.update(b"\0file" if part is None else f"\0file{part.suffix.lower()}".encode())
        for file in _files(part):
            size = file.stat().st_size
            digest.update(f"\0{file.relative_to(part) if part else ''}\0{size}\0".encode())
            for block in _blocks(file, size):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path | None) -> list[Path]:
    if path is None:
        return []
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    sampled = (number * (size - SAMPLE_BYTES) // (SAMPLES - 1) for number in range(SAMPLES))
    with path.open("rb") as file:
        for offset in sampled if size > WHOLE_BYTES else range(0, size, SAMPLE_BYTES):
            file.seek(offset)
            yield file.read(SAMPLE_BYTES)


def read_mdanalysis(path: Path, topology: Path | None) -> Frames:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MDAnalysisFrames(MDAnalysis.Universe(*(str(part) for part in (topology, path) if part is not None)))
    except Exception as error:  # its parsers raise whatever they trip over
        raise FailedPreconditionError(f"MDAnalysis: {shown(f'{type(error).__name__}: {error}', 200)}") from error


def read_ase(path: Path, topology: Path | None) -> Frames:
    if topology is not None:
        raise FailedPreconditionError("ASE does not take a separate topology")
    images = ase_images(path, ":")
    if any(len(image) != len(images[0]) for image in images):
        raise InvalidArgumentError("input", str(path), "holds frames of different numbers of particles")
    return AseFrames(images)


def ase_images(path: Path, index: str) -> list[ase.Atoms]:
    """What ASE reads from the file at `path`.

    Raises:
        FailedPreconditionError: it cannot read it; the text says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = ase.io.read(str(path), index, do_not_split_by_at_sign=True)
    except UnknownFileTypeError as error:
        raise FailedPreconditionError("ASE: it does not know this type of file") from error
    except Exception as error:  # its parsers raise whatever they trip over
        raise FailedPreconditionError(f"ASE: {shown(f'{type(error).__name__}: {error}', 200)}") from error
    return images if isinstance(images, list) else [images]
