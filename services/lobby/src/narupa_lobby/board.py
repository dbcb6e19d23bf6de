"""What the supervision of launches needs of the lobby's core, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from narupa_lobby.services import Service


class Board(Protocol):
    """Committed state, and changes to it. Reads never wait; each `async` method returns once its change is committed.

    A service that the lobby starts is listed before it registers, and stays listed when its lease lapses or ends: as
    UNHEALTHY, or as DRAINING if it was, until `put_service` or `remove_service` says otherwise. It registers itself under the
    id it is listed with, which keeps its `simulation`, `restarts` and `log_tail`.
    """

    @property
    def lost(self) -> bool:
        """Whether what is read here may be wrong for ever: the store has gone on without this lobby, which is about to end."""

    def service(self, session_id: str, service_id: str) -> Service | None:
        """The service as it is listed."""

    def registered(self, session_id: str, service_id: str) -> bool:
        """Whether the service holds a lease."""

    def session_exists(self, session_id: str) -> bool:
        """Whether there is such a session, and it has not ended."""

    def records(self, collection: str) -> Mapping[str, str]:
        """The JSON texts of a collection, by key. A later change makes a new mapping or is seen in this one."""

    async def put_record(self, collection: str, key: str, value: str | None) -> None:
        """The record has this value; None removes it."""

    async def replace_record(self, collection: str, key: str, before: str | None, after: str | None) -> bool:
        """The record goes from `before` to `after` (None: not there) in one step; False when it was not `before`.

        Decided when it is committed, so that of several lobbies over one store only one succeeds.
        """

    async def put_service(self, session_id: str, service: Service) -> None:
        """Lists or updates a started service.

        Of a service that holds a lease, only `simulation`, `restarts` and `log_tail` are taken and the rest stays as it
        reports it, unless `service` is STOPPED or UNHEALTHY: its supervisor knows that it is dead, and its lease ends. Of a
        session that has ended, nothing happens.

        Raises:
            QuotaError: it is new, and the session takes no more.
        """

    async def remove_service(self, session_id: str, service_id: str) -> None:
        """The service is no longer listed. Idempotent."""

    async def drain_service(self, session_id: str, service_id: str) -> None:
        """The service is listed as DRAINING, and told to drain with its next renewal. Idempotent."""

    def changed(self) -> Awaitable[object]:
        """Returns once anything has changed after this call."""
