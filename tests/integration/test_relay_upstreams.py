"""From whom a relay has its frames, when some of those that it may have them from die, refuse, or come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.published import PublishedFrame, Topology
from narupa_shared.testing.waiting import until
from narupa_trajectory.relay import SECOND_HAND_KEY, UNWATCHED_KEY, Relay, Upstream, UpstreamChannel
from narupa_trajectory.relayed_frames import Relayed

LIMIT_S: Final = 20.0
TOPOLOGY: Final = Topology({keys.NAMES: ["H", "O"], keys.RUN: "r", keys.COUNTER: 0.0})


def published(index: int) -> PublishedFrame:
    moving = {keys.POSITIONS: np.full((2, 3), index, np.float32), keys.STEP: float(index), keys.EPOCH: 1.0}
    return PublishedFrame(Frame.of(index, moving), TOPOLOGY, lambda: None)


class Clockwork:
    """What all of them show: one frame after another."""

    def __init__(self) -> None:
        self.index = 1
        self.ticked = asyncio.Event()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.index += 1
            self.ticked.set()
            self.ticked = asyncio.Event()


class Server:
    """A replica that serves frames of the clockwork.

    Attributes:
        asked: What it was asked with, each time.
        requests: And what for.
        refuses: Whether it does not serve any.
        open: How many streams are.
    """

    def __init__(self, id: str, clockwork: Clockwork) -> None:
        self.id = id
        self.asked: list[dict[str, str]] = []
        self.requests: list[pb.SubscribeFramesRequest] = []
        self.refuses = False
        self.open = 0
        self._clockwork = clockwork
        self._server = grpc.aio.server()
        handler = grpc.unary_stream_rpc_method_handler(self._stream)
        service = grpc.method_handlers_generic_handler(
            "narupa.trajectory.v1.TrajectoryService", {"SubscribeFrames": handler}
        )
        self._server.add_generic_rpc_handlers([service])
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        await self._server.start()

    async def die(self) -> None:
        await self._server.stop(None)

    def listed(self, epoch: int = 0) -> Upstream:
        return Upstream(self.id, epoch, (f"127.0.0.1:{self.port}",))

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.asked.append(dict(context.invocation_metadata()))
        self.requests.append(pb.SubscribeFramesRequest.FromString(request))
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this replica does not lead")
        self.open += 1
        try:
            index = self._clockwork.index
            yield published(index).whole_response("v1", restart=False)
            while True:
                while index < self._clockwork.index:
                    index += 1
                    yield published(index).response("v1")
                await self._clockwork.ticked.wait()
        finally:
            self.open -= 1


class Setting:
    """Two relays and a leader, whom a relay of its own may have frames from."""

    def __init__(self) -> None:
        self.clockwork = Clockwork()
        self.near, self.other, self.leader = (Server(id, self.clockwork) for id in ("near", "other", "leader"))
        self.found = [self.near.listed(), self.other.listed(), self.leader.listed(epoch=1)]
        self.shown: list[int] = []
        self.lost = 0
        self.watched = True
        channel = UpstreamChannel(lambda: tuple(self.found), "self", lambda: "")
        self.relay = Relay(channel, self._show, self._lose, lambda: self.watched)

    def _show(self, relayed: Relayed) -> None:
        self.shown.append(relayed.frame.index)

    def _lose(self) -> None:
        self.lost += 1

    def watch(self, watched: bool) -> None:
        self.watched = watched
        self.relay.look()

    async def feeds(self, server: Server) -> None:
        """Frames come from there, and from nobody else."""
        count = len(self.shown)
        others = {self.near, self.other, self.leader} - {server}
        await until(lambda: server.open == 1 and len(self.shown) > count + 5 and not any(each.open for each in others))


async def changed() -> None:
    await asyncio.sleep(0.01)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    """One whose relay runs."""
    setting = Setting()
    servers = (setting.near, setting.other, setting.leader)
    for server in servers:
        await server.start()
    tasks = [asyncio.create_task(setting.clockwork.run()), asyncio.create_task(setting.relay.run(changed))]
    try:
        yield setting
    finally:
        for task in reversed(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for server in servers:
            await server.die()
    assert setting.shown == sorted(set(setting.shown))


async def test_the_first_that_will_do_is_asked_for_what_it_has_second_hand(setting: Setting) -> None:
    await setting.feeds(setting.near)
    (asked,) = setting.near.asked
    assert SECOND_HAND_KEY in asked
    first = setting.shown[0]
    assert setting.shown == list(range(first, first + len(setting.shown)))


async def test_when_it_dies_the_next_is_taken_and_then_the_leader(setting: Setting) -> None:
    await setting.feeds(setting.near)
    await setting.near.die()
    await setting.feeds(setting.other)
    await setting.other.die()
    await setting.feeds(setting.leader)
    assert SECOND_HAND_KEY not in setting.leader.asked[-1]
    assert not setting.lost  # the leader is there, as far as was seen


async def test_when_it_refuses_the_next_is_taken(setting: Setting) -> None:
    await setting.feeds(setting.near)
    setting.other.refuses = True
    await setting.near.die()
    await setting.feeds(setting.leader)


async def test_it_stays_with_one_that_does_though_another_would_be_tried_first(setting: Setting) -> None:
    await setting.feeds(setting.near)
    setting.found = [setting.other.listed(), setting.near.listed(), setting.leader.listed(epoch=2)]
    await setting.feeds(setting.near)
    assert len(setting.near.asked) == 1
    assert not setting.other.asked


@pytest.mark.parametrize("leads", [False, True])
async def test_it_moves_when_that_one_leads_or_does_no_more(setting: Setting, leads: bool) -> None:
    await setting.feeds(setting.near)
    setting.found = [setting.other.listed(), *([setting.near.listed(epoch=2)] if leads else [])]
    await setting.feeds(setting.other)
    assert not setting.lost


async def test_it_leaves_the_leader_for_the_first_that_comes(setting: Setting) -> None:
    setting.found = [setting.leader.listed(epoch=1)]
    await until(lambda: setting.leader.open)
    setting.found = [setting.other.listed(), setting.leader.listed(epoch=1)]
    await setting.feeds(setting.other)
    assert not setting.lost


async def test_the_loss_of_the_leader_is_noticed(setting: Setting) -> None:
    setting.found = [setting.leader.listed(epoch=1)]
    await setting.feeds(setting.leader)
    await setting.leader.die()
    await until(lambda: setting.lost)
    assert not setting.relay.connected


async def test_while_nobody_watches_it_says_so_and_wants_few_frames(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narupa_trajectory.relay.LINGER_S", 0.2)
    await setting.feeds(setting.near)
    assert UNWATCHED_KEY not in setting.near.asked[-1]
    setting.watch(False)
    await until(lambda: len(setting.near.asked) == 2)
    assert UNWATCHED_KEY in setting.near.asked[-1]
    assert setting.near.requests[-1].mode == pb.FRAME_MODE_LATEST
    assert setting.near.requests[-1].frame_interval_s >= 1
    await setting.feeds(setting.near)
    setting.watch(True)
    await until(lambda: len(setting.near.asked) == 3)
    assert UNWATCHED_KEY not in setting.near.asked[-1]
    assert setting.near.requests[-1].mode == pb.FRAME_MODE_ALL
    assert not setting.lost


async def test_who_comes_back_at_once_has_missed_nothing(setting: Setting) -> None:
    await setting.feeds(setting.near)
    for watched in (False, True, False, True):
        setting.watch(watched)
        await asyncio.sleep(0.05)
    await setting.feeds(setting.near)
    assert len(setting.near.asked) == 1
