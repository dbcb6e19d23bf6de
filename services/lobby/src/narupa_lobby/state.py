"""A copy of the store's records that can be asked, and changes to it that can be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from narupa_lobby.join_codes import digest, normalised
from narupa_lobby.records import (
    IN_SESSIONS,
    Departed,
    Event,
    EventKind,
    Invite,
    Leader,
    Listed,
    Record,
    Revocation,
    Session,
    User,
    key_in,
)
from narupa_lobby.services import Service
from narupa_lobby.signing_keys import KeyRecord
from narupa_shared.stores.store import Key, LeaseChanges

Name = tuple[Literal["code", "made", "joined", "lease", "invite"], str]
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class State:
    """Every record, by collection, by session, and by the secrets and request ids with which they are looked up."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, Record]] = {}
        self._in_sessions: dict[tuple[str, str], dict[str, Record]] = {}
        self._named: dict[Name, Key] = {}

    def apply(self, changes: Mapping[Key, Record | None]) -> None:
        """Each record has its new value; None removes it."""
        for key, record in changes.items():
            self._forget(key)
            if record is not None:
                self._collections.setdefault(key[0], {})[key[1]] = record
                if key[0] in IN_SESSIONS:
                    session_id, _, own_id = key[1].rpartition("/")
                    self._in_sessions.setdefault((key[0], session_id), {})[own_id] = record
                for name in _names(record):
                    self._named[name] = key

    def _forget(self, key: Key) -> None:
        collection, of_collection = key[0], self._collections.get(key[0], {})
        if (record := of_collection.pop(key[1], None)) is None:
            return
        if collection in IN_SESSIONS:
            session_id, _, own_id = key[1].rpartition("/")
            siblings = self._in_sessions[collection, session_id]
            del siblings[own_id]
            if not siblings:
                del self._in_sessions[collection, session_id]
        for name in _names(record):
            if self._named.get(name) == key:
                del self._named[name]

    def get(self, key: Key) -> Record | None:
        return self._collections.get(key[0], {}).get(key[1])

    def collection(self, name: str) -> Mapping[str, Any]:
        """Every record of a collection, by key."""
        return self._collections.get(name, _NOTHING)

    def named(self, name: Name) -> Record | None:
        """The one record that goes by `name`."""
        key = self._named.get(name)
        return None if key is None else self.get(key)

    def session(self, session_id: str) -> Session | None:
        return cast("Session | None", self.get(("sessions", session_id)))

    def sessions(self) -> list[Session]:
        """Every session, oldest first."""
        return sorted(self.collection("sessions").values(), key=lambda each: (each.created_at, each.id))

    def revision(self, session_id: str) -> int:
        """That of the session's latest event; 0 before the first."""
        return cast("int | None", self.get(("revisions", session_id))) or 0

    def empty_since(self, session_id: str) -> float | None:
        """Since when nobody is in the session, s since the Unix epoch; None while somebody is, or when there is none."""
        return cast("float | None", self.get(("empty", session_id)))

    def user(self, session_id: str, user_id: str) -> User | None:
        return cast("User | None", self.get(("users", key_in(session_id, user_id))))

    def users(self, session_id: str) -> list[User]:
        """The users of a session, those who joined first at the front."""
        return sorted(self._of(session_id, "users"), key=lambda each: (each.joined_at, each.id))

    def user_count(self, session_id: str) -> int:
        return len(self._in_sessions.get(("users", session_id), _NOTHING))

    def departed(self, session_id: str, user_id: str) -> Departed | None:
        return cast("Departed | None", self.get(("departed", key_in(session_id, user_id))))

    def revocations(self, session_id: str) -> list[Revocation]:
        return list(self._of(session_id, "revocations"))

    def revocation(self, session_id: str, user_id: str) -> Revocation | None:
        return cast("Revocation | None", self.get(("revocations", key_in(session_id, user_id))))

    def invites(self, session_id: str) -> list[Invite]:
        return list(self._of(session_id, "invites"))

    def invite(self, session_id: str, invite_id: str) -> Invite | None:
        return cast("Invite | None", self.get(("invites", key_in(session_id, invite_id))))

    def listed(self, session_id: str, service_id: str) -> Listed | None:
        return cast("Listed | None", self.get(("services", key_in(session_id, service_id))))

    def services(self, session_id: str, kind: str = "") -> list[Service]:
        """The services of `kind` (of every kind when empty), by kind and then the one to try first at the front."""
        found = (listed.service for listed in self._of(session_id, "services"))
        return sorted((each for each in found if not kind or each.kind == kind), key=lambda each: each.order)

    def service_count(self, session_id: str) -> int:
        return len(self._in_sessions.get(("services", session_id), _NOTHING))

    def leader(self, session_id: str, group: str) -> Leader | None:
        """Who leads the group, or led it last."""
        return cast("Leader | None", self.get(("leaders", key_in(session_id, group))))

    def leader_count(self, session_id: str) -> int:
        return len(self._in_sessions.get(("leaders", session_id), _NOTHING))

    def keys(self) -> Iterable[KeyRecord]:
        return self.collection("keys").values()

    def keys_in(self, session_id: str) -> list[Key]:
        """The keys of every record that belongs to a session."""
        return [
            (collection, key_in(session_id, own_id))
            for collection in IN_SESSIONS
            for own_id in self._in_sessions.get((collection, session_id), _NOTHING)
        ]

    def _of(self, session_id: str, collection: str) -> Iterable[Any]:
        return self._in_sessions.get((collection, session_id), _NOTHING).values()


