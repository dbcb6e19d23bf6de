"""Guests: clients that can carry no token, and for whom a gateway of the session speaks; as what they come in, if they may."""

from __future__ import annotations

from dataclasses import replace

from narupa_lobby.records import GuestRole, Session, UserRole
from narupa_lobby.rules import Rules
from narupa_lobby.sessions import change_session, session_of
from narupa_lobby.state import Draft
from narupa_shared.errors import PermissionDeniedError


def admitted_as(session: Session, rules: Rules, welcome: bool) -> UserRole:
    """The role of a guest who comes in now.

    Args:
        session: That they come to.
        rules: The lobby's.
        welcome: Whether the gateway is open. That counts only where no host has chosen, and where no password, which
            somebody has chosen, would be passed by.

    Raises:
        PermissionDeniedError: guests may not come in; the text is for them, and says what would help.
    """
    if session.guest_role is None and welcome and not session.password_hash:
        return session.join_role or (rules.open_role if rules.open else rules.join_role)
    if session.guest_role is None or session.guest_role == "none":
        secret = "password" if session.password_hash else "join code"
        raise PermissionDeniedError(
            f"the session {session.name!r} lets nobody in as a guest: ask a host to let guests in with "
            f"`narupa lobby guests participant`, or for its {secret} or an invite, to put into the address that you open"
        )
    return session.guest_role


def set_guest_role(draft: Draft, rules: Rules, session_id: str, role: GuestRole | None) -> Session:
    """Guests come in as this from now on; those who are in stay what they are. Idempotent. NotFoundError: no such session."""
    session = replace(session_of(draft.state, session_id), guest_role=role)
    change_session(draft, session, rules)
    return session
