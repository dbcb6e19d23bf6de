"""A simulation that can be started on demand, as its spec describes it."""

from __future__ import annotations

import math
import posixpath
import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote, unquote

from pydantic import AfterValidator, Field, model_validator

from narupa_lobby.catalogue.fields import Bytes, Environment, Line, Name, Seconds, Section, Word

LauncherName = Literal["local", "docker", "kubernetes", "slurm"]
# Of `demo:NAME`, `imd://HOST:PORT` and what engines that are plug-ins have of the kind: no files, as in a URI.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# Options that name a file.
_FILE_OPTIONS: Final = ("topology",)


def _input(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(
            "needs PATH[?option=value&...], demo:NAME or imd://HOST:PORT, without line breaks and control characters"
        )
    return text.strip()


Input = Annotated[str, Field(max_length=1000), AfterValidator(_input)]
Option = Annotated[str, Field(max_length=200)] | bool | int | Annotated[float, Field(allow_inf_nan=False)]


class Engine(Section):
    """How the inputs are run; what an input says itself goes first."""

    kind: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")] | None = None
    """What runs the inputs that are files: openmm, ase, recording, or a plug-in's name; unset leaves it to each input."""

    platform: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,32}$")] | None = None
    """OpenMM platform, such as CPU or CUDA; unset takes the fastest that works."""

    calculator: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:]{1,200}$")] | None = None
    """Name of an ASE calculator, or `package.module:Callable`."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of the engine; unset takes `resources.cpus`, and every core without that."""

    options: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,63}$")], Option] = Field(
        default={}, max_length=32
    )
    """Further options of the inputs, such as temperature_k."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.platform is not None and self.kind not in (None, "openmm"):
            raise ValueError(f"platform {self.platform!r} is OpenMM's; leave it out, or say kind: openmm")
        if self.calculator is not None and self.kind not in (None, "ase"):
            raise ValueError(f"calculator {self.calculator!r} is ASE's; leave it out, or say kind: ase")
        return self


class Resources(Section):
    """What a simulation may use. Containers, Kubernetes and Slurm hold it to that; local processes are trusted to."""

    cpus: float | None = Field(default=None, ge=0.1, le=1024, allow_inf_nan=False)
    """Cores."""
    memory: Bytes | None = None
    """Such as 2GiB."""
    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs (NVIDIA's, in containers)."""


class Defaults(Section):
    """Settings of the trajectory service; unset ones are its own."""

    paused: bool | None = None
    frame_interval_s: float | None = Field(default=None, ge=0, le=3600, allow_inf_nan=False)
    steps_per_frame: int | None = Field(default=None, ge=1, le=1_000_000)
    velocities: bool | None = None
    subscriber_interval_s: float | None = Field(default=None, gt=0, le=60, allow_inf_nan=False)
    minimum_subscriber_interval_s: float | None = Field(default=None, gt=0, le=60, allow_inf_nan=False)
    max_subscribers: int | None = Field(default=None, ge=1, le=1_000_000)
    recent_frames: int | None = Field(default=None, ge=1, le=1_000_000)
    recent_bytes: int | None = Field(default=None, ge=0, le=64 * 1024**3)
    checkpoint_interval_s: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    load_limit_s: float | None = Field(default=None, gt=0, le=86400, allow_inf_nan=False)
    silence_limit_s: float | None = Field(default=None, gt=0, le=86400, allow_inf_nan=False)


class Idle(Section):
    """What happens when nobody watches; 0 switches a step off."""

    pause_after_s: Seconds = 60.0
    """Time until it pauses, s; the next who watches has it go on."""
    stop_after_s: Seconds = 3600.0
    """Time until it is stopped, s."""


class Restart(Section):
    """What happens when it fails."""

    max_restarts: int = Field(default=3, ge=0, le=100)
    """Restarts within `window_s`; one failure more, and it stays stopped."""
    window_s: float = Field(default=600.0, gt=0, le=86400 * 30, allow_inf_nan=False)
    """How long a failure counts, s."""
    first_delay_s: float = Field(default=1.0, ge=0.01, le=3600, allow_inf_nan=False)
    """Wait before the first restart, s; doubled with each more."""
    longest_delay_s: float = Field(default=60.0, ge=0.01, le=86400, allow_inf_nan=False)
    """Longest wait, s."""


class DockerSection(Section):
    """For the docker launcher."""

    image: Word | None = None
    """Unset takes the lobby's setting."""
    network: Word | None = None
    """Docker network; unset takes the lobby's setting."""


