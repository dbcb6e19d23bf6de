"""What Prometheus reads of the gateway."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY

from narupa_client import CurrentFrame
from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Guests
from narupa_gateway.metrics import published_metrics
from narupa_gateway.shared_state import SharedStateCopy
from narupa_shared import frame_keys as keys
from narupa_shared.errors import QuotaError
from narupa_shared.testing.clock import FakeClock


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"narupa_gateway_{name}", labels)


def feed_on(clock: FakeClock) -> FrameFeed:
    return FrameFeed(1 / 30, 1 / 120, 0.0, clock)


async def test_clients_count_by_family_and_refusals_by_reason(clock: FakeClock) -> None:
    guests = Guests(GatewayConfig())
    session: Any = object()
    guests.present |= {number: guests._guest(number, "IMD", "10.0.0.7", session) for number in (1, 2)}
    guests.refusals.note(QuotaError("full"))
    guests.present[1].commands[True] += 1
    guests.present[2].commands[False] += 2
    with published_metrics(guests, feed_on(clock), SharedStateCopy()):
        assert (value("clients", family="IMD"), value("clients", family="NanoVer")) == (2, 0)
        assert value("refusals_total", reason="QuotaError") == 1
        assert value("refusals_total", reason="PermissionDeniedError") == 0
        assert value("commands_total", outcome="answered") == 1
        assert value("commands_total", outcome="failed") == 2
        assert value("upstream_frame_age_seconds") is None
    assert value("clients", family="IMD") is None


async def test_frames_from_upstream_count_with_how_late_they_are(clock: FakeClock) -> None:
    feed = feed_on(clock)

    def total() -> tuple[float, float]:
        return value("upstream_lag_seconds_count") or 0.0, value("upstream_lag_seconds_sum") or 0.0

    count, seconds = total()
    with published_metrics(Guests(GatewayConfig()), feed, SharedStateCopy()):
        for index, late_s in enumerate((0.0, 0.25, 0.0)):
            sent_at = 5.0 + index
            clock.now = 1000.0 + index + late_s
            feed._take(CurrentFrame(index, {keys.TIMESTAMP: sent_at, keys.RUN: "r"}, {}), again=False)
        clock.advance(4)
        assert value("frames_received_total") == 3
        assert value("upstream_frame_age_seconds") == 4
    assert total() == (count + 3, seconds + 0.25)
