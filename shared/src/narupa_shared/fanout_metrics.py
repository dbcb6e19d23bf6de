"""What a service's fan-out counts, for Prometheus: read when scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from narupa_shared.fanout import Broadcaster


def fanout_metrics(prefix: str, broadcaster: Broadcaster) -> Iterator[Metric]:
    """The counters of `broadcaster`, under names that begin with `prefix`."""
    counters = (
        ("frames_encoded", "Frames encoded: once for each form and view, however many read it.", broadcaster.encoded),
        ("frames_sent", "Frames handed to the transport, one for each subscriber.", broadcaster.sent),
        (
            "frames_skipped",
            "Frames that a subscriber to the latest did not get, because the next came before it had read them.",
            broadcaster.skipped,
        ),
        (
            "streams_left_behind",
            "Streams of every frame that were ended because their subscribers were too slow.",
            broadcaster.left_behind,
        ),
        ("sent_bytes", "Size of the frames handed to the transport, bytes.", broadcaster.bytes_sent),
    )
    for name, meaning, value in counters:
        yield CounterMetricFamily(f"{prefix}_{name}", meaning, value=value)
    subscribers = GaugeMetricFamily(
        f"{prefix}_subscribers", "Streams of frames, by mode and by form of their messages.", labels=["mode", "form"]
    )
    # A copy at once: this is another thread than the loop's.
    for (mode, form), count in sorted(
        Counter((each.mode, each.form) for each in (*broadcaster.subscriptions,)).items()
    ):
        subscribers.add_metric([mode, form], count)
    yield subscribers
