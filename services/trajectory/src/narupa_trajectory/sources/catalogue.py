"""What can be run, named by one line of text: `PATH[?option=value&...]` or `demo:NAME[?...]`.

17-ala.xml?steps_per_frame=10
cu.xyz?calculator=emt&temperature_k=500
argon.cif?calculator=lj&calculator.sigma=3.4&calculator.epsilon=0.0104
run.xtc?topology=top.pdb
demo:nanotube
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import unquote

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_trajectory.sources.source import Source

DEMO_PREFIX: Final = "demo:"
DEMO_NAMES: Final = ("nanotube", "peptide")
CALCULATOR_PREFIX: Final = "calculator."
NO_CALCULATOR: Final = "none"
MAX_TEXT_LENGTH: Final = 4096

Kind = Literal["demo", "openmm", "ase", "recording"]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source, as it was named.

    Attributes:
        text: Its name in full.
        target: The file, or `demo:NAME`.
        kind: What opens it.
        options: Those of its kind (see `narupa_trajectory.sources.options`), checked; what is unset is not among them.
    """

    text: str
    target: str
    kind: Kind
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that `text` names. Looks at the file's name, and at the start of an `.xml`; loads nothing.

        Raises:
            InvalidArgumentError: naming the option and the value.
        """
        from narupa_trajectory.sources.options import checked

        if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT_LENGTH or "\0" in text:
            raise InvalidArgumentError("input", text, "name a file, or one of " + ", ".join(demo_texts()))
        target, separator, query = text.strip().partition("?")
        if separator and Path(text.strip()).exists():  # a file whose name has a question mark in it
            target, query = text.strip(), ""
        given = parsed_query(query)
        kind = kind_of(target, given)
        return cls(text, target, kind, checked(kind, given, text))


def check_spec(text: str) -> None:
    """Passes for a source that looks as if it could be opened: the cheap checks, for failing early.

    Raises:
        InvalidArgumentError: an unknown file, demo, option, calculator or type of file.
    """
    check_there(SourceSpec.parse(text))


def check_there(spec: SourceSpec) -> None:
    """Passes when what `spec` names seems to be there; errors as for `check_spec`."""
    if spec.kind == "demo":
        if spec.target.removeprefix(DEMO_PREFIX) not in DEMO_NAMES:
            raise InvalidArgumentError("input", spec.text, f"is no demo; there are {', '.join(demo_texts())}")
        return
    existing(spec.target, "input")
    if spec.kind == "ase":
        from narupa_trajectory.sources.calculators import calculator_named

        calculator_named(spec.options["calculator"])
    if "topology" in spec.options:
        existing(spec.options["topology"], "topology")


def open_source(spec: SourceSpec) -> Source:
    """The source, loaded and at its first frame.

    Raises:
        InvalidArgumentError: it cannot be opened; the text says why, and what would help.
    """
    check_there(spec)
    name = source_name(spec)
    path = Path(spec.target)
    # Engines are imported when they are needed, so that naming one is cheap.
    if spec.kind == "demo":
        from narupa_trajectory.sources.demos import DEMOS

        return DEMOS[spec.target.removeprefix(DEMO_PREFIX)](name, **spec.options)
    if spec.kind == "openmm":
        from narupa_trajectory.sources.openmm_input import open_openmm

        return open_openmm(path, name, **spec.options)
    if spec.kind == "ase":
        return open_ase(path, name, spec.options)
    from narupa_trajectory.sources.recording_source import open_recording

    topology = Path(spec.options["topology"]) if "topology" in spec.options else None
    recording = open_recording(path, name, topology)
    if recording.info.frame_count == 1 and "calculator" not in spec.options:
        reason = "holds a single frame; add ?calculator=emt (or another) to simulate it, ?calculator=none to show it"
        from narupa_trajectory.sources.calculators import known

        raise InvalidArgumentError("input", spec.text, f"{reason}. Calculators: {known()}")
    return recording


def open_ase(path: Path, name: str, options: Mapping[str, Any]) -> Source:
    from narupa_trajectory.sources.ase_source import AseSource
    from narupa_trajectory.sources.calculators import make_calculator
    from narupa_trajectory.sources.recording_source import ase_images

    try:
        atoms = ase_images(path, "-1")[0]
    except (FailedPreconditionError, IndexError) as error:
        raise InvalidArgumentError("input", str(path), f"cannot be read: {error}") from error
    dynamics = dict(options)
    calculator = make_calculator(dynamics.pop("calculator"), dynamics.pop("calculator_options"), atoms)
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


def existing(path: str, field: str) -> None:
    if not Path(path).exists():
        raise InvalidArgumentError(field, path, f"there is no such file in {Path.cwd()}")
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise InvalidArgumentError(field, path, "is empty")


def demo_texts() -> list[str]:
    return [DEMO_PREFIX + name for name in DEMO_NAMES]
