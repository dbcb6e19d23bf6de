"""Views in the fan-out: what is shared, what slow readers get, and that who asks for everything notices nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from narupa_shared import fanout, published
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, QuotaError
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame, decode_frame_response_v1, encode_v1, parts_v1, response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1
from narupa_shared.position_codec import Kind, PositionDecoder, PositionHeader
from narupa_shared.published import Topology
from narupa_shared.subscriptions import Mode
from narupa_shared.views import View

COUNT = 6
PRECISION = 0.01
BOUND = PRECISION / 2 * 1.001  # and the rounding of float32
PRECISE = View.of(precision_nm=PRECISION)


def topology(name: str = "x", count: int = COUNT) -> Topology:
    return Topology(
        {
            keys.PARTICLE_COUNT: float(count),
            keys.ELEMENTS: np.arange(1, count + 1, dtype=np.uint32),
            keys.BOND_PAIRS: np.array([[n, n + 1] for n in range(count - 1)], np.uint32),
            keys.RUN: name,
        }
    )


def frame(index: int, count: int = COUNT) -> Frame:
    positions = np.random.default_rng(index).random((count, 3), np.float32)
    return Frame(index, {keys.TIME: float(index), keys.POTENTIAL: 1.0}, {keys.POSITIONS: positions})


class Reader:
    """A client with a view: it merges what it is sent, as clients do."""

    def __init__(self, broadcaster: Broadcaster, view: View, mode: Mode = "latest", interval_s: float = 0.1) -> None:
        self.subscription = broadcaster.subscribe("v1", mode, interval_s, view=view)
        self._stream: AsyncIterator[bytes] = self.subscription
        self._decoder = PositionDecoder()
        self.bytes: list[bytes] = []
        self.kinds: list[Kind] = []
        self.frame = Frame()

    async def read(self) -> Frame:
        """The whole frame after the next response."""
        data = await asyncio.wait_for(anext(self._stream), 5)
        self.bytes.append(data)
        positions = v1.SubscribeFramesResponse.FromString(data).frame.arrays.get(keys.POSITIONS)
        if positions is not None and positions.dtype == v1.DTYPE_POSITIONS:
            self.kinds.append(PositionHeader.parse(positions.data).kind)
        newer = decode_frame_response_v1(data, self._decoder)
        self.frame = newer if newer.index == 0 else self.frame.overlaid(newer)
        return self.frame


class Evens:
    """Selects particles of even index, or as many as the text says; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, text: str, whole: Frame) -> NDArray[np.uint32]:
        self.asked.append(text)
        await self.gate.wait()
        if text == "wrong":
            raise InvalidArgumentError("view.selection", text, "is no selection")
        count = int(whole.values[keys.PARTICLE_COUNT])
        if text.isdigit():
            return np.arange(int(text), dtype=np.uint32) if int(text) <= count else np.empty(0, np.uint32)
        return np.arange(0, count, 2, dtype=np.uint32)


@pytest.fixture
def evens() -> Evens:
    return Evens()


@pytest.fixture
def broadcaster(evens: Evens) -> Broadcaster:
    return Broadcaster(lambda: None, evens)


async def test_fifty_subscribers_with_three_views_are_three_encodings_a_frame(
    broadcaster: Broadcaster, evens: Evens, monkeypatch: pytest.MonkeyPatch
) -> None:
    topologies: list[Frame] = []
    encoders: Any = {**published._ENCODERS, "v1": lambda given: topologies.append(given) or parts_v1(given)}
    monkeypatch.setattr(published, "_ENCODERS", encoders)
    equal = [View.of(selection="even"), View.of(particles=[4, 0, 2]), View.of(particles=[0, 2, 4])]
    views = [*equal, View.of(fields=["energy"]), View.of(fields=["energy", "energy.kinetic"]), View.of()]
    readers = [Reader(broadcaster, views[n % len(views)]) for n in range(50)]
    shown = topology()
    for index in range(5):
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
        for reader in readers:
            assert (await reader.read()).index == index
    assert broadcaster.encoded == 3 * 5
    assert len(topologies) == 3 * 5 + 3, "and one of the topology for each"
    assert evens.asked == ["even"]
    for one, other in ((0, 1), (1, 2), (3, 4)):
        assert all(left is right for left, right in zip(readers[one].bytes, readers[other].bytes, strict=True))
    assert readers[0].frame.arrays[keys.INDICES].tolist() == [0, 2, 4]  # type: ignore[union-attr]


