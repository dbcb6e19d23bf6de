"""Clients of the gateway as the session sees them: each is a user of its own, with the role that a host chose for such."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import structlog

from narupa_client.address import SessionAddress
from narupa_client.place import Admission
from narupa_client.retry import RetryPolicy
from narupa_client.session import Session, joined
from narupa_gateway.config import GatewayConfig
from narupa_gateway.directory import ServiceDirectory
from narupa_gateway.guest_book import GuestBook, GuestPlace
from narupa_shared.auth import Identity
from narupa_shared.errors import InvalidArgumentError, NarupaError, PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.refusals import Refusals
from narupa_shared.registration import LobbyRegistration
from narupa_shared.tls import tls_config

log = structlog.get_logger(__name__)

# A bare code this long is an invite's secret; join codes are typed by people.
SHORTEST_INVITE: Final = 30
MAX_CODE: Final = 200
MAX_NAME: Final = 64
POLICY: Final = RetryPolicy(reconnect=True, give_up_after_s=None)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client says at the door: nothing, or one of these.

    Attributes:
        name: What it wants to be called; empty where it does not say.
        guessed: Whether the join code may be none, but a path that the client is set to.
    """

    name: str = ""
    guessed: bool = False
    join_code: str = field(default="", repr=False)
    invite: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def of_path(cls, target: str) -> Self:
        """What the target of an HTTP request says: `/CODE`, or `/?code=CODE`, `?invite=`, `?password=`, and `name=`.

        Raises:
            InvalidArgumentError: a part of it is too long, or given twice. Its text never tells a secret.
        """
        try:
            parts = urlsplit(target)
            asked = parse_qs(parts.query, max_num_fields=16)
        except ValueError:
            raise InvalidArgumentError("address", "***", "cannot be read; write ws://HOST:PORT/CODE") from None
        known = {name: asked.get(name, []) for name in ("code", "join_code", "invite", "password", "name")}
        for name, given in known.items():
            if len(given) > 1 or any(len(text) > MAX_CODE for text in given):
                raise InvalidArgumentError(name, "***", f"give it once, with at most {MAX_CODE} characters")
        one = {name: (given or [""])[0] for name, given in known.items()}
        bare = one["code"] or unquote(parts.path).strip("/")
        if len(bare) > MAX_CODE or "/" in bare:
            bare = ""  # some path, which clients are free to choose
        invite = one["invite"] or (bare if len(bare) >= SHORTEST_INVITE else "")
        join_code = one["join_code"] or (bare if len(bare) < SHORTEST_INVITE else "")
        guessed = bool(join_code) and not one["code"] and not one["join_code"]
        if guessed and not looks_like_code(join_code):
            join_code, guessed = "", False
        return cls(one["name"].strip()[:MAX_NAME], guessed, join_code, invite, one["password"])

    @property
    def secret(self) -> bool:
        """Whether it is more than a name."""
        return bool(self.join_code or self.invite or self.password)


def looks_like_code(text: str) -> bool:
    """Whether the path of an address may be a join code, rather than a name such as `ws` that a client is set to."""
    return 6 <= len(text) <= 64 and text.replace("-", "").replace(" ", "").isalnum()


@dataclass(frozen=True, slots=True)
class Guest:
    """A client that is in the session.

    Attributes:
        number: Of this client, at this gateway.
        family: What it speaks, for logs.
        address: Where it calls from.
        session: The session as this client may use it.
        avatars: Suffixes of the avatars' keys that it has written, and that are there.
        neighbours: Everybody who is here through the same gateway, itself included.
        commands: How many commands they have run there together, by whether they succeeded.
    """

    number: int
    family: str
    address: str
    session: Session
    avatars: set[str] = field(default_factory=set, compare=False)
    neighbours: Callable[[], Iterable[Guest]] = field(default=tuple, compare=False)
    commands: Counter[bool] = field(default_factory=Counter, compare=False)

    @property
    def may_write(self) -> bool:
        """Whether it may change the shared state and pull; viewers only watch."""
        return self.session.role != "viewer"

    @property
    def ended(self) -> NarupaError | None:
        """Why the session is over for this client; None while it is not."""
        return self.session.ended


