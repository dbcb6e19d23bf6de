"""The lobby's tokens: signed with the present key, and checked against who is in the sessions now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from narupa_lobby.records import Listed, User
from narupa_lobby.rules import Rules
from narupa_lobby.signing_keys import KeyRecord, KeyRing
from narupa_lobby.state import State
from narupa_shared.auth import Clock, Identity, TokenVerifier
from narupa_shared.errors import UnauthenticatedError, UnavailableError


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and when it ends (s since the Unix epoch)."""

    token: str
    expires_at: float


class Tokens:
    """Signs and checks with the keys that it was last given."""

    def __init__(self, rules: Rules, wall_clock: Clock) -> None:
        self._rules = rules
        self._clock = wall_clock
        self._service_grants: dict[str, Grant] = {}  # by the digest of the lease
        self.use(())

    def use(self, records: Iterable[KeyRecord]) -> None:
        """These are the keys from now on; tokens of any other are not good any more."""
        rules = self._rules
        self.ring = KeyRing(
            records, self._clock, rules.token_ttl_s, rules.key_rotation_s, settle_s=rules.service_lease_s
        )
        self._present, self._whenever = TokenVerifier(None, self._clock), TokenVerifier(None, lambda: 0.0)
        for verifier in (self._present, self._whenever):
            verifier.trust(self.ring.public_keys)
        self._service_grants.clear()

    def for_user(self, user: User) -> Grant:
        """A new token for `user`."""
        return self._sign(Identity(user.id, user.name, user.session_id, user.role, 0.0, user.generation))

    def for_service(self, listed: Listed) -> Grant:
        """A token for the service; a new one once half the life of the last is over."""
        grant = self._service_grants.get(listed.lease)
        if grant is None or grant.expires_at - self._clock() < self._rules.token_ttl_s / 2:
            service = listed.service
            grant = self._sign(Identity(service.id, service.kind, listed.session_id, "service", 0.0))
            self._service_grants[listed.lease] = grant
        return grant

    def forget_services_but(self, leases: set[str]) -> None:
        """Tokens of services without a lease are not kept."""
        self._service_grants = {lease: each for lease, each in self._service_grants.items() if lease in leases}

    def verify(self, token: str) -> Identity:
        """Who `token` speaks for, or UnauthenticatedError."""
        return self._present.verify(token)

    def lapsed(self, identity: Identity) -> str | None:
        """Why a token that was good when `identity` was read from it is not any more; None while it is."""
        return self._present.lapsed(identity)

    def verify_expired(self, token: str) -> Identity | None:
        """Who `token` speaks for, or once spoke for; None when it is none of ours."""
        try:
            return self._whenever.verify(token)
        except UnauthenticatedError:
            return None

    def _sign(self, identity: Identity) -> Grant:
        expires_at = self._clock() + self._rules.token_ttl_s
        return Grant(self.ring.signer.sign(replace(identity, expires_at=expires_at)), expires_at)


class PresentVerifier(TokenVerifier):
    """Verifies tokens for the lobby's own calls; users have the role that they have by now, whatever their token says."""

    def __init__(self, tokens: Tokens, state: State, ready: Callable[[], bool], clock: Clock) -> None:
        super().__init__(None, clock)
        self._tokens = tokens
        self._state = state
        self._ready = ready

    def verify(self, token: str, revoked_too: bool = False) -> Identity:
        """See `TokenVerifier.verify`. The token of a user who is in the session is good here, as their role is known.

        Raises:
            UnavailableError: the lobby is still starting.
        """
        if not self._ready():
            raise UnavailableError("the lobby is starting; try again in a second")
        identity = self._tokens.verify(token)
        if not revoked_too:
            check_not_revoked(self._state, identity)
        user = self._state.user(identity.session_id, identity.user_id)
        return replace(identity, role=user.role) if user and identity.role != "service" else identity

    def lapsed(self, identity: Identity) -> str | None:
        """See `TokenVerifier.lapsed`. A stream outlives its token while its user or service is in the session."""
        here = self._state.user(identity.session_id, identity.user_id) or self._state.listed(
            identity.session_id, identity.user_id
        )
        return None if here else self._tokens.lapsed(identity)


def check_not_revoked(state: State, identity: Identity) -> None:
    """The identity's user may still act, or UnauthenticatedError: they left, were kicked, or the session has ended."""
    if state.session(identity.session_id) is None:
        raise UnauthenticatedError(f"the session {identity.session_id!r} of this token has ended; join another")
    if identity.role == "service" or state.user(identity.session_id, identity.user_id):
        return
    revocation = state.revocation(identity.session_id, identity.user_id)
    if revocation is not None and identity.generation <= revocation.generation:
        raise UnauthenticatedError("the token was revoked, as its user left or was kicked; join again")
