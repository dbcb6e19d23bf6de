"""Frames that clients publish: what is refused, what is shown with them, and how the simulation comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared import frame_keys as keys
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    QuotaError,
    UnavailableError,
)
from narupa_shared.frames import Frame, decode_compat_response, decode_frame_response_v1
from narupa_shared.nanover_messages import frame_of, unpacked
from narupa_shared.published import Form, Topology
from narupa_shared.subscriptions import Subscription
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.connection import EngineSettings
from narupa_trajectory.playback import Playback
from narupa_trajectory.published_frames import MAX_KEYS, SERVICES_OWN, PublishedFrames, check_fit
from narupa_trajectory.sources.source import Snapshot, SourceInfo

N = 3


class WillingEngine:
    """Does what it is told, at once, and remembers it."""

    def __init__(self) -> None:
        self.info = SourceInfo("fake", N, True)
        self.settings = EngineSettings("", True, 0.0, None, False, 1.0)
        self.asked: list[str] = []

    async def command(self, do: str, on_done: Callable[[], None] | None = None, **arguments: Any) -> bytes:
        self.asked.append(do)
        if on_done:
            on_done()
        return b""

    def every(self, on: bool) -> None: ...

    def want(self, at: float) -> None: ...


@pytest.fixture
def engine() -> WillingEngine:
    return WillingEngine()


@pytest.fixture
async def playback(clock: FakeClock, engine: WillingEngine) -> AsyncIterator[Playback]:
    playback = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
    playback.engine = engine  # type: ignore[assignment]
    topology = {keys.ELEMENTS: np.array([6, 1, 8], np.uint32), keys.BOND_PAIRS: np.array([[0, 1]], np.uint32)}
    playback.engine_loaded(engine.info, topology, fresh=True)
    playback.engine_frame(snapshot(1.0), urgent=False)
    yield playback
    await asyncio.sleep(0)


@pytest.fixture
def published(clock: FakeClock) -> PublishedFrames:
    return PublishedFrames(clock, 10.0, 5, 100_000)


def snapshot(x: float) -> Snapshot:
    made = Snapshot(np.full((N, 3), x, np.float32), 1.0, 1)
    made.user_index, made.user_forces, made.user_energy = np.array([1], np.uint32), np.ones((1, 3), np.float32), 2.5
    return made


def frame(index: int, **items: Any) -> Frame:
    return Frame.of(index, {key.replace("__", "."): item for key, item in items.items()})


def positions(count: int, x: float = 0.0) -> np.ndarray[Any, Any]:
    return np.full((count, 3), x, np.float32)


class Reader:
    """Somebody who merges what comes."""

    def __init__(self, playback: Playback, form: Form = "v1") -> None:
        self._subscription: Subscription = playback.subscribe(form, "all", 0.0, "frame_interval_s")
        self._responses = self._subscription
        self._form = form
        self.seen = Frame()
        self.last = Frame()

    async def read(self) -> Frame:
        """What there is after one more response."""
        data = await asyncio.wait_for(anext(self._responses), 1)
        match self._form:
            case "v1":
                self.last = decode_frame_response_v1(data)
            case "compat":
                self.last = decode_compat_response(data)
            case _:
                self.last = frame_of(unpacked(data)["frame"])
        self.seen = self.seen.merged(self.last)
        self.seen.index = self.last.index
        return self.seen


WRONG: list[tuple[dict[str, Any], str]] = [
    ({keys.POSITIONS: np.zeros((3, 2), np.float32)}, r"positions.*\(N, 3\)"),
    ({keys.POSITIONS: np.zeros(7, np.float32)}, r"positions.*\(N, 3\)"),
    ({keys.POSITIONS: np.zeros((3, 3), np.uint32)}, "positions.*indices.*floats"),
    ({keys.POSITIONS: np.array([[0, np.nan, 0]], np.float32)}, "positions.*NaN.*finite"),
    ({keys.POSITIONS: 1.0}, "positions.*array of floats"),
    ({keys.VELOCITIES: np.full((1, 3), np.inf, np.float32)}, "velocities.*finite"),
    ({keys.BOX: np.zeros((2, 3), np.float32)}, r"box.*\(3, 3\)"),
    ({keys.NAMES: np.zeros(3, np.uint32)}, "names.*texts"),
    ({keys.ELEMENTS: ["C"]}, "elements.*indices"),
    ({keys.COLORS: np.full((3, 4), 256, np.uint32)}, "colors.*256"),
    ({keys.NAMES: ["x" * 257]}, "names.*256 characters"),
    ({keys.PARTICLE_COUNT: -1.0}, "count.*whole"),
    ({keys.PARTICLE_COUNT: 2.5}, "count.*whole"),
    ({keys.PARTICLE_COUNT: float("nan")}, "count.*finite"),
    ({keys.PARTICLE_COUNT: np.zeros(1, np.uint32)}, "count.*single"),
    ({keys.KINETIC: float("inf")}, "kinetic.*finite"),
    ({keys.KINETIC: "much"}, "kinetic.*number"),
    ({keys.TIME: True}, "time.*number"),
    ({keys.SIMULATION_NAME: 3.0}, "name.*text"),
    ({"mine": float("nan")}, "mine.*finite"),
    ({"mine": "x" * 5000}, "mine.*characters"),
    ({"": 1.0}, "key.*1 to 128"),
    ({"k" * 129: 1.0}, "key.*1 to 128"),
]


@pytest.mark.parametrize(("items", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_what_is_wrong_by_itself_is_refused_by_name(
    published: PublishedFrames, items: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        published.checked(Frame.of(0, items))


def test_a_frame_may_not_hold_too_much(published: PublishedFrames) -> None:
    with pytest.raises(QuotaError, match="257 keys"):
        published.checked(Frame.of(1, {f"k{i}": 1.0 for i in range(MAX_KEYS + 1)}))
    published.checked(Frame.of(1, {f"k{i}": 1.0 for i in range(MAX_KEYS)}))
    for large in (np.zeros(25_001, np.float32), ["x" * 200] * 500):
        with pytest.raises(QuotaError, match="bytes"):
            published.checked(Frame.of(1, {"mine": large}))


def test_the_services_own_keys_are_left_out_and_unknown_ones_kept(published: PublishedFrames) -> None:
    given = Frame.of(
        1, {**dict.fromkeys(SERVICES_OWN, 1.0), "mine": True, "list": ["a"], "flat": np.ones(5, np.float32)}
    )
    checked = published.checked(given)
    assert checked.values == {"mine": True}
    assert checked.arrays.keys() == {"list", "flat"}


def test_flat_arrays_get_their_rows_and_whole_bond_orders_are_numbers(published: PublishedFrames) -> None:
    flat = {keys.POSITIONS: np.zeros(6, np.float32), keys.BOND_ORDERS: np.array([2], np.uint32)}
    checked = published.checked(Frame.of(0, flat))
    assert checked.arrays[keys.POSITIONS].shape == (2, 3)  # type: ignore[union-attr]
    assert checked.arrays[keys.BOND_ORDERS].dtype == np.float32  # type: ignore[union-attr]


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({keys.POSITIONS: positions(2), keys.PARTICLE_COUNT: 3.0}, "must be as many"),
    ({keys.POSITIONS: positions(2), keys.NAMES: ["a"]}, "must be as many"),
    ({keys.POSITIONS: positions(2), keys.BOND_PAIRS: np.array([[0, 2]], np.uint32)}, "pairs is 2: must be below 2"),
    ({keys.BOND_PAIRS: np.array([[0, 1]], np.uint32)}, r"below 0, which is particle\.count"),
    ({keys.RESIDUES: np.array([0, 1], np.uint32), keys.RESIDUE_NAMES: ["A"]}, "residues is 1: must be below 1"),
    ({keys.RESIDUE_COUNT: 2.0, keys.RESIDUE_IDS: ["1"]}, "must be as many"),
    ({keys.RESIDUE_CHAINS: np.array([4], np.uint32), keys.CHAIN_COUNT: 1.0}, "chains is 4"),
    (
        {keys.PARTICLE_COUNT: 3.0, keys.BOND_PAIRS: np.array([[0, 1]], np.uint32), keys.BOND_ORDERS: positions(1)[0]},
        "as many",
    ),
    ({keys.PARTICLE_COUNT: 3.0, keys.USER_INDEX: np.array([3], np.uint32)}, "index is 3"),
]


@pytest.mark.parametrize(("items", "reason"), MISFITS, ids=[reason for _, reason in MISFITS])
def test_arrays_that_do_not_fit_each_other_are_refused(items: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        check_fit(Frame.of(0, items), Frame())


def test_what_overlays_must_fit_what_is_shown(published: PublishedFrames) -> None:
    shown = Topology({keys.PARTICLE_COUNT: 3.0, keys.ELEMENTS: np.array([1, 1, 1], np.uint32)})
    body = Frame.of(4, {keys.POSITIONS: positions(3)})
    for items in ({keys.POSITIONS: positions(2)}, {keys.BOND_PAIRS: np.array([[0, 3]], np.uint32)}):
        with pytest.raises(InvalidArgumentError):
            published.overlay(published.checked(Frame.of(1, items)), body, shown, running=False)
    assert not published.replaces and published.topology is None
    fitting = published.checked(Frame.of(1, {keys.BOND_PAIRS: np.array([[0, 2]], np.uint32)}))
    items = published.overlay(fitting, body, shown, running=True)
    assert items.keys() == {keys.POSITIONS}
    assert published.topology is not None and published.topology.base is shown
    assert not published.replaces


def test_what_is_put_over_a_frame_may_not_grow_for_ever(published: PublishedFrames) -> None:
    shown, body = Topology({}), Frame()
    with pytest.raises(QuotaError, match="keys"):
        for i in range(MAX_KEYS + 1):
            published.overlay(Frame.of(1, {f"k{i}": 1.0}), body, published.topology or shown, running=True)
    published.end()
    with pytest.raises(QuotaError, match="bytes"):
        for i in range(5):
            large = Frame.of(1, {f"k{i}": np.zeros(6000, np.float32)})
            published.overlay(large, body, published.topology or shown, running=True)


def test_each_owner_has_a_rate(published: PublishedFrames, clock: FakeClock) -> None:
    for _ in range(5):
        published.admit("a")
    with pytest.raises(QuotaError, match="a sends more than 10 frames per second"):
        published.admit("a")
    published.admit("b")
    clock.advance(0.2)
    published.admit("a")


FORMS: tuple[Form, ...] = ("v1", "compat", "nanover")


@pytest.mark.parametrize("form", FORMS)
async def test_a_frame_of_index_0_is_shown_in_place_of_the_simulation(
    playback: Playback, engine: WillingEngine, form: Form
) -> None:
    reader = Reader(playback, form)
    simulation = await reader.read()
    run_id, counter = playback.run_id, simulation.values[keys.COUNTER]
    mine = frame(0, mine="a", **{keys.POSITIONS.replace(".", "__"): positions(5, 7.0)})
    assert await playback.publish_frame(mine, "ada") == 0
    assert engine.asked == ["pause"] and not playback.playing
    shown = await reader.read()
    assert shown.index == 0
    assert shown.values["mine"] == "a"
    assert shown.values[keys.PARTICLE_COUNT] == 5 == playback.particle_count
    assert shown.values[keys.COUNTER] == counter
    assert shown.values[keys.RUN] == playback.shown_run_id != run_id
    assert keys.ELEMENTS not in shown.arrays and keys.USER_INDEX not in shown.arrays
    late = await Reader(playback, form).read()
    assert late.arrays.keys() == shown.arrays.keys() and late.values.keys() == shown.values.keys()
    np.testing.assert_array_equal(late.arrays[keys.POSITIONS], positions(5, 7.0))
    assert (await playback.newest()).topology is playback.published.topology

    playback.engine_frame(snapshot(2.0), urgent=True)  # on its way when it paused
    assert await playback.publish_frame(Frame.of(1, {keys.POSITIONS: positions(5, 8.0), "mine": "b"}), "ada") > 0
    moved = await reader.read()
    assert reader.last.index > 0
    assert reader.last.arrays.keys() == {keys.POSITIONS} | {
        keys.USER_INDEX, keys.USER_SPARSE, keys.INTERACTION_IDS, keys.INTERACTION_ENERGIES, keys.INTERACTION_WORK,
        keys.INTERACTION_FORCES,
    }  # fmt: skip
    assert moved.values["mine"] == "b"
    np.testing.assert_array_equal(moved.arrays[keys.POSITIONS], positions(5, 8.0))
    with pytest.raises(InvalidArgumentError, match="as many"):
        await playback.publish_frame(Frame.of(1, {keys.POSITIONS: positions(6)}), "ada")

    await playback.play()
    playback.engine_frame(snapshot(3.0), urgent=False)
    back = await reader.read()
    assert back.index == 0
    assert back.arrays.keys() == simulation.arrays.keys() and back.values.keys() == simulation.values.keys()
    assert back.values[keys.RUN] == run_id == playback.shown_run_id
    assert back.values[keys.COUNTER] == counter
    assert playback.particle_count == N
    playback.engine_frame(snapshot(4.0), urgent=False)
    await reader.read()
    assert reader.last.index > 0 and keys.ELEMENTS not in reader.last.arrays


BACK: dict[str, Callable[[Playback], Any]] = {
    "play": lambda playback: playback.play(),
    "step": lambda playback: playback.step(),
    "reset": lambda playback: playback.engine_reset(),
    "load": lambda playback: playback.engine_loaded(SourceInfo("fake", N, True), {}, fresh=True),
}


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("way", BACK)
async def test_the_simulation_comes_back_whole(playback: Playback, way: str, index: int) -> None:
    reader = Reader(playback)
    await reader.read()
    await playback.pause()
    await playback.publish_frame(Frame.of(index, {keys.VELOCITIES: positions(N), "mine": 1.0}), "ada")
    assert {"mine", keys.VELOCITIES} <= {*(await reader.read()).values, *reader.seen.arrays}
    playback.engine_frame(snapshot(2.0), urgent=True)
    await playback.pause()
    playback.engine_frame(snapshot(2.0), urgent=True)
    done = BACK[way](playback)
    doing = asyncio.ensure_future(done) if done is not None else None
    await asyncio.sleep(0)
    assert way != "step" or (doing and not doing.done()), "a step is done when it has been shown"
    playback.engine_frame(snapshot(3.0), urgent=True)
    if doing is not None:
        await doing
    back = await reader.read()
    assert back.index == 0
    assert "mine" not in back.values and keys.VELOCITIES not in back.arrays
    np.testing.assert_array_equal(back.arrays[keys.POSITIONS], positions(N, 3.0))
    np.testing.assert_array_equal(back.arrays[keys.USER_INDEX], [1])


@pytest.mark.parametrize("form", FORMS)
async def test_colours_are_put_over_the_running_simulation_once(playback: Playback, form: Form) -> None:
    reader = Reader(playback, form)
    await reader.read()
    colors = np.full((N, 4), 200, np.uint32)
    assert await playback.publish_frame(Frame.of(9, {keys.COLORS: colors}), "ada") == 1
    assert playback.playing
    shown = await reader.read()
    assert reader.last.index == 1
    np.testing.assert_array_equal(shown.arrays[keys.COLORS], colors)
    np.testing.assert_array_equal(shown.arrays[keys.USER_INDEX], [1])
    assert keys.ELEMENTS not in reader.last.arrays  # which the reader has
    playback.engine_frame(snapshot(2.0), urgent=False)
    await reader.read()
    assert keys.COLORS not in reader.last.arrays
    late = await Reader(playback, form).read()
    np.testing.assert_array_equal(late.arrays[keys.COLORS], colors)
    assert keys.ELEMENTS in late.arrays
    await playback.pause()
    await playback.play()
    playback.engine_frame(snapshot(3.0), urgent=False)
    await reader.read()
    assert reader.last.index > 0 and keys.COLORS in reader.seen.arrays


async def test_a_slow_reader_gets_all_that_was_put_over_the_frame(playback: Playback) -> None:
    responses = playback.subscribe("v1", "latest", 60.0, "frame_interval_s")
    seen = decode_frame_response_v1(await anext(responses))
    for name in ("a", "b", "c"):
        await playback.publish_frame(Frame.of(1, {name: 1.0}), "ada")
        playback.engine_frame(snapshot(2.0), urgent=False)
    seen = seen.merged(decode_frame_response_v1(await anext(responses)))
    assert {"a", "b", "c", keys.PARTICLE_COUNT} <= seen.values.keys()


async def test_the_simulations_keys_need_it_paused(playback: Playback) -> None:
    moved = Frame.of(1, {keys.POSITIONS: positions(N, 9.0)})
    with pytest.raises(FailedPreconditionError, match=r"particle\.positions.*playback/pause"):
        await playback.publish_frame(moved, "ada")
    await playback.pause()
    index = await playback.publish_frame(moved, "ada")
    reader = Reader(playback)
    shown = await reader.read()
    assert shown.index == index and keys.ELEMENTS in shown.arrays
    np.testing.assert_array_equal(shown.arrays[keys.POSITIONS], positions(N, 9.0))
    assert len(shown.arrays[keys.USER_INDEX]) == 0 and shown.values[keys.USER_ENERGY] == 0


async def test_nothing_is_shown_of_a_frame_that_is_refused(playback: Playback, engine: WillingEngine) -> None:
    before = playback.broadcaster.current
    for index in (0, 1):
        for items in ({keys.NAMES: ["a"], keys.PARTICLE_COUNT: 2.0}, {"mine": float("nan")}):
            with pytest.raises(NarupaError):
                await playback.publish_frame(Frame.of(index, items), "ada")
    assert playback.broadcaster.current is before
    assert playback.playing and engine.asked == []


async def test_a_failed_simulation_leaves_room_and_its_exception(playback: Playback, engine: WillingEngine) -> None:
    playback.engine_failed("it broke", retrying=False)
    await playback.publish_frame(Frame.of(0, {keys.POSITIONS: positions(1)}), "ada")
    assert engine.asked == []
    shown = await Reader(playback).read()
    assert shown.values[keys.EXCEPTION] == "it broke" and shown.values[keys.PARTICLE_COUNT] == 1
    playback.engine_failed("again", retrying=False)
    again = await Reader(playback).read()
    assert again.values[keys.EXCEPTION] == "again" and again.values[keys.PARTICLE_COUNT] == 1
    playback.engine_loaded(SourceInfo("fake", N, True), {}, fresh=False)
    playback.engine_frame(snapshot(2.0), urgent=True)
    back = await Reader(playback).read()
    assert back.values[keys.EXCEPTION] == "" and back.values[keys.PARTICLE_COUNT] == 1


async def test_before_the_first_frame_of_the_simulation_there_is_nothing_to_put_one_over(
    playback: Playback, clock: FakeClock
) -> None:
    await playback.publish_frame(Frame.of(0, {"mine": 1.0}), "ada")
    await playback.play()
    with pytest.raises(UnavailableError, match="no frame yet"):
        await playback.publish_frame(Frame.of(1, {"mine": 2.0}), "ada")
    new = Playback(TrajectoryConfig(port=0, lobby="127.0.0.1:1"), clock)
    with pytest.raises(UnavailableError, match="no frame yet"):
        await new.publish_frame(Frame.of(1, {"mine": 2.0}), "ada")
    with pytest.raises(UnavailableError, match="starting"):
        await new.publish_frame(Frame.of(0, {"mine": 2.0}), "ada")


_known = st.sampled_from([getattr(keys, name) for name in dir(keys) if isinstance(getattr(keys, name), str)])
_items = st.one_of(
    st.floats(width=32),
    st.text(max_size=5),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=4),
    st.builds(
        lambda shape, kind, value: np.full(shape, value, kind),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from([np.float32, np.uint32]),
        st.integers(0, 5),
    ),
)


@given(st.integers(0, 2), st.dictionaries(st.one_of(_known, st.text(max_size=3)), _items, max_size=8), st.booleans())
def test_any_frame_is_shown_or_refused_with_a_reason(index: int, items: dict[str, Any], running: bool) -> None:
    published = PublishedFrames(FakeClock(), 10.0, 5, 100_000)
    body = Frame.of(3, {keys.POSITIONS: positions(N)})
    try:
        checked = published.checked(Frame.of(index, items))
        if index:
            published.overlay(checked, body, Topology({keys.PARTICLE_COUNT: 3.0}), running)
        else:
            published.replace(checked, {}, "run")
    except NarupaError:
        return
    shown = published.topology
    assert shown is not None
    for form in FORMS:
        assert isinstance(shown.encoded_added(form) + shown.encoded(form), bytes)
