"""Who may call what: one table for every gRPC method and command of every service, and the page that describes it.

What the table lacks nobody may call. `python -m narupa_shared.access` prints `docs/access.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from narupa_shared.errors import PermissionDeniedError, shown

if TYPE_CHECKING:
    from narupa_shared.auth import Caller

Rank = Literal["viewer", "participant", "host", "operator"]
Role = Literal["viewer", "participant", "host", "service"]
Standing = Literal["viewer", "participant", "host", "operator", "service"]

RANKS: Final[tuple[Rank, ...]] = get_args(Rank)
# Commands that only tell something; every other command is for hosts.
TELLING_COMMANDS: Final = ("commands/list", "playback/list")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call one method.

    Attributes:
        least: The least role that may; those above it may, too. None: no user of a session.
        service: Whether services may.
        public: Whether everybody may, without any token.
        revoked_too: Whether a revoked token still says who is calling, for the handler to decide.
    """

    least: Rank | None
    service: bool = False
    public: bool = False
    revoked_too: bool = False

    def admits(self, role: Standing) -> bool:
        """Whether a caller of this role may. The operator may everything."""
        if self.public or role == "operator":
            return True
        if role == "service":
            return self.service
        return self.least is not None and RANKS.index(role) >= RANKS.index(self.least)


@dataclass(frozen=True, slots=True)
class Section:
    """Services with the same methods.

    Attributes:
        services: Their full names.
        about: What the roles are for there.
        methods: Who may call which.
    """

    services: tuple[str, ...]
    about: str
    methods: Mapping[str, Access]


def _compat(service: str) -> tuple[str, ...]:
    return tuple(f"{family}.protocol.{service}" for family in ("narupa", "nanover"))


_ANYBODY: Final = Access(None, public=True)
_SERVICE: Final = Access(None, service=True)
_VIEWER_OR_SERVICE: Final = Access("viewer", service=True)
_VIEWER, _PARTICIPANT, _HOST, _OPERATOR = (Access(rank) for rank in RANKS)

_LOBBY: Final = Section(
    ("narupa.lobby.v1.LobbyService",),
    "Viewers and participants see the session that they are in; hosts run it; the operator runs the lobby. Services "
    "register without a token, with the service key and then with the secret id of their lease. A revoked token still "
    "leaves, and still renews for as long as its user is in the session.",
    {
        # Joining and registering is how one gets a token, and a lease's id is a secret of its own.
        "Join": _ANYBODY,
        "RegisterService": _ANYBODY,
        "RenewLease": _ANYBODY,
        "Lead": _ANYBODY,
        "DeregisterService": _ANYBODY,
        # Leaving twice is no error; and renewing is how one whose role was lessened, which voids the token, gets on.
        "Leave": Access("viewer", revoked_too=True),
        "RenewToken": Access("viewer", revoked_too=True),
        "ListSessions": _VIEWER,
        "GetSession": _VIEWER,
        "WatchSession": _VIEWER_OR_SERVICE,
        "HoldUsers": _SERVICE,
        "ListServices": _VIEWER_OR_SERVICE,
        "ListSimulations": _VIEWER,
        "KickUser": _HOST,
        "SetUserRole": _HOST,
        "SetGuestRole": _HOST,
        "EndSession": _HOST,
        "CreateInvite": _HOST,
        "ListInvites": _HOST,
        "RevokeInvite": _HOST,
        "StartService": _HOST,
        "StopService": _HOST,
        "DrainService": _HOST,
        "GetServiceLog": _HOST,
        "CreateSession": _OPERATOR,
        "RotateKeys": _OPERATOR,
    },
)
_TRAJECTORY: Final = Section(
    ("narupa.trajectory.v1.TrajectoryService",),
    "Viewers and other services get frames, and the account of each interaction that has ended; hosts also control the "
    "simulation, through commands.",
    {
        "SubscribeFrames": _VIEWER_OR_SERVICE,
        "GetFrame": _VIEWER_OR_SERVICE,
        "GetFrames": _VIEWER_OR_SERVICE,
        "WatchFinishedInteractions": _VIEWER_OR_SERVICE,
        "PublishFrame": _HOST,
        "GetStatus": _VIEWER_OR_SERVICE,
        "ListCommands": _VIEWER_OR_SERVICE,
        "RunCommand": _VIEWER_OR_SERVICE,  # the command itself may need more
    },
)
_INTERACTION: Final = Section(
    ("narupa.imd.v1.InteractionService",),
    "Participants pull atoms; viewers see who pulls what; trajectory services follow it, and only they.",
    {
        "Interact": _PARTICIPANT,
        "ListInteractions": _VIEWER_OR_SERVICE,
        "FollowInteractions": _SERVICE,
    },
)
_STATE: Final = Section(
    ("narupa.imd.v1.StateService",),
    "Viewers read the shared state; participants write it.",
    {
        "GetState": _VIEWER_OR_SERVICE,
        "WatchState": _VIEWER_OR_SERVICE,
        "UpdateState": _PARTICIPANT,
        "WriteState": _PARTICIPANT,
        "UpdateLocks": _PARTICIPANT,
    },
)
_COMMAND: Final = Section(
    ("narupa.imd.v1.CommandService",),
    "Everybody asks what commands there are; participants provide their own, and run those of others; the service's own "
    "are checked by name.",
    {
        "ListCommands": _VIEWER_OR_SERVICE,
        "RunCommand": _VIEWER_OR_SERVICE,  # the command itself may need more
        "ProvideCommands": _PARTICIPANT,
    },
)
_COMPAT_TRAJECTORY: Final = Section(
    _compat("trajectory.TrajectoryService"),
    "Viewers get frames, as from the native service.",
    {
        "SubscribeFrames": _VIEWER_OR_SERVICE,
        "SubscribeLatestFrames": _VIEWER_OR_SERVICE,
        "GetFrames": _VIEWER_OR_SERVICE,
        "GetFrame": _VIEWER_OR_SERVICE,
    },
)
_COMPAT_COMMAND: Final = Section(
    _compat("command.Command"),
    "Viewers ask what there is; each command is checked by its name.",
    {"GetCommands": _VIEWER_OR_SERVICE, "RunCommand": _VIEWER_OR_SERVICE},
)
_COMPAT_STATE: Final = Section(
    _compat("state.State"),
    "Viewers read and participants write, as at the native service.",
    {
        "SubscribeStateUpdates": _VIEWER_OR_SERVICE,
        "UpdateState": _PARTICIPANT,
        "UpdateLocks": _PARTICIPANT,
    },
)

