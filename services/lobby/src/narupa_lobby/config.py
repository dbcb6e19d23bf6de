"""What the lobby can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from narupa_shared.config import ServiceConfig, settings_for


class LobbyConfig(ServiceConfig):
    """Settings of the lobby; `session_id` names the session that exists from the start."""

    model_config = settings_for("lobby")

    port: int = Field(default=38810, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    join_code: SecretStr | None = None
    """What users must say to join while the lobby is closed; unset means that nobody can."""

    state_dir: Path | None = None
    """Folder that keeps the signing key, so that tokens outlive a restart; unset means a new key at each start."""

    user_lease_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a user who does not watch the session stays, s."""

    rejoin_grace_s: float = Field(default=2.0, ge=0, le=600)
    """How long a user whose last watch ended may take to watch again, s."""

    service_lease_s: float = Field(default=3.0, ge=0.2, le=600)
    """How long a service that stops renewing stays listed, s."""

    token_ttl_s: float = Field(default=3600.0, ge=1, le=86400 * 7)
    """How long a token is good for, s."""

    max_users: int = Field(default=500, ge=1, le=100_000)
    """Users that a session takes."""

    max_services: int = Field(default=200, ge=1, le=10_000)
    """Services that a session takes."""

    max_watchers: int = Field(default=2000, ge=1, le=100_000)
    """Watch streams that a session takes."""

    history_events: int = Field(default=1000, ge=1, le=1_000_000)
    """Past events of a session that a watcher can resume from, and that a slow watcher may lag behind."""
