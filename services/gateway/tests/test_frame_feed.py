"""Frames for everybody from one subscription: what they get, when, and when nothing is fetched."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from gateway_fakes import FakeFrames, FakeSession

from narupa_client.frames import CurrentFrame
from narupa_gateway import frame_feed
from narupa_gateway.frame_feed import FrameFeed
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.frames import Frame, decode_compat_response
from narupa_shared.nanover_messages import frame_of, unpacked
from narupa_shared.published import Form
from narupa_shared.subscriptions import Mode, Subscription
from narupa_shared.testing.clock import FakeClock
from narupa_shared.testing.waiting import until

ELEMENTS = np.array([8, 1, 1], np.uint32)


class Feed:
    """A feed that runs, its session, and a clock."""

    def __init__(self, clock: FakeClock, linger_s: float) -> None:
        self.clock = clock
        self.session = FakeSession()
        self.feed = FrameFeed(0.1, 0.01, linger_s, clock)

    @property
    def upstream(self) -> FakeFrames:
        return self.session.subscriptions[-1]

    async def fetching(self, mode: str = "latest", interval_s: float = 0.1, count: int | None = None) -> None:
        """Returns once frames are asked for so."""
        await until(
            lambda: (
                self.session.subscriptions
                and self.upstream.open
                and (self.upstream.mode, self.upstream.interval_s) == (mode, interval_s)
                and count in (None, len(self.session.subscriptions))
            )
        )

    async def come(self, *frames: CurrentFrame, every_s: float = 0.1) -> None:
        """These frames have come, one after the other."""
        for frame in frames:
            self.clock.advance(every_s)
            count = self.feed.received + 1
            self.upstream.push(frame)
            await until(lambda count=count: self.feed.received == count)  # type: ignore[misc]


@pytest.fixture
async def running(clock: FakeClock) -> AsyncIterator[Feed]:
    feed = Feed(clock, linger_s=0.0)
    task = asyncio.create_task(feed.feed.run(feed.session))  # type: ignore[arg-type]
    try:
        yield feed
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Viewer:
    """Reads its stream when told to, and knows what a client knows by then."""

    def __init__(self, feed: Feed, form: Form = "compat", mode: Mode = "latest", interval_s: float = 0.0) -> None:
        self._feed = feed.feed
        self._form = form
        self.subscription: Subscription = feed.feed.subscribe(form, mode, interval_s, "interval_s")
        self._responses = self.subscription
        self.seen = Frame()
        self.messages: list[Frame] = []

    async def read(self) -> Frame:
        """The next message."""
        async with asyncio.timeout(5):
            data = await anext(self._responses)
        frame = decode_compat_response(data) if self._form == "compat" else frame_of(unpacked(data)["frame"])
        self.messages.append(frame)
        self.seen = frame if frame.index == 0 else self.seen.overlaid(frame)
        return frame

    async def idle(self) -> bool:
        """Whether there is nothing to read."""
        reading = asyncio.ensure_future(anext(self._responses))
        done, _ = await asyncio.wait([reading], timeout=0.02)
        if done:
            return False
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        self._responses = self.subscription
        return True

    def leave(self) -> None:
        self._feed.unsubscribe(self.subscription)


def frame(index: int, x: float, before: CurrentFrame | None = None, run: str = "a", **more: Any) -> CurrentFrame:
    """A frame as the client merges it: what did not change is the object of the frame before."""
    arrays: dict[str, Any] = {keys.POSITIONS: np.full((3, 3), x, np.float32)}
    values: dict[str, Any] = {keys.TIME: x}
    if before is None:
        arrays[keys.ELEMENTS] = ELEMENTS.copy()
        values |= {keys.PARTICLE_COUNT: 3.0, keys.RUN: run, keys.COUNTER: 0.0}
    for key, item in more.items():
        (arrays if isinstance(item, np.ndarray | list) else values)[key] = item
    return CurrentFrame.after(before, Frame(index, values, arrays))


@pytest.mark.parametrize("form", ["compat", "nanover"])
async def test_everything_first_then_what_changes_and_latecomers_get_everything(running: Feed, form: Form) -> None:
    viewer = Viewer(running, form)
    await running.fetching()
    first = frame(5, 1.0)
    await running.come(first)
    told = await viewer.read()
    assert told.index == 5 and set(told.arrays) == {keys.POSITIONS, keys.ELEMENTS}
    assert told.values[keys.PARTICLE_COUNT] == 3

    second = frame(6, 2.0, first)
    await running.come(second)
    told = await viewer.read()
    assert (told.index, set(told.arrays), set(told.values)) == (6, {keys.POSITIONS}, {keys.TIME})

    third = frame(7, 3.0, second)
    await running.come(third)
    late = Viewer(running, form)
    told = await late.read()
    assert told.index == 7 and told.values[keys.PARTICLE_COUNT] == 3
    np.testing.assert_array_equal(told.arrays[keys.ELEMENTS], ELEMENTS)
    assert told.arrays[keys.POSITIONS][0, 0] == 3  # type: ignore[call-overload]
    assert len(running.session.subscriptions) == 1


async def test_a_frame_is_encoded_once_for_each_form(running: Feed) -> None:
    forms: tuple[Form, ...] = ("compat", "nanover")
    viewers = [Viewer(running, form) for form in forms for _ in range(5)]
    await running.fetching()
    first = frame(5, 1.0)
    await running.come(first)
    for viewer in viewers:
        await viewer.read()
    before = running.feed.broadcaster.encoded
    await running.come(frame(6, 2.0, first))
    raw = [await anext(viewer.subscription) for viewer in viewers]
    assert running.feed.broadcaster.encoded == before + 2
    assert len({id(data) for data in raw}) == 2


async def test_whoever_skips_frames_misses_nothing_that_came_with_one_of_them(running: Feed) -> None:
    quick, slow = Viewer(running, mode="all"), Viewer(running, interval_s=1.0)
    await running.fetching("all", 0.0)
    last = frame(5, 1.0)
    await running.come(last)
    colors = np.arange(12, dtype=np.uint32).reshape(3, 4)
    for index in range(6, 14):
        more = {keys.COLORS: colors, "title": "pulled"} if index == 8 else {}
        last = frame(index, float(index), last, **more)
        await running.come(last)
        await quick.read()
        if index == 6:
            await slow.read()
            slow.messages.clear()
    running.clock.advance(5.0)
    last = frame(20, 20.0, last)
    await running.come(last)
    while slow.seen.index != 20:
        await slow.read()
    np.testing.assert_array_equal(slow.seen.arrays[keys.COLORS], colors)
    assert slow.seen.values["title"] == "pulled"
    assert all(message.index != 0 for message in slow.messages)


async def test_an_array_that_came_later_is_no_longer_sent_once_everybody_has_it(running: Feed) -> None:
    viewer = Viewer(running)
    await running.fetching()
    last = frame(5, 1.0)
    await running.come(last)
    last = frame(6, 2.0, last)
    await running.come(last)
    last = frame(7, 3.0, last, **{keys.COLORS: np.ones((3, 4), np.uint32)})
    await running.come(last)
    for index in range(8, 8 + 15):
        last = frame(index, 3.0, last)
        await running.come(last)
        while viewer.seen.index != index:
            await viewer.read()
    sent_in = [message.index for message in viewer.messages if keys.COLORS in message.arrays]
    assert viewer.messages[-1].index not in sent_in and keys.COLORS in viewer.seen.arrays
    late = Viewer(running)
    assert keys.COLORS in (await late.read()).arrays


async def test_whoever_was_not_due_the_last_frame_gets_it_before_long(running: Feed) -> None:
    viewer, other = Viewer(running, interval_s=0.4), Viewer(running, mode="all")
    await running.fetching("all", 0.0)
    last = frame(5, 1.0)
    running.feed.broadcaster.producer_interval_s = 0.1
    await running.come(last)
    await viewer.read()
    last = frame(6, 2.0, last)
    await running.come(last, every_s=0.01)  # and then the simulation is paused
    await other.read()
    assert await viewer.idle()
    running.clock.advance(0.5)
    assert (await viewer.read()).index == 6


async def test_subscribing_again_to_the_same_run_sends_no_topology_again(running: Feed) -> None:
    viewer = Viewer(running)
    await running.fetching()
    first = frame(5, 1.0)
    second = frame(6, 2.0, first)
    await running.come(first, second)
    await viewer.read()

    other = Viewer(running, interval_s=0.02)
    await running.fetching("latest", 0.02, count=2)
    await running.come(frame(7, 3.0))  # whole, of new objects, as the first of a subscription is
    told = await viewer.read()
    assert told.index == 7 and keys.ELEMENTS not in told.arrays and keys.PARTICLE_COUNT not in told.values
    while other.seen.index != 7:
        await other.read()
    assert keys.ELEMENTS in other.seen.arrays


@pytest.mark.parametrize("what", ["run", "counter", "index"])
async def test_another_run_starts_over_with_index_0(running: Feed, what: str) -> None:
    viewers = [Viewer(running), Viewer(running, mode="all"), Viewer(running, "nanover")]
    await running.fetching("all", 0.0)
    first = frame(5, 1.0, **{keys.COLORS: np.ones((3, 4), np.uint32)})
    await running.come(first, frame(6, 2.0, first))
    for viewer in viewers:
        while viewer.seen.index != 6:
            await viewer.read()
    other = {
        "run": frame(9, 3.0, run="b"),
        "counter": frame(9, 3.0, **{keys.COUNTER: 1.0}),
        "index": frame(2, 3.0),
    }[what]
    await running.come(other)
    for viewer in viewers:
        told = await viewer.read()
        assert told.index == 0 and keys.ELEMENTS in told.arrays
        assert keys.COLORS not in viewer.seen.arrays


async def test_nothing_is_fetched_while_nobody_looks(running: Feed) -> None:
    await asyncio.sleep(0)
    assert running.session.subscriptions == []
    viewer = Viewer(running)
    await running.fetching(count=1)
    viewer.leave()
    await until(lambda: not running.upstream.open)
    Viewer(running)
    await running.fetching(count=2)


async def test_frames_go_on_for_a_while_when_the_last_viewer_leaves(clock: FakeClock) -> None:
    feed = Feed(clock, linger_s=30.0)
    task = asyncio.create_task(feed.feed.run(feed.session))  # type: ignore[arg-type]
    viewer = Viewer(feed)
    await feed.fetching()
    viewer.leave()
    for _ in range(20):
        await asyncio.sleep(0)
    again = Viewer(feed)
    await feed.come(frame(5, 1.0))
    assert (await again.read()).index == 5
    assert len(feed.session.subscriptions) == 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_is_fetched_is_what_somebody_wants(running: Feed) -> None:
    calm = Viewer(running, interval_s=0.5)
    await running.fetching("latest", 0.5)
    quick = Viewer(running, interval_s=0.0001)
    await running.fetching("latest", 0.01)
    every = Viewer(running, mode="all")
    await running.fetching("all", 0.0)
    every.leave()
    await running.fetching("latest", 0.01)
    quick.leave()
    await running.fetching("latest", 0.5)
    count = len(running.session.subscriptions)
    Viewer(running, interval_s=0.7)
    await running.come(frame(5, 1.0))
    await calm.read()
    assert len(running.session.subscriptions) == count


@pytest.mark.parametrize("interval_s", [-1.0, math.nan, math.inf])
async def test_intervals_that_are_none_are_refused(running: Feed, interval_s: float) -> None:
    with pytest.raises(InvalidArgumentError, match="frame_interval"):
        running.feed.subscribe("compat", "latest", interval_s, "frame_interval")
    assert not running.feed.broadcaster.subscriptions


async def test_viewers_hear_of_a_trouble_and_of_its_end_every_time(
    running: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_feed, "_LOOK_EVERY_S", 0.001)
    viewer, slow = Viewer(running), Viewer(running, interval_s=20.0)
    await running.fetching()
    last = frame(5, 1.0)
    await running.come(last)
    for index in (6, 7):
        running.upstream.trouble = "it is away"
        await until(lambda: running.feed.trouble == "it is away")
        running.clock.advance(frame_feed.TELL_AFTER_S + 1)
        while "it is away" not in str(viewer.seen.values.get(keys.EXCEPTION, "")):
            await viewer.read()
        newcomer = Viewer(running)
        await asyncio.sleep(0)
        newcomer.subscription.offer_first(running.feed.broadcaster.current)  # type: ignore[arg-type]
        told = await newcomer.read()
        assert keys.POSITIONS in told.arrays and keys.ELEMENTS in told.arrays
        assert "it is away" in str(told.values[keys.EXCEPTION])
        newcomer.leave()

        running.upstream.trouble = None
        last = frame(index, 2.0, last)
        await running.come(last)
        while viewer.seen.index != index or viewer.seen.values[keys.EXCEPTION]:
            await viewer.read()
    running.clock.advance(30)
    await running.come(frame(8, 3.0, last))
    while slow.seen.index != 8:
        running.clock.advance(30)
        await slow.read()
    assert slow.seen.values[keys.EXCEPTION] == ""


async def test_an_all_frames_viewer_is_ended_when_frames_were_lost(
    running: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_feed, "_RETRY_S", 0.0)
    every, latest = Viewer(running, mode="all"), Viewer(running)
    await running.fetching("all", 0.0)
    first = frame(5, 1.0)
    await running.come(first)
    await every.read()
    await latest.read()
    running.upstream.push(UnavailableError("frames were lost"))
    with pytest.raises(NarupaError, match="frames were lost"):
        await every.read()
    every.leave()
    await running.fetching("latest", 0.1)
    await running.come(frame(9, 2.0))
    assert (await latest.read()).index == 9


async def test_a_viewer_of_every_frame_that_does_not_read_is_ended_and_costs_no_more(running: Feed) -> None:
    every, other = Viewer(running, mode="all"), Viewer(running, mode="all")
    await running.fetching("all", 0.0)
    last = frame(1, 0.0)
    for index in range(2, 300):
        await running.come(last)
        await other.read()
        last = frame(index, float(index), last)
    with pytest.raises(NarupaError, match="frames behind"):
        await every.read()
    assert other.seen.index == 298


async def test_whoever_wants_every_frame_begins_where_no_gap_follows(running: Feed) -> None:
    latest = Viewer(running)
    await running.fetching()
    frames = [frame(5, 5.0)]
    for index in (6, 9, 10):
        frames.append(frame(index, float(index), frames[-1]))
    await running.come(frames[0])
    every = Viewer(running, mode="all")
    running.upstream.push(frames[1])  # still of the subscription that skips some
    await running.fetching("all", 0.0)
    assert running.feed.received == 2
    await running.come(*frames[2:])
    assert [(await every.read()).index for _ in range(2)] == [9, 10]
    assert every.messages[0].values[keys.PARTICLE_COUNT] == 3
    assert (await latest.read()).index == 10


async def test_a_frame_that_comes_again_with_another_subscription_is_shown_to_nobody_twice(running: Feed) -> None:
    latest = Viewer(running)
    await running.fetching()
    first = frame(5, 5.0)
    await running.come(first)
    assert (await latest.read()).index == 5
    every = Viewer(running, mode="all")
    await running.fetching("all", 0.0)
    again = frame(5, 5.0)
    await running.come(again)
    assert (await every.read()).index == 5
    assert every.seen.values[keys.PARTICLE_COUNT] == 3
    assert await latest.idle()
    await running.come(frame(6, 6.0, again))
    assert [(await viewer.read()).index for viewer in (latest, every)] == [6, 6]
    assert set(every.messages[-1].arrays) == {keys.POSITIONS}


@pytest.mark.parametrize("index", [5, 7])
async def test_another_subscription_does_not_bring_the_topology_again(running: Feed, index: int) -> None:
    viewer = Viewer(running)
    await running.fetching()
    first = frame(5, 5.0)
    await running.come(first, frame(6, 6.0, first))
    while viewer.seen.index != 6:
        await viewer.read()
    other = Viewer(running, mode="all")
    await running.fetching("all", 0.0)
    again = frame(index + 1, 8.0)
    await running.come(again, frame(index + 2, 9.0, again))
    while viewer.seen.index != index + 2:
        assert set((await viewer.read()).arrays) == {keys.POSITIONS}
    other.leave()
