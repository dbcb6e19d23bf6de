"""What the lobby counts, for Prometheus."""

from __future__ import annotations

import contextlib
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_lobby.launchers.record import Phase
from narupa_lobby.renewals import Renewals
from narupa_lobby.state import State
from narupa_shared.refusals import USUAL

SESSIONS = Gauge("narupa_lobby_sessions", "Sessions that there are.")
USERS = Gauge("narupa_lobby_users", "Users in the session.", ["session"])
WATCHERS = Gauge("narupa_lobby_watchers", "Watch streams of the session that are open at this lobby.", ["session"])
JOINS = Counter(
    "narupa_lobby_joins_total",
    "Joins at this lobby that succeeded: of somebody new, of who had vanished, of who was there already.",
    ["outcome"],
)
REFUSALS = Counter(
    "narupa_lobby_refusals_total",
    "Joins and registrations that this lobby refused, by the kind of the reason.",
    ["call", "reason"],
)
LEAVES = Counter("narupa_lobby_leaves_total", "Users who left, by what made them.", ["reason"])
LEASES_LAPSED = Counter("narupa_lobby_leases_lapsed_total", "Services that stopped renewing their lease.")
LAUNCHES = Counter("narupa_lobby_launches_total", "What became of launches that this lobby looks after.", ["outcome"])
COMMIT_SECONDS = Histogram(
    "narupa_lobby_commit_seconds",
    "How long the store took for a commit, s.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
BEHIND = Counter("narupa_lobby_commits_behind_total", "Commits decided again because another lobby was first.")
STORE_TROUBLE = Counter("narupa_lobby_store_trouble_total", "Calls to the store that failed.")

# What begins at 0 shows its first event as an increase.
for _outcome in ("new", "returned", "again"):
    JOINS.labels(_outcome)
for _reason in USUAL:
    REFUSALS.labels("join", _reason)
    REFUSALS.labels("register", _reason)
for _reason in ("left", "kicked", "vanished"):
    LEAVES.labels(_reason)
for _outcome in ("started", "running", "failed", "stopped"):
    LAUNCHES.labels(_outcome)

# Of which there are series of their own; services that others bring count together.
KINDS: Final = ("trajectory", "imd", "gateway")


def forget_session(session_id: str) -> None:
    """Nothing is counted for the session any more."""
    for gauge in (USERS, WATCHERS):
        with contextlib.suppress(KeyError):  # nobody has ever watched it
            gauge.remove(session_id)


class LobbyCollector(Collector):
    """What is counted when it is asked for."""

    def __init__(self, state: State, renewals: Renewals, phases: Callable[[], Mapping[Phase, int]]) -> None:
        self._state = state
        self._renewals = renewals
        self._phases = phases

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        # A copy at once: this is another thread than the loop's.
        listed = list(self._state.collection("services").values())
        kind_of = {kind: kind for kind in KINDS}
        services = GaugeMetricFamily(
            "narupa_lobby_services", "Services listed in the session.", labels=["session", "kind", "status"]
        )
        counts = Counts(
            (each.session_id, kind_of.get(each.service.kind, "other"), each.service.status.name.lower())
            for each in listed
        )
        for labels, count in sorted(counts.items()):
            services.add_metric(labels, count)
        yield services
        ages = GaugeMetricFamily(
            "narupa_lobby_service_lease_age",
            "Time since this lobby heard of the service of the kind that it has not heard of for longest.",
            unit="seconds",
            labels=["kind"],
        )
        for kind in (*KINDS, "other"):
            leases = [each.lease for each in listed if each.lease and kind_of.get(each.service.kind, "other") == kind]
            ages.add_metric([kind], self._renewals.oldest_s(leases))
        yield ages
        launched = GaugeMetricFamily(
            "narupa_lobby_launched_services", "Services that lobbies have started, by phase.", labels=["phase"]
        )
        phases = self._phases()
        for phase in Phase:
            launched.add_metric([phase.value], phases.get(phase, 0))
        yield launched


@contextlib.contextmanager
def published_metrics(state: State, renewals: Renewals, phases: Callable[[], Mapping[Phase, int]]) -> Iterator[None]:
    """What `LobbyCollector` counts is in the process's registry while this is open."""
    collector = LobbyCollector(state, renewals, phases)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
