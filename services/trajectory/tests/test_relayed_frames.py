"""What a relay makes of its leader's responses: bytes as they came, one order, and a topology for whoever comes late."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame, decode_frame_response_v1
from narupa_shared.position_codec import PositionDecoder
from narupa_shared.published import PublishedFrame, Topology
from narupa_shared.views import View
from narupa_trajectory.relayed_frames import Relayed, RelayedFrames, continued

NAMES = ["H", "O"]


def topology(run: str = "r1", **more: Any) -> Topology:
    return Topology({keys.NAMES: NAMES, keys.PARTICLE_COUNT: 2.0, keys.RUN: run, keys.COUNTER: 0.0, **more})


def published(index: int, epoch: int = 1, of: Topology | None = None, **items: Any) -> PublishedFrame:
    moving = {
        keys.POSITIONS: np.full((2, 3), index, np.float32),
        keys.STEP: float(5 * index),
        keys.EPOCH: float(epoch),
        keys.TIMESTAMP: 1.0,
        **items,
    }
    return PublishedFrame(Frame.of(index, moving), of or topology(), lambda: None)


def whole(index: int, epoch: int = 1, of: Topology | None = None) -> bytes:
    return published(index, epoch, of).whole_response("v1", restart=False)


def later(index: int, epoch: int = 1, **items: Any) -> bytes:
    return published(index, epoch, **items).response("v1")


def taken(frames: RelayedFrames, response: bytes) -> Relayed:
    relayed = frames.take(response)
    assert relayed is not None
    return relayed


@pytest.fixture
def frames() -> RelayedFrames:
    """One that has had the whole frame 3 of run r1 in epoch 1."""
    frames = RelayedFrames()
    taken(frames, whole(3))
    return frames


def test_what_changes_passes_as_it_came(frames: RelayedFrames) -> None:
    response = later(4)
    relayed = taken(frames, response)
    assert relayed.response is response
    assert relayed.frame.index == 4
    assert not relayed.urgent
    assert (frames.index, frames.run_id, frames.epoch) == (4, "r1", 1)


def test_a_late_joiner_gets_the_topology_with_the_newest_frame(frames: RelayedFrames) -> None:
    relayed = taken(frames, later(4))
    joined = PublishedFrame(relayed.frame, relayed.topology, lambda: None).whole_response("v1", restart=False)
    frame = decode_frame_response_v1(joined)
    assert frame.index == 4
    assert frame.arrays[keys.NAMES] == NAMES
    assert frame.arrays[keys.POSITIONS][0, 0] == 4
    assert set(frame.values) == {*published(4).frame.values, keys.PARTICLE_COUNT, keys.RUN, keys.COUNTER}


def test_frames_of_a_lower_epoch_are_dropped_wherever_they_come_in(frames: RelayedFrames) -> None:
    taken(frames, later(4, epoch=2))
    assert frames.take(later(5, epoch=1)) is None
    frames.begin()
    assert frames.take(whole(6, epoch=1)) is None
    assert frames.dropped == 2
    frames.begin()
    assert taken(frames, whole(7, epoch=2)).frame.index == 7


def test_a_new_stream_of_the_same_run_goes_on_with_the_same_topology(frames: RelayedFrames) -> None:
    before = frames.topology
    frames.begin()
    relayed = taken(frames, whole(9))
    assert relayed.topology is before
    assert relayed.response is None  # the topology is not for those who have it


def test_the_newest_frame_again_is_not_shown_twice(frames: RelayedFrames) -> None:
    frames.begin()
    assert frames.take(whole(3)) is None
    assert taken(frames, later(4)).frame.index == 4


def test_another_leader_of_the_same_run_goes_on(frames: RelayedFrames) -> None:
    before = frames.topology
    frames.begin()
    relayed = taken(frames, whole(1003, epoch=2))
    assert relayed.topology is before
    assert relayed.urgent  # everybody learns at once who leads


def test_a_stream_that_begins_behind_what_was_shown_shows_nothing_until_it_has_caught_up(frames: RelayedFrames) -> None:
    for index in (4, 5, 6):
        taken(frames, later(index))
    frames.begin()
    assert frames.take(whole(4)) is None
    assert [frames.take(later(index)) for index in (5, 6)] == [None, None]
    assert taken(frames, later(7)).frame.index == 7


def test_a_stream_that_has_not_heard_of_a_reset_shows_nothing_until_it_has(frames: RelayedFrames) -> None:
    taken(frames, whole(0, of=topology("r2", **{keys.COUNTER: 1.0})))
    frames.begin()
    assert frames.take(whole(900)) is None
    assert frames.take(later(901)) is None
    assert (frames.run_id, frames.index) == ("r2", 0)
    relayed = taken(frames, whole(0, of=topology("r3", **{keys.COUNTER: 2.0})))
    assert relayed.topology.frame.values[keys.RUN] == "r3"
    assert taken(frames, later(1)).topology is relayed.topology


@pytest.mark.parametrize("newer", [2, 3])
def test_what_builds_on_a_beginning_that_was_left_out_is_begun_anew(frames: RelayedFrames, newer: int) -> None:
    taken(frames, later(1000, epoch=2))
    frames.begin()
    assert frames.take(whole(900, epoch=1)) is None
    with pytest.raises(UnavailableError, match="behind"):
        frames.take(later(1001, epoch=newer))
    frames.begin()
    assert taken(frames, whole(1002, epoch=newer)).topology.frame.arrays[keys.NAMES] == NAMES


def test_a_recording_that_began_again_while_nobody_listened_starts_everybody_over(frames: RelayedFrames) -> None:
    taken(frames, later(40))
    frames.begin()
    relayed = taken(frames, whole(20, of=topology(**{keys.COUNTER: 1.0})))  # of a recording each run is the same
    assert relayed.topology.frame.values[keys.COUNTER] == 1
    assert taken(frames, later(21)).frame.index == 21


def as_told(stream: list[Frame]) -> str:
    """The failure that a reader of these believes in."""
    values: dict[str, Any] = {}
    for frame in stream:
        values |= frame.values
    return str(values.get(keys.EXCEPTION, ""))


@pytest.mark.parametrize("mode", ["all", "latest"])
async def test_the_failure_that_a_dead_leader_told_of_is_over_with_the_next(frames: RelayedFrames, mode: Any) -> None:
    """Also for who skips frames, and once more should it happen again; what comes after passes as it came."""
    broadcaster = Broadcaster(lambda: None)
    reader = broadcaster.subscribe("v1", mode, 0.001)
    read = []

    async def show(response: bytes, taking: bool = True) -> Relayed:
        relayed = taken(frames, response)
        made = {} if relayed.response is None else {"v1": relayed.response}
        broadcaster.publish(relayed.frame, relayed.topology, float(relayed.frame.index), relayed.urgent, made)  # type: ignore[arg-type]
        while taking and (mode == "all" or reader.slot is not None):
            read.append(decode_frame_response_v1(await anext(reader)))
            if read[-1].index == relayed.frame.index:
                break
        return relayed

    for epoch in (1, 2):
        await show(later(1000 * epoch, epoch))
        await show(later(1000 * epoch + 1, epoch, **{keys.EXCEPTION: "it blew up"}))
        assert as_told(read) == "it blew up"
        frames.begin()
        await show(whole(1000 * epoch + 2, epoch + 1), taking=False)
        response = later(1000 * epoch + 3, epoch + 1)
        relayed = await show(response)
        assert as_told(read) == ""
        assert relayed.response is response
    starts = [frame for frame in read if keys.NAMES in frame.arrays]
    assert len(starts) == 1  # nobody started over


@given(st.data())
def test_what_is_shown_never_goes_back_nor_mixes_simulations(data: st.DataObject) -> None:
    """Whatever streams, each of one service that is somewhere in what has happened, follow each other."""
    happened = [(1, 0, 1)]  # epoch, simulation, index
    for what in data.draw(st.lists(st.sampled_from(["frame", "frame", "frame", "reset", "leader"]), max_size=30)):
        epoch, counter, index = happened[-1]
        happened.append(
            {
                "frame": (epoch, counter, index + 1),
                "reset": (epoch, counter + 1, 0),
                "leader": (epoch + 1, counter, index + 5),
            }[what]
        )
    frames, shown = RelayedFrames(), []
    for _ in range(data.draw(st.integers(1, 5))):
        first = data.draw(st.integers(0, len(happened) - 1))
        frames.begin()
        for at in range(first, data.draw(st.integers(first + 1, len(happened)))):
            epoch, counter, index = happened[at]
            if at == first or index == 0:
                response = whole(index, epoch, topology(f"r{counter}", **{keys.COUNTER: float(counter)}))
            else:
                response = later(index, epoch)
            try:
                relayed = frames.take(response)
            except UnavailableError:
                break
            if relayed is not None:
                assert relayed.topology.frame.values[keys.RUN] == f"r{counter}"
                assert relayed.topology.frame.values[keys.COUNTER] == counter
                assert relayed.frame.index == index
                shown.append((epoch, counter, index))
    assert shown == sorted(set(shown))


@pytest.mark.parametrize(
    ("index", "run", "epoch"),
    [(0, "r1", 1), (0, "r2", 1), (7, "r2", 2), (2, "r1", 2)],
    ids=["reset", "load", "a leader that began anew", "a leader that counts from before"],
)
def test_everybody_starts_over_with(frames: RelayedFrames, index: int, run: str, epoch: int) -> None:
    before = frames.topology
    frames.begin()
    relayed = taken(frames, whole(index, epoch, topology(run, **{keys.COUNTER: 1.0})))
    assert before is not None
    assert relayed.topology.base is not before.base
    assert frames.run_id == run


def test_what_is_put_over_a_topology_reaches_who_has_it(frames: RelayedFrames) -> None:
    before = frames.topology
    assert before is not None
    colours = np.ones((2, 4), np.uint32)
    relayed = taken(frames, published(4, of=topology().with_added({keys.COLORS: colours})).grown_response("v1"))
    assert relayed.topology.base is before.base
    assert set(relayed.topology.added.arrays) == {keys.COLORS}
    assert keys.COLORS not in relayed.frame.arrays
    assert taken(frames, later(5)).topology is relayed.topology


def test_what_says_something_new_of_the_same_instant_is_urgent(frames: RelayedFrames) -> None:
    taken(frames, later(4))
    step = {keys.STEP: 20.0}
    assert taken(frames, later(5, **step)).urgent
    assert taken(frames, later(6, **{keys.EXCEPTION: "it blew up"})).urgent
    assert not taken(frames, later(7, **{keys.EXCEPTION: "it blew up"})).urgent


def test_a_leader_that_relays_from_now_on_goes_on_for_its_own_viewers() -> None:
    shown = published(37, epoch=1)
    frames = RelayedFrames()
    frames.go_on_after(shown)
    assert frames.take(whole(36, epoch=0)) is None
    frames.begin()
    relayed = taken(frames, whole(1037, epoch=2))
    assert relayed.topology is shown.topology
    assert taken(frames, later(1038, epoch=2)).topology is shown.topology


def test_only_what_differs_is_added() -> None:
    old = topology()
    assert continued(old, {keys.NAMES: list(NAMES), keys.COUNTER: 0.0}) is old
    changed = continued(old, {keys.NAMES: ["H", "N"], keys.ELEMENTS: np.array([1, 7], np.uint32)})
    assert set(changed.added.arrays) == {keys.NAMES, keys.ELEMENTS}


def test_garbage_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        RelayedFrames().take(b"\xff" * 40)


async def test_a_relay_serves_views_of_what_it_gives_on(frames: RelayedFrames) -> None:
    """And across a change of leader, after which its readers go on: nobody is sent a topology again."""
    broadcaster, reader = Broadcaster(lambda: None), PositionDecoder()
    wanted = View.of([keys.POSITIONS, keys.NAMES], particles=[1], precision_nm=0.01)
    stream = broadcaster.subscribe("v1", "all", 0.1, view=wanted)
    seen = []
    for number, response in enumerate((later(4), later(5), whole(6, epoch=2), later(7, epoch=2))):
        if number == 2:
            frames.begin()
        relayed = taken(frames, response)
        made = {} if relayed.response is None else {"v1": relayed.response}
        broadcaster.publish(relayed.frame, relayed.topology, 1.0 + number, relayed.urgent, made)  # type: ignore[arg-type]
        seen.append(decode_frame_response_v1(await anext(stream), reader))
    assert [frame.index for frame in seen] == [4, 5, 6, 7]
    assert [frame.values[keys.EPOCH] for frame in seen] == [1, 1, 2, 2]
    assert [frame.arrays.get(keys.NAMES) for frame in seen] == [["O"], None, None, None]
    for frame in seen:
        np.testing.assert_allclose(frame.arrays[keys.POSITIONS], [[frame.index] * 3], atol=0.00501)