async def test_everything_is_byte_for_byte_what_it_was_before_there_were_views(broadcaster: Broadcaster) -> None:
    """Even beside others, and for who says explicitly that it wants all."""
    shown = topology()
    plain, explicit = Reader(broadcaster, View.of()), Reader(broadcaster, View())
    Reader(broadcaster, PRECISE)
    for index in range(3):
        given = frame(index)
        broadcaster.publish(given, shown, now=1.0 + 0.1 * index)
        await plain.read()
        await explicit.read()
        head = b"" if index else encode_v1(shown.frame)
        assert plain.bytes[-1] == explicit.bytes[-1]
        assert _sorted(plain.bytes[-1]) == _sorted(response_v1(head + encode_v1(given)))
        assert len(plain.bytes[-1]) == len(response_v1(head + encode_v1(given)))
    assert broadcaster.encoded == 3


def _sorted(data: bytes) -> bytes:
    return v1.SubscribeFramesResponse.FromString(data).SerializeToString(deterministic=True)


async def test_a_view_of_some_particles_is_the_slice_of_the_whole(broadcaster: Broadcaster) -> None:
    whole, part = Reader(broadcaster, View.of()), Reader(broadcaster, View.of(particles=[1, 2, 5]))
    shown = topology()
    for index in range(3):
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
        expected, seen = await whole.read(), await part.read()
        np.testing.assert_array_equal(seen.arrays[keys.POSITIONS], expected.arrays[keys.POSITIONS][[1, 2, 5]])  # type: ignore[call-overload]
        np.testing.assert_array_equal(seen.arrays[keys.ELEMENTS], [2, 3, 6])
        assert seen.arrays[keys.BOND_PAIRS].tolist() == [[0, 1]]  # type: ignore[union-attr]
        assert seen.values == {**expected.values, keys.PARTICLE_COUNT: 3.0}


async def test_readers_of_a_precision_share_the_changes_and_late_joiners_one_whole_frame(
    broadcaster: Broadcaster,
) -> None:
    early = [Reader(broadcaster, PRECISE) for _ in range(3)]
    late: list[Reader] = []
    shown = topology()
    for index in range(6):
        if index == 3:
            late = [Reader(broadcaster, PRECISE) for _ in range(3)]
        given = frame(index)
        broadcaster.publish(given, shown, now=1.0 + 0.1 * index)
        for reader in (*early, *late):
            seen = await reader.read()
            if reader in late and index == 3:
                seen = await reader.read() if seen.index != index else seen
            np.testing.assert_allclose(seen.arrays[keys.POSITIONS], given.arrays[keys.POSITIONS], atol=BOUND)
    assert early[0].kinds == [Kind.WHOLE, *[Kind.CHANGE] * 5]
    assert late[0].kinds[0] is Kind.WHOLE
    assert set(late[0].kinds[2:]) == {Kind.CHANGE}
    for group in (early, late):
        for reader in group[1:]:
            assert all(left is right for left, right in zip(group[0].bytes, reader.bytes, strict=True))


async def test_who_skips_frames_is_sent_a_whole_one_and_never_garbage(broadcaster: Broadcaster) -> None:
    """Readers of every speed; each frame that any of them has is within the bound."""
    random = np.random.default_rng(1)
    modes: list[Mode] = ["latest", "latest", "latest", "all"]
    readers = [Reader(broadcaster, PRECISE, mode) for mode in modes]
    readers.append(Reader(broadcaster, View.of(fields=[keys.POSITIONS], particles=[0, 3], precision_nm=PRECISION)))
    speeds = [1.0, 0.5, 0.1, 0.7, 0.4]
    shown, published = topology(), {}
    for index in range(200):
        if index % 60 == 59:
            shown = topology(f"run {index}")
        published[index] = frame(index)
        broadcaster.publish(published[index], shown, now=1.0 + 0.1 * index)
        for reader, speed in zip(readers, speeds, strict=True):
            waiting = reader.subscription.slot is not None or reader.subscription.mode == "all"
            if waiting and random.random() < speed:
                seen = await reader.read()
                expected: Any = published[_number(seen, published)].arrays[keys.POSITIONS]
                rows = [0, 3] if keys.INDICES in seen.arrays else slice(None)
                np.testing.assert_allclose(seen.arrays[keys.POSITIONS], expected[rows], atol=BOUND)
    assert readers[0].kinds.count(Kind.WHOLE) == 4, "the fastest is sent one for each topology"
    assert readers[3].kinds.count(Kind.WHOLE) <= 4, "of every frame there is nothing to skip"
    assert Kind.CHANGE in readers[1].kinds
    assert readers[1].kinds.count(Kind.WHOLE) > 4


