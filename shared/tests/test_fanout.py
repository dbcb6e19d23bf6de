"""Fan-out: once-only encoding, slots and queues, the schedule, restarts and slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from narupa_shared.errors import QuotaError, UnavailableError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame, Part, decode_compat_response, decode_frame_response_v1
from narupa_shared.published import Form, Topology
from narupa_shared.subscriptions import MAX_QUEUED, Subscription
from narupa_shared.views import EVERYTHING, View

TOPOLOGY = Topology({"particle.count": 1.0, "particle.elements": np.array([6], np.uint32)})


@pytest.fixture
def broadcaster() -> Broadcaster:
    return Broadcaster(wanted=lambda: None)


def frame(index: int) -> Frame:
    return Frame(
        index, {"system.simulation.time": float(index)}, {"particle.positions": np.full((1, 3), index, np.float32)}
    )


def open_stream(subscription: Subscription) -> AsyncIterator[bytes]:
    return subscription


async def next_v1(stream: AsyncIterator[bytes]) -> Frame:
    return decode_frame_response_v1(await asyncio.wait_for(anext(stream), 1))


async def test_one_encoding_for_any_number_of_subscribers(broadcaster: Broadcaster) -> None:
    streams = [open_stream(broadcaster.subscribe("v1", "latest", 0.1)) for _ in range(50)]
    others = [open_stream(broadcaster.subscribe("compat", "latest", 0.1)) for _ in range(50)]
    for index in range(5):
        broadcaster.publish(frame(index), TOPOLOGY, now=index * 0.1 + 1.0)
        for stream in streams:
            assert (await next_v1(stream)).index == index
        for stream in others:
            assert decode_compat_response(await anext(stream)).index == index
    assert broadcaster.encoded == 5 * 2
    assert broadcaster.sent == 5 * 100


async def test_late_joiner_gets_the_topology_and_then_only_changes(broadcaster: Broadcaster) -> None:
    broadcaster.publish(frame(4), TOPOLOGY, now=1.0)
    stream = open_stream(broadcaster.subscribe("v1", "latest", 0.1))
    whole = await next_v1(stream)
    assert whole.index == 4
    assert {"particle.elements", "particle.positions"} <= whole.arrays.keys()
    broadcaster.publish(frame(5), TOPOLOGY, now=1.1)
    assert (await next_v1(stream)).arrays.keys() == {"particle.positions"}


@pytest.mark.parametrize("form", ["v1", "compat"])
async def test_a_reset_that_was_skipped_still_reaches_the_reader_as_index_0(
    broadcaster: Broadcaster, form: Form
) -> None:
    stream = open_stream(broadcaster.subscribe(form, "latest", 0.1))
    broadcaster.publish(frame(4), TOPOLOGY, now=1.0)
    await anext(stream)
    after = Topology({"particle.count": 2.0})
    broadcaster.publish(frame(0), after, now=1.1)
    broadcaster.publish(frame(1), after, now=1.2)
    data = await anext(stream)
    read = decode_frame_response_v1(data) if form == "v1" else decode_compat_response(data)
    assert read.index == 0
    assert read.values["particle.count"] == 2.0
    assert read.values["system.simulation.time"] == 1.0


async def test_slow_subscriber_in_latest_mode_gets_the_newest_frame_only(broadcaster: Broadcaster) -> None:
    stream = open_stream(broadcaster.subscribe("v1", "latest", 0.1))
    for index in range(1000):
        broadcaster.publish(frame(index), TOPOLOGY, now=index * 0.1 + 1.0)
    assert (await next_v1(stream)).index == 999
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)


async def test_all_frames_mode_gets_every_frame_and_ends_when_too_far_behind(broadcaster: Broadcaster) -> None:
    stream = open_stream(broadcaster.subscribe("v1", "all", 0.1))
    for index in range(10):
        broadcaster.publish(frame(index), TOPOLOGY, now=1.0 + index * 1e-3)
    assert [(await next_v1(stream)).index for _ in range(10)] == list(range(10))
    for index in range(MAX_QUEUED + 1):
        broadcaster.publish(frame(index), TOPOLOGY, now=2.0)
    with pytest.raises(QuotaError, match=f"{MAX_QUEUED} frames behind"):
        await anext(stream)


async def test_frames_that_nobody_had_time_for_are_counted(broadcaster: Broadcaster) -> None:
    latest, every = (broadcaster.subscribe("v1", mode, 0.1) for mode in ("latest", "all"))
    for index in range(MAX_QUEUED + 5):
        broadcaster.publish(frame(index), TOPOLOGY, now=index * 0.1 + 1.0)
    assert broadcaster.skipped == MAX_QUEUED + 4
    assert broadcaster.left_behind == 1
    taken = await anext(open_stream(latest))
    assert (broadcaster.sent, broadcaster.bytes_sent) == (1, len(taken))
    broadcaster.publish(frame(1000), TOPOLOGY, now=1000.0)
    assert broadcaster.skipped == MAX_QUEUED + 4
    with pytest.raises(QuotaError):
        await anext(open_stream(every))
    assert broadcaster.sent == 1


async def test_when_a_frame_was_taken_is_told_once_when_the_first_reader_has_it(broadcaster: Broadcaster) -> None:
    told: list[float] = []
    broadcaster.first_handed = told.append
    views = (EVERYTHING, View(fields=frozenset({"particle.positions"})))
    streams = [open_stream(broadcaster.subscribe("v1", "latest", 0.1, view=view)) for view in views for _ in range(2)]
    broadcaster.publish(frame(0), TOPOLOGY, now=1.0, taken_at=0.9)
    assert told == []
    for stream in reversed(streams):
        await anext(stream)
        assert told == [0.9]
    broadcaster.publish(frame(1), TOPOLOGY, now=2.0)
    await anext(streams[0])
    assert told == [0.9]


async def test_interval_is_kept_and_shared_by_all_who_ask_for_it(broadcaster: Broadcaster) -> None:
    """A producer as fast as it can be: subscribers of equal interval, joined at any time, are due together."""
    early, late = broadcaster.subscribe("v1", "latest", 0.1), None
    taken: list[float] = []
    for tick in range(1, 200):
        now = 10.0 + tick * 0.005
        if tick == 77:
            late = broadcaster.subscribe("v1", "latest", 0.1)
            late.slot = None
        broadcaster.publish(frame(tick), TOPOLOGY, now)
        if early.slot:
            early.slot = None
            taken.append(now)
        if late and late.slot:
            late.slot = None
            assert taken[-1] == now or tick == 77
    between = np.diff(taken[1:])
    assert 9 <= len(between) <= 11
    np.testing.assert_allclose(between, 0.1, atol=0.0051)


async def test_paced_producer_gives_every_frame_to_whoever_asks_for_its_rate(broadcaster: Broadcaster) -> None:
    broadcaster.producer_interval_s = 1 / 30
    subscription = broadcaster.subscribe("v1", "latest", 1 / 30)
    got = 0
    for tick in range(300):
        jitter = 0.004 * (-1) ** tick
        broadcaster.publish(frame(tick), TOPOLOGY, 5.0 + tick / 30 + jitter)
        got += subscription.slot is not None
        subscription.slot = None
    assert got == 300


async def test_nobody_is_due_while_the_only_reader_is_stalled(broadcaster: Broadcaster) -> None:
    assert broadcaster.next_due() == float("inf")
    subscription = broadcaster.subscribe("v1", "latest", 0.1)
    assert broadcaster.next_due() < float("inf")
    broadcaster.publish(frame(0), TOPOLOGY, now=1.0)
    assert broadcaster.next_due() == float("inf")
    subscription.slot = None
    assert broadcaster.next_due() == pytest.approx(1.1)


async def test_drain_ends_streams_with_the_reason(broadcaster: Broadcaster) -> None:
    stream = open_stream(broadcaster.subscribe("v1", "latest", 0.1))
    broadcaster.drain(UnavailableError("stopping"))
    with pytest.raises(UnavailableError, match="stopping"):
        await anext(stream)
    with pytest.raises(UnavailableError, match="stopping"):
        await anext(open_stream(broadcaster.subscribe("v1", "latest", 0.1)))


async def test_newcomer_gets_a_new_frame_instead_of_an_aged_one_if_it_comes_in_time(broadcaster: Broadcaster) -> None:
    broadcaster.publish(frame(4), TOPOLOGY, now=1.0)
    lucky = broadcaster.subscribe("v1", "latest", 0.1, stale_after_s=0.02)
    broadcaster.publish(frame(5), TOPOLOGY, now=99.0)
    assert (await next_v1(open_stream(lucky))).index == 5
    waiting = open_stream(broadcaster.subscribe("v1", "latest", 0.1, stale_after_s=0.02))
    assert (await next_v1(waiting)).index == 5
    await asyncio.sleep(0.03)
    assert lucky.slot is None


class Wire:
    """An outlet that the test opens and shuts."""

    def __init__(self) -> None:
        self.ready = True
        self.written: list[bytes] = []
        self.ended: list[Exception] = []

    def wrapped(self, response: Sequence[Part]) -> Sequence[Part]:
        return response

    def write(self, wrapped: Sequence[Part]) -> None:
        (whole,) = wrapped
        assert isinstance(whole, bytes)
        self.written.append(whole)

    def end(self, error: Exception) -> None:
        self.ended.append(error)


def test_an_outlet_has_a_frame_within_the_call_that_publishes_it(broadcaster: Broadcaster) -> None:
    outlets = [Wire() for _ in range(50)]
    for outlet in outlets:
        broadcaster.subscribe("v1", "latest", 0.1).pass_to(outlet)
    broadcaster.publish(frame(4), TOPOLOGY, now=1.0)
    broadcaster.publish(frame(5), TOPOLOGY, now=1.1)
    for outlet in outlets:
        first, second = (decode_frame_response_v1(each) for each in outlet.written)
        assert (first.index, second.index) == (4, 5)
        assert "particle.elements" in first.arrays and "particle.elements" not in second.arrays
        assert outlet.written[1] is outlets[0].written[1], "one encoding, and one object, for all"
    assert (broadcaster.encoded, broadcaster.sent) == (2, 100)


def test_outlets_write_once_all_have_been_offered_the_frame(broadcaster: Broadcaster) -> None:
    ready = 0

    class Counting(Wire):
        def wrapped(self, response: Sequence[Part]) -> Sequence[Part]:
            nonlocal ready
            ready += 1
            return response

        def write(self, wrapped: Sequence[Part]) -> None:
            assert ready == 3
            super().write(wrapped)

    outlets = [Counting() for _ in range(3)]
    subscriptions = [broadcaster.subscribe("v1", "latest", 0.1) for _ in outlets]
    for subscription, outlet in zip(subscriptions, outlets, strict=True):
        subscription.pass_to(outlet)
    broadcaster.publish(frame(1), TOPOLOGY, now=1.0)
    assert [len(outlet.written) for outlet in outlets] == [1, 1, 1]


def test_an_outlet_that_was_busy_has_the_newest_frame_alone_once_it_is_ready(broadcaster: Broadcaster) -> None:
    outlet, woken = Wire(), 0

    def wanted() -> None:
        nonlocal woken
        woken += 1

    broadcaster.wanted = wanted
    subscription = broadcaster.subscribe("v1", "latest", 0.1)
    subscription.pass_to(outlet)
    broadcaster.publish(frame(1), TOPOLOGY, now=1.0)
    outlet.ready = False
    for index in range(2, 100):
        broadcaster.publish(frame(index), TOPOLOGY, now=1.0 + 0.1 * index)
    assert len(outlet.written) == 1
    outlet.ready, before = True, woken
    subscription.flush()
    assert [decode_frame_response_v1(each).index for each in outlet.written] == [1, 99]
    assert woken > before, "the producer hears that the next frame is wanted"


def test_an_outlet_of_every_frame_misses_none_and_ends_when_it_falls_too_far_behind(broadcaster: Broadcaster) -> None:
    outlet = Wire()
    subscription = broadcaster.subscribe("v1", "all", 0.1)
    subscription.pass_to(outlet)
    outlet.ready = False
    for index in range(10):
        broadcaster.publish(frame(index), TOPOLOGY, now=1.0 + 0.1 * index)
    outlet.ready = True
    subscription.flush()
    assert [decode_frame_response_v1(each).index for each in outlet.written] == list(range(10))
    outlet.ready = False
    for index in range(MAX_QUEUED + 1):
        broadcaster.publish(frame(index), TOPOLOGY, now=3.0 + 0.1 * index)
    assert isinstance(outlet.ended[0], QuotaError)


def test_an_outlet_hears_of_a_drain(broadcaster: Broadcaster) -> None:
    outlet = Wire()
    broadcaster.subscribe("v1", "latest", 0.1).pass_to(outlet)
    error = UnavailableError("stopping")
    broadcaster.drain(error)
    assert outlet.ended == [error]