def _names(record: Record) -> tuple[Name, ...]:
    match record:
        case Session():
            code: Name = ("code", digest(normalised(record.join_code)))
            return (code, ("made", record.request_id)) if record.request_id else (code,)
        case User(request_id=request_id) if request_id:
            return (("joined", key_in(record.session_id, request_id)),)
        case Listed(lease=lease) if lease:
            return (("lease", lease),)
        case Invite():
            return (("invite", record.digest),)
    return ()


class Draft:
    """What one operation changes: at once in the state that it reads, in the store when it is committed."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.changes: dict[Key, Record | None] = {}
        self.events: list[Event] = []
        self.hold: dict[str, float] = {}
        self.release: set[str] = set()
        self.only_if_lapsed: set[str] = set()
        self._before: dict[Key, Record | None] = {}

    def __bool__(self) -> bool:
        return bool(self.changes or self.hold or self.release or self.only_if_lapsed)

    def put(self, collection: str, key: str, record: Record | None) -> None:
        """The record has this value; None removes it."""
        at = (collection, key)
        before = self.state.get(at)
        if before == record:
            return
        self._before.setdefault(at, before)
        self.changes[at] = record
        self.state.apply({at: record})

    def put_in(self, session_id: str, collection: str, id: str, record: Record | None) -> None:
        """The record of a session has this value; None removes it."""
        self.put(collection, key_in(session_id, id), record)

    def emit(self, session_id: str, kind: EventKind, **content: Any) -> None:
        """The session's watchers hear of it, under the next revision."""
        revision = self.state.revision(session_id) + 1
        self.put("revisions", session_id, revision)
        self.events.append(Event(session_id, revision, kind, **content))

    def hold_lease(self, lease: str, seconds: float) -> None:
        self.release.discard(lease)
        self.hold[lease] = seconds

    def hold_anew(self, lease: str, seconds: float) -> None:
        """The lease begins, provided that it has lapsed or is not there."""
        self.hold_lease(lease, seconds)
        self.only_if_lapsed.add(lease)

    def release_lease(self, lease: str) -> None:
        self.hold.pop(lease, None)
        self.release.add(lease)

    @property
    def leases(self) -> LeaseChanges:
        return LeaseChanges(self.hold, frozenset(self.release - self.only_if_lapsed), frozenset(self.only_if_lapsed))

    def undo(self) -> None:
        """The state is as it was before the operation."""
        self.state.apply(self._before)

    def add(self, later: Draft) -> None:
        """What a later operation changes belongs to this draft, too."""
        for key, before in later._before.items():
            self._before.setdefault(key, before)
        self.changes |= later.changes
        self.events += later.events
        self.only_if_lapsed |= later.only_if_lapsed
        for lease in later.release:
            self.release_lease(lease)
        for lease, seconds in later.hold.items():
            self.hold_lease(lease, seconds)
