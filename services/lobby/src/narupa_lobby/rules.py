"""How much the lobby takes, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from narupa_lobby.records import UserRole


@dataclass(frozen=True, slots=True)
class Rules:
    """The lobby's limits; the settings of the same names say what each means. Times in s."""

    open: bool = True
    session_id: str = "default"
    open_role: UserRole = "host"
    join_role: UserRole = "participant"
    max_sessions: int = 100
    max_users: int = 500
    max_services: int = 200
    max_watchers: int = 2000
    history_events: int = 1000
    idle_timeout_s: float = 3600.0
    user_lease_s: float = 30.0
    rejoin_grace_s: float = 2.0
    service_lease_s: float = 3.0
    leader_lease_s: float = 1.5
    token_ttl_s: float = 3600.0
    key_rotation_s: float = 86400.0
    departed_s: float = 300.0
    """For how long a user who vanished may come back as the same."""
