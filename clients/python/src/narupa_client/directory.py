"""Who is in the session and what runs where, as far as a client needs to know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from narupa_client.connection import Endpoint
from narupa_shared.errors import UnauthenticatedError


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in the session."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the session.

    Attributes:
        id: Unique in the session.
        kind: "trajectory", "imd", ...
        status: "available", "starting", "running", "unhealthy", "draining" or "unspecified".
        endpoints: Where to try, in order.
        load: How many subscribers it has now.
        capacity: How many it takes; 0 where it states no limit.
        metadata: Facts for people.
    """

    id: str
    kind: str
    status: str
    endpoints: tuple[Endpoint, ...]
    load: float = 0.0
    capacity: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


class Directory(Protocol):
    """Where connections ask for addresses and tokens."""

    @property
    def user_id(self) -> str | None:
        """Our own id; None where no lobby gave one."""

    @property
    def users(self) -> Mapping[str, User]:
        """Everybody here, by id."""

    @property
    def services(self) -> Sequence[Service]:
        """What runs, by kind and then least loaded first."""

    @property
    def token(self) -> str | None:
        """What to present to services."""

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        """Where a service of this kind may be, the most likely first."""

    async def renew(self, refused: str | None) -> None:
        """There is another token than the `refused` one, if the lobby gives one.

        Raises:
            UnauthenticatedError: nobody can give one.
            NarupaError: the lobby refuses, or cannot be reached.
        """


class FixedDirectory:
    """Known addresses, without a lobby."""

    user_id: None = None
    token: None = None

    def __init__(self, addresses: Mapping[str, Sequence[Endpoint]]) -> None:
        self._addresses = dict(addresses)
        self.users: Mapping[str, User] = {}
        self.services: Sequence[Service] = [
            Service(id=kind, kind=kind, status="unspecified", endpoints=tuple(endpoints))
            for kind, endpoints in sorted(addresses.items())
        ]

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        return self._addresses.get(kind, ())

    async def renew(self, refused: str | None) -> None:
        raise UnauthenticatedError(
            "this service wants a token, and a lobby gives them: join the session through its lobby"
        )
