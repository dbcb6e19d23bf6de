"""The client's side of views: what it asks each service for, and how it gets over positions that it cannot build on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

import narupa_client
from narupa_client.testing import FakeLobby, FakeTrajectory
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_shared.frames import Frame, decode_v1, encode_positions, encode_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.position_codec import PositionEncoder
from narupa_shared.testing.waiting import until


def whole(index: int, name: str = "old") -> Frame:
    facts = {keys.SIMULATION_NAME: name, keys.RUN: "run", keys.PARTICLE_COUNT: 2.0, keys.STEP: float(index)}
    indices = np.array([4, 9], np.uint32)
    return Frame.of(index, {**facts, keys.INDICES: indices, keys.POSITIONS: np.full((2, 3), index, np.float32)})


async def test_every_service_on_the_way_is_asked_for_the_same_view() -> None:
    """After a lost connection, at the next service, and for the frames between two."""
    async with FakeLobby() as lobby, FakeTrajectory() as old, FakeTrajectory() as new:
        old.publish(whole(5))
        new.publish(whole(5, "new"))
        await lobby.add_service("trajectory", old.address, id="old")
        await lobby.add_service("trajectory", new.address, id="new", load=3)
        wanted = {"fields": ["topology", keys.POSITIONS], "selection": "name  CA", "precision": 0.01}
        async with narupa_client.join(lobby.address) as session, session.frames(mode="all", **wanted) as frames:
            frame = await anext(frames)
            assert frame.particle_indices.tolist() == [4, 9]
            await old.stop()
            await old.start()
            await until(lambda: len(old.views) == 2)
            await lobby.add_service("trajectory", old.address, id="old", status=5)
            await until(lambda: new.subscribers)
            new.recording = {6: whole(6, "new")}
            new.publish(whole(7, "new"))
            while (frame := await anext(frames)).simulation_name == "old":
                pass
            assert frame.index == 6
            assert len(new.views) >= 2
            for view in (*old.views, *new.views):
                assert (view.selection, view.precision_nm) == ("name CA", 0.01)
                assert keys.POSITIONS in view.fields
                assert keys.NAMES in view.fields


async def test_who_asks_for_nothing_in_particular_sends_what_it_always_did() -> None:
    async with FakeTrajectory() as trajectory, narupa_client.open(trajectory.address) as session:
        await anext(session.frames())
        await session.get_frame()
        assert trajectory.views == [v1.View(), v1.View()]


@pytest.mark.parametrize(
    ("view", "named"),
    [
        ({"fields": "energy"}, "list of names"),
        ({"fields": []}, "fields is \\[\\]: names nothing"),
        ({"particles": []}, "particles is \\[\\]: names nothing"),
        ({"particles": np.zeros(0, np.int64)}, "names nothing"),
        ({"selection": ""}, "selection is ''"),
        ({"selection": "all", "particles": [1]}, "not both"),
        ({"precision": -1.0}, "precision_nm is -1.0"),
        ({"fields": ["positions"]}, "did you mean particle.positions"),
    ],
)
async def test_a_view_that_cannot_be_is_refused_before_anybody_is_asked(view: dict[str, Any], named: str) -> None:
    async with FakeTrajectory() as trajectory, narupa_client.open(trajectory.address) as session:
        with pytest.raises(InvalidArgumentError, match=named):
            session.frames(**view)
        with pytest.raises(InvalidArgumentError, match=named):
            await session.get_frame(**view)
        assert trajectory.views == []


KEYED = {0, 5}


class PackingTrajectory(FakeTrajectory):
    """Each stream is sent the next of `streams`: frames of these numbers, with the changes that an encoder of all frames
    makes; those of `KEYED` are whole where a stream begins with them."""

    def __init__(self, *streams: Sequence[int]) -> None:
        super().__init__()
        self.streams = list(streams)

    async def SubscribeFrames(self, request: Any, context: Any) -> AsyncIterator[v1.SubscribeFramesResponse]:
        numbers = self.streams.pop(0)
        encoder = PositionEncoder(request.view.precision_nm)
        for number in range(max(numbers) + 1):
            message = encoder.encode(positions(number))
            message = encoder.key_frame() if number == numbers[0] and number in KEYED else message
            if number in numbers:
                rest = Frame(number, {keys.RUN: "run", keys.PARTICLE_COUNT: 2.0})
                body = encode_v1(rest) + encode_positions(message, 2)
                yield v1.SubscribeFramesResponse(frame=v1.Frame.FromString(body))
        await asyncio.Event().wait()


def positions(number: int) -> Any:
    return np.array([[number, 0, 0], [0, number, 0.5]], np.float32)


async def test_positions_that_build_on_what_was_missed_are_asked_for_anew() -> None:
    """The second stream lacks number 7, so that 8 builds on nothing there; nothing wrong is ever shown."""
    async with PackingTrajectory([0, 1, 3, 4], [5, 6, 8, 9], [5, 6, 7]) as trajectory:
        async with (
            narupa_client.open(trajectory.address) as session,
            session.frames(mode="all", precision=0.01) as frames,
        ):
            seen = []
            async with asyncio.timeout(30):
                while len(seen) < 7:
                    frame = await anext(frames)
                    np.testing.assert_allclose(frame.positions, positions(frame.index), atol=0.00501)
                    seen.append(frame.index)
        assert seen == [0, 1, 5, 6, 5, 6, 7]
        assert trajectory.streams == []


async def test_a_service_that_never_sends_a_whole_frame_is_no_service() -> None:
    async with (
        PackingTrajectory([3, 4]) as trajectory,
        narupa_client.open(trajectory.address, reconnect=False) as session,
    ):
        with pytest.raises(UnavailableError, match="build on nothing"):
            await anext(session.frames(precision=0.01))


def test_positions_that_were_not_asked_for_are_refused() -> None:
    data = encode_positions(PositionEncoder().encode(positions(1)), 2)
    with pytest.raises(InvalidArgumentError, match="did not ask for it"):
        decode_v1(data)