class Guests:
    """Everybody who is here through this gateway."""

    def __init__(self, config: GatewayConfig, process: int = 1) -> None:
        """Nobody is let in before `registration` is set.

        `process`, from 1, tells this process from others of the same gateway, whose guests have other numbers.
        """
        self._config = config
        self._numbers = itertools.count(process, config.processes)
        self._places = 0
        self._tls = tls_config(config)
        place = SessionAddress(SessionAddress.parse(config.lobby, "lobby").lobbies, config.session_id)
        self.book = GuestBook(place, self._tls if config.lobby_tls else None)
        self._registration: LobbyRegistration | None = None
        self.present: dict[int, Guest] = {}
        self.entered = 0
        self.refusals = Refusals()
        self.commands: Counter[bool] = Counter()  # that its clients have run, by whether they succeeded

    @property
    def registration(self) -> LobbyRegistration | None:
        """The gateway's own place at the lobby; None before it is known."""
        return self._registration

    @registration.setter
    def registration(self, registration: LobbyRegistration) -> None:
        self._registration = registration
        self.book.directory = ServiceDirectory(registration)

    @contextlib.asynccontextmanager
    async def joined(
        self,
        family: str,
        address: str,
        credentials: Credentials,
        on_change: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Guest]:
        """A client is in the session, as a user of its own, while this is open.

        Args:
            family: What it speaks, for its name and for logs.
            address: Where it calls from, an IP address.
            credentials: What it said.
            on_change: Called whenever its role may have changed, or the session may have ended for it.

        Raises:
            PermissionDeniedError: no guests are let in, or its code is wrong; the text says what to do.
            QuotaError: the session or the gateway is full, or too many wrong codes came from there.
            UnavailableError: the lobby cannot be reached.
        """
        with self._place() as number:
            self._at_lobby()
            try:
                entering, session = await self._enter(number, family, address, credentials, on_change)
            except NarupaError as error:
                self.refusals.note(error)
                log.info("guest_refused", family=family, address=address, reason=str(error))
                raise
            guest = self._guest(number, family, address, session)
            self.entered += 1
            log.info(
                "guest_entered", guest=number, family=family, address=address, user=session.user_id, role=session.role
            )
            try:
                self.present[number] = guest
                yield guest
            finally:
                del self.present[number]
                log.info("guest_left", guest=number, family=family, user=session.user_id)
                await asyncio.shield(_left(entering))

    async def _enter(
        self, number: int, family: str, address: str, credentials: Credentials, on_change: Callable[[], None]
    ) -> tuple[contextlib.AbstractAsyncContextManager[Session], Session]:
        """The lobby lets the client in. What may have been no code at all is not held against it."""
        said = [credentials, Credentials(credentials.name)] if credentials.guessed else [credentials]
        problem: PermissionDeniedError | QuotaError | None = None
        for each in said:
            place = self._place_for(number, family, address, each)
            entering = joined(place, POLICY, self._tls, self._config.join_limit_s)
            try:
                session = await entering.__aenter__()
            except (PermissionDeniedError, QuotaError) as error:  # wrong, or too many wrong ones before
                problem = problem or error
                continue
            place.on_change(on_change)
            return entering, session
        assert problem is not None
        raise problem

    def _place_for(self, number: int, family: str, address: str, said: Credentials) -> GuestPlace:
        admission = Admission(
            user_name=said.name or f"{family} guest {number}",
            join_code=said.join_code,
            invite=said.invite,
            password=said.password,
            guest=not said.secret,
            guests_welcome=self._config.open,
            client_address=address,
            service_token=lambda: self._at_lobby().token,
        )
        return self.book.place(admission)

    @contextlib.asynccontextmanager
    async def presented(self, family: str, address: str, token: str, identity: Identity) -> AsyncIterator[Guest]:
        """A client that brings a token of its own, and is in the session through it.

        Raises:
            QuotaError: the gateway is full.
        """
        with self._place() as number:
            session = Session(ServiceDirectory(self._at_lobby(), token, identity.role), POLICY, self._tls)
            self.entered += 1
            log.info("user_connected", guest=number, family=family, address=address, user=identity.user_id)
            try:
                self.present[number] = guest = self._guest(number, family, address, session)
                yield guest
            finally:
                del self.present[number]
                log.info("user_disconnected", guest=number, family=family, user=identity.user_id)
                await asyncio.shield(session.aclose())

    def _guest(self, number: int, family: str, address: str, session: Session) -> Guest:
        return Guest(number, family, address, session, neighbours=self.present.values, commands=self.commands)

    def _at_lobby(self) -> LobbyRegistration:
        if self._registration is None:
            raise UnavailableError("the gateway is starting; try again in a moment")
        return self._registration

    @contextlib.contextmanager
    def _place(self) -> Iterator[int]:
        """A place, kept while this is open."""
        if self._places >= self._config.max_clients:
            full = QuotaError(f"{self._config.max_clients} clients are connected, which is this gateway's limit")
            self.refusals.note(full)
            raise full
        self._places += 1
        try:
            yield next(self._numbers)
        finally:
            self._places -= 1


async def _left(entering: contextlib.AbstractAsyncContextManager[Session]) -> None:
    await entering.__aexit__(None, None, None)
