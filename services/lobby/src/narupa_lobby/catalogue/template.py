"""What new sessions can be made from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from narupa_lobby.catalogue.fields import Line, Name, Section
from narupa_lobby.sessions import MAX_IDLE_S, MAX_SERVICES, MAX_SIMULATIONS, MAX_USERS


class SessionTemplate(Section):
    """One file of the catalogue with `kind: session`: the fields of `narupa.lobby.v1.SessionSpec`, all of them optional."""

    kind: Literal["session"]
    name: Name
    """How it is asked for."""
    title: Line = ""
    """What people read; unset shows the name."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """A sentence or two more."""
    session_name: Annotated[Line, Field(min_length=1, max_length=64)] | None = None
    """Name of the sessions; unset takes the title or the template's name."""
    join_role: Literal["viewer", "participant", "host"] | None = None
    """Of who joins with the join code or the password."""
    guest_role: Literal["viewer", "participant", "host", "none"] | None = None
    """Of clients that can carry no token and come through a gateway; unset: only gateways that are open let them in."""
    max_users: int | None = Field(default=None, ge=1, le=MAX_USERS)
    max_services: int | None = Field(default=None, ge=1, le=MAX_SERVICES)
    idle_timeout_s: float | None = Field(default=None, ge=0, le=MAX_IDLE_S, allow_inf_nan=False)
    """The session ends when nobody was in it for so long, s; 0: never."""
    join_code: Annotated[SecretStr, Field(min_length=6, max_length=64)] | None = None
    """Unset: the lobby makes one for each session."""
    password: Annotated[SecretStr, Field(min_length=8, max_length=128)] | None = None
    """When set, joining needs it instead of the code."""
    simulations: Annotated[tuple[Name, ...], Field(max_length=MAX_SIMULATIONS)] = ()
    """Of the catalogue, to be started with the session."""
