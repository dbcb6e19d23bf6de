"""One NanoVer client on a socket that the test holds the other end of."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from gateway_fakes import FakeSession, FakeSocket, SocketClosed, guest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoilt_messages import spoilt_messages
from structlog.testing import capture_logs

from narupa_client.directory import SessionEndedError
from narupa_client.frames import CurrentFrame
from narupa_client.state import StateChange
from narupa_gateway import commands, websocket_client
from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.shared_state import SharedStateCopy
from narupa_gateway.websocket_client import (
    GOING_AWAY,
    MALFORMED,
    MAX_REASON_BYTES,
    REFUSED,
    WebSocketClient,
    close_reason,
)
from narupa_gateway.writes import MAX_WAITING_BYTES, MAX_WAITING_WRITES
from narupa_shared import frame_keys as keys
from narupa_shared.errors import (
    CommandFailedError,
    FailedPreconditionError,
    NarupaError,
    PermissionDeniedError,
    UnavailableError,
)
from narupa_shared.rates import RateLimit
from narupa_shared.structs import to_struct
from narupa_shared.testing.clock import FakeClock
from narupa_shared.testing.waiting import until

Connect = Callable[..., "Connected"]


class Connected:
    """A client that is served, and what it is served from."""

    def __init__(self, clock: FakeClock, role: str, **settings: Any) -> None:
        config = GatewayConfig(**settings)
        self.clock = clock
        self.socket = FakeSocket()
        self.session = FakeSession(role)
        self.feed = FrameFeed(1 / 30, 1 / 120, 0.0, clock)
        self.state = SharedStateCopy()
        self.client = WebSocketClient(
            self.socket,
            guest_of(self.session),
            self.feed,
            self.state,
            RateLimit(clock, config.messages_per_s, config.message_burst, "messages"),
            RateLimit(clock, config.bytes_per_s, config.byte_burst, "bytes"),
            config,
        )
        self.task = asyncio.create_task(self.client.serve())

    async def over(self) -> tuple[int, str]:
        """How it was closed, once it is no longer served."""
        async with asyncio.timeout(10):
            with contextlib.suppress(SocketClosed):
                await self.task
        assert self.socket.closed is not None
        return self.socket.closed

    async def provided(self, **registered: Any) -> Any:
        """The stream of commands, once these have been registered."""
        for name, arguments in registered.items():
            self.socket.say(
                {"command": {"register": {"name": name, "arguments": arguments, "label": "L", "icon": "I"}}}
            )
        await until(lambda: self.session.providers and set(registered) <= set(self.session.providers[-1].registered))
        return self.session.providers[-1]


@pytest.fixture
async def connect(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    monkeypatch.setattr(websocket_client, "TELL_EVERY_S", 0.01)
    monkeypatch.setattr(commands, "_RETRY_S", 0.001)
    made: list[Connected] = []

    def connect(role: str = "participant", **settings: Any) -> Connected:
        made.append(Connected(clock, role, **settings))
        return made[-1]

    yield connect
    for each in made:
        each.socket.reading.set()
        each.session.writable.set()
        each.socket.hang_up()
        with contextlib.suppress(SocketClosed):
            await each.task
        assert each.session.open_writers == 0 and not each.feed.broadcaster.subscriptions and not each.state._waiting


# To the client.


async def test_people_are_answered_for_by_the_gateway_itself(connect: Connect) -> None:
    client = connect()
    request = {"name": "session/get-people", "arguments": {}, "id": 4}
    client.socket.say({"command": {"request": request}})
    await until(lambda: any("command" in said for said in client.socket.sent))
    (answer,) = [said["command"] for said in client.socket.sent if "command" in said]
    assert answer["request"] == request and answer["response"]["user"] == client.session.user_id
    assert not client.session.ran


async def test_state_and_frame_come_at_once_and_then_what_changes(connect: Connect) -> None:
    client = connect()
    await until(lambda: client.socket.states())
    assert client.socket.states() == [{"updates": {}, "removals": []}]
    client.feed._take(CurrentFrame(3, {"a": 1.0}, {keys.POSITIONS: np.ones((1, 3), np.float32)}), False)
    await until(lambda: any("frame" in message for message in client.socket.sent))
    (frame,) = [message["frame"] for message in client.socket.sent if "frame" in message]
    assert frame == {"frame.index": 3, "a": 1.0, keys.POSITIONS: np.ones(3, "<f4").tobytes()}
    client.state.apply(StateChange(False, {"x": 1.0}, (), 1))
    await until(lambda: len(client.socket.states()) == 2)
    assert client.socket.states()[-1]["updates"] == {"x": 1.0}


async def test_a_client_that_does_not_read_holds_up_nothing_and_hears_the_latest(connect: Connect) -> None:
    client = connect()
    await until(lambda: client.socket.states())
    client.socket.reading.clear()
    for index in range(1, 500):
        client.clock.advance(0.05)
        client.feed._take(CurrentFrame(index, {"n": float(index)}, {}), False)
        client.state.apply(StateChange(False, {"x": float(index)}, (), 1))
        await asyncio.sleep(0)
    client.socket.reading.set()
    await until(lambda: any(said.get("frame", {}).get("n") == 499 for said in client.socket.sent))
    await until(lambda: client.socket.states()[-1]["updates"] == {"x": 499.0})
    assert len(client.socket.sent) < 10


# What is malformed.


@pytest.mark.parametrize(
    "message",
    [
        "text",
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        msgpack.packb({"state": {"updates": {"a": 1}}})[:-1],
        msgpack.packb({"state": {}}) + b"\x00",
        msgpack.packb({1: 2}),
        msgpack.packb({"state": 7}),
        msgpack.packb({"state": {"updates": [1]}}),
        msgpack.packb({"state": {"removals": [1]}}),
        msgpack.packb({"command": 1}),
        msgpack.packb({"command": {}}),
        msgpack.packb({"command": {"register": {"name": 5}}}),
        msgpack.packb({"command": {"register": {"name": "a", "arguments": [1]}}}),
        msgpack.packb({"command": [{"request": {"name": "a"}}, 3]}),
        msgpack.packb({"frame": {"frame.index": -1}}),
        msgpack.packb({"frame": {keys.POSITIONS: b"123"}}),
        b"\x81\xa5state" + b"\x91" * 3000,
        b"\x81\xa5state\x81\xa7updates\x81\xa1a\xa2\xff\xfe",
        msgpack.packb({"state": {"updates": {"a": msgpack.ExtType(4, b"x")}}}),
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
    ],
)
async def test_a_malformed_message_closes_the_connection_with_the_reason(
    connect: Connect, message: bytes | str
) -> None:
    client = connect()
    client.socket.say(message)
    code, reason = await client.over()
    assert code in (MALFORMED, REFUSED) and reason
    assert len(reason.encode()) <= MAX_REASON_BYTES


async def test_keys_that_nobody_knows_are_no_fault(connect: Connect) -> None:
    client = connect()
    client.socket.say({"hello": [1, 2]})
    client.socket.say({"state": {"updates": {"a": 1}}, "more": None})
    await until(lambda: client.session.written)
    assert client.socket.closed is None


async def test_too_many_items_are_refused_before_they_take_up_memory(connect: Connect) -> None:
    client = connect(max_message_items=100)
    client.socket.say({"state": {"updates": {"a": [[0] * 40, [0] * 40, {"x": [0] * 40}]}}})
    code, reason = await client.over()
    assert code == REFUSED and "100 items" in reason


@given(st.text(max_size=300))
def test_any_reason_fits_into_a_closing_message(text: str) -> None:
    reason = close_reason(text.encode(errors="ignore").decode())
    assert len(reason.encode()) <= MAX_REASON_BYTES


# Writes.


async def test_writes_reach_the_session_in_their_order_over_one_stream_that_ends_with_the_client(
    connect: Connect,
) -> None:
    client = connect()
    for number in range(200):
        client.socket.say({"state": {"updates": {"avatar.me": number}, "removals": ["x"]}})
    await until(lambda: len(client.session.written) == 200)
    assert [updates["avatar.me"] for updates, _ in client.session.written] == list(range(200))
    assert all(removals == ["x"] for _, removals in client.session.written)
    assert (client.session.writers, client.session.open_writers) == (1, 1)
    client.socket.hang_up()
    with pytest.raises(SocketClosed):
        await client.task
    assert client.session.open_writers == 0


async def test_a_stream_that_was_lost_is_opened_anew_with_the_next_write(connect: Connect) -> None:
    client = connect()
    client.socket.say({"state": {"updates": {"a": 1}}})
    await until(lambda: client.session.written)
    client.session.write_problem = UnavailableError("the imd service was lost")
    client.socket.say({"state": {"updates": {"b": 1}}})
    await until(lambda: client.session.open_writers == 0)
    client.session.write_problem = None
    client.socket.say({"state": {"updates": {"c": 1}}})
    await until(lambda: len(client.session.written) == 2)
    assert client.session.writers == 2 and client.socket.closed is None


async def test_whoever_may_only_watch_is_told_how_things_are_and_not_let_write(connect: Connect) -> None:
    client = connect("viewer")
    client.state.apply(StateChange(False, {"scene": [1.0]}, (), 1))
    await until(lambda: client.socket.states())
    count = len(client.socket.states())
    client.socket.say({"state": {"updates": {"scene": [2.0], "avatar.me": {}}, "removals": ["gone"]}})
    await until(lambda: len(client.socket.states()) > count)
    told = client.socket.states()[-1]
    assert told["updates"] == {"scene": [1.0]} and set(told["removals"]) == {"avatar.me", "gone"}
    assert client.session.writers == 0

    client.session.role = "participant"  # a host has changed their mind
    client.socket.say({"state": {"updates": {"scene": [2.0]}}})
    await until(lambda: client.session.written == [({"scene": [2.0]}, [])])


async def test_refused_writes_are_told_of_seldom_and_none_is_forgotten(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_client, "TELL_EVERY_S", 0.2)
    client = connect("viewer")
    await until(lambda: client.socket.states())
    with capture_logs() as logs:
        for number in range(300):
            client.socket.say({"state": {"updates": {f"key-{number}": number}}})
        known: set[str] = set()

        def all_told() -> bool:
            for state in client.socket.states():
                known.update(state["removals"])
            return len(known) == 300

        await until(all_told)
    assert len(client.socket.states()) <= 4
    client.socket.say({"state": {"updates": {f"many-{number}": number for number in range(2500)}}})
    told: set[str] = set()

    def many_told() -> bool:
        for state in client.socket.states():
            told.update(key for key in state["removals"] if key.startswith("many-"))
        return len(told) == 2500

    await until(many_told)
    assert len([entry for entry in logs if entry["event"] == "refused"]) <= 2


async def test_a_client_is_not_read_from_while_its_writes_wait(connect: Connect) -> None:
    client = connect()
    client.session.writable.clear()
    for number in range(3 * MAX_WAITING_WRITES):
        client.socket.say({"state": {"updates": {"a": number}}})
    for _ in range(1000):
        await asyncio.sleep(0)
    assert client.socket.taken <= MAX_WAITING_WRITES + 2
    client.session.writable.set()
    await until(lambda: len(client.session.written) == 3 * MAX_WAITING_WRITES)


async def test_large_writes_that_wait_are_bounded_in_bytes(connect: Connect) -> None:
    client = connect()
    client.session.writable.clear()
    for _ in range(20):
        client.socket.say({"state": {"updates": {"a": "x" * (MAX_WAITING_BYTES // 2)}}})
    for _ in range(1000):
        await asyncio.sleep(0)
    assert client.socket.taken <= 4
    client.session.writable.set()
    await until(lambda: len(client.session.written) == 20)


async def test_too_many_messages_close_the_connection(connect: Connect) -> None:
    client = connect(messages_per_s=10, message_burst=20)
    for _ in range(25):
        client.socket.say({})
    code, reason = await client.over()
    assert code == REFUSED and "more than 10 messages per second" in reason


async def test_too_many_bytes_close_the_connection(connect: Connect) -> None:
    client = connect(bytes_per_s=1024, max_message_bytes=10_000)
    for _ in range(5):
        client.socket.say({"x": "y" * 9000})
    code, reason = await client.over()
    assert code == REFUSED and "bytes per second" in reason


async def test_a_calm_client_never_meets_a_limit(connect: Connect) -> None:
    client = connect(messages_per_s=10, message_burst=20)
    for number in range(200):
        client.socket.say({"state": {"updates": {"a": number}}})
        await until(lambda number=number: len(client.session.written) == number + 1)  # type: ignore[misc]
        client.clock.advance(0.1)
    assert client.socket.closed is None


@pytest.mark.parametrize(
    ("problem", "code"),
    [(SessionEndedError("we were removed from the session: noise"), REFUSED)],
)
async def test_a_session_that_has_ended_for_the_client_closes_its_connection(
    connect: Connect, problem: SessionEndedError, code: int
) -> None:
    client = connect()
    await until(lambda: client.socket.states())
    client.session.ended = problem
    client.session.write_problem = problem
    client.socket.say({"state": {"updates": {"a": 1}}})
    assert await client.over() == (code, str(problem))


async def test_a_gateway_that_stops_says_so(connect: Connect) -> None:
    client = connect()
    await until(lambda: client.socket.states())
    client.feed.broadcaster.drain(UnavailableError("the gateway is stopping"))
    assert await client.over() == (GOING_AWAY, "the gateway is stopping")


# Frames of the client's.


async def test_frames_that_a_host_sends_are_published_and_others_are_not(connect: Connect) -> None:
    host, participant = connect("host"), connect()
    message = {"frame": {"frame.index": 0, keys.POSITIONS: np.ones((2, 3), "<f4").tobytes(), "title": "mine"}}
    for client in (host, participant):
        client.socket.say(message)
        client.socket.say({"state": {"updates": {"a": 1}}})
        await until(lambda client=client: client.session.written)  # type: ignore[misc]
        assert client.socket.closed is None
    ((values, arrays, index),) = host.session.published
    assert (values, index, arrays[keys.POSITIONS].shape) == ({"title": "mine"}, 0, (2, 3))
    assert participant.session.published == []


# Commands that it runs.


async def test_a_command_is_answered_with_its_request(connect: Connect) -> None:
    client = connect()
    request = {"name": "playback/step", "arguments": {"n": 2}, "id": 71, "more": [1]}
    client.socket.say({"command": {"request": request}})
    await until(client.socket.commands)
    assert client.socket.commands() == [{"request": request, "response": {"ran": "playback/step"}}]
    assert client.session.ran == [("playback/step", {"n": 2})]


async def test_commands_may_come_as_a_list_and_need_no_arguments_or_id(connect: Connect) -> None:
    client = connect()
    client.session.command = lambda name, arguments: {}
    client.socket.say({"command": [{"request": {"name": "a"}}, {"request": {"name": "b", "arguments": None}}]})
    await until(lambda: len(client.socket.commands()) == 2)
    said = sorted(client.socket.commands(), key=lambda item: str(item["request"]["name"]))
    assert said == [
        {"request": {"name": "a"}, "response": None},
        {"request": {"name": "b", "arguments": None}, "response": None},
    ]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"name": "fail", "id": 1}, "it failed"),
        ({"name": 5, "id": 1}, "must be a command's name"),
        ({"id": 1}, "must be a command's name"),
        ({"name": "a", "arguments": [1], "id": 1}, "must be a map"),
        ({"name": "a", "arguments": {1: 2}, "id": 1}, None),
    ],
)
async def test_a_command_that_fails_is_answered_with_why(
    connect: Connect, request_: dict[str, Any], says: str | None
) -> None:
    client = connect()

    def fail(name: str, arguments: Any) -> Any:
        raise CommandFailedError("it failed")

    client.session.command = fail
    client.socket.say({"command": {"request": request_}})
    if says is None:
        assert (await client.over())[0] == MALFORMED
        return
    await until(client.socket.commands)
    (answer,) = client.socket.commands()
    assert answer["request"] == request_ and says in answer["exception"]


@pytest.mark.parametrize("where", ["name", "arguments", "id"])
async def test_whatever_is_nested_deep_is_answered_all_the_same(connect: Connect, where: str) -> None:
    client = connect()
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    request = {"name": "a", "id": 9} | {where: {"x": deep} if where == "arguments" else deep}
    client.socket.say({"command": {"request": request}})
    await until(lambda: client.socket.raw and b"command" in client.socket.raw[-1])
    assert client.socket.closed is None
    assert client.socket.commands()[0].keys() == {"request", "exception" if where == "name" else "response"}


async def test_only_so_many_commands_run_at_a_time(connect: Connect) -> None:
    client = connect(max_commands=2)
    go_on = asyncio.Event()

    async def slow(name: str) -> dict[str, Any]:
        await go_on.wait()
        return {}

    client.session.command = lambda name, arguments: slow(name)
    for number in range(4):
        client.socket.say({"command": {"request": {"name": "slow", "id": number}}})
    await until(lambda: len(client.socket.commands()) == 2)
    assert [answer["request"]["id"] for answer in client.socket.commands()] == [2, 3]
    assert all("wait for one" in answer["exception"] for answer in client.socket.commands())
    client.socket.say({"state": {"updates": {"a": 1}}})
    await until(lambda: client.session.written)  # nothing else is held up
    go_on.set()
    await until(lambda: len(client.socket.commands()) == 4)


async def test_a_client_that_leaves_has_no_command_running_any_more(connect: Connect) -> None:
    client = connect()
    ended = asyncio.Event()

    async def slow() -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    client.session.command = lambda name, arguments: slow()
    client.socket.say({"command": {"request": {"name": "slow"}}})
    await until(lambda: client.session.ran)
    client.socket.hang_up()
    await asyncio.wait([client.task])
    assert ended.is_set()
    assert isinstance(client.task.exception(), SocketClosed)


# Commands that it provides.


async def test_a_provided_command_is_called_and_its_answer_passed_on(connect: Connect) -> None:
    client = connect()
    provider = await client.provided(greet={"name": "you"})
    assert provider.registered["greet"] == {"arguments": {"name": "you"}, "label": "L", "icon": "I"}
    provider.call(4, "greet", name="Ada")
    await until(client.socket.commands)
    request = {"name": "greet", "arguments": {"name": "Ada"}, "id": 4}
    assert client.socket.commands() == [{"request": request}]
    client.socket.say({"command": {"request": request, "response": {"said": "Hello"}}})
    await until(lambda: provider.answers)
    assert provider.answers == [(4, {"said": "Hello"}, "")]


@pytest.mark.parametrize(
    ("answer", "result", "error"),
    [
        ({"response": None}, None, ""),
        ({"exception": "it broke"}, None, "it broke"),
        ({"exception": ""}, None, "it failed"),
        ({"exception": {"deep": [1]}}, None, "{'deep': [1]}"),
        ({"response": [1, 2]}, None, "must be a map or nil"),
        ({"exception": "x" * 100_000}, None, "x" * commands.MAX_PROBLEM),
    ],
)
async def test_answers_of_every_kind_are_understood(
    connect: Connect, answer: dict[str, Any], result: Any, error: str
) -> None:
    client = connect()
    provider = await client.provided(greet={})
    provider.call(4, "greet")
    await until(client.socket.commands)
    client.socket.say({"command": {"request": {"id": 4}, **answer}})
    await until(lambda: provider.answers)
    ((id, given, said),) = provider.answers
    assert (id, given) == (4, result) and error in said and bool(error) == bool(said)


@pytest.mark.parametrize("id", [5, "4", None, [4], 4.0])
async def test_answers_to_no_call_and_answers_too_late_are_no_fault(connect: Connect, id: Any) -> None:
    client = connect()
    provider = await client.provided(greet={})
    provider.call(4, "greet")
    await until(client.socket.commands)
    client.socket.say({"command": {"request": {"id": id}, "response": {}}})
    client.socket.say({"command": {"request": {"id": 4}, "response": {"first": 1}}})
    client.socket.say({"command": {"request": {"id": 4}, "response": {"second": 1}}})
    client.socket.say({"state": {"updates": {"a": 1}}})
    await until(lambda: client.session.written)
    assert provider.answers == [(4, {"first": 1}, "")] and client.socket.closed is None


async def test_a_command_that_the_service_refuses_hinders_no_other(connect: Connect) -> None:
    client = connect()
    client.session.refused_commands["playback/play"] = FailedPreconditionError("the name is taken")
    client.socket.say({"command": {"register": {"name": "playback/play"}}})
    provider = await client.provided(mine={})
    assert set(provider.registered) == {"mine"} and len(client.session.providers) == 1


async def test_commands_are_provided_again_when_the_service_was_lost(connect: Connect) -> None:
    client = connect()
    first = await client.provided(mine={}, other={})
    client.session.refused_commands["mine"] = FailedPreconditionError("the name is taken")  # by the stream before
    first.lose(UnavailableError("the imd service was lost"))
    await until(lambda: len(client.session.providers) > 3)
    client.session.refused_commands.clear()
    await until(lambda: set(client.session.providers[-1].registered) == {"mine", "other"})
    assert client.socket.closed is None


async def test_a_viewers_commands_wait_until_it_may_provide_them(connect: Connect) -> None:
    client = connect("viewer")
    client.socket.say({"command": {"register": {"name": "mine"}}})
    for _ in range(50):
        await asyncio.sleep(0)
    assert client.session.providers == []
    client.session.role = "participant"
    await until(lambda: client.session.providers and "mine" in client.session.providers[-1].registered)


async def test_only_so_many_commands_are_provided(connect: Connect) -> None:
    client = connect()
    for number in range(commands.MAX_PROVIDED + 1):
        client.socket.say({"command": {"register": {"name": str(number)}}})
    code, reason = await client.over()
    assert code == REFUSED and str(commands.MAX_PROVIDED) in reason


async def test_a_role_that_is_taken_away_ends_no_connection(connect: Connect) -> None:
    client = connect()
    client.session.write_problem = PermissionDeniedError("a key is owned by somebody else")
    client.socket.say({"state": {"updates": {"avatar.you": 1}}})
    await until(lambda: any("avatar.you" in state["removals"] for state in client.socket.states()))
    assert client.socket.closed is None


WORDS = (
    "state updates removals command request response exception register name id arguments label icon frame "
    "frame.index particle.positions particle.elements interaction.1"
)
KEYS = st.sampled_from(WORDS.split())
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary()
MESSAGES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(KEYS, MESSAGES, max_size=3), min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_whatever_a_client_says_it_is_served_or_closed_with_a_reason(said: list[dict[str, Any]]) -> None:
    async def main() -> None:
        client = Connected(FakeClock(), "host")
        for message in said:
            client.socket.say(message)
        client.socket.hang_up()
        with pytest.raises(SocketClosed) if client.socket.closed is None else contextlib.nullcontext():
            with contextlib.suppress(SocketClosed):
                await client.task
            if client.socket.closed is None:
                raise SocketClosed
            assert client.socket.closed[0] in (MALFORMED, REFUSED) and client.socket.closed[1]
            raise SocketClosed

    asyncio.run(main())


async def test_ten_thousand_spoilt_messages_are_taken_or_refused_and_nothing_else(connect: Connect) -> None:
    client = connect("host", messages_per_s=1e9, message_burst=10**9, bytes_per_s=10**12)
    client.session.command = lambda name, arguments: to_struct(arguments, "arguments") and {}
    outcomes: Counter[str] = Counter()
    for number, message in enumerate(itertools.islice(spoilt_messages(1), 10_000)):
        try:
            await client.client._take(message)
        except NarupaError as error:
            assert str(error)
            outcomes[type(error).__name__] += 1
        else:
            outcomes["taken"] += 1
        if number % 100 == 0:
            await asyncio.sleep(0)
    assert outcomes["InvalidArgumentError"] > 3000 and outcomes["taken"] > 1000
    assert outcomes.total() == 10_000
    client.socket.say({"state": {"updates": {"last": 1}}})
    await until(lambda: client.session.written[-1][0] == {"last": 1})
    assert client.socket.closed is None