class KubernetesSection(Section):
    """For the kubernetes launcher."""

    image: Word | None = None
    """Unset takes the lobby's setting."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Unset takes the lobby's setting."""
    inputs_claim: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")] | None = None
    """Persistent volume claim with the inputs; relative inputs are looked for in it."""
    node_selector: dict[
        Annotated[str, Field(pattern=r"^(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")],
        Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")],
    ] = Field(default={}, max_length=16)
    """Labels that a node must have."""


class SlurmSection(Section):
    """For the slurm launcher."""

    partition: Word | None = None
    """Unset takes the lobby's setting."""
    account: Word | None = None
    """Unset takes the lobby's setting."""
    qos: Word | None = None
    """Quality of service."""
    constraint: Word | None = None
    """Features that a node must have."""
    time_limit: Annotated[str, Field(pattern=r"^(?:\d{1,3}-)?\d{1,3}:[0-5]\d:[0-5]\d$")] | None = None
    """[DAYS-]HOURS:MINUTES:SECONDS; unset takes the partition's."""


class SimulationSpec(Section):
    """One file of the catalogue with `kind: simulation`."""

    kind: Literal["simulation"]
    name: Name
    """How it is asked for."""
    title: Line = ""
    """What people read; unset shows the name."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """A sentence or two more."""
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=64)]
    """What can run, the first at the start: PATH[?option=value&...], relative to the spec's folder, demo:NAME, or what else an
    engine takes, such as imd://HOST:PORT. A file with a colon in its name is written ./NAME."""
    engine: Engine = Engine()
    resources: Resources = Resources()
    launcher: LauncherName | None = None
    """What starts it; unset takes the lobby's default."""
    docker: DockerSection = DockerSection()
    kubernetes: KubernetesSection = KubernetesSection()
    slurm: SlurmSection = SlurmSection()
    environment: Environment = Field(default={})
    """Further environment variables of the process."""
    defaults: Defaults = Defaults()
    idle: Idle = Idle()
    restart: Restart = Restart()
    start_timeout_s: float = Field(default=180.0, ge=1, le=86400, allow_inf_nan=False)
    """How long it may take from the start of its process until it runs, s."""

    @model_validator(mode="after")
    def _fits_its_launcher(self) -> Self:
        if reason := self.unfit_for(self.launcher):
            raise ValueError(reason)
        return self

    def unfit_for(self, launcher: str | None) -> str:
        """Why this launcher cannot give the simulation its inputs; empty when it can."""
        if launcher in ("docker", "kubernetes"):
            for text in self.relative_inputs:
                if posixpath.normpath(text).startswith(".."):
                    return f"inputs: {text!r} is outside of the folder that the container sees; move it beside the spec"
        if launcher == "kubernetes" and self.relative_inputs and self.kubernetes.inputs_claim is None:
            return (
                f"inputs: {self.relative_inputs[0]!r} is relative; name the volume claim that holds it in "
                "kubernetes.inputs_claim, or give an absolute path within the image"
            )
        return ""

    @property
    def relative_inputs(self) -> list[str]:
        """Paths, of inputs and of their options, that are looked for in the spec's folder."""
        paths = [path for text in self.sources for path in _paths(text)]
        return list(dict.fromkeys(path for path in paths if not path.startswith("/")))

    @property
    def sources(self) -> list[str]:
        """The inputs with the engine's options, as the trajectory service takes them."""
        engine = self.engine
        wanted = {"platform": engine.platform, "calculator": engine.calculator, **engine.options}
        return [
            _with_options(text, wanted if _SCHEME.match(text) else {"engine": engine.kind, **wanted})
            for text in self.inputs
        ]

    @property
    def threads(self) -> int | None:
        """Threads of the engine; None for as many as it likes."""
        if self.engine.threads is not None:
            return self.engine.threads
        return math.ceil(self.resources.cpus) if self.resources.cpus is not None else None


def _with_options(text: str, wanted: dict[str, Option | None]) -> str:
    target, _, query = text.partition("?")
    given = {item.partition("=")[0] for item in query.split("&")}
    more = [
        f"{name}={quote(str(value).lower() if isinstance(value, bool) else str(value), safe='.:,+-_')}"
        for name, value in wanted.items()
        if value is not None and name not in given
    ]
    items = [*([query] if query else []), *more]
    return f"{target}?{'&'.join(items)}" if items else target


def _paths(text: str) -> list[str]:
    target, _, query = text.partition("?")
    options = (item.partition("=") for item in query.split("&"))
    named = [unquote(value) for name, _, value in options if unquote(name) in _FILE_OPTIONS and value]
    return named if _SCHEME.match(target) else [target, *named]
