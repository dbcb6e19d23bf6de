"""A user's place in a session: got at the lobby by joining, kept by renewing its token, given up by leaving."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from narupa_client.connection import Endpoint
from narupa_client.directory import SessionEndedError
from narupa_client.lobby_connection import LobbyConnection
from narupa_client.records import Service, User, role_name
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope
from narupa_shared.errors import (
    InvalidArgumentError,
    NarupaError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1

# A token is renewed when this part of its life has passed.
RENEW_AT: Final = 0.6
RENEW_AGAIN_S: Final = 1.0
KICKED: Final = "kicked"
FORGOTTEN: Final = (UnauthenticatedError, NotFoundError)
_LEAVE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What one says at the lobby's door.

    Attributes:
        user_name: What others see.
        join_code: One of the secrets is needed where the lobby is closed.
        rejoin_token: Of the user that one wants to be again.
        guest: Whether a gateway speaks for somebody who has no secret; the session's role of guests is theirs.
        guests_welcome: Whether that gateway lets in whoever reaches it.
        client_address: Where that somebody calls from, an IP address without a port; wrong secrets are counted against it.
        service_token: Gives the gateway's own token, which the lobby asks for before it heeds the three above; asked at
            each attempt, as it is renewed meanwhile. None, or nothing given, means that there is none at present.
    """

    user_name: str
    join_code: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    invite: str = field(default="", repr=False)
    operator_key: str = field(default="", repr=False)
    rejoin_token: str = field(default="", repr=False)
    guest: bool = False
    guests_welcome: bool = False
    client_address: str = ""
    service_token: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)


