"""Invites: secrets that let their holders in with a role, for a time and a number of uses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, TypeGuard

from narupa_lobby.records import Invite, Record, UserRole
from narupa_lobby.sessions import session_of
from narupa_lobby.state import Draft
from narupa_shared.errors import InvalidArgumentError, PermissionDeniedError, QuotaError

MAX_INVITES: Final = 1000
MAX_USES: Final = 10_000
DEFAULT_LIFE_S: Final = 86400.0
MAX_LIFE_S: Final = 30 * 86400.0


def checked_life(expires_in_s: float) -> float:
    """How long the invite works, s; 1 day when it is 0. InvalidArgumentError when it is out of range."""
    if not math.isfinite(expires_in_s) or not 0 <= expires_in_s <= MAX_LIFE_S:
        raise InvalidArgumentError("expires_in_s", expires_in_s, f"needs a number of seconds up to {MAX_LIFE_S:.0f}")
    return expires_in_s or DEFAULT_LIFE_S


def checked_uses(uses: int) -> int:
    """How often the invite works; once when it is 0. InvalidArgumentError when it is out of range."""
    if not 0 <= uses <= MAX_USES:
        raise InvalidArgumentError("uses", uses, f"needs 1 to {MAX_USES}")
    return uses or 1


def add_invite(draft: Draft, invite: Invite) -> Invite:
    """The invite lets in.

    Raises:
        NotFoundError: the session has ended.
        QuotaError: it has too many.
    """
    session_of(draft.state, invite.session_id)
    if len(draft.state.invites(invite.session_id)) >= MAX_INVITES:
        raise QuotaError(f"the session {invite.session_id!r} has {MAX_INVITES} invites already; revoke some first")
    draft.put_in(invite.session_id, "invites", invite.id, invite)
    return invite


def works(invite: Record | None, now: float) -> TypeGuard[Invite]:
    """Whether there is an invite that has not expired, `now` in s since the Unix epoch."""
    return isinstance(invite, Invite) and invite.expires_at > now


def use_invite(draft: Draft, digest: str, now: float) -> UserRole:
    """The invite has one use less; returns its role.

    Raises:
        PermissionDeniedError: it has none left, has expired, or was revoked.
    """
    invite = draft.state.named(("invite", digest))
    if not works(invite, now) or not invite.uses_left:
        raise PermissionDeniedError("invite is used up, has expired or was revoked; ask a host for another")
    # Kept when it is used up, so that a repeated call is known to have come with it.
    draft.put_in(invite.session_id, "invites", invite.id, replace(invite, uses_left=invite.uses_left - 1))
    return invite.role
