"""What the imd service is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from narupa_shared.config import MIB, ServiceConfig, default_state_dir, settings_for


class ImdConfig(ServiceConfig):
    """Settings of the imd service."""

    model_config = settings_for("imd")

    port: int = Field(default=38812, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    watch_interval_s: float = Field(default=1 / 30, gt=0, le=60)
    """Time between the changes sent to a watcher that names no interval, s."""

    minimum_watch_interval_s: float = Field(default=1 / 120, ge=0, le=60)
    """Shortest time between the changes sent to one watcher, s."""

    heartbeat_s: float = Field(default=0.5, gt=0, le=10)
    """Longest silence towards a follower of the interactions, s; after three it releases every force."""

    updates_per_s: float = Field(default=1000, ge=1)
    """Updates accepted from one connection or stream, per second on average."""

    update_burst: int = Field(default=2000, ge=1)
    """Updates accepted from one connection or stream at once."""

    bytes_per_s: int = Field(default=8 * MIB, ge=1024)
    """Bytes of updates accepted from one connection or stream, per second on average."""

    byte_burst: int = Field(default=32 * MIB, ge=1024)
    """Bytes of updates accepted from one connection or stream at once; no larger message is."""

    max_keys: int = Field(default=10_000, ge=1)
    """Most keys in the shared state."""

    max_state_bytes: int = Field(default=16 * MIB, ge=1024)
    """Largest shared state, bytes."""

    command_answer_s: float = Field(default=10, gt=0, le=120)
    """Longest time that a client has to answer a call of a command that it provides, s."""

    store: str = "sqlite"
    """Where the shared state is kept: memory, sqlite (a file in the state directory), sqlite:PATH, or redis://HOST:PORT."""

    state_dir: Path = Field(default_factory=default_state_dir)
    """The directory of what outlives the service."""
