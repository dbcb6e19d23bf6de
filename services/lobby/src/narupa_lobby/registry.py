"""What happens to services: they register, report, lapse, leave; and those that the lobby starts are listed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from narupa_lobby.records import Listed
from narupa_lobby.services import Service, ServiceStatus, check_load, check_metadata, check_progress, check_reason
from narupa_lobby.sessions import session_of
from narupa_lobby.state import Draft, State
from narupa_shared.errors import NotFoundError, QuotaError


def service_lease(session_id: str, service_id: str) -> str:
    """The lease that a service's place on the list is."""
    return f"service/{session_id}/{service_id}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a service says of itself with a renewal; None and an empty metadata leave what was."""

    status: ServiceStatus | None = None
    load: float = 0.0
    metadata: Mapping[str, str] | None = None
    reason: str = ""
    progress: float = 0.0

    def check(self) -> None:
        """InvalidArgumentError when a field is out of range."""
        check_load("occupancy", self.load)
        check_metadata("metadata", self.metadata or {})
        check_reason("reason", self.reason)
        check_progress("progress", self.progress)

    def told(self, service: Service) -> Service:
        """`service` as it is after the report."""
        return replace(
            service,
            status=self.status or service.status,
            load=self.load,
            metadata=self.metadata or service.metadata,
            reason=self.reason,
            progress=self.progress,
        )


def listed_as(draft: Draft, listed: Listed) -> None:
    """The service is listed like this; its session hears of it when that shows.

    Raises:
        NotFoundError: the session has ended.
        QuotaError: it is new, and the session takes no more.
    """
    session, service = session_of(draft.state, listed.session_id), listed.service
    before = draft.state.listed(session.id, service.id)
    if before is None and draft.state.service_count(session.id) >= session.max_services:
        raise QuotaError(
            f"the session {session.id!r} has {session.max_services} services already and takes no more; stop some first"
        )
    draft.put_in(session.id, "services", service.id, listed)
    if before is None or before.service != service:
        draft.emit(session.id, "service_changed", service=service)


def register(draft: Draft, session_id: str, service: Service, lease: str, lease_s: float) -> Listed:
    """The service is listed under a new lease, and an older one of its id has ended; returns how. Errors as for `listed_as`."""
    started = draft.state.listed(session_id, service.id)
    before = started.service if started else Service(service.id, service.kind)
    # What the lobby knows of a service that it started, the service itself cannot tell.
    service = replace(
        service, simulation=before.simulation, restarts=before.restarts, log_tail=before.log_tail
    )  # fmt: skip
    drain = started is not None and started.drain
    listed = Listed(session_id, _draining(service) if drain else service, lease, drain=drain)
    listed_as(draft, listed)
    draft.hold_lease(service_lease(session_id, service.id), lease_s)
    return listed


def renew(draft: Draft, lease: str, report: Report, lease_s: float) -> Listed:
    """The service is listed as it reports, for as long as its lease now runs anew; NotFoundError when it has ended."""
    listed = leased(draft.state, lease)
    service = report.told(listed.service)
    listed = replace(listed, service=_draining(service) if listed.drain else service)
    service = listed.service
    listed_as(draft, listed)
    draft.hold_lease(service_lease(listed.session_id, service.id), lease_s)
    return listed


def _draining(service: Service) -> Service:
    """A service that was told to drain, as it is listed: whether or not it has said so itself yet."""
    begins = service.status in (ServiceStatus.STARTING, ServiceStatus.RUNNING)
    return replace(service, status=ServiceStatus.DRAINING) if begins else service


def leased(state: State, lease: str) -> Listed:
    """The service that holds the lease of this digest, or NotFoundError."""
    listed = state.named(("lease", lease))
    if not isinstance(listed, Listed):
        raise NotFoundError("lease", "", "it has lapsed or ended; register again")
    return listed


def unlease(draft: Draft, listed: Listed, reason: str) -> None:
    """The service's lease has ended: it is gone from the list, or, when the lobby started it, UNHEALTHY or still DRAINING."""
    service = replace(listed.service, epoch=0)
    listed = replace(listed, service=service)
    draft.release_lease(service_lease(listed.session_id, service.id))
    if not service.simulation:
        remove(draft, listed.session_id, service.id)
    elif service.status is ServiceStatus.STOPPED:
        listed_as(draft, replace(listed, lease=""))
    elif service.status is ServiceStatus.DRAINING:  # this was to come; its supervisor sees how it has ended
        listed_as(draft, replace(listed, lease="", service=replace(service, load=0.0)))
    else:
        unhealthy = replace(service, status=ServiceStatus.UNHEALTHY, reason=reason, load=0.0)
        listed_as(draft, replace(listed, lease="", service=unhealthy))


def remove(draft: Draft, session_id: str, service_id: str) -> None:
    """The service is not listed. Idempotent."""
    if (listed := draft.state.listed(session_id, service_id)) is not None:
        draft.put_in(session_id, "services", service_id, None)
        draft.release_lease(service_lease(session_id, service_id))
        draft.emit(session_id, "service_removed", service=listed.service)


def put_started(draft: Draft, session_id: str, service: Service) -> None:
    """A service that the lobby started is listed as its supervisor says; see `Board.put_service`."""
    if draft.state.session(session_id) is None:
        return
    listed = draft.state.listed(session_id, service.id) or Listed(session_id, service)
    if listed.lease and service.status in (ServiceStatus.STOPPED, ServiceStatus.UNHEALTHY):
        draft.release_lease(service_lease(session_id, service.id))
        listed = replace(listed, lease="")
    elif listed.lease:
        own = listed.service
        service = replace(
            own, simulation=service.simulation, restarts=service.restarts, log_tail=service.log_tail
        )  # fmt: skip
    drain = listed.drain and service.status not in (ServiceStatus.STOPPED, ServiceStatus.UNHEALTHY)
    listed_as(draft, replace(listed, service=_draining(service) if drain else service, drain=drain))


def drain(draft: Draft, session_id: str, service_id: str) -> Service:
    """The service is listed as DRAINING, and is told so with its next renewal. Idempotent. NotFoundError when not there."""
    session_of(draft.state, session_id)
    if (listed := draft.state.listed(session_id, service_id)) is None:
        raise NotFoundError("service", service_id, f"nothing is listed under it in the session {session_id!r}")
    if listed.service.status is not ServiceStatus.STOPPED:
        listed = replace(listed, drain=True, service=replace(listed.service, status=ServiceStatus.DRAINING))
        listed_as(draft, listed)
    return listed.service
