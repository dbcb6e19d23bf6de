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
    with pytest.raises(InvalidArgumentError):
        session.update(writer, {"interaction.b": {}})
    with published_metrics(session, Watching(session, Streams(), ImdConfig(port=0)), Keeping(session, None)):
        read = {
            name: REGISTRY.get_sample_value(f"narupa_imd_{name}")
            for name in (
                "keys",
                "interactions",
                "watchers",
                "followers",
                "updates_total",
                "refused_total",
                "store_trouble",
            )
        }
    assert read == {
        "keys": 2,
        "interactions": 1,
        "watchers": 0,
        "followers": 0,
        "updates_total": 2,
        "refused_total": 1,
        "store_trouble": 0,
    }
    assert REGISTRY.get_sample_value("narupa_imd_keys") is None
