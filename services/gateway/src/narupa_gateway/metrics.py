"""What an operator may ask of the gateway, for Prometheus. Read when scraped."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import REGISTRY, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_gateway import grpc_guests, imd_server, websocket_server
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Guests
from narupa_gateway.shared_state import SharedStateCopy
from narupa_shared.fanout_metrics import fanout_metrics

FAMILIES: Final = (websocket_server.FAMILY, grpc_guests.FAMILY, imd_server.FAMILY)
UPSTREAM_LAG: Final = Histogram(
    "narupa_gateway_upstream_lag_seconds",
    "How much longer a frame was on its way from the trajectory service than the fastest of the last minute or two.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)


class GatewayCollector(Collector):
    """The numbers that guests and feeds keep anyway."""

    def __init__(self, guests: Guests, feed: FrameFeed, state: SharedStateCopy) -> None:
        self._guests = guests
        self._feed = feed
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        guests, feed = self._guests, self._feed
        present = GaugeMetricFamily("narupa_gateway_clients", "Clients connected now.", labels=["family"])
        # A copy at once: this is another thread than the loop's.
        counts = Counter(guest.family for guest in list(guests.present.values()))
        for family in FAMILIES:
            present.add_metric([family], counts[family])
        yield present
        yield CounterMetricFamily("narupa_gateway_entered", "Clients that were let in.", value=guests.entered)
        refusals = CounterMetricFamily(
            "narupa_gateway_refusals", "Clients that were turned away, by the kind of the reason.", labels=["reason"]
        )
        for reason, count in guests.refusals:
            refusals.add_metric([reason], count)
        yield refusals
        commands = CounterMetricFamily("narupa_gateway_commands", "Commands that clients ran.", labels=["outcome"])
        for succeeded, outcome in ((True, "answered"), (False, "failed")):
            commands.add_metric([outcome], guests.commands[succeeded])
        yield commands
        yield CounterMetricFamily(
            "narupa_gateway_frames_received", "Frames from the trajectory service.", value=feed.received
        )
        age = GaugeMetricFamily(
            "narupa_gateway_upstream_frame_age",
            "Time since the last frame came; none are asked for while nobody subscribes.",
            unit="seconds",
        )
        if math.isfinite(feed.frame_age_s):
            age.add_metric([], feed.frame_age_s)
        yield age
        yield from fanout_metrics("narupa_gateway", feed.broadcaster)
        yield GaugeMetricFamily(
            "narupa_gateway_state_keys", "Keys in the copy of the shared state.", value=len(self._state.values)
        )


@contextlib.contextmanager
def published_metrics(guests: Guests, feed: FrameFeed, state: SharedStateCopy) -> Iterator[None]:
    """The metrics are in the process's registry while this is open."""
    collector = GatewayCollector(guests, feed, state)
    REGISTRY.register(collector)
    feed.delayed = UPSTREAM_LAG.observe
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
