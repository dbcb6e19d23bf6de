"""Relays of relays, and a gateway that has its frames from a relay, as real processes, of which one after another is killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from benchmarks.failover import Group, Viewer, resumed
from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import serving
from narupa_shared.frames import decode_compat_response, decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from tests.e2e.sessions import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LIMIT_S: Final = 90.0
_OPTIONS: Final = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]


def all_have_more(viewers: Sequence[Viewer], counts: Sequence[int]) -> bool:
    return all(len(viewer.frames) > count + 30 for viewer, count in zip(viewers, counts, strict=True))


async def loads(group: Group) -> dict[str, float]:
    """How many subscribers each replica has, as the lobby lists it; of the leader under its id in capitals."""
    return {each.id.upper() if each.epoch else each.id: each.load for each in await group.services()}


async def loaded(group: Group, expected: dict[str, float]) -> None:
    found: dict[str, float] = {}
    try:
        async with asyncio.timeout(LIMIT_S):
            while (found := await loads(group)) != expected:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{found}, not {expected}") from None


@contextlib.asynccontextmanager
async def led_by_a(folder: Path, *others: str, **settings: tuple[str, ...]) -> AsyncIterator[Group]:
    """Replica `a` leads, and the others relay."""
    group = Group(folder, 0, ["demo:nanotube"], {})
    group.settings |= settings
    async with group.running():
        await group.start_replica("a")
        async with asyncio.timeout(LIMIT_S):
            while await group.leader() != "a":
                await asyncio.sleep(0.1)
        for name in others:
            await group.start_replica(name)
        group.replicas = 1 + len(others)
        await group.whole()
        yield group


@contextlib.asynccontextmanager
async def watching(*streams: Any) -> AsyncIterator[None]:
    """The streams are read while this is open."""
    tasks = [asyncio.create_task(stream) for stream in streams]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def note_bytes(address: str, seen: dict[int, bytes]) -> None:
    """The hash of each response but the first, which is whole, by the index of its frame."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: Any = channel.unary_stream(
            "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames", pb.SubscribeFramesRequest.SerializeToString, None
        )(pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL))
        first = True
        async for response in call:
            if not first:
                seen[decode_frame_response_v1(response).index] = hashlib.sha256(response).digest()
            first = False


async def subscribers(address: str) -> int:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        status = await stubs.TrajectoryServiceStub(channel).GetStatus(pb.GetStatusRequest())  # type: ignore[no-untyped-call]
        return int(status.subscribers)


async def test_viewers_at_a_relay_of_a_relay_see_the_same_and_outlive_whom_it_has_them_from(tmp_path: Path) -> None:
    async with led_by_a(tmp_path, "near", "far", far=("--relay-from", "relays")) as group:
        addresses = {each.id: str(each.endpoints[0]) for each in await group.services()}
        (far,) = (each for each in await group.services() if each.id == "far")
        assert far.metadata["relay_from"] == "relays"
        await group.logged("far", '"service": "near"')
        viewers = [Viewer("far", mode) for mode in (pb.FRAME_MODE_ALL, pb.FRAME_MODE_LATEST)]
        async with watching(*(viewer.watch(addresses["far"]) for viewer in viewers)):
            await until(lambda: all(len(viewer.frames) > 30 for viewer in viewers), "frames of the second tier")
            at_leader: dict[int, bytes] = {}
            at_far: dict[int, bytes] = {}
            async with watching(note_bytes(addresses["a"], at_leader), note_bytes(addresses["far"], at_far)):
                await until(lambda: len(at_leader.keys() & at_far.keys()) > 60, "the same frames at both")
                assert await subscribers(addresses["a"]) == 2  # the relay, and the viewer here
            both = at_leader.keys() & at_far.keys()
            assert all(at_leader[index] == at_far[index] for index in both)
            assert sorted(both) == list(range(min(both), max(both) + 1))
            for name in ("near", "a"):
                counts = [len(viewer.frames) for viewer in viewers]
                group.processes[name].send_signal(signal.SIGKILL)
                await until(partial(all_have_more, viewers, counts), f"frames after {name} has died")
            await resumed(viewers)
        for viewer in viewers:
            assert not viewer.ended
            assert len({seen.run for seen in viewer.frames}) == 1
            for before, after in itertools.pairwise(viewer.frames):
                assert (after.epoch, after.index) > (before.epoch, before.index)
            assert viewer.frames[-1].epoch > viewer.frames[0].epoch


async def test_a_gateway_has_its_frames_from_who_runs_no_engine_and_moves_when_that_one_dies_or_leads(
    tmp_path: Path,
) -> None:
    async with led_by_a(tmp_path, "b", "c") as group:
        config = GatewayConfig(lobby=group.lobby, port=0, websocket_port=0, discovery=False, drain_grace_s=0.2)
        app = GatewayApp(config)
        seen: list[tuple[float, int]] = []

        async def note() -> None:
            stream = app.feed.subscribe("compat", "all", 0.0, "interval")
            try:
                async for response in stream:
                    frame = decode_compat_response(response)
                    epoch = frame.values.get(keys.EPOCH)
                    seen.append((float(epoch) if isinstance(epoch, float) else seen[-1][0], frame.index))
            finally:
                app.feed.unsubscribe(stream)

        async def goes_on() -> None:
            count = len(seen)
            await until(lambda: len(seen) > count + 30, "frames at the gateway")

        async with serving("gateway", config, app), watching(note()):
            await goes_on()
            async with asyncio.timeout(LIMIT_S):
                while (now := await loads(group))["A"] != 2 or now["b"] + now["c"] != 1:
                    await asyncio.sleep(0.1)
            used, other = ("b", "c") if now["b"] else ("c", "b")
            group.processes[used].send_signal(signal.SIGKILL)
            await goes_on()
            await loaded(group, {"A": 1, other: 1})
            group.processes["a"].send_signal(signal.SIGKILL)
            await goes_on()
            await loaded(group, {other.upper(): 1})  # there is no other
            await group.start_replica(used)
            await loaded(group, {other.upper(): 1, used: 1})
            await goes_on()
        assert all(after > before for before, after in itertools.pairwise(seen))
        assert seen[-1][0] > seen[0][0]


async def test_what_paused_because_nobody_watched_goes_on_at_the_next_leader(tmp_path: Path) -> None:
    pausing = ("--pause-when-idle-s", "0.5")
    async with led_by_a(tmp_path, "b", a=pausing, b=pausing) as group:
        address = next(str(each.endpoints[0]) for each in await group.services() if each.id == "b")
        viewers = [Viewer("b", pb.FRAME_MODE_ALL) for _ in range(2)]
        async with watching(viewers[0].watch(address)):
            await until(lambda: len(viewers[0].frames) > 30, "frames at the relay")
        await group.logged("a", "simulation_paused")
        log = tmp_path / "a.log"
        await until(
            lambda: log.read_text().count("simulation_paused") > log.read_text().count("simulation_resumed"),
            "nobody watches any more",
        )
        group.processes["a"].send_signal(signal.SIGKILL)
        async with watching(viewers[1].watch(address)):
            await until(lambda: len(viewers[1].frames) > 30 and viewers[1].frames[-1].epoch > 1, "frames of the next")
        before, after = viewers[0].frames[-1], viewers[1].frames[-1]
        assert (after.run, after.epoch) == (before.run, 2)
        frames = [*viewers[0].frames, *(seen for seen in viewers[1].frames if seen.epoch == 2)]
        assert all(later.index > earlier.index for earlier, later in itertools.pairwise(frames))
