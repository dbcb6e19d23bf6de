"""What can be run, named by one line of text: `PATH[?option=value&...]` or `demo:NAME[?...]`.

17-ala.xml?steps_per_frame=10
cu.xyz?calculator=emt&temperature_k=500
argon.cif?calculator=lj&calculator.sigma=3.4&calculator.epsilon=0.0104
run.xtc?topology=top.pdb
demo:nanotube
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_trajectory.sources.source import Source

DEMO_PREFIX: Final = "demo:"
DEMO_NAMES: Final = ("nanotube", "peptide")
CALCULATOR_PREFIX: Final = "calculator."
NO_CALCULATOR: Final = "none"
MAX_TEXT_LENGTH: Final = 4096

Steps = Annotated[int, Field(ge=1, le=100_000)]
Temperature = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Options(BaseModel):
    """Options of every kind of source. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenMMOptions(Options):
    """Options of an OpenMM simulation."""

    steps_per_frame: Steps = 5
    """Integration steps between frames."""
    temperature_k: Temperature | None = None
    """Temperature of the first velocities where the input has none; by default the integrator's own."""
    minimise: bool | None = None
    """Whether to relax the structure first; by default demos are and files are not."""
    platform: str | None = None
    """OpenMM platform; by default the fastest that works."""


class AseOptions(Options):
    """Options of a simulation with an ASE calculator."""

    calculator: str
    """Name of an ASE calculator, or `package.module:Callable`."""
    steps_per_frame: Steps = 1
    """Integration steps between frames."""
    timestep_fs: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Integration step."""
    temperature_k: Temperature = 300.0
    """Temperature of the thermostat, and of the first velocities where the file has none."""
    friction_per_ps: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = 10.0
    """Coupling to the thermostat."""
    dynamics: Literal["langevin", "nve"] = "langevin"
    """With a thermostat, or at constant energy."""
    calculator_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the calculator, each written as `calculator.NAME=VALUE`."""


class RecordingOptions(Options):
    """Options of a recording."""

    topology: str | None = None
    """File with the topology, for a file of coordinates alone."""
    calculator: Literal["none"] | None = None
    """`none` shows a file of a single frame as it is."""


Kind = Literal["demo", "openmm", "ase", "recording"]
KINDS: Final[dict[Kind, type[Options]]] = {
    "demo": OpenMMOptions,
    "openmm": OpenMMOptions,
    "ase": AseOptions,
    "recording": RecordingOptions,
}


