"""Commands that clients provide: who has which, and the calls that they have yet to answer. No I/O."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct

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

# Names that begin so are services' own, there or not.
RESERVED_PREFIXES: Final = ("playback/", "trajectory/", "imd/", "commands/", "multiuser/")
MAX_NAME: Final = 128
MAX_LABEL: Final = 256
MAX_ICON: Final = 64
MAX_ARGUMENTS: Final = 64
MAX_ARGUMENT_BYTES: Final = 16 * 1024
MAX_CALL_BYTES: Final = 256 * 1024
MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_ERROR: Final = 1000
MAX_COMMANDS_PER_OWNER: Final = 64
MAX_COMMANDS: Final = 256
MAX_CALLS_PER_PROVIDER: Final = 64
ANSWER_S: Final = 10.0

# Gets the result of a call, or why there is none.
Done = Callable[[dict[str, Any] | NarupaError], None]


@dataclass(frozen=True, slots=True)
class ProvidedCommand:
    """A command, and who runs it.

    Attributes:
        name: 1 to 128 printable characters.
        arguments: The defaults; the provider decides which others it takes.
        label: What people call it; may be empty.
        icon: For people, such as an emoji; may be empty.
        owner: Who provides it, as `Writer.owner`.
        provider: What it lives as long as: one stream of its owner's.
    """

    name: str
    arguments: Mapping[str, Any]
    label: str
    icon: str
    owner: str
    provider: str


@dataclass(slots=True)
class Call:
    """One run of a command.

    Attributes:
        id: What its answer names.
        name: Of the command.
        arguments: The caller's over the defaults.
        caller: Who asked, as others see them.
        deadline: When it has failed without an answer, by the clock, s.
    """

    id: int
    name: str
    arguments: Struct
    caller: str
    deadline: float
    done: Done | None
    sent: bool = False


@dataclass(slots=True)
class _Provider:
    owner: str
    news: Callable[[], None]
    commands: set[str] = field(default_factory=set)
    calls: dict[int, Call] = field(default_factory=dict)


class ProvidedCommands:
    """The one owner of what clients provide. Synchronous; to be used from one thread."""

    def __init__(self, clock: Callable[[], float], is_own: Callable[[str], bool], answer_s: float = ANSWER_S) -> None:
        """Nothing is provided yet.

        Args:
            clock: Gives seconds.
            is_own: Whether a name is that of a command of the service's own.
            answer_s: For how long a call waits for its answer, s.
        """
        self._clock = clock
        self._is_own = is_own
        self._answer_s = answer_s
        self._commands: dict[str, ProvidedCommand] = {}
        self._providers: dict[str, _Provider] = {}
        self._counts: Counter[str] = Counter()  # commands by owner
        self._numbers = itertools.count(1)

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __len__(self) -> int:
        return len(self._commands)

    def commands(self) -> list[ProvidedCommand]:
        """All there are, the oldest first."""
        return list(self._commands.values())

    # What the provider does.

    def begin(self, provider: str, owner: str, news: Callable[[], None]) -> None:
        """`provider`, a stream of `owner`'s, may register commands; `news` is called whenever `take_calls` has some for it."""
        self._providers[provider] = _Provider(owner, news)

    def register(self, provider: str, name: str, arguments: Struct, label: str = "", icon: str = "") -> None:
        """`name` is a command of this provider's; an earlier one of that name, of the same owner, is replaced.

        Raises:
            InvalidArgumentError: bad name, label, icon or arguments.
            PermissionDeniedError: the name is one for the services' own.
            AlreadyExistsError: the name is somebody else's.
            QuotaError: too many commands, or too large defaults.
            UnavailableError: the provider has ended.
        """
        if provider not in self._providers:
            raise UnavailableError("the stream that would provide the command is over")
        owner = self._providers[provider].owner
        defaults = _checked(name, arguments, label, icon)
        if name.startswith(RESERVED_PREFIXES) or self._is_own(name):
            raise PermissionDeniedError(
                f"the command {name!r} would have the name of a service's own; choose one that does not begin with "
                f"{', '.join(RESERVED_PREFIXES)}"
            )
        present = self._commands.get(name)
        if present and present.owner != owner:
            raise AlreadyExistsError(f"the command {name!r} is provided by somebody else already; choose another name")
        if present is None and self._counts[owner] >= MAX_COMMANDS_PER_OWNER:
            raise QuotaError(
                f"the command {name!r} is one more than the {MAX_COMMANDS_PER_OWNER} that a client may provide"
            )
        if present is None and len(self._commands) >= MAX_COMMANDS:
            raise QuotaError(
                f"the command {name!r} is one more than the {MAX_COMMANDS} that fit; some must be withdrawn"
            )
        if present:
            self._forget(present)
        self._commands[name] = ProvidedCommand(name, defaults, label, icon, owner, provider)
        self._providers[provider].commands.add(name)
        self._counts[owner] += 1

    def withdraw(self, provider: str, name: str) -> None:
        """`name` is no command of this provider's; calls of it can still be answered."""
        command = self._commands.get(name)
        if command and command.provider == provider:
            self._forget(command)

    def take_calls(self, provider: str) -> list[Call]:
        """Calls that the provider is to be sent now; each is given once."""
        if provider not in self._providers:
            return []
        calls = [call for call in self._providers[provider].calls.values() if not call.sent]
        for call in calls:
            call.sent = True
        return calls

    def answer(self, provider: str, id: int, result: Struct, error: str = "") -> None:
        """The call `id` of this provider's is over, with `result` or, where there is one, `error`. One that is over is
        not answered again.
        """
        call = self._providers[provider].calls.pop(id, None) if provider in self._providers else None
        if call is None or call.done is None:
            return
        call.done(_failure(call, error) if error else _result(call, result))

    def end(self, provider: str) -> None:
        """The provider is gone, its commands with it, and its calls have failed. Idempotent."""
        gone = self._providers.pop(provider, None)
        if gone is None:
            return
        for name in gone.commands:
            self._counts_down(self._commands.pop(name))
        for call in gone.calls.values():
            if call.done:
                call.done(UnavailableError(f"the client that provides the command {call.name!r} is gone"))

    # What a caller does.

    def call(self, name: str, arguments: Mapping[str, Any], caller: str, done: Done) -> Call:
        """The provider of `name` is to be sent a call, and `done` is called with its result, or why there is none.

        Raises:
            InvalidArgumentError: no such command, or arguments that cannot be sent.
            QuotaError: too large arguments, or too many calls that the provider has yet to answer.
        """
        self.expire()
        command = self._commands.get(name)
        if command is None:
            raise InvalidArgumentError("command", name, "nobody provides it (any more)")
        sent = to_struct({**command.arguments, **arguments}, f"arguments of {name}")
        if (size := sent.ByteSize()) > MAX_CALL_BYTES:
            raise QuotaError(f"the arguments of {name!r} have {size} bytes; at most {MAX_CALL_BYTES} are passed on")
        provider = self._providers[command.provider]
        if len(provider.calls) >= MAX_CALLS_PER_PROVIDER:
            raise QuotaError(f"{name!r} has {MAX_CALLS_PER_PROVIDER} calls to answer already; try again later")
        call = Call(next(self._numbers), name, sent, caller, self._clock() + self._answer_s, done)
        provider.calls[call.id] = call
        provider.news()
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for the answer any more. A call that its provider has been sent counts until it is over all the same."""
        call.done = None
        if not call.sent:
            for provider in self._providers.values():
                provider.calls.pop(call.id, None)

    def expire(self) -> None:
        """Calls whose time is over have failed."""
        now = self._clock()
        for provider in self._providers.values():
            for call in [call for call in provider.calls.values() if call.deadline <= now]:
                del provider.calls[call.id]
                if call.done:
                    call.done(
                        NoAnswerError(
                            f"the client that provides the command {call.name!r} did not answer within {self._answer_s:g} s"
                        )
                    )

    def _forget(self, command: ProvidedCommand) -> None:
        del self._commands[command.name]
        self._providers[command.provider].commands.discard(command.name)
        self._counts_down(command)

    def _counts_down(self, command: ProvidedCommand) -> None:
        self._counts[command.owner] -= 1
        if not self._counts[command.owner]:
            del self._counts[command.owner]


def _checked(name: str, arguments: Struct, label: str, icon: str) -> dict[str, Any]:
    """The defaults, once all is known to be fit to be shown to everybody."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidArgumentError("name", name, f"a command's name is 1 to {MAX_NAME} printable characters")
    for field_name, text, limit in (("label", label, MAX_LABEL), ("icon", icon, MAX_ICON)):
        # An emoji may be several characters, some of them not printable by themselves.
        if len(text) > limit or any(character < " " or character == "\x7f" for character in text):
            raise InvalidArgumentError(f"{name}.{field_name}", text, f"is at most {limit} characters on one line")
    if len(arguments.fields) > MAX_ARGUMENTS:
        raise QuotaError(f"{name!r} has {len(arguments.fields)} arguments; at most {MAX_ARGUMENTS} are listed")
    if (size := arguments.ByteSize()) > MAX_ARGUMENT_BYTES:
        raise QuotaError(f"the arguments of {name!r} have {size} bytes; at most {MAX_ARGUMENT_BYTES} are kept")
    return from_struct(arguments, f"{name}.arguments")


def _failure(call: Call, error: str) -> NarupaError:
    return CommandFailedError(f"the command {call.name!r} failed: {' '.join(error.split())[:MAX_ERROR]}")


def _result(call: Call, result: Struct) -> dict[str, Any] | NarupaError:
    if (size := result.ByteSize()) > MAX_RESULT_BYTES:
        return CommandFailedError(
            f"the command {call.name!r} gave a result of {size} bytes; at most {MAX_RESULT_BYTES} are passed on"
        )
    try:
        return from_struct(result, f"result of {call.name}")
    except InvalidArgumentError as error:
        return CommandFailedError(f"the command {call.name!r} gave a result that cannot be passed on: {error}")