def _number(seen: Frame, published: dict[int, Frame]) -> int:
    if keys.TIME in seen.values:
        return int(seen.values[keys.TIME])
    positions: Any = seen.arrays[keys.POSITIONS]
    rows = [0, 3]
    errors = {n: np.abs(given.arrays[keys.POSITIONS][rows] - positions).max() for n, given in published.items()}  # type: ignore[call-overload,operator]
    return min(errors, key=lambda n: errors[n])


async def test_a_reader_that_is_alone_is_sent_changes_however_many_frames_it_skips(broadcaster: Broadcaster) -> None:
    reader, shown = Reader(broadcaster, PRECISE), topology()
    for index in range(30):
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
        if index % 7 == 0:
            await reader.read()
    assert reader.kinds == [Kind.WHOLE, *[Kind.CHANGE] * 4]


async def test_readers_of_other_rates_do_not_cost_each_other_whole_frames(broadcaster: Broadcaster) -> None:
    fast, slow = Reader(broadcaster, PRECISE, interval_s=0.1), Reader(broadcaster, PRECISE, interval_s=0.3)
    shown = topology()
    for index in range(30):
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
        for reader in (fast, slow):
            if reader.subscription.slot is not None:
                await reader.read()
    assert len(slow.kinds) >= 9
    assert fast.kinds.count(Kind.WHOLE) == slow.kinds.count(Kind.WHOLE) == 1


async def test_a_late_reader_of_every_frame_catches_up_with_the_changes(broadcaster: Broadcaster) -> None:
    """It begins behind those who are ahead, and still is sent whole positions only once."""
    ahead, shown = Reader(broadcaster, PRECISE, "all"), topology()
    broadcaster.publish(frame(0), shown, now=1.0)
    behind = Reader(broadcaster, PRECISE, "all")
    for index in range(1, 9):
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
    for _ in range(9):
        await ahead.read()
    for index in range(9):
        seen = await behind.read()
        np.testing.assert_allclose(seen.arrays[keys.POSITIONS], frame(index).arrays[keys.POSITIONS], atol=BOUND)
    assert behind.kinds == [Kind.WHOLE, *[Kind.CHANGE] * 8]


async def test_positions_that_have_no_steps_are_sent_as_they_are(broadcaster: Broadcaster) -> None:
    reader, shown = Reader(broadcaster, PRECISE), topology()
    far = frame(1)
    far.arrays[keys.POSITIONS] = np.full((COUNT, 3), 1e30, np.float32)
    for index, given in enumerate((frame(0), far, frame(2), frame(3))):
        broadcaster.publish(given, shown, now=1.0 + 0.1 * index)
        seen = await reader.read()
        np.testing.assert_allclose(seen.arrays[keys.POSITIONS], given.arrays[keys.POSITIONS], atol=BOUND)
    assert reader.kinds == [Kind.WHOLE, Kind.EXACT, Kind.WHOLE, Kind.CHANGE]


async def test_a_load_evaluates_the_selection_anew_and_one_that_no_longer_matches_says_so(
    broadcaster: Broadcaster, evens: Evens
) -> None:
    reader = Reader(broadcaster, View.of(selection="4"))
    broadcaster.publish(frame(0), first := topology("a"), now=1.0)
    assert (await reader.read()).arrays[keys.POSITIONS].shape == (4, 3)  # type: ignore[union-attr]
    broadcaster.publish(frame(1), first, now=1.1)
    await reader.read()
    assert evens.asked == ["4"]
    broadcaster.publish(frame(0, 3), smaller := topology("b", 3), now=1.2)
    empty = await reader.read()
    assert (empty.index, empty.values[keys.PARTICLE_COUNT], empty.values[keys.RUN]) == (0, 0, "b")
    assert empty.arrays[keys.POSITIONS].shape == (0, 3)  # type: ignore[union-attr]
    assert empty.values[keys.EXCEPTION] == "view.selection is '4': matches none of 3 particles"
    broadcaster.publish(frame(1, 3), smaller, now=1.3)
    assert (await reader.read()).index == 1
    broadcaster.publish(frame(0, 9), topology("c", 9), now=1.4)
    again = await reader.read()
    assert again.index == 0
    assert again.arrays[keys.INDICES].tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert keys.EXCEPTION not in again.values
    assert evens.asked == ["4"] * 3
    with pytest.raises(InvalidArgumentError, match="matches none of 9"):
        await Reader(broadcaster, View.of(selection="10")).read()


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (View.of(selection="wrong"), "view.selection is 'wrong': is no selection"),
        (View.of(selection="77"), "view.selection is '77': matches none of 6 particles"),
        (View.of(particles=[0, 6]), "view.particles is 6: there are 6 particles"),
    ],
)
async def test_a_view_that_cannot_be_ends_the_stream_before_it_begins(
    broadcaster: Broadcaster, view: View, reason: str
) -> None:
    broadcaster.publish(frame(0), topology(), now=1.0)
    for _ in range(2):
        with pytest.raises(InvalidArgumentError) as refused:
            await Reader(broadcaster, view).read()
        assert str(refused.value) == reason


