"""Which calls a replica answers itself, which it passes on, and which it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from narupa_trajectory.forwarding import Forwarding
from narupa_trajectory.relay import REPLICA_KEY, SECOND_HAND_KEY

VIEWER: Any = ()
REPLICA: Any = ((REPLICA_KEY, "r2"),)
SECOND_HAND: Any = ((REPLICA_KEY, "r2"), (SECOND_HAND_KEY, "yes"))
FRAMES, STATUS = (
    "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames",
    "/narupa.trajectory.v1.TrajectoryService/GetStatus",
)


class Own(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The service's own methods."""

    frames = grpc.unary_stream_rpc_method_handler(lambda request, context: iter(()))
    status = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    def service(self, handler_call_details: Any) -> Any:
        return self.frames if handler_call_details.method == FRAMES else self.status


async def answered_by(path: str, metadata: Any, **replica: bool) -> str:
    """Who answers: the service itself, nobody, or the leader."""
    own = Own()
    part: Any = SimpleNamespace(**replica)
    call: Any = SimpleNamespace(method=path, invocation_metadata=metadata)
    handler: Any = Forwarding(own, lambda: part).service(call)
    if handler in (own.frames, own.status):
        return "itself"
    function = handler.unary_stream or handler.unary_unary
    return "nobody" if "_refusing" in function.__qualname__ else "the leader"


@pytest.mark.parametrize("metadata", [VIEWER, REPLICA, SECOND_HAND])
@pytest.mark.parametrize("path", [FRAMES, STATUS])
async def test_who_leads_answers_everybody(path: str, metadata: Any) -> None:
    assert await answered_by(path, metadata, leads=True, feeds=False) == "itself"


@pytest.mark.parametrize("feeds", [False, True])
async def test_who_does_not_lead_has_frames_of_its_own_for_viewers_and_passes_the_rest_on(feeds: bool) -> None:
    assert await answered_by(FRAMES, VIEWER, leads=False, feeds=feeds) == "itself"
    assert await answered_by(STATUS, VIEWER, leads=False, feeds=feeds) == "the leader"


async def test_of_replicas_it_has_frames_only_for_those_that_take_them_second_hand() -> None:
    assert await answered_by(FRAMES, SECOND_HAND, leads=False, feeds=True) == "itself"
    assert await answered_by(FRAMES, REPLICA, leads=False, feeds=True) == "nobody"
    assert await answered_by(FRAMES, SECOND_HAND, leads=False, feeds=False) == "nobody"
    assert await answered_by(STATUS, SECOND_HAND, leads=False, feeds=True) == "nobody"
