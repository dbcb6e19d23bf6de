"""What an operator may ask of the trajectory service, for Prometheus. Read when scraped: nothing is counted twice."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import REGISTRY, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from narupa_shared.fanout_metrics import fanout_metrics
from narupa_trajectory.playback import Playback
from narupa_trajectory.replica import Replica

FRAME_LAG: Final = Histogram(
    "narupa_trajectory_frame_lag_seconds",
    "Time from the engine's snapshot to the moment that its frame was handed to the transport, for the first subscriber.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)


class PlaybackCollector(Collector):
    """The counters that playback, fan-out and supervisor keep anyway."""

    def __init__(self, playback: Playback, replica: Replica | None = None) -> None:
        self._playback = playback
        self._replica = replica
        self._engine_process = ProcessCollector(
            "narupa_trajectory_engine", lambda: playback.engine.pid or 0, registry=None
        )

    def describe(self) -> Iterable[Metric]:
        return []  # so that several services in one process, as in tests, do not collide

    def collect(self) -> Iterator[Metric]:
        playback = self._playback
        engine, info = playback.engine, playback.info
        yield CounterMetricFamily(
            "narupa_trajectory_frames_made", "Snapshots taken of the engine.", value=playback.frames_made
        )
        yield from fanout_metrics("narupa_trajectory", playback.broadcaster)
        yield _age("narupa_trajectory_frame_age", "Time since the last frame was shown.", playback.frame_age_s)
        yield _age(
            "narupa_trajectory_checkpoint_age",
            "Time since the last checkpoint of the engine, which runs.",
            playback.checkpoint_age_s if info else math.inf,
        )
        yield GaugeMetricFamily(
            "narupa_trajectory_steps_per_second", "Integration steps per second.", value=engine.steps_per_second
        )
        yield GaugeMetricFamily(
            "narupa_trajectory_particles", "Particles of what runs.", value=info.particle_count if info else 0
        )
        yield GaugeMetricFamily(
            "narupa_trajectory_interactions", "Interactions that act on the engine.", value=engine.interactions_acting
        )
        yield GaugeMetricFamily(
            "narupa_trajectory_waiting_for_recorders",
            "1 while the engine waits for a subscriber to every frame that reads too slowly.",
            value=float(playback.recorders.waiting),
        )
        states = GaugeMetricFamily(
            "narupa_trajectory_engine_state", "1 for what the engine does now, 0 for the rest.", labels=["state"]
        )
        for state in ("starting", "running", "paused", "idle", "failed", "elsewhere"):
            states.add_metric([state], float(state == _state_of(playback, self._replica)))
        yield states
        yield CounterMetricFamily(
            "narupa_trajectory_engine_restarts", "Restarts of the engine after it died.", value=engine.restarts
        )
        yield CounterMetricFamily(
            "narupa_trajectory_blow_ups",
            "Times that an interaction made the simulation blow up.",
            value=playback.blow_ups,
        )
        yield from self._engine_process.collect()
        if self._replica is not None:
            yield from _of_replica(self._replica)


def _state_of(playback: Playback, replica: Replica | None) -> str:
    if playback.failed:
        return "failed"
    if replica is not None and not replica.leads:
        return "elsewhere"
    if playback.engine.info is None:
        return "starting"
    return "idle" if playback.idle else "running" if playback.playing else "paused"


def _age(name: str, meaning: str, age_s: float) -> Metric:
    """No sample where there is nothing that could have an age."""
    family = GaugeMetricFamily(name, meaning, unit="seconds")
    if math.isfinite(age_s):
        family.add_metric([], age_s)
    return family


def _of_replica(replica: Replica) -> Iterator[Metric]:
    tenure, relay, keeper = replica.tenure, replica.relay, replica.keeper
    yield GaugeMetricFamily(
        "narupa_trajectory_leads", "1 while this replica leads its group.", value=float(replica.leads)
    )
    yield GaugeMetricFamily(
        "narupa_trajectory_leader_epoch",
        "The highest epoch of a leader heard of.",
        value=max(tenure.seen, relay.frames.epoch),
    )
    yield _age("narupa_trajectory_leader_lease_age", "Time since the lobby last said who leads.", tenure.age_s)
    yield GaugeMetricFamily(
        "narupa_trajectory_relay_connected",
        "1 while this replica follows a leader's frames.",
        value=float(relay.connected),
    )
    yield CounterMetricFamily(
        "narupa_trajectory_stale_frames",
        "Frames of leaders that were none any more, left out.",
        value=relay.frames.dropped,
    )
    yield CounterMetricFamily(
        "narupa_trajectory_checkpoints_written",
        "Checkpoints kept for other replicas.",
        value=keeper.written if keeper is not None else 0,
    )
    yield _age(
        "narupa_trajectory_kept_checkpoint_age",
        "Time since a checkpoint was last kept for other replicas.",
        keeper.kept_age_s if keeper is not None and replica.leads else math.inf,
    )
    yield GaugeMetricFamily(
        "narupa_trajectory_checkpoint_trouble",
        "1 while checkpoints cannot be kept for other replicas.",
        value=float(bool(keeper.failure)) if keeper is not None else 0.0,
    )


@contextlib.contextmanager
def published_metrics(playback: Playback, replica: Replica | None = None) -> Iterator[None]:
    """The metrics endpoint shows `playback`, and its part among replicas, while this is open."""
    collector = PlaybackCollector(playback, replica)
    REGISTRY.register(collector)
    playback.broadcaster.first_handed = lambda taken_at: FRAME_LAG.observe(time.monotonic() - taken_at)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
