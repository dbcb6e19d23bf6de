"""Who is in the session and what runs where, as far as a client needs to know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from narupa_client.connection import Endpoint
from narupa_client.records import Service, User
from narupa_shared.errors import NarupaError, UnauthenticatedError


class SessionEndedError(NarupaError):
    """The session is over for us: it ended, or we were removed from it. Its text says which, and why."""


class Directory(Protocol):
    """Where connections ask for addresses and tokens."""

    @property
    def user_id(self) -> str | None:
        """Our own id; None where no lobby gave one."""

    @property
    def role(self) -> str | None:
        """What we may do: "viewer", "participant" or "host"; None where no lobby says."""

    @property
    def users(self) -> Mapping[str, User]:
        """Everybody here, by id."""

    @property
    def services(self) -> Sequence[Service]:
        """What runs, by kind and then the one to use first at the front."""

    @property
    def token(self) -> str | None:
        """What to present to services."""

    @property
    def ended(self) -> SessionEndedError | None:
        """Why the session is over for us; None while it is not."""

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        """Where a service of this kind may be, the most likely first; no draining one while another runs."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """`changed` is called whenever services or `ended` may have changed."""

    async def renew(self, refused: str | None) -> None:
        """There is another token than the `refused` one, if the lobby gives one.

        Raises:
            UnauthenticatedError: nobody can give one.
            SessionEndedError: the session is over for us.
            NarupaError: the lobby refuses, or cannot be reached.
        """


class FixedDirectory:
    """Known addresses, without a lobby."""

    user_id: None = None
    role: None = None
    token: None = None
    ended: None = None

    def __init__(self, addresses: Mapping[str, Sequence[Endpoint]]) -> None:
        self._addresses = dict(addresses)
        self.users: Mapping[str, User] = {}
        self.services: Sequence[Service] = [
            Service(id=kind, kind=kind, status="unspecified", endpoints=tuple(endpoints))
            for kind, endpoints in sorted(addresses.items())
        ]

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        return self._addresses.get(kind, ())

    def on_change(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    async def renew(self, refused: str | None) -> None:
        raise UnauthenticatedError(
            "this service wants a token, and a lobby gives them: join the session through its lobby"
        )
