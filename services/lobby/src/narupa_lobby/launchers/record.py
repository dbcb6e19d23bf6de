"""What the lobby remembers of a launch, so that the next lobby goes on with it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from narupa_lobby.catalogue.simulation import LauncherName, SimulationSpec


class Phase(StrEnum):
    """How far a launch has come."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class LaunchRecord(BaseModel):
    """One simulation of one session. Times are in s since the Unix epoch.

    Attributes:
        spec: As it was in the catalogue when the launch began.
        folder: Where relative inputs are looked for.
        owner: The lobby that looks after it.
        ref: The launcher's, of the present attempt; empty when there is none.
        attempt: Restarts so far.
        not_before: When the next attempt may begin.
        running_since: When the present attempt's process was first seen to run; 0 when it was not.
        failures: When attempts failed, as far as they still count.
        stop_asked_at: When it was asked to stop.
        ended_at: When it had stopped.
        failed: Whether it was stopped for failing, and not on purpose.
        reason: Why it is stopping or stopped, or starts again.
        last_lines: What the last attempt wrote last.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)  # a later version may have noted more

    session_id: str
    service_id: str
    spec: SimulationSpec
    folder: Path
    launcher: LauncherName
    owner: str
    phase: Phase = Phase.STARTING
    ref: str = ""
    attempt: int = 0
    not_before: float = 0.0
    running_since: float = 0.0
    failures: tuple[float, ...] = ()
    stop_asked_at: float = 0.0
    ended_at: float = 0.0
    failed: bool = False
    reason: str = ""
    last_lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """In the store: a simulation runs once in a session."""
        return launch_key(self.session_id, self.spec.name)

    @property
    def job_name(self) -> str:
        """The name of the present attempt."""
        return f"{self.service_id}-r{self.attempt}" if self.attempt else self.service_id


def launch_key(session_id: str, simulation: str) -> str:
    """The key of the launch of this simulation in this session."""
    return f"{session_id}/{simulation}"
