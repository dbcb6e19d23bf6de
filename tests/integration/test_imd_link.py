"""The trajectory service's link to imd, against a small imd that comes, goes and falls silent at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
import pytest

from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc
from narupa_shared.interactions import Interaction
from narupa_trajectory import imd_link
from narupa_trajectory.imd_link import ImdLink, Report

PULL = pb.Interaction(id="pull", position=[0.0, 0.0, 1.0], particles=[3])


class SmallImd(imd_pb2_grpc.InteractionServiceServicer):
    """Says that one interaction acts, and then whatever the test wants.

    Attributes:
        reports: What followers said about their simulation.
        followers: How many there are now.
    """

    def __init__(self) -> None:
        self.reports: list[int] = []
        self.followers = 0
        self.end = asyncio.Event()

    async def FollowInteractions(
        self, requests: AsyncIterator[pb.FollowInteractionsRequest], context: Any
    ) -> AsyncIterator[pb.FollowInteractionsResponse]:
        async def listen() -> None:
            async for request in requests:
                self.reports.append(request.particle_count)

        listening = asyncio.create_task(listen())
        self.followers += 1
        try:
            yield pb.FollowInteractionsResponse(whole=True, set=[PULL], heartbeat_s=0.1)
            await self.end.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        finally:
            self.followers -= 1
            listening.cancel()
            await asyncio.wait({listening})


class Applied:
    """What the link said acts, and events that a test can wait for."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.changed = asyncio.Event()

    def __call__(self, interactions: Sequence[Interaction]) -> None:
        self.now = [item.id for item in interactions]
        self.changed.set()

    async def until(self, expected: list[str]) -> None:
        async with asyncio.timeout(5):
            while self.now != expected:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def imd() -> AsyncIterator[tuple[SmallImd, str]]:
    servicer, server = SmallImd(), grpc.aio.server()
    imd_pb2_grpc.add_InteractionServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


def link_to(address: str, applied: Applied) -> ImdLink:
    async def find() -> Sequence[str]:
        return [address]

    return ImdLink(find, lambda: "", applied)


async def test_what_imd_says_acts_and_is_released_when_imd_goes(imd: tuple[SmallImd, str]) -> None:
    servicer, address = imd
    applied = Applied()
    running = asyncio.create_task(link_to(address, applied).run())
    await applied.until(["pull"])
    servicer.end.set()
    await applied.until([])
    servicer.end.clear()
    await applied.until(["pull"])
    running.cancel()
    await asyncio.wait({running}, timeout=1)
    assert running.cancelled()
    assert applied.now == []


async def test_a_silent_imd_counts_as_gone(imd: tuple[SmallImd, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imd_link, "RETRY_S", 30.0)
    _, address = imd
    applied = Applied()
    running = asyncio.create_task(link_to(address, applied).run())
    await applied.until(["pull"])
    began = asyncio.get_running_loop().time()
    await applied.until([])  # it said that it would be heard from every 0.1 s
    assert asyncio.get_running_loop().time() - began < 1.0
    running.cancel()
    await asyncio.wait({running}, timeout=1)


async def test_reports_reach_imd_over_every_connection(imd: tuple[SmallImd, str]) -> None:
    servicer, address = imd
    applied = Applied()
    link = link_to(address, applied)
    link.report(Report(particle_count=7))
    running = asyncio.create_task(link.run())
    await applied.until(["pull"])
    servicer.end.set()
    await applied.until([])
    servicer.end.clear()
    await applied.until(["pull"])
    link.report(Report(particle_count=9))
    async with asyncio.timeout(5):
        while servicer.reports[-1:] != [9]:
            await asyncio.sleep(0.01)
    assert servicer.reports[:1] == [7]
    assert servicer.followers == 1
    running.cancel()
    await asyncio.wait({running}, timeout=1)


@pytest.mark.parametrize("turns", [*range(12), 16, 24])
async def test_the_link_ends_when_told_to_at_whatever_moment_imd_goes(imd: tuple[SmallImd, str], turns: int) -> None:
    servicer, address = imd
    applied = Applied()
    running = asyncio.create_task(link_to(address, applied).run())
    await applied.until(["pull"])
    servicer.end.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=1)
    assert running.cancelled()
    servicer.end.clear()
