"""A real engine that is pulled apart, with the trajectory and imd services around it; and how imd is told."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
import numpy as np
import pytest

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import serving
from narupa_shared.frames import Frame, decode_compat_response, decode_frame_response_v1
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from narupa_shared.interactions import Interaction
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.imd_link import ImdLink

LIMIT_S = 30
NATIVE = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"
COMPAT = "/narupa.protocol.trajectory.TrajectoryService/SubscribeFrames"


class Session:
    """A trajectory and an imd service, two streams of every frame, and what they have brought."""

    def __init__(self, app: TrajectoryApp, trajectory: grpc.aio.Channel, imd: grpc.aio.Channel) -> None:
        self.app = app
        self.imd: Any = imd_pb2_grpc.InteractionServiceStub(imd)  # type: ignore[no-untyped-call]
        self.status: Any = stubs.TrajectoryServiceStub(trajectory)  # type: ignore[no-untyped-call]
        request = pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL).SerializeToString()
        self._streams = [
            (trajectory.unary_stream(NATIVE, response_deserializer=decode_frame_response_v1)(request), Frame()),
            (trajectory.unary_stream(COMPAT, response_deserializer=decode_compat_response)(b""), Frame()),
        ]
        self.seen: list[list[Frame]] = [[], []]
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read(number)) for number in (0, 1)]

    async def _read(self, number: int) -> None:
        call, merged = self._streams[number]
        while True:
            frame = await call.read()
            if not isinstance(frame, Frame):
                return
            merged = merged.merged(frame)
            self.seen[number].append(merged)
            self._news.set()

    async def frame(self, number: int, key: str, after: int = 0) -> int:
        """The place of the first frame of a stream, from `after` on, with something in `key`."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for place in range(after, len(self.seen[number])):
                    frame = self.seen[number][place]
                    if frame.values.get(key) or len(frame.arrays.get(key, ())):
                        return place
                self._news.clear()
                await self._news.wait()

    async def run(self, name: str) -> None:
        await self.status.RunCommand(pb.RunCommandRequest(name=name))

    def unsound(self) -> list[str]:
        """The keys of frames that held what is not finite."""
        found = []
        for frame in (frame for frames in self.seen for frame in frames):
            found += [key for key, item in frame.values.items() if isinstance(item, float) and not math.isfinite(item)]
            arrays = {key: item for key, item in frame.arrays.items() if isinstance(item, np.ndarray)}
            found += [key for key, item in arrays.items() if not np.isfinite(item).all()]
        return found

    async def close(self) -> None:
        for call, _ in self._streams:
            call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(source: str, **settings: Any) -> AsyncIterator[Session]:
    nowhere: dict[str, Any] = {"port": 0, "lobby": "127.0.0.1:1", "drain_grace_s": 0.2}
    imd_config = ImdConfig(**nowhere)
    async with serving("imd", imd_config, ImdApp(imd_config)) as imd:
        config = TrajectoryConfig(sources=(source,), imd=imd.address, **nowhere, **settings)
        app = TrajectoryApp(config)
        async with (
            serving("trajectory", config, app) as trajectory,
            grpc.aio.insecure_channel(trajectory.address) as frames,
            grpc.aio.insecure_channel(imd.address) as pulls,
        ):
            session = Session(app, frames, pulls)
            try:
                yield session
            finally:
                await session.close()


def pull(id: str, particle: int, **fields: Any) -> imd_pb2.InteractRequest:
    interaction = imd_pb2.Interaction(
        id=id, position=[3, 0, 0], particles=[particle], kind=imd_pb2.POTENTIAL_KIND_SPRING, **fields
    )
    return imd_pb2.InteractRequest(sequence=1, set=interaction)


# A small peptide with a thermostat, which is never as hot as this by itself.
PEPTIDE = "demo:peptide?max_temperature_k=3000"


