"""How late frames come, by clocks that do not agree."""

from __future__ import annotations

import pytest

from narupa_gateway.delays import WINDOW_S, FrameDelays


def test_a_delay_is_what_a_frame_took_longer_than_the_fastest() -> None:
    delays, ahead_s = FrameDelays(), 1e6
    taken = [0.02, 0.01, 0.05, 0.01]
    found = [delays.delay("run", ahead_s + at, at + took) for at, took in enumerate(taken)]
    assert found == pytest.approx([0.0, 0.0, 0.04, 0.0], abs=1e-6)


def test_clocks_that_drift_apart_are_no_delay() -> None:
    delays = FrameDelays()
    drift, hours = 50e-6, 5
    worst = max(delays.delay("run", at * (1 - drift), float(at)) for at in range(3600 * hours))
    assert worst <= 2 * WINDOW_S * drift + 1e-6


def test_another_run_is_timed_anew() -> None:
    delays = FrameDelays()
    assert delays.delay("one", 0.0, 10.0) == 0.0
    assert delays.delay("other", 500.0, 10.1) == 0.0
    assert delays.delay("one", 0.0, 20.0) == 0.0
