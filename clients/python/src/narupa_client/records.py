"""What a lobby tells about sessions, people and services, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from narupa_client.connection import Endpoint
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1

Role = Literal["viewer", "participant", "host"]
ROLES: Final[tuple[str, ...]] = get_args(Role)
NO_GUESTS: Final = "none"
_ROLE_NUMBERS: Final[dict[str, v1.Role]] = {
    "": v1.ROLE_UNSPECIFIED,
    "viewer": v1.ROLE_VIEWER,
    "participant": v1.ROLE_PARTICIPANT,
    "host": v1.ROLE_HOST,
}
_PROTOCOLS: Final = {"": False, "grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in the session.

    Attributes:
        id: Unique in the session.
        name: What others see; several may have the same.
        role: "viewer", "participant" or "host"; empty where the lobby does not say.
    """

    id: str
    name: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the session.

    Attributes:
        id: Unique in the session.
        kind: "trajectory", "imd", ...
        status: "available", "starting", "running", "unhealthy", "draining", "stopped" or "unspecified".
        endpoints: Where to try, in order.
        load: How many subscribers it has now.
        capacity: How many it takes; 0 where it states no limit.
        metadata: Facts for people.
        simulation: The catalogue's name for it, when the lobby started it.
        reason: Why it is unhealthy or stopped.
        progress: Of the start, 0 to 1.
        log_tail: The last lines that it wrote, while it starts or when it failed.
        restarts: After failures, since it was started.
        group: Replicas of one another have the same; empty for a service that stands alone.
        epoch: In which it leads its group; 0 where it does not.
    """

    id: str
    kind: str
    status: str
    endpoints: tuple[Endpoint, ...]
    load: float = 0.0
    capacity: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    simulation: str = ""
    reason: str = ""
    progress: float = 0.0
    log_tail: tuple[str, ...] = ()
    restarts: int = 0
    group: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session as its lobby lists it.

    Attributes:
        idle_timeout_s: The session ends when nobody was in it for so long; 0 is never.
        join_role: Of who joins with the join code or the password.
        template: What it was made from; empty for the lobby's defaults.
        created_at: s since the Unix epoch.
        hosts: Ids of the users who host it.
        guest_role: As what gateways let in clients that can carry no token: a role, or "none" where nobody may come in so;
            empty where no host has chosen, and only gateways that are open themselves let them in.
    """

    id: str
    name: str
    user_count: int = 0
    service_count: int = 0
    max_users: int = 0
    max_services: int = 0
    idle_timeout_s: float = 0.0
    join_role: str = ""
    template: str = ""
    created_at: float = 0.0
    hosts: tuple[str, ...] = ()
    has_password: bool = False
    guest_role: str = ""


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """One session with its people; `join_code` is empty where we may not know it."""

    session: SessionFacts
    users: tuple[User, ...]
    join_code: str = ""


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """A session that was just made.

    Attributes:
        host: The user who hosts it, when a name was given; otherwise None.
        host_token: With which `join(rejoin_token=...)` is that user; empty without one.
    """

    session: SessionFacts
    join_code: str
    host: User | None = None
    host_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Invite:
    """Lets its holders join with a role.

    Attributes:
        expires_at: s since the Unix epoch.
        made_by: Id of a user; empty where nobody in the session made it.
        secret: What one joins with; known only right after it was made.
    """

    id: str
    role: str
    expires_at: float
    uses_left: int
    made_by: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What the catalogue offers, started or not.

    Attributes:
        kind: Of the service that runs it.
        launcher: "local", "docker", "kubernetes" or "slurm".
        status: "available", or that of the service that runs it in this session.
        service_id: Of that service; empty without one.
    """

    name: str
    title: str
    description: str
    kind: str
    launcher: str
    status: str
    service_id: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be started.

    Attributes:
        templates: Names of session templates.
        problems: Specs that cannot be used, each with its file, line, field and what is wrong.
    """

    simulations: tuple[Simulation, ...]
    templates: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def role_name(number: int) -> str:
    """The name of a role of the wire; empty for none."""
    try:
        name = v1.Role.Name(number).removeprefix("ROLE_").lower()
    except ValueError:
        return ""
    return "" if name == "unspecified" else name


def role_number(name: str, field: str = "role") -> v1.Role:
    """The role of the wire with this name; none for the empty one.

    Raises:
        InvalidArgumentError: no role of users has this name.
    """
    if name and name not in ROLES:
        raise InvalidArgumentError(field, name, f"use {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    return _ROLE_NUMBERS[name]


def guest_role_number(name: str | None, field: str = "guest_role") -> v1.Role | None:
    """The wire's role of guests with this name, where "none" is that of nobody; None (unset) for None and the empty one.

    Raises:
        InvalidArgumentError: it is neither a role of users nor "none".
    """
    if not name:
        return None
    if name not in (*ROLES, NO_GUESTS):
        raise InvalidArgumentError(field, name, f"use {', '.join(ROLES)} or {NO_GUESTS}")
    return _ROLE_NUMBERS["" if name == NO_GUESTS else name]


def status_name(number: int) -> str:
    """The name of a service's status of the wire."""
    try:
        return v1.ServiceStatus.Name(number).removeprefix("SERVICE_STATUS_").lower()
    except ValueError:
        return "unspecified"


def user_of(message: v1.User) -> User:
    """The record of `message`."""
    return User(message.id, message.name, role_name(message.role))


def service_of(message: v1.Service) -> Service:
    """The record of `message`, without endpoints of protocols that we do not speak."""
    return Service(
        id=message.id,
        kind=message.kind,
        status=status_name(message.status),
        endpoints=tuple(
            Endpoint(item.host, item.port, _PROTOCOLS[item.protocol])
            for item in message.endpoints
            if item.protocol in _PROTOCOLS
        ),
        load=message.occupancy,
        capacity=message.capacity,
        metadata=dict(message.metadata),
        simulation=message.simulation,
        reason=message.reason,
        progress=message.progress,
        log_tail=tuple(message.log_tail),
        restarts=message.restarts,
        group=message.group,
        epoch=message.epoch,
    )


def session_of(message: v1.Session) -> SessionFacts:
    """The record of `message`."""
    return SessionFacts(
        id=message.id,
        name=message.name,
        user_count=message.user_count,
        service_count=message.service_count,
        max_users=message.max_users,
        max_services=message.max_services,
        idle_timeout_s=message.idle_timeout_s,
        join_role=role_name(message.join_role),
        template=message.template,
        created_at=message.created_at,
        hosts=tuple(message.hosts),
        has_password=message.has_password,
        guest_role=(role_name(message.guest_role) or NO_GUESTS) if message.HasField("guest_role") else "",
    )


def invite_of(message: v1.Invite, secret: str = "") -> Invite:
    """The record of `message`."""
    return Invite(message.id, role_name(message.role), message.expires_at, message.uses_left, message.made_by, secret)


def catalogue_of(message: v1.ListSimulationsResponse) -> Catalogue:
    """The record of `message`."""
    simulations = (
        Simulation(
            item.name,
            item.title,
            item.description,
            item.kind,
            item.launcher,
            status_name(item.status),
            item.service_id,
        )
        for item in message.simulations
    )
    return Catalogue(tuple(simulations), tuple(message.templates), tuple(message.problems))
