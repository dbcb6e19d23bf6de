"""What an operator may ask of the trajectory service, for Prometheus. Read when scraped: nothing is counted twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from narupa_trajectory.playback import Playback
from narupa_trajectory.replica import Replica


class PlaybackCollector(Collector):
    """The counters that playback, fan-out and supervisor keep anyway."""

    def __init__(self, playback: Playback, replica: Replica | None = None) -> None:
        self._playback = playback
        self._replica = replica

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
        if self._replica is not None:
            yield from _of_replica(self._replica, playback)


def _of_replica(replica: Replica, playback: Playback) -> Iterator[Metric]:
    tenure, relay, keeper = replica.tenure, replica.relay, replica.keeper
    yield GaugeMetricFamily("narupa_leads", "1 while this replica leads its group.", value=float(replica.leads))
    yield GaugeMetricFamily(
        "narupa_leader_epoch", "The highest epoch of a leader heard of.", value=max(tenure.seen, relay.frames.epoch)
    )
    yield GaugeMetricFamily(
        "narupa_leader_lease_age_seconds", "Time since the lobby last said who leads.", value=tenure.age_s
    )
    yield GaugeMetricFamily(
        "narupa_relay_connected", "1 while this replica follows a leader's frames.", value=float(relay.connected)
    )
    yield GaugeMetricFamily(
        "narupa_frame_age_seconds", "Time since the last frame was made or relayed.", value=playback.frame_age_s
    )
    yield CounterMetricFamily(
        "narupa_stale_frames", "Frames of leaders that were none any more, left out.", value=relay.frames.dropped
    )
    if keeper is not None:
        yield CounterMetricFamily(
            "narupa_checkpoints_written", "Checkpoints kept for other replicas.", value=keeper.written
        )


@contextlib.contextmanager
def published_metrics(playback: Playback, replica: Replica | None = None) -> Iterator[None]:
    """The metrics endpoint shows `playback`, and its part among replicas, while this is open."""
    collector = PlaybackCollector(playback, replica)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