async def heat(session: Session) -> tuple[Any, Any]:
    """Two pull, one of them so hard that the few atoms become hotter than they may. Returns their calls, that one's last."""
    await asyncio.gather(*(session.frame(number, keys.TIME) for number in (0, 1)))
    sane = session.imd.Interact()
    await sane.write(pull("sane", 0, scale=1.0))
    place = await session.frame(0, keys.INTERACTION_IDS)
    assert session.seen[0][place].arrays[keys.INTERACTION_IDS] == ["sane"]
    wild = session.imd.Interact()
    await wild.write(pull("wild", 5, scale=3e4, max_force=math.inf))
    assert not (await wild.read()).code
    return sane, wild


async def test_hotter_than_allowed_is_a_blow_up_though_all_numbers_are_finite() -> None:
    async with running(PEPTIDE) as session:
        sane, wild = await heat(session)
        async with asyncio.timeout(LIMIT_S):
            ended = await wild.read()
        assert ended.ended == "wild"
        assert "above its limit of 3000 K" in ended.error
        for number in (0, 1):
            place = await session.frame(number, keys.EXCEPTION)
            told, before = session.seen[number][place], session.seen[number][place - 1]
            assert "interaction wild of ipv4:127.0.0.1" in str(told.values[keys.EXCEPTION])
            np.testing.assert_array_equal(told.arrays[keys.POSITIONS], before.arrays[keys.POSITIONS])
            assert len(session.seen[number]) == place + 1
        status = await session.status.GetStatus(pb.GetStatusRequest())
        assert status.state == pb.ENGINE_STATE_PAUSED
        assert status.restarts == 0
        assert "wild" in status.exception
        stands = len(session.seen[0])
        await session.run("playback/step")
        await session.run("playback/play")
        place = await session.frame(0, keys.INTERACTION_IDS, after=stands)
        frame = session.seen[0][place]
        assert frame.values[keys.EXCEPTION] == ""
        assert frame.arrays[keys.INTERACTION_IDS] == ["sane"]
        (report,) = session.app.playback.reports.after()
        assert (report.account.id, report.account.potential) == ("wild", "spring")
        assert "blow up" in report.account.reason
        assert report.account.owner
        # The id is free again, for a pull that does no harm.
        again = session.imd.Interact()
        await again.write(imd_pb2.InteractRequest(remove="wild"))
        await again.read()
        await again.write(pull("wild", 5, scale=1.0))
        async with asyncio.timeout(LIMIT_S):
            while session.seen[0][-1].arrays[keys.INTERACTION_IDS] != ["sane", "wild"]:
                await asyncio.sleep(0.02)
        for call in (sane, wild, again):
            call.cancel()
        assert session.unsound() == []


async def test_a_simulation_that_resumes_by_itself_tells_of_it_and_goes_on() -> None:
    async with running(PEPTIDE, on_blow_up="resume") as session:
        sane, wild = await heat(session)
        place = await session.frame(1, keys.EXCEPTION)
        assert "goes on without it" in str(session.seen[1][place].values[keys.EXCEPTION])
        await session.frame(1, keys.INTERACTION_IDS, after=place + 1)
        async with asyncio.timeout(LIMIT_S):
            while session.seen[1][-1].values[keys.EXCEPTION]:
                await asyncio.sleep(0.1)
        assert session.app.playback.playing
        assert session.app.playback.blow_ups == 1
        assert session.unsound() == []
        for call in (sane, wild):
            call.cancel()


async def test_what_acts_when_the_engine_is_killed_is_told_once() -> None:
    async with running(PEPTIDE, checkpoint_interval_s=0.05) as session:
        await session.frame(0, keys.TIME)
        call = session.imd.Interact()
        await call.write(pull("sane", 0, scale=1.0))
        await session.frame(0, keys.INTERACTION_IDS)
        await asyncio.sleep(0.5)
        os.kill(session.app.playback.engine.pid or 0, signal.SIGKILL)
        place = await session.frame(0, keys.EXCEPTION)
        await session.frame(0, keys.INTERACTION_IDS, after=place + 1)
        assert session.app.playback.reports.after() == []
        call.cancel()
        async with asyncio.timeout(LIMIT_S):
            while not session.app.playback.reports.newest:
                await asyncio.sleep(0.02)
        (report,) = session.app.playback.reports.after()
        assert (report.account.id, report.account.reason) == ("sane", "")
        assert report.account.end_time_ps > report.account.start_time_ps