class Place(ABC):
    """One user's place, which somebody keeps up between `join` and `leave`.

    A lobby that let us go is joined again as the same user; one that knows nothing of us, as another by the same name.
    Being removed, and the end of the session, are final.

    Attributes:
        lobby: Calls with our token.
        token: What to present to services; None before `join`.
        user_id, role, session_id: As the lobby said last.
        ended: Why the session is over for us; None while it is not.
    """

    def __init__(self, lobby: LobbyConnection, admission: Admission, session_id: str) -> None:
        self.lobby = lobby
        self.token: str | None = None
        self.user_id: str | None = None
        self.role: str | None = None
        self.session_id = session_id
        self.ended: SessionEndedError | None = None
        self._admission = admission
        self._request_id = ""
        self._rejoin_token = admission.rejoin_token
        self._joined = False
        self._lock = asyncio.Lock()
        self._token_life_s = 0.0
        self._token_stale = False
        self._on_change: list[Callable[[], None]] = []

    @property
    @abstractmethod
    def users(self) -> Mapping[str, User]:
        """Everybody here, by id."""

    @property
    @abstractmethod
    def services(self) -> Sequence[Service]:
        """What runs, by kind and then the one to use first at the front."""

    @abstractmethod
    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        """Where a service of this kind may be, the most likely first."""

    @abstractmethod
    def start(self, scope: TaskScope) -> None:
        """Presence, news and token are kept up from now on, by tasks of `scope` where it needs any of its own."""

    @abstractmethod
    def _welcomed(self, reply: v1.JoinResponse) -> None:
        """We have joined, for the first time or again."""

    @abstractmethod
    def _token_aged(self) -> None:
        """The token is another, or is to be renewed at once."""

    def on_change(self, changed: Callable[[], None]) -> None:
        self._on_change.append(changed)

    async def join(self, wait_s: float) -> None:
        """We are in the session.

        Args:
            wait_s: How long to keep trying while no lobby can be reached, s.

        Raises:
            UnavailableError: the lobby cannot be reached.
            PermissionDeniedError: wrong or missing secret. NotFoundError: no such session. QuotaError: it is full.
            InvalidArgumentError: the name is empty or too long.
        """
        attempts = Attempts(RetryPolicy(give_up_after_s=None, max_delay_s=0.5))
        deadline = time.monotonic() + wait_s
        while True:
            attempts.started()
            try:
                return await self._join()
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                await attempts.pause_after(error)

    async def leave(self) -> None:
        """The lobby knows that we left, if it can be reached."""
        if self.token is not None and self.ended is None:
            with suppress(NarupaError):
                await self.lobby.call("Leave", v1.LeaveRequest(), v1.LeaveResponse, timeout_s=_LEAVE_TIMEOUT_S)

    async def renew(self, refused: str | None) -> None:
        """The token is another than `refused`: renewed, or of a new membership where the lobby does not know us."""
        async with self._lock:
            if self.ended is not None:
                raise self.ended
            if self.token != refused:
                return
            try:
                reply = await self.lobby.call("RenewToken", v1.RenewTokenRequest(), v1.RenewTokenResponse)
            except FORGOTTEN:
                await self._join()
            else:
                self._take_token(reply.token, reply.token_expires_in_s)
                self._take_role(reply.role)

    async def _back(self, token: str | None) -> NarupaError | None:
        """Joins again, unless somebody did since `token` was ours; returns why that failed, if it did."""
        try:
            async with self._lock:
                if self.token == token and self.ended is None:
                    await self._join()
        except NarupaError as error:
            return error
        return None

    async def _join(self) -> None:
        """Joins, as the user that we were where the lobby still knows who that was. Safe to repeat after a lost answer."""
        said = self._admission
        self._request_id = self._request_id or uuid.uuid4().hex
        request = v1.JoinRequest(
            session_id=self.session_id,
            user_name=said.user_name,
            join_code=said.join_code,
            password=said.password,
            invite=said.invite,
            rejoin_token=self._rejoin_token,
            request_id=self._request_id,
            client_address=said.client_address,
            guest=said.guest,
            guests_welcome=said.guests_welcome,
        )
        token = self._token_to_join()
        try:
            # A token that this lobby does not know would be refused even here.
            reply = await self.lobby.call("Join", request, v1.JoinResponse, anonymous=True, token=token)
        except UnavailableError:
            raise
        except NarupaError as error:
            if token and isinstance(error, UnauthenticatedError):  # the gateway gets another once it is known again
                raise UnavailableError(f"the lobby does not know the gateway by its token yet: {error}") from error
            self._request_id = ""
            if self._rejoin_token and isinstance(error, UnauthenticatedError | InvalidArgumentError):
                self._rejoin_token = ""  # it says nothing to this lobby
                await self._join()
                return
            if self._joined and isinstance(error, PermissionDeniedError | NotFoundError):
                self._end(f"the lobby does not let us back: {error}")
                raise self.ended or error from error
            raise
        if not reply.user.id:
            raise UnavailableError(f"what answers at {self.lobby.address} is no lobby: it gave no user")
        self._request_id = ""
        self._joined = True
        self.session_id = reply.session_id
        self.user_id = reply.user.id
        self._take_token(reply.token, reply.token_expires_in_s)
        self._take_role(reply.user.role)
        self._welcomed(reply)
        self._changed()

    def _token_to_join(self) -> str:
        """The gateway's, where one speaks for us; otherwise none.

        Raises:
            UnavailableError: the gateway has none at present.
        """
        if (service_token := self._admission.service_token) is None:
            return ""
        if not (token := service_token()):
            raise UnavailableError("the gateway is not registered at the lobby yet; try again in a second")
        return token

    def _take_token(self, token: str, life_s: float) -> None:
        self.token = token or None
        self._rejoin_token = token
        self._token_life_s = life_s
        self._token_stale = False
        self._token_aged()

    def _take_role(self, number: int) -> None:
        self.role = role_name(number) or self.role

    def _another_role(self, role: str) -> None:
        """We have this role, which the token has yet to say; nothing happens where it is the one that we had."""
        if role and role != self.role:
            self.role = role
            self._token_stale = True
            self._token_aged()

    def _changed(self) -> None:
        for changed in self._on_change:
            changed()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = SessionEndedError(reason)
            self._changed()


def removed(reason: str) -> str:
    """What is said to whom the session is over for since somebody removed them."""
    return f"we were removed from the session: {reason}"


def session_over(reason: str) -> str:
    """What is said to everybody when the session has ended."""
    return "the session has ended" + (f": {reason}" if reason else "")
