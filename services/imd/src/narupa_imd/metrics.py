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
from narupa_shared.interactions import KEY_PREFIX


class SessionCollector(Collector):
    """The numbers that the session and its watchers keep anyway."""

    def __init__(self, session: ImdSession, watching: Watching, keeping: Keeping) -> None:
        self._session = session
        self._watching = watching
        self._keeping = keeping

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        session, keeping = self._session, self._keeping
        gauges = (
            ("state_keys", "Keys in the shared state.", len(session.state)),
            ("state_bytes", "Size of the shared state, bytes.", session.state.bytes),
            ("state_revision", "Changes of the shared state since the service started.", session.state.revision),
            ("interactions", "Interactions that act now.", session.state.count(KEY_PREFIX)),
            (
                "locks",
                "Locks on keys that are held, or have expired since the key was looked at.",
                len(session.state.locks),
            ),
            ("watchers", "Streams of changes of the shared state.", self._watching.watchers),
            ("followers", "Services that apply the interactions.", session.followers),
            ("store_trouble", "1 while the store cannot keep the shared state.", float(bool(keeping.trouble))),
        )
        for name, meaning, value in gauges:
            yield GaugeMetricFamily(f"narupa_imd_{name}", meaning, value=value)
        yield CounterMetricFamily("narupa_imd_writes", "Writes asked for.", value=session.updates)
        refusals = CounterMetricFamily(
            "narupa_imd_refusals", "Writes refused, by the kind of the reason.", labels=["reason"]
        )
        for reason, count in session.refusals:
            refusals.add_metric([reason], count)
        yield refusals
        yield CounterMetricFamily(
            "narupa_imd_commits", "Commits of the shared state to the store.", value=keeping.commits
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
