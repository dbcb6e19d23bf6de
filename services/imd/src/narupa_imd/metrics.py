"""What an operator may ask of the imd service, for Prometheus. Read when scraped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_imd.keeping import Keeping
from narupa_imd.session import ImdSession
from narupa_imd.watching import Watching


class SessionCollector(Collector):
    """The numbers that the session and its watchers keep anyway."""

    def __init__(self, session: ImdSession, watching: Watching, keeping: Keeping) -> None:
        self._session = session
        self._watching = watching
        self._keeping = keeping

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        session = self._session
        interactions = len(session.interactions())
        yield GaugeMetricFamily("narupa_imd_keys", "Keys in the shared state.", value=len(session.state))
        yield GaugeMetricFamily("narupa_imd_state_bytes", "Size of the shared state, bytes.", value=session.state.bytes)
        yield GaugeMetricFamily("narupa_imd_interactions", "Interactions that act now.", value=interactions)
        yield GaugeMetricFamily("narupa_imd_watchers", "Streams of state changes.", value=self._watching.watchers)
        yield GaugeMetricFamily(
            "narupa_imd_followers", "Services that apply the interactions.", value=session.followers
        )
        yield CounterMetricFamily("narupa_imd_updates", "Updates asked for.", value=session.updates)
        yield CounterMetricFamily("narupa_imd_refused", "Updates refused.", value=session.refused)
        yield CounterMetricFamily(
            "narupa_imd_commits", "Commits of shared state to the store.", value=self._keeping.commits
        )
        yield GaugeMetricFamily(
            "narupa_imd_store_trouble",
            "1 while the store cannot keep the shared state.",
            value=float(bool(self._keeping.trouble)),
        )


@contextlib.contextmanager
def published_metrics(session: ImdSession, watching: Watching, keeping: Keeping) -> Iterator[None]:
    """The metrics are in the process's registry while this is open."""
    collector = SessionCollector(session, watching, keeping)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
