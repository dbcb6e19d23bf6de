"""What the lobby can be told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from narupa_lobby.join_codes import normalised
from narupa_lobby.launchers.settings import LauncherSettings
from narupa_lobby.records import UserRole
from narupa_lobby.rules import Rules
from narupa_shared.config import ServiceConfig, default_state_dir, settings_for
from narupa_shared.errors import InvalidArgumentError


class LobbyConfig(ServiceConfig):
    """Settings of the lobby; `session_id` names the session that is always there."""

    model_config = settings_for("lobby")

    port: int = Field(default=38810, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    store: str = "sqlite"
    """What keeps sessions, users, services and keys: memory, sqlite (a file in state_dir), sqlite:PATH, or redis://HOST."""

    state_dir: Path = Field(default_factory=default_state_dir)
    """Folder of what the lobby keeps in files; readable by its owner only."""

    join_code: SecretStr | None = None
    """What users say to join the session that is always there, while the lobby is closed; unset: the lobby makes one."""

    operator_key: SecretStr | None = None
    """Secret of whoever runs the lobby, who may do everything in every session; unset: nobody may while it is closed."""

    open_role: UserRole = "host"
    """Role of users who join an open lobby without any secret."""

    join_role: UserRole = "participant"
    """Role of users who join with a join code or password, where their session does not say."""

    joins_per_s: float = Field(default=200.0, gt=0, le=100_000)
    """Joins that one address may make per second, and twice as many at once."""

    user_lease_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a user who does not watch the session stays, s."""

    rejoin_grace_s: float = Field(default=2.0, ge=0, le=600)
    """How long a user whose last watch ended may take to watch again, s."""

    service_lease_s: float = Field(default=3.0, ge=0.2, le=600)
    """How long a service that stops renewing stays listed, s."""

    leader_lease_s: float = Field(default=1.5, ge=0.2, le=600)
    """How long a leader of replicas that stops renewing keeps others from taking over, s."""

    token_ttl_s: float = Field(default=3600.0, ge=1, le=86400 * 7)
    """How long a token is good for, s."""

    key_rotation_s: float = Field(default=86400.0, ge=60, le=86400 * 366)
    """How long a key signs tokens before the next one does, s."""

    idle_timeout_s: float = Field(default=3600.0, ge=0, le=86400 * 366)
    """How long a session that was made stays with nobody in it, where its maker does not say, s; 0: for ever."""

    max_sessions: int = Field(default=100, ge=1, le=10_000)
    """Sessions that the lobby takes."""

    max_users: int = Field(default=500, ge=1, le=100_000)
    """Users that a session takes."""

    max_services: int = Field(default=200, ge=1, le=10_000)
    """Services that a session takes."""

    max_watchers: int = Field(default=2000, ge=1, le=100_000)
    """Watch streams that a session takes."""

    history_events: int = Field(default=1000, ge=1, le=1_000_000)
    """Past events of a session that a watcher can resume from, and that a slow watcher may lag behind."""

    catalogue: Path | None = None
    """Folder of specs (*.yaml, *.toml) of simulations and session templates that can be started; unset offers none."""

    launchers: LauncherSettings = LauncherSettings()
    """How simulations of the catalogue are started."""

    @field_validator("join_code")
    @classmethod
    def _code(cls, code: SecretStr | None) -> SecretStr | None:
        return code if code and normalised(code.get_secret_value()) else None

    def rule_names(self) -> list[str]:
        """The settings that are rules of the core."""
        return [field.name for field in fields(Rules) if field.name in type(self).model_fields]

    def state_folder(self) -> Path:
        """The folder `state_dir`, made if need be where something is kept in it.

        Raises:
            InvalidArgumentError: it cannot be made.
        """
        if self.store == "sqlite":
            try:
                self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise InvalidArgumentError(
                    "state_dir", str(self.state_dir), f"cannot keep anything there: {error}"
                ) from error
        return self.state_dir