class ListeningImd(imd_pb2_grpc.InteractionServiceServicer):
    """Says that two interactions act, and writes down which it is told have ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.news = asyncio.Event()
        self.say: asyncio.Queue[imd_pb2.FollowInteractionsResponse | None] = asyncio.Queue()

    async def FollowInteractions(
        self, requests: AsyncIterator[imd_pb2.FollowInteractionsRequest], context: Any
    ) -> AsyncIterator[imd_pb2.FollowInteractionsResponse]:
        async def listen() -> None:
            async for request in requests:
                self.ended += [(item.id, item.reason) for item in request.ended]
                self.news.set()

        listening = asyncio.create_task(listen())
        try:
            both = [imd_pb2.Interaction(id=id, position=[0, 0, 1], particles=[1]) for id in ("a", "b")]
            yield imd_pb2.FollowInteractionsResponse(whole=True, set=both, heartbeat_s=20)
            while (said := await self.say.get()) is not None:
                yield said
        finally:
            listening.cancel()
            await asyncio.wait({listening})


@pytest.fixture
async def imd() -> AsyncIterator[tuple[ListeningImd, str]]:
    servicer, server = ListeningImd(), grpc.aio.server()
    imd_pb2_grpc.add_InteractionServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_imd_is_told_what_has_ended_at_each_connection_until_it_has_ended_it(
    imd: tuple[ListeningImd, str],
) -> None:
    servicer, address = imd
    applied: list[list[str]] = []
    changed = asyncio.Event()

    def apply(interactions: Sequence[Interaction]) -> None:
        applied.append([item.id for item in interactions])
        changed.set()

    async def acting(*expected: str) -> None:
        async with asyncio.timeout(5):
            while applied[-1:] != [list(expected)]:
                changed.clear()
                await changed.wait()

    async def heard(count: int) -> None:
        async with asyncio.timeout(5):
            while len(servicer.ended) < count:
                servicer.news.clear()
                await servicer.news.wait()

    async def find() -> Sequence[str]:
        return [address]

    link = ImdLink(find, lambda: "", apply)
    link.end("a", "it was too strong")  # before imd is there
    running = asyncio.create_task(link.run())
    await acting("b")  # and never a
    await heard(1)
    link.end("b", "it was no better")
    await heard(2)
    assert servicer.ended == [("a", "it was too strong"), ("b", "it was no better")]
    again = imd_pb2.Interaction(id="a", position=[0, 0, 2], particles=[1])
    await servicer.say.put(imd_pb2.FollowInteractionsResponse(removed=["a"], set=[again], heartbeat_s=20))
    await acting("a")  # another one, by the same name
    await servicer.say.put(None)  # the connection is lost before imd has ended b
    await heard(3)
    assert servicer.ended[2:] == [("b", "it was no better")]
    await acting("a")
    running.cancel()
    await asyncio.wait({running})


async def test_imd_is_told_of_an_interaction_that_makes_no_sense_here(imd: tuple[ListeningImd, str]) -> None:
    servicer, address = imd

    async def find() -> Sequence[str]:
        return [address]

    running = asyncio.create_task(ImdLink(find, lambda: "", lambda _: None).run())
    odd = imd_pb2.Interaction(id="odd", position=[0, 0, 0], particles=[1], potential="magnet")
    await servicer.say.put(imd_pb2.FollowInteractionsResponse(set=[odd], heartbeat_s=20))
    async with asyncio.timeout(5):
        while not servicer.ended:
            servicer.news.clear()
            await servicer.news.wait()
    ((id, reason),) = servicer.ended
    assert id == "odd"
    assert "magnet" in reason
    running.cancel()
    await asyncio.wait({running})
