"""The engines that are built in. What is heavy is imported when one of them opens, so that naming one is cheap."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_trajectory.sources.engines import EngineType, engines, existing
from narupa_trajectory.sources.source import Source

if TYPE_CHECKING:
    from narupa_trajectory.sources.catalogue import SourceSpec
    from narupa_trajectory.sources.options import Options

DEMO_PREFIX: Final = "demo:"
DEMO_NAMES: Final = ("nanotube", "peptide")
IMD_PREFIX: Final = "imd://"
NO_CALCULATOR: Final = "none"
# What MDAnalysis and ASE are known to read: no plug-in is asked about files that end like this.
RECORDING_SUFFIXES: Final = (
    *(".zip", ".state"),  # recordings of sessions; .traj may be one, too
    *(".ase", ".bundle", ".cif", ".cfg", ".con", ".coor", ".crd", ".cube", ".data", ".db", ".dcd", ".ent", ".extxyz"),
    *(".gro", ".gsd", ".h5md", ".history", ".inpcrd", ".json", ".lammpsdump", ".mdcrd", ".mol", ".mol2", ".namdbin"),
    *(".nc", ".ncdf", ".pdb", ".pdbqt", ".poscar", ".pqr", ".prmtop", ".psf", ".restrt", ".rst7", ".sdf", ".tng"),
    *(".tpr", ".traj", ".trj", ".trr", ".vasp", ".xsf", ".xtc", ".xyz"),
)


class DemoEngine:
    """Simulations that are built from published force fields, run by OpenMM."""

    name = "demo"

    @property
    def options(self) -> type[Options]:
        from narupa_trajectory.sources.options import OpenMMOptions

        return OpenMMOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return target.startswith(DEMO_PREFIX)

    def check(self, spec: SourceSpec) -> None:
        if spec.target.removeprefix(DEMO_PREFIX) not in DEMO_NAMES:
            raise InvalidArgumentError("input", spec.text, f"is no demo; there are {', '.join(demo_texts())}")

    def open(self, spec: SourceSpec, name: str) -> Source:
        from narupa_trajectory.sources.demos import DEMOS

        return DEMOS[spec.target.removeprefix(DEMO_PREFIX)](name, **spec.options)


class OpenMMEngine:
    """OpenMM, for its inputs that are one XML file."""

    name = "openmm"

    @property
    def options(self) -> type[Options]:
        from narupa_trajectory.sources.options import OpenMMOptions

        return OpenMMOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        path = Path(target)
        # The root decides; a file that is not there, or is broken, is told so when it is checked or opened.
        named = path.suffix.lower() == ".xml"
        return named and ("calculator" not in given or not path.is_file() or is_openmm_input(path))

    def check(self, spec: SourceSpec) -> None:
        existing(spec.target, "input")

    def open(self, spec: SourceSpec, name: str) -> Source:
        from narupa_trajectory.sources.openmm_input import open_openmm

        return open_openmm(Path(spec.target), name, **spec.options)


class AseEngine:
    """ASE's dynamics with any of its calculators, for every file that ASE reads."""

    name = "ase"

    @property
    def options(self) -> type[Options]:
        from narupa_trajectory.sources.options import AseOptions

        return AseOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return bool(given.get("calculator", NO_CALCULATOR) != NO_CALCULATOR)

    def check(self, spec: SourceSpec) -> None:
        from narupa_trajectory.sources.calculators import calculator_named

        existing(spec.target, "input")
        calculator_named(spec.options["calculator"])

    def open(self, spec: SourceSpec, name: str) -> Source:
        from narupa_trajectory.sources.ase_source import AseSource
        from narupa_trajectory.sources.calculators import make_calculator
        from narupa_trajectory.sources.recording_source import ase_images

        path = Path(spec.target)
        try:
            atoms = ase_images(path, "-1")[0]
        except (FailedPreconditionError, IndexError) as error:
            raise InvalidArgumentError("input", str(path), f"cannot be read: {error}") from error
        dynamics = dict(spec.options)
        calculator = make_calculator(dynamics.pop("calculator"), dynamics.pop("calculator_options"), atoms)
        return AseSource(name, atoms, calculator, **dynamics)


