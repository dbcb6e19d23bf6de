"""A service's copy of its session: which services run, and who is there; the verifier is told what concerns it."""

from __future__ import annotations

import asyncio

import structlog

from narupa_shared.auth import TokenVerifier
from narupa_shared.placement import preference
from narupa_shared.sdk.narupa.lobby.v1 import Revocation, Service, SessionSnapshot, WatchSessionResponse

log = structlog.get_logger(__name__)


class Roster:
    """What WatchSession tells, applied in order. While no lobby is in contact it is the last that was known.

    Attributes:
        seen: Epoch and revision of the last event, from which a watch resumes; None: it begins anew.
        ended: Whether the last event was the session's end.
    """

    def __init__(self, session_id: str, verifier: TokenVerifier | None) -> None:
        self.seen: tuple[str, int] | None = None
        self.ended = False
        self._session_id = session_id
        self._verifier = verifier
        self._services: dict[str, Service] = {}
        self._present: set[str] = set()  # ids of users and services
        self._vouching = False
        self._changed = asyncio.Event()

    def find(self, kind: str) -> list[Service]:
        """The session's services of `kind`, the one to try first at the front."""
        found = [service for service in self._services.values() if service.kind == kind]
        return sorted(found, key=lambda each: (*preference(each.status, each.occupancy, each.capacity), each.id))

    async def changed(self) -> None:
        """Returns once any service has come, changed or gone."""
        await self._changed.wait()

    def apply(self, response: WatchSessionResponse) -> None:
        """The event has happened, and those before it."""
        self.seen = (response.epoch, response.revision)
        self.ended = False
        self._revoke(response.revocations)
        if response.snapshot is not None:
            self._begin_with(response.snapshot)
        elif response.user_joined is not None:
            self._present.add(response.user_joined.id)
        elif response.user_left is not None:
            self._present.discard(response.user_left.id)
        elif response.service_changed is not None:
            self._services[response.service_changed.id] = response.service_changed
            self._present.add(response.service_changed.id)
        elif response.service_removed is not None:
            self._services.pop(response.service_removed.id, None)
            self._present.discard(response.service_removed.id)
        elif response.session_ended is not None:
            self._end(response.reason)
        self.in_contact()
        if any(each is not None for each in (response.snapshot, response.service_changed, response.service_removed)):
            self._changed.set()
            self._changed = asyncio.Event()

    def _begin_with(self, snapshot: SessionSnapshot) -> None:
        self._services = {service.id: service for service in snapshot.services}
        self._present = {*self._services, *(user.id for user in snapshot.users)}
        self._vouching = False  # so that the verifier hears of the new set
        self._revoke(snapshot.revocations)

    def _end(self, reason: str) -> None:
        self._present.clear()
        self.seen = None
        self.ended = True
        if self._verifier is not None:
            self._verifier.revoke_session()
        log.warning("session_ended", session=self._session_id, reason=reason)

    def _revoke(self, revocations: list[Revocation]) -> None:
        if self._verifier is not None:
            for revocation in revocations:
                self._verifier.revoke(revocation.user_id, revocation.generation)

    # Contact with the lobby.

    def in_contact(self) -> None:
        """The lobby is there, and what is known is up to date: the verifier may rely on who is present."""
        if self._verifier is not None and not self._vouching and self.seen is not None:
            self._vouching = True
            self._verifier.vouch(self._present)

    def out_of_contact(self) -> None:
        """No lobby is there, and what is known may be out of date."""
        if self._verifier is not None and self._vouching:
            self._vouching = False
            self._verifier.vouch(None)