SECTIONS: Final = (
    _LOBBY,
    _TRAJECTORY,
    _INTERACTION,
    _STATE,
    _COMMAND,
    _COMPAT_TRAJECTORY,
    _COMPAT_COMMAND,
    _COMPAT_STATE,
)
METHODS: Final[Mapping[str, Access]] = {
    f"/{service}/{method}": access
    for section in SECTIONS
    for service in section.services
    for method, access in section.methods.items()
}


def method_access(method: str, table: Mapping[str, Access] = METHODS) -> Access:
    """The table's row for the full path `method`.

    Raises:
        PermissionDeniedError: it has none.
    """
    if (access := table.get(method)) is None:
        raise PermissionDeniedError(f"nobody may call {shown(method)}: the service's table of access does not name it")
    return access


def check_method(method: str, access: Access, role: Standing) -> None:
    """Returns when a caller of this role may call `method`, whose row in the table is `access`.

    Raises:
        PermissionDeniedError: the caller may not; its text says which role may, and who can give it.
    """
    if not access.admits(role):
        raise _denied(method.rpartition("/")[2], access.least or "service", role)


def command_access(name: str, provided: bool = False) -> Access:
    """Who may run the command `name`, which is a service's own, or one that a client provides."""
    if provided:
        return _PARTICIPANT
    tells = name in TELLING_COMMANDS or name.partition("/")[2].startswith("get-")
    return _VIEWER_OR_SERVICE if tells else _HOST


def check_command(caller: Caller, name: str, provided: bool = False) -> None:
    """Returns when `caller` may run the command `name`, as `command_access` has it.

    Raises:
        PermissionDeniedError: the caller may not; its text says which role may, and who can give it.
    """
    access = command_access(name, provided)
    if caller.role is None or not access.admits(caller.role):
        raise _denied(f"the command {shown(name)}", access.least or "service", caller.role)


def _denied(what: str, needed: Rank | Literal["service"], role: Standing | None) -> PermissionDeniedError:
    if needed == "service":
        remedy = "it is for services, which get their token when they register at the lobby"
    elif role == "service":
        remedy = "services only watch; join the session as a user"
    elif needed == "operator":
        remedy = "only the lobby's operator can, who sends the operator key as 'narupa-operator-key' metadata"
    else:
        remedy = "a host of the session can give you that role, or an invite for it"
    return PermissionDeniedError(f"{what} needs the role {needed}, and yours is {role or 'none'}; {remedy}")


