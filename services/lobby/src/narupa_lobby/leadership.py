"""Which of several replicas leads: one at a time, and each in a higher epoch than all before it.

A leader's lease is named for its epoch. A new leader is one commit: it ends the lease of the epoch before, provided that it
has lapsed, and begins its own. So two can never hold at one instant of the store's clock, and who was late renews nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from narupa_lobby.records import Leader, Listed
from narupa_lobby.services import ServiceStatus
from narupa_lobby.state import Draft, State
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError

# What a number of a frame holds exactly.
MAX_EPOCH: Final = 2**53 - 1
_ABLE: Final = (ServiceStatus.STARTING, ServiceStatus.RUNNING, ServiceStatus.UNHEALTHY)


def leader_lease(leader: Leader) -> str:
    """The lease that a leadership is."""
    return f"leader/{leader.session_id}/{leader.group}/{leader.epoch}"


def group_of(listed: Listed) -> str:
    """The group that the service belongs to. Raises: FailedPreconditionError when it is in none."""
    if not listed.service.group:
        raise FailedPreconditionError(
            f"the service {listed.service.id!r} registered without a group; give all its replicas the same one"
        )
    return listed.service.group


def checked_epoch(epoch: int) -> int:
    """`epoch`, after which there can be another. Raises: InvalidArgumentError when there cannot."""
    if not 0 <= epoch < MAX_EPOCH:
        raise InvalidArgumentError("seen_epoch", epoch, f"must be 0 to {MAX_EPOCH - 1}")
    return epoch


def leads(state: State, listed: Listed) -> Leader | None:
    """The leadership of which the service is the last holder, by this copy; whether its lease still holds the store knows."""
    leader = state.leader(listed.session_id, listed.service.group)
    return leader if leader and leader.lease and leader.lease == listed.lease else None


def standbys(state: State, listed: Listed) -> int:
    """How many others of the service's group could take over."""
    service = listed.service
    others = (each for each in state.services(listed.session_id, service.kind) if each.group == service.group)
    return sum(each.id != service.id and each.status in _ABLE for each in others)


def take_lead(draft: Draft, listed: Listed, seen_epoch: int, lease_s: float) -> Leader:
    """The service leads its group in a new epoch. To be committed alone: the store refuses it while another's lease holds.

    Raises:
        FailedPreconditionError: the service is in no group.
        QuotaError: the session has had too many groups.
    """
    group, session_id = group_of(listed), listed.session_id
    before = draft.state.leader(session_id, group)
    session = draft.state.session(session_id)
    if before is None and session and draft.state.leader_count(session_id) >= session.max_services:
        raise QuotaError(
            f"the session {session_id!r} has had {session.max_services} groups of services; use one of them"
        )
    epoch = max(before.epoch if before else 0, seen_epoch) + 1
    leader = Leader(session_id, group, listed.service.id, listed.lease, epoch)
    draft.put_in(session_id, "leaders", group, leader)
    if before is not None:
        draft.only_if_lapsed.add(leader_lease(before))
        _mark(draft, session_id, before.service_id, 0)
    draft.hold_lease(leader_lease(leader), lease_s)
    _mark(draft, session_id, leader.service_id, epoch)
    return leader


def resign(draft: Draft, listed: Listed) -> None:
    """The service does not lead, and anybody may at once. Idempotent."""
    if (leader := leads(draft.state, listed)) is not None:
        draft.put_in(listed.session_id, "leaders", leader.group, replace(leader, lease=""))
        draft.release_lease(leader_lease(leader))
        _mark(draft, listed.session_id, leader.service_id, 0)


def _mark(draft: Draft, session_id: str, service_id: str, epoch: int) -> None:
    """The service is listed with this epoch, where it is listed."""
    listed = draft.state.listed(session_id, service_id)
    if listed is not None and listed.service.epoch != epoch:
        service = replace(listed.service, epoch=epoch)
        draft.put_in(session_id, "services", service_id, replace(listed, service=service))
        draft.emit(session_id, "service_changed", service=service)
