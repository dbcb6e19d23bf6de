"""What happens to sessions: they are made, change, and end."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final

from narupa_lobby.join_codes import digest, normalised
from narupa_lobby.records import GuestRole, Session, SessionView, UserRole
from narupa_lobby.rules import Rules
from narupa_lobby.state import Draft, State
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, QuotaError

MAX_USERS: Final = 100_000
MAX_SERVICES: Final = 10_000
MAX_IDLE_S: Final = 366 * 86400.0
CODE_LENGTHS: Final = (6, 64)
PASSWORD_LENGTHS: Final = (8, 128)
MAX_SIMULATIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Spec:
    """What a session is to be; None where somebody else (the template, the lobby) says it."""

    name: str | None = None
    join_role: UserRole | None = None
    max_users: int | None = None
    max_services: int | None = None
    idle_timeout_s: float | None = None
    join_code: str | None = None
    password: str | None = None
    simulations: tuple[str, ...] | None = None
    guest_role: GuestRole | None = None


def check_spec(spec: Spec, rules: Rules) -> None:
    """`spec` can be had.

    Raises:
        InvalidArgumentError: a field is malformed or out of range.
    """
    for field, number, most in (
        ("max_users", spec.max_users, rules.max_users),
        ("max_services", spec.max_services, rules.max_services),
    ):
        if number is not None and not 1 <= number <= most:
            raise InvalidArgumentError(f"spec.{field}", number, f"needs 1 to {most}, which is what this lobby takes")
    if (idle_s := spec.idle_timeout_s) is not None and not (math.isfinite(idle_s) and 0 <= idle_s <= MAX_IDLE_S):
        raise InvalidArgumentError("spec.idle_timeout_s", idle_s, f"needs 0 (never) to {MAX_IDLE_S:.0f} s")
    if spec.join_code is not None and not _long(normalised(spec.join_code), CODE_LENGTHS):
        raise InvalidArgumentError(
            "spec.join_code", f"{len(spec.join_code)} characters", "needs 6 to 64 letters and digits"
        )
    if spec.password is not None and not _long(spec.password, PASSWORD_LENGTHS):
        raise InvalidArgumentError("spec.password", f"{len(spec.password)} characters", "needs 8 to 128 characters")
    if len(spec.simulations or ()) > MAX_SIMULATIONS:
        raise InvalidArgumentError("spec.simulations", len(spec.simulations or ()), f"takes at most {MAX_SIMULATIONS}")


def _long(text: str, lengths: tuple[int, int]) -> bool:
    return lengths[0] <= len(text) <= lengths[1]


def overlaid(spec: Spec, under: Spec) -> Spec:
    """`spec`, and `under` where it says nothing."""
    said = {field.name: value for field in fields(spec) if (value := getattr(spec, field.name)) is not None}
    return replace(under, **said)


def session_of(state: State, session_id: str) -> Session:
    """The session of this id, or NotFoundError."""
    if (session := state.session(session_id)) is None:
        raise NotFoundError("session", session_id, "it has ended, or is of another lobby; list the sessions there are")
    return session


def add_session(draft: Draft, session: Session, max_sessions: int) -> Session:
    """The session is there.

    Raises:
        InvalidArgumentError: another session has the join code.
        QuotaError: the lobby takes no more.
    """
    if len(draft.state.collection("sessions")) >= max_sessions:
        raise QuotaError(f"the lobby has {max_sessions} sessions already and takes no more; end some first")
    if draft.state.named(("code", digest(normalised(session.join_code)))) is not None:
        raise InvalidArgumentError("spec.join_code", "taken", "another session has it; choose another, or leave it out")
    draft.put("sessions", session.id, session)
    draft.put("empty", session.id, session.created_at)
    return session


def change_session(draft: Draft, session: Session, rules: Rules) -> None:
    """The session is as given; its watchers hear of it when that shows."""
    before = view(draft.state, session_of(draft.state, session.id), rules)
    draft.put("sessions", session.id, session)
    if (after := view(draft.state, session, rules)) != before:
        draft.emit(session.id, "session_changed", session=after)


def end_session(draft: Draft, rules: Rules, session_id: str, reason: str) -> None:
    """Everybody and everything has left the session, and it is gone. Idempotent.

    Raises:
        FailedPreconditionError: it is the one that is always there.
    """
    if session_id == rules.session_id:
        raise FailedPreconditionError(
            f"the session {session_id!r} is there for as long as its lobby; kick its users or stop the lobby instead"
        )
    if (session := draft.state.session(session_id)) is None:
        return
    draft.emit(session_id, "session_ended", session=view(draft.state, session, rules), reason=reason)
    for collection, key in draft.state.keys_in(session_id):
        draft.put(collection, key, None)
        if collection in _LEASED:
            draft.release_lease(f"{_LEASED[collection]}/{key}")
    draft.put("sessions", session_id, None)
    draft.put("revisions", session_id, None)
    draft.put("empty", session_id, None)


_LEASED: Final = {"users": "user", "services": "service"}


def view(state: State, session: Session, rules: Rules) -> SessionView:
    """What everybody in the session may know of it."""
    return SessionView(
        session.id,
        session.name,
        state.user_count(session.id),
        state.service_count(session.id),
        session.max_users,
        session.max_services,
        session.idle_timeout_s,
        session.join_role or rules.join_role,
        session.template,
        session.created_at,
        tuple(user.id for user in state.users(session.id) if user.role == "host"),
        bool(session.password_hash),
        session.guest_role,
    )
