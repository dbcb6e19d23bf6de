"""Many people and services come and go while lobbies are killed: nothing acknowledged is lost, nobody is there twice."""

from __future__ import annotations

import pytest

from benchmarks.lobby_churn import churned, described

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.parametrize(("store", "kills"), [("memory", 0), ("sqlite", 4), ("redis", 4)])
async def test_every_view_equals_the_truth_in_the_end(store: str, kills: int) -> None:
    truth = await churned(store, people=60, services=6, seconds=15, kills=kills, mean_stay_s=4)
    print(described(store, truth))
    assert truth.violations == []
    assert len(truth.outages) == kills
    # It would prove nothing if little had happened.
    assert truth.counts["join"] > 100
    assert truth.counts["registration"] > 8
    assert truth.users
