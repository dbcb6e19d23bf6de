"""What happens to users: they join, come back, leave, vanish, are kicked, and get another role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from narupa_lobby.guests import admitted_as
from narupa_lobby.invites import use_invite
from narupa_lobby.records import USER_ROLES, Departed, Revocation, User, UserRole
from narupa_lobby.rules import Rules
from narupa_lobby.sessions import session_of
from narupa_lobby.state import Draft, Name
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
)

MAX_NAME: Final = 64
MAX_REASON: Final = 200
MAX_REQUEST_ID: Final = 64


def user_lease(session_id: str, user_id: str) -> str:
    """The lease that a user's presence is."""
    return f"user/{session_id}/{user_id}"


def checked_name(field: str, name: str) -> str:
    """`name` without space around it.

    Raises:
        InvalidArgumentError: it is not 1 to 64 printable characters.
    """
    stripped = name.strip()
    if not stripped or len(stripped) > MAX_NAME or not stripped.isprintable():
        raise InvalidArgumentError(field, name, f"needs 1 to {MAX_NAME} printable characters")
    return stripped


def checked_request_id(request_id: str) -> str:
    """`request_id`, or InvalidArgumentError when it is too long."""
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidArgumentError("request_id", request_id, f"takes at most {MAX_REQUEST_ID} characters")
    return request_id


class GoneError(PermissionDeniedError):
    """The user whom somebody wants to be again has left for good, or was kicked."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Someone who may come in.

    Attributes:
        role: That they get, unless they come back.
        name: What others will see; empty only for whoever comes back with the old one.
        request_id: Of the call; empty when it was not given.
        invite: Digest of the invite that lets them in; empty without one.
        again: Id of the user that they were and want to be again; empty for a new one.
        guest: Whether they come as a guest, with the role that guests have when they do.
        welcome: Whether a guest comes through a gateway that is open.
    """

    session_id: str
    role: UserRole
    name: str
    request_id: str = ""
    invite: str = ""
    again: str = ""
    guest: bool = False
    welcome: bool = False


def add_user(draft: Draft, rules: Rules, now: float, arrival: Arrival, new_id: Callable[[], str]) -> User:
    """The user is in the session: a new one, the one that they were, or the one that the same request made before.

    Raises:
        NotFoundError: the session has ended.
        PermissionDeniedError: the invite has been used up, guests may not come in any more, or they have been kicked or
            have left meanwhile (GoneError).
        InvalidArgumentError: the request id is that of somebody with another name.
        QuotaError: the session is full.
    """
    state, session = draft.state, session_of(draft.state, arrival.session_id)
    lease_s = rules.user_lease_s
    if arrival.again and (user := state.user(session.id, arrival.again)):
        draft.hold_lease(user_lease(session.id, user.id), lease_s)
        return user
    name: Name = ("joined", f"{session.id}/{arrival.request_id}")
    if arrival.request_id and isinstance(same := state.named(name), User):
        if same.name != arrival.name:
            raise InvalidArgumentError("request_id", arrival.request_id, "it was used for another user; choose another")
        draft.hold_lease(user_lease(session.id, same.id), lease_s)
        return same
    if state.user_count(session.id) >= session.max_users:
        raise QuotaError(f"the session {session.id!r} is full with {session.max_users} users; try again later")
    if arrival.invite:
        use_invite(draft, arrival.invite, now)
    role = admitted_as(session, rules, arrival.welcome) if arrival.guest else arrival.role
    user = User(session.id, "", arrival.name, role, 1, arrival.request_id, now)
    user = _returned(draft, user, arrival.again) if arrival.again else replace(user, id=new_id())
    draft.put_in(session.id, "users", user.id, user)
    draft.put("empty", session.id, None)
    draft.hold_lease(user_lease(session.id, user.id), lease_s)
    draft.emit(session.id, "user_joined", user=user)
    return user


