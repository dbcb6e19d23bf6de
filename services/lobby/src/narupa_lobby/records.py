"""What the lobby keeps: plain records, the events that tell of their changes, and both as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from narupa_lobby.services import Service
from narupa_lobby.signing_keys import KeyRecord
from narupa_shared.stores.store import Key, StoreError

UserRole = Literal["viewer", "participant", "host"]
USER_ROLES: Final[tuple[UserRole, ...]] = get_args(UserRole)  # the least first
GuestRole = Literal[UserRole, "none"]


@dataclass(frozen=True, slots=True)
class Session:
    """A session, as it was made.

    Attributes:
        join_role: Of who joins with the code or the password; None leaves it to the lobby.
        idle_timeout_s: It ends when nobody was in it for so long, s; 0 means never.
        created_at: s since the Unix epoch.
        request_id: Of the call that made it.
        guest_role: Of guests, see `guests.py`; "none" lets none in, and None is what no host has chosen.
    """

    id: str
    name: str
    join_code: str
    max_users: int
    max_services: int
    idle_timeout_s: float
    created_at: float
    join_role: UserRole | None = None
    password_hash: str = ""
    template: str = ""
    request_id: str = ""
    guest_role: GuestRole | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A user who is in a session. Two may have the same name; never the same id.

    Attributes:
        generation: Of the tokens they get; see `Revocation`.
        request_id: Of the call with which they joined.
        joined_at: s since the Unix epoch.
    """

    session_id: str
    id: str
    name: str
    role: UserRole
    generation: int = 1
    request_id: str = ""
    joined_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Departed:
    """A user who vanished and may come back as the same, or was kicked and may not; forgotten at `until` (Unix time, s)."""

    user: User
    until: float
    kicked: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens of this user with this or a lower generation are void; by `until` (Unix time, s) all have expired."""

    user_id: str
    generation: int
    until: float


@dataclass(frozen=True, slots=True)
class Invite:
    """A way in: only a digest of its secret is kept. `expires_at` in s since the Unix epoch."""

    session_id: str
    id: str
    digest: str
    role: UserRole
    expires_at: float
    uses_left: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A service's place on the list.

    Attributes:
        lease: Digest of the lease's secret id; empty while it is not registered.
        drain: The service is to be told to drain.
    """

    session_id: str
    service: Service
    lease: str = ""
    drain: bool = False


@dataclass(frozen=True, slots=True)
class Leader:
    """Which of a group of replicas leads, or led last.

    Attributes:
        lease: Digest of the service's lease; empty once it has resigned.
        epoch: Higher than that of every leader before.
    """

    session_id: str
    group: str
    service_id: str
    lease: str
    epoch: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """What everybody in a session may know of it."""

    id: str
    name: str
    user_count: int
    service_count: int
    max_users: int
    max_services: int
    idle_timeout_s: float
    join_role: UserRole
    template: str
    created_at: float
    hosts: tuple[str, ...]
    has_password: bool
    guest_role: GuestRole | None = None


EventKind = Literal[
    "user_joined", "user_left", "user_changed", "service_changed", "service_removed", "session_changed", "session_ended"
]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in a session at `revision`; `subject` is its name in the proto's `WatchSessionResponse`."""

    session_id: str
    revision: int
    kind: EventKind
    user: User | None = None
    service: Service | None = None
    session: SessionView | None = None
    reason: str = ""
    revocations: tuple[Revocation, ...] = ()


Record = Session | User | Departed | Revocation | Invite | Listed | Leader | KeyRecord | int | float | str

# Collections whose keys are "<session id>/<own id>"; the others are named by their own id alone.
IN_SESSIONS: Final = frozenset({"users", "departed", "revocations", "invites", "services", "leaders"})
_ADAPTERS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "sessions": TypeAdapter(Session),
    "users": TypeAdapter(User),
    "departed": TypeAdapter(Departed),
    "revocations": TypeAdapter(Revocation),
    "invites": TypeAdapter(Invite),
    "services": TypeAdapter(Listed),
    "leaders": TypeAdapter(Leader),
    "keys": TypeAdapter(KeyRecord),
    "revisions": TypeAdapter(int),
    "empty": TypeAdapter(float),  # since when nobody is in a session, s since the Unix epoch
}
_EVENTS: Final[TypeAdapter[tuple[Event, ...]]] = TypeAdapter(tuple[Event, ...])


def key_in(session_id: str, id: str) -> str:
    """The key of a record that belongs to a session."""
    return f"{session_id}/{id}"


def to_json(key: Key, record: Record | None) -> str | None:
    """`record` as the store has it. Collections that are not the lobby's own hold text that is left as it is."""
    if record is None or isinstance(record, str):
        return record
    return _ADAPTERS[key[0]].dump_json(record).decode()


def from_json(key: Key, text: str | None) -> Record | None:
    """The record that `to_json` wrote.

    Raises:
        StoreError: the text is no such record.
    """
    adapter = _ADAPTERS.get(key[0])
    if text is None or adapter is None:
        return text
    try:
        record: Record = adapter.validate_json(text)
    except ValidationError as error:
        raise StoreError(f"the store's record {'/'.join(key)} is none that this version wrote: {error}") from error
    return record


def events_to_json(events: tuple[Event, ...]) -> str:
    """The events of a commit, for its note."""
    return _EVENTS.dump_json(events, exclude_defaults=True).decode() if events else ""


def events_from_json(note: str) -> tuple[Event, ...]:
    """The events that `events_to_json` wrote.

    Raises:
        StoreError: the note holds something else.
    """
    try:
        return _EVENTS.validate_json(note) if note else ()
    except ValidationError as error:
        raise StoreError(f"the store's log has a note that this version did not write: {error}") from error
