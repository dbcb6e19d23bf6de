"""The options that sources are given, checked and completed.

Apart from what names and opens sources, so that an engine process, which is sent options that have been checked, need not wait
for pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources.engines import EngineType

Steps = Annotated[int, Field(ge=1, le=100_000)]
Temperature = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
TemperatureLimit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Options(BaseModel):
    """Options of every kind of source. Unknown ones are refused.

    Those of a plug-in are a class derived from this one. Values are given as text, and passed on as JSON has them.
    """

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
    max_temperature_k: TemperatureLimit | None = None
    """What is hotter has blown up, and is stopped; by default 100 000 K."""


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
    """Coupling to the thermostat; with `npt` its inverse is the time in which the thermostat answers, and the volume
    takes ten times as long."""
    dynamics: Literal["langevin", "nve", "npt"] = "langevin"
    """With a thermostat, at constant energy, or with a thermostat and a barostat."""
    pressure_bar: Annotated[float, Field(ge=-1e7, le=1e7, allow_inf_nan=False)] | None = None
    """Pressure that `npt` keeps; 1 bar by default, negative for tension."""
    max_temperature_k: TemperatureLimit | None = None
    """What is hotter has blown up, and is stopped; by default 100 000 K."""
    calculator_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the calculator, each written as `calculator.NAME=VALUE`."""


class RecordingOptions(Options):
    """Options of a recording."""

    speed: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """How many times as fast it is played."""
    loop: bool = True
    """Whether it starts over at its end; else it stops there."""
    dt: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    """Wall-clock time between frames, s; by default as they were recorded, or as the service has it."""
    state: str | None = None
    """File with the shared state of a `.traj` file; by default the `.state` file beside it."""

    topology: str | None = None
    """File with the topology, for a file of coordinates alone."""
    calculator: Literal["none"] | None = None
    """`none` shows a file of a single frame as it is."""


def checked(engine: EngineType, given: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The options `given` to the source that `text` names, typed and with their defaults; what is unset is left out.

    Raises:
        InvalidArgumentError: naming the option and the value.
    """
    try:
        return engine.options.model_validate(given).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        raise explained(error, engine, text) from error


def explained(error: ValidationError, engine: EngineType, text: str) -> InvalidArgumentError:
    # An option that is spelt wrong first: the one that it was meant to be may be the one that is missing.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    name = ".".join(str(part) for part in problem["loc"]) or "options"
    options = ", ".join(sorted(engine.options.model_fields)) or "none"
    if problem["type"] == "extra_forbidden":
        reason = f"the option {name} is unknown here; this source has {options}"
        if engine.name == "recording" and name in AseOptions.model_fields:
            reason += "; to simulate the file, add calculator=NAME"
        return InvalidArgumentError("input", text, reason)
    if problem["type"] == "missing":
        return InvalidArgumentError("input", text, f"needs the option {name}; add {name}=... after a question mark")
    return InvalidArgumentError(f"{name} of {text}", problem.get("input"), problem["msg"])
