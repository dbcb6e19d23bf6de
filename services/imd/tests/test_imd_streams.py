"""Waiting streams: woken by change, by time, by a message, and all of them by the end of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from narupa_imd.config import ImdConfig
from narupa_imd.session import ImdSession
from narupa_imd.state import SERVER, Limits
from narupa_imd.streams import Streams
from narupa_imd.watching import Watching
from narupa_imd.wire import MAX_BODY, compat_updates, watch_responses
from narupa_shared.errors import InvalidArgumentError, QuotaError, UnavailableError
from narupa_shared.gen.narupa.imd.v1.imd_pb2 import WatchStateResponse
from narupa_shared.gen.narupa.protocol.state.state_service_pb2 import StateUpdate
from narupa_shared.structs import from_struct

ENDING = UnavailableError("ending")


async def never() -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


async def test_everyone_hears_of_the_end() -> None:
    streams = Streams()

    async def read() -> None:
        async for _ in streams.requests(never()):
            pass

    waiting = [asyncio.create_task(each) for each in (streams.change(), streams.pause(60), read())]
    await asyncio.sleep(0.01)
    streams.drain(ENDING)
    assert await asyncio.gather(*waiting, return_exceptions=True) == [ENDING] * 3
    for late in (streams.change(), streams.pause(60), read()):
        with pytest.raises(UnavailableError):
            await late


async def test_change_is_told_or_the_time_is_over() -> None:
    streams = Streams()
    waiting = asyncio.create_task(streams.change(60))
    await asyncio.sleep(0)
    streams.wake()
    streams.wake()
    await waiting
    await streams.change(0.001)
    await streams.pause(0.001)


async def test_requests_end_with_the_caller() -> None:
    async def two() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [item async for item in Streams().requests(two())] == [1, 2]


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def session(streams: Streams) -> ImdSession:
    return ImdSession(lambda: 0.0, "epoch", streams.wake, Limits(removals=2))


@pytest.fixture
def watching(session: ImdSession, streams: Streams) -> Watching:
    return Watching(session, streams, ImdConfig(port=0))


async def test_changes_within_the_interval_are_one_message(session: ImdSession, watching: Watching) -> None:
    messages = watching.messages(compat_updates, 0.05)
    first = from_struct(StateUpdate.FromString(await anext(messages)).changed_keys)
    assert first == {"imd.velocity_reset_available": False}
    session.state.update(SERVER, {"a": 0.0, "b": 0.0})
    waiting = asyncio.create_task(anext(messages))
    for value in range(10):
        await asyncio.sleep(0.001)
        session.state.update(SERVER, {"a": float(value)})
    session.state.update(SERVER, {}, ["b"])
    assert from_struct(StateUpdate.FromString(await waiting).changed_keys) == {"a": 9.0, "b": None}
    await messages.aclose()
    assert watching.watchers == 0


async def test_watchers_at_one_revision_share_one_encoding(session: ImdSession, watching: Watching) -> None:
    encode = watch_responses("epoch")
    watches = [watching.messages(encode, 0.001) for _ in range(3)]
    first = [await anext(watch) for watch in watches]
    assert first[0] is first[1] is first[2]
    session.state.update(SERVER, {"a": 1.0})
    later = await asyncio.gather(*(anext(watch) for watch in watches))
    assert later[0] is later[1] is later[2]
    for watch in watches:
        await watch.aclose()


async def test_a_watcher_too_far_behind_starts_over_or_is_ended(session: ImdSession, watching: Watching) -> None:
    v1 = watching.messages(watch_responses("epoch"), 0.001)
    compat = watching.messages(compat_updates, 0.001, may_restart=False)
    await anext(v1)
    await anext(compat)
    for name in "abcd":
        session.state.update(SERVER, {name: 1.0})
        session.state.update(SERVER, {}, [name])
    response = WatchStateResponse.FromString(await anext(v1))
    assert response.whole and response.revision == session.state.revision
    with pytest.raises(QuotaError, match="too far behind"):
        await anext(compat)
    await v1.aclose()


async def test_a_watcher_who_stalls_is_told_of_all_that_went_meanwhile(streams: Streams) -> None:
    session = ImdSession(lambda: 0.0, "epoch", streams.wake)
    messages = Watching(session, streams, ImdConfig(port=0)).messages(compat_updates, 0.001, may_restart=False)
    await anext(messages)
    for number in range(2000):
        session.state.update(SERVER, {f"k{number}": 1.0})
        session.state.update(SERVER, {}, [f"k{number}"])
    told = from_struct(StateUpdate.FromString(await anext(messages)).changed_keys)
    assert told == dict.fromkeys(f"k{number}" for number in range(2000))
    await messages.aclose()


def test_a_large_state_goes_out_in_parts_that_resume_whole(session: ImdSession) -> None:
    for number in range(60):
        session.state.update(SERVER, {f"k{number}": "x" * 60_000})
    messages = watch_responses("epoch")(session.state.changes(None), 0)
    responses = [WatchStateResponse.FromString(message) for message in messages]
    assert len(responses) > 3 and max(map(len, messages)) < 1.2 * MAX_BODY
    assert [response.whole for response in responses] == [True] + [False] * (len(responses) - 1)
    assert [response.revision for response in responses] == [0] * (len(responses) - 1) + [session.state.revision]
    assert {key for response in responses for key in response.updates.fields} == set(session.state.values())


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_bad_interval_is_refused(watching: Watching, seconds: float) -> None:
    with pytest.raises(InvalidArgumentError, match="update_interval is"):
        watching.interval("update_interval", seconds)


def test_intervals_have_a_default_and_a_minimum(watching: Watching) -> None:
    assert watching.interval("x", 0.0) == pytest.approx(1 / 30)
    assert watching.interval("x", 1e-6) == pytest.approx(1 / 120)
    assert watching.interval("x", 2.0) == 2.0
