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
    """

    least: Rank | None
    service: bool = False
    public: bool = False

    def admits(self, role: Standing) -> bool:
        """Whether a caller of this role may. The operator may everything."""
        if self.public or role == "operator":
            return True
        if role == "service":
            return self.service
        return self.least is not None and RANKS.index(role) >= RANKS.index(self.least)


_ANYBODY: Final = Access(None, public=True)
_SERVICE: Final = Access(None, service=True)
_VIEWER_OR_SERVICE: Final = Access("viewer", service=True)
_VIEWER, _PARTICIPANT, _HOST, _OPERATOR = (Access(rank) for rank in RANKS)

_LOBBY: Final = {
    # Joining and registering is how one gets a token, and a lease's id is a secret of its own.
    "Join": _ANYBODY,
    "RegisterService": _ANYBODY,
    "RenewLease": _ANYBODY,
    "DeregisterService": _ANYBODY,
    "Leave": _VIEWER,
    "RenewToken": _VIEWER,
    "ListSessions": _VIEWER,
    "GetSession": _VIEWER,
    "WatchSession": _VIEWER_OR_SERVICE,
    "ListServices": _VIEWER_OR_SERVICE,
    "ListSimulations": _VIEWER,
    "KickUser": _HOST,
    "SetUserRole": _HOST,
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
}
_TRAJECTORY: Final = {
    "SubscribeFrames": _VIEWER_OR_SERVICE,
    "GetFrame": _VIEWER_OR_SERVICE,
    "GetFrames": _VIEWER_OR_SERVICE,
    "GetStatus": _VIEWER_OR_SERVICE,
    "ListCommands": _VIEWER_OR_SERVICE,
    "RunCommand": _VIEWER_OR_SERVICE,  # the command itself may need more
}
_INTERACTION: Final = {
    "Interact": _PARTICIPANT,
    "ListInteractions": _VIEWER_OR_SERVICE,
    "FollowInteractions": _SERVICE,
}
_STATE: Final = {
    "GetState": _VIEWER_OR_SERVICE,
    "WatchState": _VIEWER_OR_SERVICE,
    "UpdateState": _PARTICIPANT,
    "UpdateLocks": _PARTICIPANT,
}
_COMPAT_TRAJECTORY: Final = {
    "SubscribeFrames": _VIEWER_OR_SERVICE,
    "SubscribeLatestFrames": _VIEWER_OR_SERVICE,
    "GetFrames": _VIEWER_OR_SERVICE,
    "GetFrame": _VIEWER_OR_SERVICE,
}
_COMPAT_COMMAND: Final = {"GetCommands": _VIEWER_OR_SERVICE, "RunCommand": _VIEWER_OR_SERVICE}
_COMPAT_STATE: Final = {
    "SubscribeStateUpdates": _VIEWER_OR_SERVICE,
    "UpdateState": _PARTICIPANT,
    "UpdateLocks": _PARTICIPANT,
}

SERVICES: Final[Mapping[str, Mapping[str, Access]]] = {
    "narupa.lobby.v1.LobbyService": _LOBBY,
    "narupa.trajectory.v1.TrajectoryService": _TRAJECTORY,
    "narupa.imd.v1.InteractionService": _INTERACTION,
    "narupa.imd.v1.StateService": _STATE,
    **{
        f"{family}.protocol.{service}": methods
        for family in ("narupa", "nanover")
        for service, methods in (
            ("trajectory.TrajectoryService", _COMPAT_TRAJECTORY),
            ("command.Command", _COMPAT_COMMAND),
            ("state.State", _COMPAT_STATE),
        )
    },
}
METHODS: Final[Mapping[str, Access]] = {
    f"/{service}/{method}": access for service, methods in SERVICES.items() for method, access in methods.items()
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


def command_access(name: str) -> Access:
    """Who may run the command `name`."""
    tells = name in TELLING_COMMANDS or name.partition("/")[2].startswith("get-")
    return _VIEWER_OR_SERVICE if tells else _HOST


def check_command(caller: Caller, name: str) -> None:
    """Returns when `caller` may run the command `name`.

    Raises:
        PermissionDeniedError: the caller may not; its text says which role may, and who can give it.
    """
    access = command_access(name)
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
| host | also playback and other commands, users, invites and services of the session | an invite, or a host; \
everybody who joins a lobby that is open |
| operator | everything, in every session of a lobby: making sessions, changing its keys | the lobby's `operator_key`, \
sent as `narupa-operator-key` metadata |
| service | what services need of each other: to watch, to find each other, and to follow interactions | the lobby's \
`service_key`, when the service registers |

Each of viewer, participant, host and operator may also do what those before it may; a service is apart.

- **Open services** (on loopback, unless told otherwise) let everybody in without a token and allow them everything. A \
token that is presented is checked all the same, and then its role counts.
- **Closed services** answer UNAUTHENTICATED to a missing, malformed, forged, expired or revoked token and to one of \
another session, and PERMISSION_DENIED to a role that may not. No handler sees such a call.
- **Streams** end with UNAUTHENTICATED, within a second, when their token is revoked: its user left, was removed, or got \
a lesser role, or the session ended. When the token only expires, the stream goes on for as long as the lobby says that \
its user is in the session.
- Health checks and reflection need no token anywhere.
"""
_PAGE_COMMANDS: Final = """
## Commands

Commands run through `RunCommand`, under the native and the compatible names, and each is checked by its own name:

| command | viewer | participant | host | operator | service | no token |
|---|---|---|---|---|---|---|
"""
_COLUMNS: Final[tuple[Standing, ...]] = (*RANKS, "service")


def page() -> str:
    """The text of `docs/access.md`."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield _PAGE_HEAD
    groups: dict[int, list[str]] = {}
    for service, methods in SERVICES.items():
        groups.setdefault(id(methods), []).append(service)
    for services in groups.values():
        yield f"\n## {' and '.join(f'`{service}`' for service in services)}\n\n"
        yield "| method | viewer | participant | host | operator | service | no token |\n|---|---|---|---|---|---|---|\n"
        for method, access in SERVICES[services[0]].items():
            yield _row(f"`{method}`", access)
    yield _PAGE_COMMANDS
    told = ", ".join(f"`{name}`" for name in TELLING_COMMANDS)
    yield _row(f"{told}, `*/get-*`", command_access(TELLING_COMMANDS[0]))
    yield _row("every other", _HOST)


def _row(name: str, access: Access) -> str:
    marks = [access.admits(role) for role in _COLUMNS] + [access.public]
    return f"| {name} | {' | '.join('yes' if mark else '' for mark in marks)} |\n"


if __name__ == "__main__":
    print(page(), end="")
