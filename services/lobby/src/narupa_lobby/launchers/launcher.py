"""The interface of every launcher, what it is asked for, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import SecretStr

from narupa_lobby.catalogue.simulation import SimulationSpec
from narupa_shared.config import is_loopback
from narupa_shared.errors import NarupaError

ENVIRONMENT_PREFIX: Final = "NARUPA_TRAJECTORY_"
SERVICE_KEY: Final = ENVIRONMENT_PREFIX + "SERVICE_KEY"
# In containers and pods, the image's own port.
CONTAINER_PORT: Final = 38811
MAX_LINE: Final = 500


class LaunchError(NarupaError):
    """A launcher cannot do what it was asked. Its text says why and what to do.

    Attributes:
        lasting: Trying again helps only once somebody has changed something.
    """

    def __init__(self, reason: str, *, lasting: bool) -> None:
        self.lasting = lasting
        super().__init__(reason)


@dataclass(frozen=True)
class Job:
    """One attempt at running one simulation.

    Attributes:
        name: Unique to the attempt: a host name's worth of lower case letters, digits and hyphens.
        session_id: The session that it belongs to.
        service_id: The id under which the service registers.
        spec: What to run.
        folder: Where relative inputs are looked for.
        lobby: HOST:PORT of the lobby, as the service reaches it; several separated by commas.
        host: The address on which the lobby listens.
        lobby_named: Whether the operator chose `lobby`, and so vouches for it.
        service_key: With which it registers; never on a command line, nor in a log.
        open_access: Whether to let in callers without a token on whatever address it listens.
        environment: The operator's further variables.
    """

    name: str
    session_id: str
    service_id: str
    spec: SimulationSpec
    folder: Path
    lobby: str
    host: str = "127.0.0.1"
    lobby_named: bool = False
    service_key: SecretStr | None = None
    open_access: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """Of the trajectory service's program: the id alone, by which people and launchers find it again."""
        return ["--service-id", self.service_id]

    @property
    def secrets(self) -> dict[str, str]:
        """Environment variables that nobody else may see."""
        return {SERVICE_KEY: self.service_key.get_secret_value()} if self.service_key is not None else {}

    @property
    def lobby_is_loopback(self) -> bool:
        """Whether only this machine reaches the lobby."""
        return all(is_loopback(address.rpartition(":")[0]) for address in self.lobby.split(","))

    def variables(self, host: str, port: int, advertise: Sequence[str] = ()) -> dict[str, str]:
        """Environment variables of the service that may be seen, for one that listens on `host` and `port`."""
        spec = self.spec
        settings: dict[str, object] = {
            "session_id": self.session_id,
            "lobby": self.lobby,
            "host": host,
            "port": port,
            **spec.defaults.model_dump(exclude_none=True),
        }
        if advertise:
            settings["advertise"] = list(advertise)
        if self.open_access:
            settings["open_access"] = True
        if spec.idle.pause_after_s:
            settings["pause_when_idle_s"] = spec.idle.pause_after_s
        settings["sources"] = spec.sources
        threads = {"OPENMM_CPU_THREADS", "OMP_NUM_THREADS"} if spec.threads else set()
        return {
            **{name: str(spec.threads) for name in sorted(threads)},
            "PYTHONUNBUFFERED": "1",
            **{ENVIRONMENT_PREFIX + name.upper(): _text(value) for name, value in settings.items()},
            **spec.environment,
            **self.environment,
        }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Seen:
    """What has become of a job.

    Attributes:
        state: Waits for its turn or its image; runs; has ended; or is not to be found any more.
        exit_code: Of one that has ended, where it is known.
        reason: What it waits for, or why it ended.
    """

    state: Literal["pending", "running", "ended", "gone"]
    exit_code: int | None = None
    reason: str = ""


class Launcher(Protocol):
    """Starts jobs and looks after them. A `ref` is text that finds the job again, from another process too.

    Every method may raise LaunchError; of `look`, that means that the job's state is not known now.
    """

    @property
    def name(self) -> str:
        """As specs name it."""

    @property
    def outlives_lobby(self) -> bool:
        """Whether jobs go on when the lobby ends as it was asked to."""

    async def start(self, job: Job) -> str:
        """The job is on its way; returns its ref."""

    async def find(self, job: Job) -> str | None:
        """The ref of this job if it was started before, by a lobby that died before it could note the ref."""

    async def look(self, ref: str) -> Seen:
        """What has become of it."""

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        """The last lines that it wrote, at most so many; none when there is no log."""

    async def stop(self, ref: str, grace_s: float) -> None:
        """It has ended: asked to, and killed when that took longer than `grace_s`. Idempotent."""

    async def remove(self, ref: str) -> None:
        """It has ended, and nothing is left of it, its log included. Idempotent."""

    async def close(self) -> None:
        """Connections are let go; jobs go on. Idempotent."""


def last_lines(text: str, lines: int) -> list[str]:
    """The last `lines` lines of `text`, each short and without control characters."""
    found = text.splitlines()[-lines:] if lines > 0 else []
    return ["".join(c if c.isprintable() else " " for c in line[:MAX_LINE]).rstrip() for line in found]
