"""What an operator may ask of the gateway, for Prometheus. Read when scraped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Guests
from narupa_gateway.shared_state import SharedStateCopy


class GatewayCollector(Collector):
    """The numbers that guests and feeds keep anyway."""

    def __init__(self, guests: Guests, feed: FrameFeed, state: SharedStateCopy) -> None:
        self._guests = guests
        self._feed = feed
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        broadcaster = self._feed.broadcaster
        present = GaugeMetricFamily("narupa_gateway_clients", "Clients connected now.", labels=["family"])
        for family in sorted({guest.family for guest in self._guests.present.values()}):
            count = sum(guest.family == family for guest in self._guests.present.values())
            present.add_metric([family], count)
        yield present
        yield CounterMetricFamily("narupa_gateway_entered", "Clients that were let in.", value=self._guests.entered)
        yield CounterMetricFamily(
            "narupa_gateway_refused", "Clients that were turned away.", value=self._guests.refused
        )
        yield CounterMetricFamily(
            "narupa_gateway_frames_received", "Frames from the trajectory service.", value=self._feed.received
        )
        yield CounterMetricFamily("narupa_gateway_frames_encoded", "Encodings of frames.", value=broadcaster.encoded)
        yield CounterMetricFamily("narupa_gateway_frames_sent", "Frames sent to clients.", value=broadcaster.sent)
        yield GaugeMetricFamily(
            "narupa_gateway_frame_streams", "Streams of frames to clients.", value=len(broadcaster.subscriptions)
        )
        yield GaugeMetricFamily(
            "narupa_gateway_state_keys", "Keys in the copy of the shared state.", value=len(self._state.values)
        )


@contextlib.contextmanager
def published_metrics(guests: Guests, feed: FrameFeed, state: SharedStateCopy) -> Iterator[None]:
    """The metrics are in the process's registry while this is open."""
    collector = GatewayCollector(guests, feed, state)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
