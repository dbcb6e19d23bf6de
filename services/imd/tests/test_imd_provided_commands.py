"""Commands that clients provide: names, limits, calls and their ends, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from narupa_imd.provided_commands import (
    MAX_CALLS_PER_PROVIDER,
    MAX_COMMANDS,
    MAX_COMMANDS_PER_OWNER,
    RESERVED_PREFIXES,
    Call,
    ProvidedCommands,
)
from narupa_shared.errors import (
    AlreadyExistsError,
    CommandFailedError,
    InvalidArgumentError,
    NarupaError,
    NoAnswerError,
    PermissionDeniedError,
    QuotaError,
    UnavailableError,
)
from narupa_shared.structs import from_struct, to_struct
from narupa_shared.testing.clock import FakeClock

ANNA, BERT = "user:anna", "user:bert"
NOTHING = to_struct({})


class Caller:
    """What became of calls."""

    def __init__(self, provided: ProvidedCommands) -> None:
        self._provided = provided
        self.outcomes: dict[int, Any] = {}

    def call(self, command: str, /, **arguments: Any) -> Call:
        number = len(self.outcomes)
        self.outcomes[number] = None

        def done(outcome: dict[str, Any] | NarupaError) -> None:
            assert self.outcomes[number] is None, "a call is over once"
            self.outcomes[number] = outcome

        return self._provided.call(command, arguments, "carl", done)


@pytest.fixture
def provided(clock: FakeClock) -> ProvidedCommands:
    made = ProvidedCommands(clock, lambda name: name == "own", answer_s=10)
    made.begin("a#1", ANNA, lambda: None)
    made.begin("b#1", BERT, lambda: None)
    return made


@pytest.fixture
def caller(provided: ProvidedCommands) -> Caller:
    return Caller(provided)


def names(provided: ProvidedCommands) -> list[str]:
    return [command.name for command in provided.commands()]


def test_a_command_is_listed_with_what_its_provider_says(provided: ProvidedCommands) -> None:
    provided.register("a#1", "greet", to_struct({"name": "you", "loud": None}), "Greet", "👩‍🔬")
    [command] = provided.commands()
    assert (command.name, command.label, command.icon, command.owner) == ("greet", "Greet", "👩‍🔬", ANNA)
    assert command.arguments == {"name": "you", "loud": None} and "greet" in provided and "own" not in provided


@pytest.mark.parametrize(
    ("name", "facts", "error"),
    [
        ("", {}, InvalidArgumentError),
        ("x" * 129, {}, InvalidArgumentError),
        ("a\nb", {}, InvalidArgumentError),
        ("a\u202eb", {}, InvalidArgumentError),
        ("own", {}, PermissionDeniedError),
        *((prefix + "x", {}, PermissionDeniedError) for prefix in RESERVED_PREFIXES),
        ("x", {"label": "l" * 257}, InvalidArgumentError),
        ("x", {"label": "two\nlines"}, InvalidArgumentError),
        ("x", {"icon": "i" * 65}, InvalidArgumentError),
        ("x", {"arguments": {str(n): n for n in range(65)}}, QuotaError),
        ("x", {"arguments": {"a": "x" * 20_000}}, QuotaError),
    ],
)
def test_what_is_not_fit_is_refused(
    provided: ProvidedCommands, name: str, facts: dict[str, Any], error: type[NarupaError]
) -> None:
    with pytest.raises(error):
        provided.register("a#1", name, to_struct(facts.pop("arguments", {})), **facts)
    assert not provided.commands()


def nested(depth: int) -> Struct:
    """A map in a map, and so on."""
    struct = Struct()
    at = struct
    for _ in range(depth):
        at = at.fields["x"].struct_value
    at.fields["x"].bool_value = True
    return struct


def test_nested_defaults_are_refused(provided: ProvidedCommands) -> None:
    with pytest.raises(InvalidArgumentError, match="nested too deeply"):
        provided.register("a#1", "x", nested(30))
    assert not provided.commands()


def test_a_name_belongs_to_its_owner_who_may_replace_it(provided: ProvidedCommands, caller: Caller) -> None:
    provided.register("a#1", "x", to_struct({"old": 1.0}))
    with pytest.raises(AlreadyExistsError, match="somebody else"):
        provided.register("b#1", "x", NOTHING)
    provided.begin("a#2", ANNA, lambda: None)
    provided.register("a#2", "x", to_struct({"new": 1.0}))
    assert len(provided) == 1
    caller.call("x")
    assert not provided.take_calls("a#1") and len(provided.take_calls("a#2")) == 1
    provided.end("a#1")
    assert names(provided) == ["x"]
    provided.withdraw("b#1", "x")
    assert names(provided) == ["x"]
    provided.end("a#2")
    provided.register("b#1", "x", NOTHING)


def test_so_many_commands_and_no_more(provided: ProvidedCommands) -> None:
    for number in range(MAX_COMMANDS_PER_OWNER):
        provided.register("a#1", f"a{number}", NOTHING)
    with pytest.raises(QuotaError, match="more than the 64 that a client"):
        provided.register("a#1", "more", NOTHING)
    provided.register("a#1", "a0", NOTHING)
    provided.withdraw("a#1", "a1")
    provided.withdraw("a#1", "a1")
    provided.register("a#1", "more", NOTHING)
    for number in range(MAX_COMMANDS - MAX_COMMANDS_PER_OWNER):
        provider = f"c{number // 64}"
        if number % 64 == 0:
            provided.begin(provider, provider, lambda: None)
        provided.register(provider, f"c{number}", NOTHING)
    with pytest.raises(QuotaError, match="256 that fit"):
        provided.register("b#1", "b", NOTHING)
    provided.end("a#1")
    provided.register("b#1", "b", NOTHING)


def test_a_call_has_the_callers_arguments_over_the_defaults(provided: ProvidedCommands, caller: Caller) -> None:
    told: list[str] = []
    provided.begin("c#1", "user:cora", lambda: told.append("news"))
    provided.register("c#1", "greet", to_struct({"name": "you", "loud": False}))
    caller.call("greet", name="Ada", more=[1.0])
    assert told == ["news"]
    [call] = provided.take_calls("c#1")
    assert (call.name, call.caller) == ("greet", "carl")
    assert from_struct(call.arguments) == {"name": "Ada", "loud": False, "more": [1.0]}
    assert not provided.take_calls("c#1")
    provided.answer("c#1", call.id, to_struct({"said": "x"}))
    provided.answer("c#1", call.id, to_struct({"said": "again"}))
    assert caller.outcomes == {0: {"said": "x"}}


def test_nobody_answers_for_another(provided: ProvidedCommands, caller: Caller) -> None:
    provided.register("a#1", "x", NOTHING)
    call = caller.call("x")
    provided.answer("b#1", call.id, to_struct({"stolen": True}))
    provided.answer("gone", call.id, to_struct({"stolen": True}))
    assert caller.outcomes == {0: None}


@pytest.mark.parametrize(
    ("result", "error", "says"),
    [
        (NOTHING, "it\nbroke" + "!" * 5000, "the command 'x' failed: it broke!"),
        (to_struct({"x": "y" * 1_100_000}), "", "at most 1048576"),
        (nested(30), "", "nested too deeply"),
    ],
)
def test_a_failure_and_a_bad_result_are_told(
    provided: ProvidedCommands, caller: Caller, result: Struct, error: str, says: str
) -> None:
    provided.register("a#1", "x", NOTHING)
    provided.answer("a#1", caller.call("x").id, result, error)
    [outcome] = caller.outcomes.values()
    assert isinstance(outcome, CommandFailedError) and says in str(outcome) and len(str(outcome)) < 1100


def test_a_provider_that_is_gone_fails_its_calls(provided: ProvidedCommands, caller: Caller) -> None:
    provided.register("a#1", "x", NOTHING)
    caller.call("x")
    provided.take_calls("a#1")
    caller.call("x")
    provided.end("a#1")
    provided.end("a#1")
    assert [type(outcome) for outcome in caller.outcomes.values()] == [UnavailableError] * 2
    with pytest.raises(InvalidArgumentError, match="nobody provides it"):
        caller.call("x")
    assert not provided.take_calls("a#1")
    with pytest.raises(UnavailableError):
        provided.register("a#1", "x", NOTHING)
    provided.withdraw("a#1", "x")


def test_a_silent_provider_fails_its_calls_in_time(
    provided: ProvidedCommands, caller: Caller, clock: FakeClock
) -> None:
    provided.register("a#1", "x", NOTHING)
    first = caller.call("x")
    clock.advance(6)
    second = caller.call("x")
    clock.advance(4)
    provided.expire()
    assert isinstance(caller.outcomes[0], NoAnswerError) and caller.outcomes[1] is None
    assert "did not answer within 10 s" in str(caller.outcomes[0])
    provided.answer("a#1", first.id, to_struct({"late": True}))
    provided.answer("a#1", second.id, to_struct({"in": "time"}))
    assert caller.outcomes[1] == {"in": "time"}


@pytest.mark.parametrize("release", ["answered", "expired", "abandoned before it was sent"])
def test_so_many_calls_at_a_time(provided: ProvidedCommands, caller: Caller, clock: FakeClock, release: str) -> None:
    provided.register("a#1", "x", NOTHING)
    calls = [caller.call("x") for _ in range(MAX_CALLS_PER_PROVIDER)]
    with pytest.raises(QuotaError, match="64 calls to answer already"):
        caller.call("x")
    match release:
        case "answered":
            provided.answer("a#1", calls[3].id, NOTHING)
        case "expired":
            clock.advance(10)
        case _:
            provided.abandon(calls[3])
    caller.call("x")


def test_callers_who_leave_do_not_make_room_for_more(provided: ProvidedCommands, caller: Caller) -> None:
    provided.register("a#1", "x", NOTHING)
    for _ in range(MAX_CALLS_PER_PROVIDER):
        call = caller.call("x")
        provided.take_calls("a#1")
        provided.abandon(call)
    with pytest.raises(QuotaError):
        caller.call("x")
    provided.end("a#1")
    assert set(caller.outcomes.values()) == {None}


def test_large_arguments_are_refused(provided: ProvidedCommands, caller: Caller) -> None:
    provided.register("a#1", "x", NOTHING)
    with pytest.raises(QuotaError, match="at most 262144"):
        caller.call("x", text="y" * 300_000)
    with pytest.raises(InvalidArgumentError, match="cannot be sent"):
        caller.call("x", what=object())
    assert not provided.take_calls("a#1")


def test_a_callback_may_call_again() -> None:
    """A caller that reacts to an end at once meets a table in order."""
    provided = ProvidedCommands(lambda: 0.0, lambda _: False)
    provided.begin("a#1", ANNA, lambda: None)
    provided.register("a#1", "x", NOTHING)
    again: list[Callable[[], object]] = [lambda: provided.register("a#1", "y", NOTHING)]
    problems: list[NarupaError] = []

    def done(outcome: object) -> None:
        try:
            again.pop()()
        except NarupaError as error:
            problems.append(error)

    provided.call("x", {}, "carl", done)
    provided.end("a#1")
    assert not provided.commands() and isinstance(problems[0], UnavailableError)