class SourceSpec(BaseModel):
    """One source, as it was named."""

    model_config = ConfigDict(frozen=True)

    text: str
    target: str
    kind: Kind
    options: OpenMMOptions | AseOptions | RecordingOptions

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that `text` names. Looks at the file's name, and at the start of an `.xml`; loads nothing.

        Raises:
            InvalidArgumentError: naming the option and the value.
        """
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT_LENGTH or "\0" in text:
            raise InvalidArgumentError("input", text, "name a file, or one of " + ", ".join(demo_texts()))
        target, separator, query = text.strip().partition("?")
        if separator and Path(text.strip()).exists():  # a file whose name has a question mark in it
            target, query = text.strip(), ""
        given = parsed_query(query)
        kind = kind_of(target, given)
        try:
            options = KINDS[kind].model_validate(given)
        except ValidationError as error:
            raise explained(error, kind, text) from error
        return cls.model_validate({"text": text, "target": target, "kind": kind, "options": options})


def check_spec(text: str) -> None:
    """Passes for a source that looks as if it could be opened: the cheap checks, for failing early.

    Raises:
        InvalidArgumentError: an unknown file, demo, option, calculator or type of file.
    """
    spec = SourceSpec.parse(text)
    if spec.kind == "demo":
        if spec.target.removeprefix(DEMO_PREFIX) not in DEMO_NAMES:
            raise InvalidArgumentError("input", spec.text, f"is no demo; there are {', '.join(demo_texts())}")
        return
    existing(spec.target, "input")
    if isinstance(spec.options, AseOptions):
        from narupa_trajectory.sources.calculators import calculator_named

        calculator_named(spec.options.calculator)
    if isinstance(spec.options, RecordingOptions) and spec.options.topology is not None:
        existing(spec.options.topology, "topology")


def open_source(spec: SourceSpec) -> Source:
    """The source, loaded and at its first frame.

    Raises:
        InvalidArgumentError: it cannot be opened; the text says why, and what would help.
    """
    check_spec(spec.text)
    name = source_name(spec)
    path = Path(spec.target)
    # Engines are imported when they are needed, so that naming one is cheap.
    if isinstance(spec.options, OpenMMOptions):
        options = spec.options.model_dump(exclude_none=True)
        if spec.kind == "demo":
            from narupa_trajectory.sources.demos import DEMOS

            return DEMOS[spec.target.removeprefix(DEMO_PREFIX)](name, **options)
        from narupa_trajectory.sources.openmm_input import open_openmm

        return open_openmm(path, name, **options)
    if isinstance(spec.options, AseOptions):
        return open_ase(path, name, spec.options)
    from narupa_trajectory.sources.recording_source import open_recording

    topology = Path(spec.options.topology) if spec.options.topology is not None else None
    recording = open_recording(path, name, topology)
    if recording.info.frame_count == 1 and spec.options.calculator is None:
        reason = "holds a single frame; add ?calculator=emt (or another) to simulate it, ?calculator=none to show it"
        from narupa_trajectory.sources.calculators import known

        raise InvalidArgumentError("input", spec.text, f"{reason}. Calculators: {known()}")
    return recording


def open_ase(path: Path, name: str, options: AseOptions) -> Source:
    from narupa_trajectory.sources.ase_source import AseSource
    from narupa_trajectory.sources.calculators import make_calculator
    from narupa_trajectory.sources.recording_source import ase_images

    try:
        atoms = ase_images(path, "-1")[0]
    except (FailedPreconditionError, IndexError) as error:
        raise InvalidArgumentError("input", str(path), f"cannot be read: {error}") from error
    calculator = make_calculator(options.calculator, options.calculator_options, atoms)
    dynamics = options.model_dump(exclude={"calculator", "calculator_options"})
    return AseSource(name, atoms, calculator, **dynamics)


def source_name(spec: SourceSpec) -> str:
    """What people call it: the demo's name, or the file's without its ending."""
    return spec.target.removeprefix(DEMO_PREFIX) if spec.kind == "demo" else Path(spec.target).stem or spec.target


def kind_of(target: str, given: dict[str, Any]) -> Kind:
    if target.startswith(DEMO_PREFIX):
        return "demo"
    path = Path(target)
    # The root decides; a file that is not there, or is broken, is told so when it is checked or opened.
    named = path.suffix.lower() == ".xml"
    if named and ("calculator" not in given or not path.is_file() or is_openmm_input(path)):
        return "openmm"
    return "ase" if given.get("calculator", NO_CALCULATOR) != NO_CALCULATOR else "recording"


def is_openmm_input(path: Path) -> bool:
    """Whether the file starts as the OpenMM inputs do. Here, so that naming one does not load the engine."""
    try:
        with path.open("rb") as file:
            return b"<OpenMMSimulation" in file.read(4096)
    except OSError as error:
        raise InvalidArgumentError("input", str(path), f"cannot be read ({error})") from error


def parsed_query(query: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    calculator_options: dict[str, Any] = {}
    for item in query.split("&") if query else []:
        key, separator, value = item.partition("=")
        key, value = unquote(key), unquote(value)
        if not separator or not key:
            raise InvalidArgumentError("input option", item, "options are written name=value, with & between them")
        if key in given or key.removeprefix(CALCULATOR_PREFIX) in calculator_options:
            raise InvalidArgumentError("input option", key, "is given twice")
        if key.startswith(CALCULATOR_PREFIX):
            calculator_options[key.removeprefix(CALCULATOR_PREFIX)] = literal(value)
        else:
            given[key] = value
    if calculator_options:
        given["calculator_options"] = calculator_options
    return given


def literal(value: str) -> Any:
    """A number, true, false, null, list or map where the text is one in JSON, else the text."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def explained(error: ValidationError, kind: Kind, text: str) -> InvalidArgumentError:
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"])
    options = ", ".join(sorted(KINDS[kind].model_fields))
    if problem["type"] == "extra_forbidden":
        reason = f"the option {name} is unknown here; this source has {options}"
        if kind == "recording" and name in AseOptions.model_fields:
            reason += "; to simulate the file, add calculator=NAME"
        return InvalidArgumentError("input", text, reason)
    return InvalidArgumentError(f"{name} of {text}", problem.get("input"), problem["msg"])


def existing(path: str, field: str) -> None:
    if not Path(path).exists():
        raise InvalidArgumentError(field, path, f"there is no such file in {Path.cwd()}")
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise InvalidArgumentError(field, path, "is empty")


def demo_texts() -> list[str]:
    return [DEMO_PREFIX + name for name in DEMO_NAMES]