def missing(methods: Iterable[str], table: Mapping[str, Access] = METHODS) -> list[str]:
    """Those of `methods` that the table lacks, and that nobody could therefore call."""
    return [method for method in methods if method not in table]


_PAGE_HEAD: Final = """\
<!-- Generated from shared/src/narupa_shared/access.py by `python -m narupa_shared.access`; edit that. -->

# Who may do what

Every call to every service is checked against one table. What it does not name, nobody may call.

| role | is for | how one gets it |
|---|---|---|
| viewer | watching: frames, shared state, who is there | the session's role for joiners, an invite, or a host |
| participant | also pulling atoms and writing shared state (avatars, selections, the scene) | the same |
| host | also playback and other commands, and the users, invites and services of the session | an invite, or a host; \
everybody who joins a lobby that is open |
| operator | everything at a lobby, in every session: making sessions, changing its keys | the lobby's `operator_key`, \
sent to it as `narupa-operator-key` metadata |
| service | what services need of each other: watching, finding each other, following interactions | the lobby's \
`service_key`, when the service registers |

Each of viewer, participant, host and operator may also do what those before it may; a service is apart.

- **Open services** (on loopback, unless told otherwise) let everybody in without a token and allow them everything. A \
token that is presented is checked all the same, and then its role counts.
- **Closed services** answer UNAUTHENTICATED to a missing, malformed, forged, expired or revoked token and to one of \
another session, and PERMISSION_DENIED to a role that may not. No handler sees such a call.
- **Streams** end with UNAUTHENTICATED, within a second, when their token is revoked: its user left, was removed or got \
a lesser role, or the session ended. When the token only expires, the stream goes on for as long as the lobby says that \
its user is in the session.
- **Guests** are clients that can carry no token, such as headsets with an existing program. A gateway joins the lobby \
for each of them, so they are users with a role like all others: that of the code, password or invite in the address that \
they open, otherwise the session's role of guests. Its hosts choose that (`narupa lobby guests participant`, or `none`); \
until they do, guests come in only through a gateway that is open itself, as whatever the lobby lets everybody be, and \
never past a password.
- A user acts on the session of the token only; the operator on every session.
- Health checks and reflection need no token anywhere.
"""
_COMMANDS_ABOUT: Final = (
    "Commands run through `RunCommand`, under the native and the compatible names. Of the services' own, those that only "
    "tell something are for viewers and services, the others for hosts. Those that clients provide, for as long as they are "
    "there, are for participants, whatever their names. Those that begin with `session/` a gateway answers for its WebSocket "
    "clients, with what the lobby lets the user do that the client is."
)


def page() -> str:
    """The text of `docs/access.md`."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield _PAGE_HEAD
    for section in SECTIONS:
        at_lobby = section is _LOBBY  # the only place that knows an operator
        title = " and ".join(f"`{service}`" for service in section.services)
        yield from _table(title, section.about, "method", at_lobby)
        for method, access in section.methods.items():
            yield _row(f"`{method}`" + (" (see commands)" if method == "RunCommand" else ""), access, at_lobby)
    yield from _table("Commands", _COMMANDS_ABOUT, "command", False)
    telling = ", ".join(f"`{name}`" for name in (*TELLING_COMMANDS, "*/get-*"))
    yield _row(telling, command_access(TELLING_COMMANDS[0]), False)
    yield _row("every other of a service", _HOST, False)
    yield _row("those that clients provide", command_access("", provided=True), False)


def _columns(at_lobby: bool) -> tuple[Standing, ...]:
    return (*(rank for rank in RANKS if at_lobby or rank != "operator"), "service")


def _table(title: str, about: str, first: str, at_lobby: bool) -> Iterator[str]:
    columns = (first, *_columns(at_lobby), "no token")
    yield f"\n## {title}\n\n{about}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _row(name: str, access: Access, at_lobby: bool) -> str:
    marks = [access.admits(role) for role in _columns(at_lobby)] + [access.public]
    return f"| {name} | {' | '.join('yes' if mark else '-' for mark in marks)} |\n"


if __name__ == "__main__":
    print(page(), end="")