async def test_a_selection_being_evaluated_holds_nobody_up_but_its_readers(
    broadcaster: Broadcaster, evens: Evens
) -> None:
    evens.gate.clear()
    waiting, other, shown = Reader(broadcaster, View.of(selection="even")), Reader(broadcaster, View.of()), topology()
    broadcaster.publish(frame(0), shown, now=1.0)
    reading = asyncio.create_task(waiting.read())
    for index in range(1, 5):
        assert (await other.read()).index == index - 1
        broadcaster.publish(frame(index), shown, now=1.0 + 0.1 * index)
    assert not reading.done()
    evens.gate.set()
    assert (await reading).index == 0
    assert (await waiting.read()).index == 4


async def test_what_is_put_over_a_frame_reaches_views_once(broadcaster: Broadcaster) -> None:
    reader, shown = Reader(broadcaster, View.of(particles=[1, 4], precision_nm=PRECISION)), topology()
    broadcaster.publish(frame(0), shown, now=1.0)
    await reader.read()
    colours = np.arange(4 * COUNT, dtype=np.uint32).reshape(COUNT, 4)
    coloured = shown.with_added({keys.COLORS: colours})
    for index in (1, 2):
        broadcaster.publish(frame(index), coloured, now=1.0 + 0.1 * index)
        seen = await reader.read()
        np.testing.assert_array_equal(seen.arrays[keys.COLORS], colours[[1, 4]])
        assert seen.index == index
    assert [keys.COLORS.encode() in data for data in reader.bytes] == [False, True, False]
    assert [keys.ELEMENTS.encode() in data for data in reader.bytes] == [True, False, False]
    assert reader.kinds == [Kind.WHOLE, Kind.CHANGE, Kind.CHANGE]


async def test_views_are_counted_and_limited(broadcaster: Broadcaster) -> None:
    readers = [Reader(broadcaster, View.of(particles=[n])) for n in range(fanout.MAX_VIEWS)]
    with pytest.raises(QuotaError, match=f"{fanout.MAX_VIEWS} different views"):
        Reader(broadcaster, View.of(particles=[1000]))
    Reader(broadcaster, View.of())
    Reader(broadcaster, View.of(particles=[0]))
    broadcaster.unsubscribe(readers[1].subscription)
    Reader(broadcaster, View.of(particles=[1000]))


async def test_rates_of_a_precision_count_as_views(broadcaster: Broadcaster) -> None:
    for n in range(fanout.MAX_VIEWS - 1):
        Reader(broadcaster, PRECISE, interval_s=0.1 + 0.001 * n)
        Reader(broadcaster, View.of(fields=["energy"]), interval_s=0.1 + 0.001 * n)
    with pytest.raises(QuotaError):
        Reader(broadcaster, PRECISE, interval_s=5.0)


async def test_what_nobody_watches_is_forgotten(broadcaster: Broadcaster) -> None:
    shown = topology()
    broadcaster.publish(frame(0), shown, now=1.0)
    for n in range(20):
        reader = Reader(broadcaster, View.of(particles=[n % 5], precision_nm=PRECISION))
        await reader.read()
        broadcaster.unsubscribe(reader.subscription)
        del reader
    broadcaster.publish(frame(1), shown, now=1.1)
    assert len(shown._views) == 0
    assert len(shown.subsets) == 0


async def test_one_frame_by_itself_is_whole_in_any_view(broadcaster: Broadcaster) -> None:
    view = View.of(["particle.positions"], selection="even", precision_nm=PRECISION)
    published = broadcaster.publish(frame(3), topology(), now=1.0)
    data = await broadcaster.whole_response(published, "v1", view)
    seen = decode_frame_response_v1(data, PositionDecoder())
    assert seen.index == 3
    assert seen.arrays.keys() == {keys.POSITIONS, keys.INDICES}
    expected: Any = frame(3).arrays[keys.POSITIONS]
    np.testing.assert_allclose(seen.arrays[keys.POSITIONS], expected[::2], atol=BOUND)
    with pytest.raises(InvalidArgumentError, match="did not ask for it"):
        decode_frame_response_v1(data)
