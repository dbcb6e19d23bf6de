"""What Prometheus reads of the lobby."""

from __future__ import annotations

from prometheus_client import REGISTRY

from narupa_lobby.launchers.record import Phase
from narupa_lobby.metrics import published_metrics
from narupa_lobby.records import Listed
from narupa_lobby.renewals import Renewals
from narupa_lobby.services import Service, ServiceStatus
from narupa_lobby.state import State
from narupa_shared.testing.clock import FakeClock


def test_services_count_by_kind_and_status_and_lease_ages_by_kind(clock: FakeClock) -> None:
    state, renewals = State(), Renewals(clock)
    listed = [
        Listed("one", Service("a", "trajectory"), lease="a"),
        Listed("one", Service("b", "trajectory"), lease="b"),
        Listed("one", Service("c", "trajectory", ServiceStatus.UNHEALTHY)),
        Listed("two", Service("d", "made-up-by-somebody"), lease="d"),
    ]
    state.apply({("services", f"{each.session_id}/{each.service.id}"): each for each in listed})
    renewals.note("a")
    clock.advance(3)
    renewals.note("b")
    clock.advance(2)

    def count(session: str, kind: str, status: str) -> float | None:
        labels = {"session": session, "kind": kind, "status": status}
        return REGISTRY.get_sample_value("narupa_lobby_services", labels)

    def age(kind: str) -> float | None:
        return REGISTRY.get_sample_value("narupa_lobby_service_lease_age_seconds", {"kind": kind})

    def launched(phase: str) -> float | None:
        return REGISTRY.get_sample_value("narupa_lobby_launched_services", {"phase": phase})

    with published_metrics(state, renewals, lambda: {Phase.RUNNING: 2}):
        assert count("one", "trajectory", "running") == 2
        assert count("one", "trajectory", "unhealthy") == 1
        assert count("two", "other", "running") == 1
        assert (age("trajectory"), age("imd"), age("other")) == (5, 0, 0)
        assert (launched("running"), launched("stopped")) == (2, 0)
        renewals.forget_but({"b", "d"})
        assert age("trajectory") == 2
    assert count("one", "trajectory", "running") is None