class RecordingEngine:
    """Files of frames. Nothing in them can be pulled."""

    name = "recording"

    @property
    def options(self) -> type[Options]:
        from narupa_trajectory.sources.options import RecordingOptions

        return RecordingOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return Path(target).suffix.lower() in RECORDING_SUFFIXES

    def check(self, spec: SourceSpec) -> None:
        try:
            existing(spec.target, "input")
        except InvalidArgumentError as error:
            # Perhaps it is no recording, but the input of a plug-in that could not say so.
            if complaints := engines().complaints():
                raise InvalidArgumentError("input", spec.target, f"{error.reason}; {complaints}") from None
            raise
        for option in ("topology", "state"):
            if option in spec.options:
                existing(spec.options[option], option)

    def open(self, spec: SourceSpec, name: str) -> Source:
        from narupa_shared.recordings.opening import is_recording
        from narupa_trajectory.sources.recorded import Pace
        from narupa_trajectory.sources.recording_source import open_recording

        given = spec.options
        pace = Pace(given.get("speed", 1.0), given.get("loop", True), given.get("dt"))
        topology, state = (Path(given[option]) if option in given else None for option in ("topology", "state"))
        if is_recording(Path(spec.target)):
            from narupa_trajectory.sources.replay_source import open_replay

            if topology is not None:
                raise InvalidArgumentError("topology", str(topology), f"{spec.target} has its topology in itself")
            return open_replay(Path(spec.target), name, state, pace)
        if state is not None:
            raise InvalidArgumentError("state", str(state), "only recordings of sessions have a shared state")
        recording = open_recording(Path(spec.target), name, topology, pace)
        if recording.info.frame_count == 1 and "calculator" not in spec.options:
            from narupa_trajectory.sources.calculators import known

            reason = (
                "holds a single frame; add ?calculator=emt (or another) to simulate it, ?calculator=none to show it"
            )
            raise InvalidArgumentError("input", spec.text, f"{reason}. Calculators: {known()}")
        return recording


class DeferredEngine:
    """An engine whose own module is loaded once one of its inputs is named."""

    def __init__(self, name: str, prefix: str, where: str) -> None:
        """
        Args:
            name: The engine's.
            prefix: What its inputs begin with.
            where: The engine itself, as `package.module:OBJECT`.
        """
        self.name = name
        self._prefix = prefix
        self._where = where

    @property
    def options(self) -> type[Options]:
        return self._engine.options

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return target.startswith(self._prefix)

    def check(self, spec: SourceSpec) -> None:
        self._engine.check(spec)

    def open(self, spec: SourceSpec, name: str) -> Source:
        return self._engine.open(spec, name)

    @property
    def _engine(self) -> EngineType:
        module, _, attribute = self._where.partition(":")
        return cast(EngineType, getattr(importlib.import_module(module), attribute))


def is_openmm_input(path: Path) -> bool:
    """Whether the file starts as the OpenMM inputs do. Here, so that naming one does not load the engine."""
    try:
        with path.open("rb") as file:
            return b"<OpenMMSimulation" in file.read(4096)
    except OSError as error:
        raise InvalidArgumentError("input", str(path), f"cannot be read ({error})") from error


def demo_texts() -> list[str]:
    return [DEMO_PREFIX + name for name in DEMO_NAMES]


BUILT_IN: Final[tuple[EngineType, ...]] = (
    DemoEngine(),
    DeferredEngine("imd", IMD_PREFIX, "narupa_trajectory.sources.imd_engine:IMD_ENGINE"),
    OpenMMEngine(),
    AseEngine(),
    RecordingEngine(),
)
