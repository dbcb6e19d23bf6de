"""Who may come in, and as what: by code, password, invite, an earlier token, the operator's key, as a guest, or as it is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pydantic import SecretStr

from narupa_lobby import invites
from narupa_lobby.attempts import Attempts, client_address_of
from narupa_lobby.guests import admitted_as
from narupa_lobby.join_codes import digest, normalised
from narupa_lobby.passwords import Passwords
from narupa_lobby.records import Record, Session
from narupa_lobby.rules import Rules
from narupa_lobby.sessions import session_of
from narupa_lobby.state import Name, State
from narupa_lobby.tokens import Tokens
from narupa_lobby.users import Arrival, checked_name, checked_request_id
from narupa_shared.auth import same_secret
from narupa_shared.errors import PermissionDeniedError


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody says who wants to join.

    Attributes:
        address: Where they call from.
        operator: Whether they sent its key.
        gateway_of: The session whose gateway (whose token of a service) says all this for a client; empty without one.
        client_address: Where that client calls from; heeded only from a gateway of the session meant, as are the others.
        guest: Whether it has no secret and comes as a guest.
        guests_welcome: Whether the gateway is open.
    """

    name: str
    session_id: str = ""
    join_code: str = ""
    password: str = ""
    invite: str = ""
    rejoin_token: str = ""
    request_id: str = ""
    address: str = ""
    operator: bool = False
    gateway_of: str = ""
    client_address: str = ""
    guest: bool = False
    guests_welcome: bool = False


