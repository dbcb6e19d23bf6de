"""Interactions from the client's first word to the account of their work, through a real engine; and the watch of accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import narupa_client
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError, NotFoundError
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.sdk.narupa.trajectory import v1 as sdk
from narupa_shared.testing.waiting import until
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig


@dataclass
class Services:
    """A trajectory and an imd service that have found each other."""

    trajectory: TrajectoryApp
    bound: Bound
    imd: Bound
    imd_app: ImdApp


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("inputs") / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    return f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def started(stack: AsyncExitStack, source: str, **settings: Any) -> Services:
    imd_config = ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.2)
    imd_app = ImdApp(imd_config)
    imd = await stack.enter_async_context(serving("imd", imd_config, imd_app))
    config = TrajectoryConfig(
        port=0, lobby="127.0.0.1:1", imd=imd.address, sources=(source,), drain_grace_s=0.2, **settings
    )
    app = TrajectoryApp(config)
    bound = await stack.enter_async_context(serving("trajectory", config, app))
    await until(lambda: imd_app.session.particle_count)
    return Services(app, bound, imd, imd_app)


def account(name: str) -> FinishedInteraction:
    return FinishedInteraction(name, "user-1", "steered", (1, 2), 1000.0, 2.0, 0.5, 3.5, -12.25, "why")


async def test_both_stacks_get_the_same_accounts_and_resume(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol)
    reports = services.trajectory.playback.reports
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(services.bound.address))
    watch = stubs.TrajectoryServiceStub(channel).WatchFinishedInteractions  # type: ignore[no-untyped-call]
    call = watch(pb.WatchFinishedInteractionsRequest())
    first = await call.read()
    assert first.epoch and not first.finished, "who watches is told at once where counting begins"
    reports.add([account("a")], "run-1")
    [told] = (await call.read()).finished
    assert told == pb.FinishedInteraction(
        sequence=1, id="a", owner="user-1", potential="steered", particles=[1, 2], started_at=1000.0, duration_s=2.0,
        start_time_ps=0.5, end_time_ps=3.5, work=-12.25, run_id="run-1", reason="why",
    )  # fmt: skip
    reports.add([account("b"), account("c")], "run-2")
    assert [item.id for item in (await call.read()).finished] == ["b", "c"]
    call.cancel()

    resumed = watch(pb.WatchFinishedInteractionsRequest(epoch=first.epoch, after_sequence=1))
    assert [item.id for item in (await resumed.read()).finished] == ["b", "c"]
    resumed.cancel()

    typed = Channel(services.bound.host, services.bound.port)
    try:
        stub = sdk.TrajectoryServiceStub(typed)
        request = sdk.WatchFinishedInteractionsRequest(epoch=first.epoch, after_sequence=2)
        async for response in stub.watch_finished_interactions(request):
            [last] = response.finished
            assert (last.sequence, last.id, last.work, last.run_id) == (3, "c", -12.25, "run-2")
            break
        with pytest.raises(GRPCError, match="epoch 'old' is over") as lost:
            async for _ in stub.watch_finished_interactions(sdk.WatchFinishedInteractionsRequest(epoch="old")):
                pass
        assert lost.value.status is Status.OUT_OF_RANGE
    finally:
        typed.close()

    for request_, code in (
        (pb.WatchFinishedInteractionsRequest(epoch=first.epoch, after_sequence=4), grpc.StatusCode.OUT_OF_RANGE),
        (pb.WatchFinishedInteractionsRequest(after_sequence=2), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch(request_).read()
        assert refused.value.code() is code


async def test_watches_are_limited_and_end_when_the_service_drains(stack: AsyncExitStack, ethanol: str) -> None:
    inner = AsyncExitStack()
    services = await started(inner, ethanol, max_subscribers=1)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(services.bound.address))
    watch = stubs.TrajectoryServiceStub(channel).WatchFinishedInteractions  # type: ignore[no-untyped-call]
    call = watch(pb.WatchFinishedInteractionsRequest())
    await call.read()
    with pytest.raises(grpc.aio.AioRpcError, match="1 watches") as refused:
        await watch(pb.WatchFinishedInteractionsRequest()).read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await inner.aclose()
    with pytest.raises(grpc.aio.AioRpcError, match="join again") as ended:
        await call.read()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_steered_pull_is_seen_in_frames_and_its_work_is_told_once(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol)
    session = await stack.enter_async_context(
        narupa_client.open(services.bound.address, services.imd.address, give_up_after_s=5)
    )
    finished = await stack.enter_async_context(session.finished_interactions())
    frames = await stack.enter_async_context(session.frames(0.01))
    frame = await anext(frames)
    velocity = {"velocity": (0.0, 0.0, 0.5), "stiffness": 5000.0}
    async with session.pull([0, 1], frame.positions[0], kind="steered", parameters=velocity) as pull:
        seen = await next_with(frames, lambda frame: pull.id in frame.interactions)
        before = seen.interactions[pull.id]
        assert before.force.shape == (3,) and np.isfinite(before.force).all()
        assert [item["kind"] for item in await session.interactions()] == ["steered"]
        await pull.change(parameters={"velocity": [0.0, 0.0, 1.0]})
        seen = await next_with(frames, lambda frame: abs(frame.interactions[pull.id].work) > 1e-3)
        assert seen.user_work == pytest.approx(seen.interactions[pull.id].work, rel=1e-3, abs=1e-4)
        [listed] = await session.interactions()
        assert listed["parameters"]["velocity"] == [0.0, 0.0, 1.0] and listed["parameters"]["stiffness"] == 5000.0
    async with asyncio.timeout(10):
        told = await anext(finished)
    assert (told.id, told.kind, told.particles, told.run_id) == (pull.id, "steered", (0, 1), seen.run_id)
    assert told.owner.startswith("ipv4:127.0.0.1:") and told.reason == ""
    assert told.end_time_ps > told.start_time_ps and told.duration_s > 0
    assert abs(told.work) > 1e-3
    await next_with(frames, lambda frame: not frame.interactions)


async def test_a_distance_restraint_between_groups_acts(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol)
    session = await stack.enter_async_context(narupa_client.open(services.bound.address, services.imd.address))
    frames = await stack.enter_async_context(session.frames(0.01))
    async with session.pull(
        kind="distance", groups=[[0, 1], [2]], parameters={"stiffness": 50.0, "target": 0.4}
    ) as pull:
        frame = await next_with(frames, lambda frame: pull.id in frame.interactions)
        assert set(frame.user_forces.indices) == {0, 1, 2}
        total = frame.user_forces.forces.sum(axis=0)
        assert np.allclose(total, 0, atol=1e-3) and np.abs(frame.user_forces.forces).max() > 1
        assert np.allclose(frame.user_forces.forces[2], -frame.interactions[pull.id].force, atol=1e-3)


async def test_whoever_pulled_is_told_that_the_simulation_was_loaded_anew(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol)
    session = await stack.enter_async_context(narupa_client.open(services.bound.address, services.imd.address))
    async with session.pull([0], (0.0, 0.0, 0.0), scale=0.01) as pull:
        holding = asyncio.create_task(pull.hold(30))
        await session.run_command("playback/load", {"index": 0})
        with pytest.raises(NotFoundError, match="the simulation began anew"):
            await holding
        with pytest.raises(NotFoundError, match="the simulation began anew"):
            await pull.move((0.0, 0.0, 0.1))
    assert services.imd_app.session.interactions() == []


async def test_whoever_blew_the_simulation_up_is_told_and_others_go_on(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol, on_blow_up="resume")
    async with (
        narupa_client.open(services.bound.address, services.imd.address) as good,
        narupa_client.open(services.bound.address, services.imd.address) as bad,
        good.finished_interactions() as finished,
    ):
        gently = await stack.enter_async_context(good.pull([1], (0.0, 0.0, 0.0), scale=0.01))
        wild = bad.pull([0], (900.0, 0.0, 0.0), kind="spring", scale=1e9, max_force=float("inf"))
        with pytest.raises(NotFoundError, match="was ended: ") as told:
            async with wild:
                await wild.hold(30)
        assert wild.id in str(told.value)
        assert gently.active
        assert [item["id"] for item in await good.interactions()] == [gently.id]
        async with asyncio.timeout(10):
            ended = await anext(finished)
        assert (ended.id, bool(ended.reason)) == (wild.id, True)
        async with asyncio.timeout(20), good.frames(0.01) as frames:
            frame = await anext(frames)
            while (later := await anext(frames)).time_ps == frame.time_ps:
                pass
        assert np.isfinite(later.positions).all()


async def test_what_only_the_service_knows_to_be_wrong_is_said_on_entering(stack: AsyncExitStack, ethanol: str) -> None:
    services = await started(stack, ethanol)
    session = await stack.enter_async_context(narupa_client.open(services.bound.address, services.imd.address))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"particles": [0], "kind": "rope"}, "interaction_type is 'rope'.*steered"),
        ({"particles": [99]}, "particles is 99"),
        ({"kind": "distance", "groups": [[0], [99]], "parameters": {"target": 1.0}}, "99"),
    ]
    for arguments, says in wrong:
        with pytest.raises(InvalidArgumentError, match=says):
            async with session.pull(**arguments):
                pass


async def next_with(frames: Any, condition: Callable[[narupa_client.CurrentFrame], object]) -> Any:
    """The next frame of which `condition` holds."""
    async with asyncio.timeout(20):
        while not condition(frame := await anext(frames)):
            pass
    return frame
