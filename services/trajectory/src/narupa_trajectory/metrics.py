"""What an operator may ask of the trajectory service, for Prometheus. Read when scraped: nothing is counted twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_trajectory.playback import Playback


class PlaybackCollector(Collector):
    """The counters that playback, fan-out and supervisor keep anyway."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def collect(self) -> Iterator[Metric]:
        playback = self._playback
        broadcaster, engine = playback.broadcaster, playback.engine
        yield CounterMetricFamily("narupa_frames_made", "Snapshots taken of the engine.", value=playback.frames_made)
        yield CounterMetricFamily(
            "narupa_frames_encoded", "Frames encoded, one per frame and form.", value=broadcaster.encoded
        )
        yield CounterMetricFamily(
            "narupa_frames_sent", "Frames sent, one per frame and subscriber.", value=broadcaster.sent
        )
        yield CounterMetricFamily(
            "narupa_engine_restarts", "Restarts of the engine after it died.", value=engine.restarts
        )
        yield CounterMetricFamily(
            "narupa_blow_ups", "Times that an interaction made the simulation blow up.", value=playback.blow_ups
        )
        yield GaugeMetricFamily("narupa_subscribers", "Streams of frames.", value=len(broadcaster.subscriptions))
        yield GaugeMetricFamily(
            "narupa_steps_per_second", "Integration steps per second.", value=engine.steps_per_second
        )
        yield GaugeMetricFamily(
            "narupa_idle", "1 while the simulation pauses because nobody watches.", value=float(playback.idle)
        )
        particles = playback.info.particle_count if playback.info else 0
        yield GaugeMetricFamily("narupa_particles", "Particles of the running source.", value=particles)


@contextlib.contextmanager
def published_metrics(playback: Playback) -> Iterator[None]:
    """The metrics endpoint shows `playback` while this is open."""
    collector = PlaybackCollector(playback)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
