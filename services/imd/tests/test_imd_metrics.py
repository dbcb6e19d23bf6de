"""What Prometheus reads of the imd service."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from narupa_imd.config import ImdConfig
from narupa_imd.keeping import Keeping
from narupa_imd.metrics import published_metrics
from narupa_imd.session import ImdSession
from narupa_imd.state import Writer
from narupa_imd.streams import Streams
from narupa_imd.watching import Watching
from narupa_shared.errors import InvalidArgumentError


def test_metrics_are_there_while_the_service_runs() -> None:
    session = ImdSession(lambda: 0.0, "epoch")
    writer = Writer("peer:a", "a")
    session.update(writer, {"interaction.a": {"particles": [1.0]}})
    session.state.update_locks(writer, {"selection.a": 5.0}, [])
    with pytest.raises(InvalidArgumentError):
        session.update(writer, {"interaction.b": {}})
    with published_metrics(session, Watching(session, Streams(), ImdConfig(port=0)), Keeping(session, None)):
        read = {
            name: REGISTRY.get_sample_value(f"narupa_imd_{name}")
            for name in (
                "state_keys",
                "interactions",
                "watchers",
                "followers",
                "locks",
                "writes_total",
                "store_trouble",
            )
        }
        refused = REGISTRY.get_sample_value("narupa_imd_refusals_total", {"reason": "InvalidArgumentError"})
        others = REGISTRY.get_sample_value("narupa_imd_refusals_total", {"reason": "QuotaError"})
    assert (refused, others) == (1, 0)
    assert read == {
        "state_keys": 2,
        "interactions": 1,
        "watchers": 0,
        "followers": 0,
        "locks": 1,
        "writes_total": 2,
        "store_trouble": 0,
    }
    assert REGISTRY.get_sample_value("narupa_imd_state_keys") is None