class Door:
    """Decides who comes in. It changes nothing but its count of attempts.

    What it does not find it looks for once more after `catch_up`, as another lobby may have made it a moment ago.
    """

    def __init__(
        self,
        rules: Rules,
        state: State,
        tokens: Tokens,
        attempts: Attempts,
        wall_clock: Callable[[], float],
        catch_up: Callable[[], Awaitable[None]],
        service_key: SecretStr | None = None,
        operator_key: SecretStr | None = None,
    ) -> None:
        self._rules = rules
        self._state = state
        self._tokens = tokens
        self._attempts = attempts
        self._clock = wall_clock
        self._catch_up = catch_up
        self._service_key = service_key
        self._operator_key = operator_key
        self.passwords = Passwords()

    async def admit(self, wish: Wish) -> Arrival:
        """As what the one who wishes may come in.

        Raises:
            InvalidArgumentError: the name, the request id or the client's address.
            NotFoundError: no such session.
            PermissionDeniedError: a secret is missing or wrong, guests may not come in, or they were kicked.
            QuotaError: too many attempts from their address.
        """
        wish = _as_heeded(wish)
        self._attempts.joining(wish.address)
        if wish.guest and not wish.gateway_of:
            raise PermissionDeniedError(
                "guest is set, but only a gateway of the session may bring guests, and it shows its own token (role "
                "service); join with the join code or an invite instead"
            )
        checked_request_id(wish.request_id)
        if returning := await self._returning(wish):
            return returning
        name = checked_name("user_name", wish.name)
        if wish.invite:
            return await self._invited(wish, name)
        session = await self._session(wish)
        if wish.operator:
            return Arrival(session.id, "host", name, wish.request_id)
        if wish.guest and not (wish.join_code or wish.password):
            return await self._guest(session, wish, name)
        if session.password_hash:
            await self._check_password(session, wish)
            return Arrival(session.id, session.join_role or self._rules.join_role, name, wish.request_id)
        if wish.join_code:
            self._check_code(session, wish)
        elif not self._rules.open:
            raise PermissionDeniedError(
                "join_code is missing: this lobby is closed; ask a host of the session for its code or an invite, or the "
                "lobby's operator, who can set one with --join-code (NARUPA_LOBBY_JOIN_CODE)"
            )
        role = session.join_role or (self._rules.open_role if self._rules.open else self._rules.join_role)
        return Arrival(session.id, role, name, wish.request_id)

    def admit_service(self, service_key: str, address: str) -> None:
        """Returns when whoever says `service_key` may register.

        Raises:
            PermissionDeniedError: it is missing or wrong.
            QuotaError: too many wrong ones from this address.
        """
        if self._rules.open:
            return
        if self._service_key is None or not self._service_key.get_secret_value():
            raise PermissionDeniedError(
                "this lobby is closed and has no service_key, so nobody can use one; its operator can set "
                "--service-key (NARUPA_LOBBY_SERVICE_KEY), or open it with --open-access"
            )
        if not service_key:
            raise PermissionDeniedError("service_key is missing; ask the lobby's operator for it")
        self._attempts.check("service key", address)
        if not same_secret(service_key, self._service_key.get_secret_value()):
            self._attempts.failed("service key", address)
            raise PermissionDeniedError("service_key is wrong; ask the lobby's operator for it")

    def is_operator(self, operator_key: str, address: str) -> bool:
        """Whether `operator_key` is the operator's. QuotaError: too many wrong ones from this address."""
        self._attempts.check("operator key", address)
        if self._operator_key and same_secret(operator_key, self._operator_key.get_secret_value()):
            return True
        self._attempts.failed("operator key", address)
        return False

    async def _returning(self, wish: Wish) -> Arrival | None:
        """The user that the rejoin token is of, when they may come back as the same; None: they come as somebody new."""
        identity = self._tokens.verify_expired(wish.rejoin_token) if wish.rejoin_token else None
        if identity is None or identity.role == "service" or wish.session_id not in ("", identity.session_id):
            return None
        session_id, user_id = identity.session_id, identity.user_id
        if self._state.user(session_id, user_id) is None and self._state.departed(session_id, user_id) is None:
            await self._catch_up()
        departed = self._state.departed(session_id, user_id)
        if departed is not None and departed.kicked:
            raise PermissionDeniedError("you were removed from the session by a host; ask them to let you in again")
        away = departed is not None and departed.until > self._clock()
        if not away and self._state.user(session_id, user_id) is None:
            return None
        name = checked_name("user_name", wish.name) if wish.name else ""
        return Arrival(session_id, "viewer", name, wish.request_id, again=user_id)

    async def _session(self, wish: Wish) -> Session:
        """The session that is meant: by its id, else by its join code, else the one that is always there."""
        if wish.session_id:
            if self._state.session(wish.session_id) is None:
                await self._catch_up()
            return session_of(self._state, wish.session_id)
        if wish.join_code:
            self._attempts.check("join code", wish.address)
            found = await self._named(("code", digest(normalised(wish.join_code))))
            if not isinstance(found, Session):
                raise self._wrong("join_code", "join code", wish.address)
            return found
        return session_of(self._state, self._rules.session_id)

    async def _guest(self, session: Session, wish: Wish, name: str) -> Arrival:
        try:
            role = admitted_as(session, self._rules, wish.guests_welcome)
        except PermissionDeniedError:
            await self._catch_up()
            role = admitted_as(session_of(self._state, session.id), self._rules, wish.guests_welcome)
        return Arrival(session.id, role, name, wish.request_id, guest=True, welcome=wish.guests_welcome)

    async def _named(self, name: Name) -> Record | None:
        """The record that goes by `name`. The limits on attempts come before this."""
        if (found := self._state.named(name)) is None:
            await self._catch_up()
            found = self._state.named(name)
        return found

    def _check_code(self, session: Session, wish: Wish) -> None:
        self._attempts.check("join code", wish.address)
        if not same_secret(normalised(wish.join_code), normalised(session.join_code)):
            raise self._wrong("join_code", "join code", wish.address)

    async def _check_password(self, session: Session, wish: Wish) -> None:
        if not wish.password:
            raise PermissionDeniedError(
                f"password is missing: the session {session.id!r} asks for one instead of a join code"
            )

        def check() -> None:
            self._attempts.check("password", wish.address)

        check()
        if not await self.passwords.verify(session.password_hash, wish.password, before=check):
            raise self._wrong("password", "password", wish.address)

    async def _invited(self, wish: Wish, name: str) -> Arrival:
        self._attempts.check("invite", wish.address)
        invite = await self._named(("invite", digest(wish.invite)))
        if not invites.works(invite, self._clock()) or wish.session_id not in ("", invite.session_id):
            raise self._wrong("invite", "invite", wish.address)
        return Arrival(invite.session_id, invite.role, name, wish.request_id, invite=invite.digest)

    def _wrong(self, field: str, kind: str, address: str) -> PermissionDeniedError:
        self._attempts.failed(kind, address)
        also = ", has expired or was revoked" if field == "invite" else ""
        return PermissionDeniedError(f"{field} is wrong{also}; ask a host of the session for it")


def _as_heeded(wish: Wish) -> Wish:
    """The wish with only what may be heeded: that of a gateway is about its own session, or is not that of a gateway."""
    if wish.gateway_of and wish.session_id in ("", wish.gateway_of):
        address = client_address_of(wish.client_address) or wish.address
        return replace(wish, session_id=wish.gateway_of, address=address)
    return replace(wish, gateway_of="", client_address="", guests_welcome=False)
