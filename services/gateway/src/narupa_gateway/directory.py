"""Where the session's services are, for connections that the gateway makes in its own name or with a caller's token."""

from __future__ import annotations

import asyncio
import random
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
        self._used = ""  # the id of the replica that frames are had from
        self._listeners: list[Callable[[], None]] = []
        self.role = role
        self.users: Mapping[str, User] = {}

    @property
    def token(self) -> str | None:
        return self._given or self._registration.token

    @property
    def services(self) -> Sequence[Service]:
        """In the lobby's order, but of replicas those first that do not run the engine, and of these another for each gateway."""
        found = (*self._registration.find("trajectory"), *self._registration.find("imd"))
        services = [
            Service(
                id=each.id,
                kind=each.kind,
                status=(ServiceStatus(each.status).name or "UNSPECIFIED").lower(),
                endpoints=tuple(Endpoint(end.host, end.port, end.protocol == "grpcs") for end in each.endpoints),
                group=each.group,
                epoch=each.epoch,
            )
            for each in found
        ]
        return sorted(services, key=self._turn)

    def _turn(self, service: Service) -> tuple[object, ...]:
        place = service.kind != "trajectory", service.status != "running"
        if not service.group:
            return (*place, "", False, 0.0)
        chance = random.Random(f"{self._registration.service_id}/{service.id}").random()
        return (*place, service.group, service.epoch > 0, chance)

    def replica_to_use(self) -> Service | None:
        """The replica to have frames from: the same while it runs and does not lead; None where there are no replicas."""
        found = [each for each in self.services if each.kind == "trajectory" and each.status == "running"]
        if not found or not found[0].group:
            return None
        first, used = found[0], next((each for each in found if each.id == self._used), None)
        if used is None or used.group != first.group or (used.epoch and not first.epoch):
            used = first
        self._used = used.id
        return used

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
