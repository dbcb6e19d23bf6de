"""Where the session's services are, for connections that the gateway makes in its own name or with a caller's token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from narupa_client.connection import Endpoint
from narupa_client.directory import SessionEndedError
from narupa_client.records import Service, User
from narupa_shared.errors import UnauthenticatedError
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import ServiceStatus


class ServiceDirectory:
    """What the lobby tells the gateway, in the form that the client's connections ask for.

    Attributes:
        role: Of whoever holds the token; None for the gateway itself.
    """

    user_id: str | None = None
    ended: SessionEndedError | None = None

    def __init__(self, registration: LobbyRegistration, token: str | None = None, role: str | None = None) -> None:
        """`token` is a caller's own; without one it is the gateway's."""
        self._registration = registration
        self._given = token
        self._listeners: list[Callable[[], None]] = []
        self.role = role
        self.users: Mapping[str, User] = {}

    @property
    def token(self) -> str | None:
        return self._given or self._registration.token

    @property
    def services(self) -> Sequence[Service]:
        found = (*self._registration.find("trajectory"), *self._registration.find("imd"))
        return [
            Service(
                id=each.id,
                kind=each.kind,
                status=(ServiceStatus(each.status).name or "UNSPECIFIED").lower(),
                endpoints=tuple(Endpoint(end.host, end.port, end.protocol == "grpcs") for end in each.endpoints),
            )
            for each in found
        ]

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        known = [service for service in self.services if service.kind == kind and service.status != "stopped"]
        lasting = [service for service in known if service.status != "draining"]
        return [endpoint for service in lasting or known for endpoint in service.endpoints]

    def on_change(self, changed: Callable[[], None]) -> None:
        self._listeners.append(changed)

    async def renew(self, refused: str | None) -> None:
        if self.token == refused:
            who = "the caller's token" if self._given else "the gateway's token"
            raise UnauthenticatedError(f"{who} is not taken (any more), and there is no other yet")

    async def run(self) -> None:
        """Listeners hear of every change, until cancelled."""
        while True:
            await self._registration.changed()
            for changed in self._listeners:
                changed()
            await asyncio.sleep(0)