def _returned(draft: Draft, user: User, id: str) -> User:
    """The departed user `id`, of the next generation."""
    departed = draft.state.departed(user.session_id, id)
    if departed is None or departed.kicked:
        raise GoneError("the rejoin_token is of a user who cannot come back; join without it")
    draft.put_in(user.session_id, "departed", id, None)
    old = departed.user
    return replace(user, id=id, name=user.name or old.name, role=old.role, generation=old.generation + 1)


def remove_user(draft: Draft, rules: Rules, now: float, user: User, reason: str) -> None:
    """The user is gone for good, and their tokens are void."""
    revocation = _revoke(draft, rules, now, user)
    _take_away(draft, now, user, reason, (revocation,))


def vanish(draft: Draft, rules: Rules, now: float, user: User) -> None:
    """The user is gone, and may come back; their tokens stay good, as a lost connection must not stop a stream."""
    draft.put_in(user.session_id, "departed", user.id, Departed(user, now + rules.departed_s))
    _take_away(draft, now, user, "vanished", ())


def kick(draft: Draft, rules: Rules, now: float, session_id: str, user_id: str, reason: str) -> None:
    """The user is gone, cannot come back as the same, and their tokens are void.

    Raises:
        NotFoundError: no such user.
        InvalidArgumentError: the reason is too long or not printable.
    """
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise InvalidArgumentError("reason", reason, f"takes at most {MAX_REASON} printable characters")
    user = present(draft, session_id, user_id)
    draft.put_in(session_id, "departed", user_id, Departed(user, now + rules.token_ttl_s, kicked=True))
    remove_user(draft, rules, now, user, f"kicked: {reason}" if reason else "kicked")


def set_role(draft: Draft, rules: Rules, now: float, session_id: str, user_id: str, role: UserRole) -> User:
    """The user has this role; when it is a lesser one, their tokens are void.

    Raises:
        NotFoundError: no such user.
        FailedPreconditionError: the last host would be none any more.
    """
    user = present(draft, session_id, user_id)
    if user.role == role:
        return user
    if user.role == "host" and sum(each.role == "host" for each in draft.state.users(session_id)) == 1:
        raise FailedPreconditionError(
            f"{user.name!r} is the only host of the session {session_id!r}; make another user host first"
        )
    demoted = USER_ROLES.index(role) < USER_ROLES.index(user.role)
    changed = replace(user, role=role, generation=user.generation + demoted)
    draft.put_in(session_id, "users", user_id, changed)
    revocations = (_revoke(draft, rules, now, user),) if demoted else ()
    draft.emit(session_id, "user_changed", user=changed, revocations=revocations)
    return changed


def void_tokens(draft: Draft, rules: Rules, now: float, user: User) -> None:
    """Every token that the user has is void; they stay."""
    changed = replace(user, generation=user.generation + 1)
    draft.put_in(user.session_id, "users", user.id, changed)
    revocation = _revoke(draft, rules, now, user)
    draft.emit(user.session_id, "user_changed", user=changed, revocations=(revocation,))


def present(draft: Draft, session_id: str, user_id: str) -> User:
    """The user of this id, or NotFoundError."""
    session_of(draft.state, session_id)
    if (user := draft.state.user(session_id, user_id)) is None:
        raise NotFoundError("user", user_id, f"nobody in the session {session_id!r} has it now")
    return user


def _revoke(draft: Draft, rules: Rules, now: float, user: User) -> Revocation:
    revocation = Revocation(user.id, user.generation, now + rules.token_ttl_s)
    draft.put_in(user.session_id, "revocations", user.id, revocation)
    return revocation


def _take_away(draft: Draft, now: float, user: User, reason: str, revocations: tuple[Revocation, ...]) -> None:
    draft.put_in(user.session_id, "users", user.id, None)
    if not draft.state.user_count(user.session_id):
        draft.put("empty", user.session_id, now)
    draft.release_lease(user_lease(user.session_id, user.id))
    draft.emit(user.session_id, "user_left", user=user, reason=reason, revocations=revocations)
