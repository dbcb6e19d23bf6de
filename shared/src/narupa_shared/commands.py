"""A table of named commands with declared arguments, checked one by one before anything runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from narupa_shared.access import check_command
from narupa_shared.errors import InvalidArgumentError

if TYPE_CHECKING:
    from narupa_shared.auth import Caller

ArgumentKind = Literal["float", "int", "str", "bool"]
Result = Mapping[str, Any] | None
Handler = Callable[..., Awaitable[Result] | Result]

LISTING: Final = "commands/list"
MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command.

    Attributes:
        name: Also the handler's keyword.
        kind: What values it takes; a whole number in any notation is an int.
        default: Used when the caller gives none; None means that the caller must give one.
        minimum: Smallest number allowed.
        maximum: Largest number allowed.
    """

    name: str
    kind: ArgumentKind
    default: float | int | str | bool | None = None
    minimum: float = -math.inf
    maximum: float = math.inf

    def checked(self, command: str, value: object) -> float | int | str | bool:
        """`value` as this argument's kind.

        Raises:
            InvalidArgumentError: of another kind, not finite, or out of range.
        """
        name = f"{command}.{self.name}"
        if self.kind == "bool":
            if not isinstance(value, bool):
                raise InvalidArgumentError(name, value, "must be true or false")
            return value
        if self.kind == "str":
            if not isinstance(value, str) or len(value) > MAX_TEXT:
                raise InvalidArgumentError(name, value, f"must be text of at most {MAX_TEXT} characters")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidArgumentError(name, value, "must be a number")
        if not math.isfinite(value):
            raise InvalidArgumentError(name, value, "must be finite")
        if not self.minimum <= value <= self.maximum:
            raise InvalidArgumentError(name, value, f"must be {_range(self.minimum, self.maximum)}")
        if self.kind == "float":
            return float(value)
        if int(value) != value:
            raise InvalidArgumentError(name, value, "must be a whole number")
        return int(value)


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what runs and with which arguments."""

    name: str
    handler: Handler
    arguments: tuple[Argument, ...]

    def defaults(self) -> dict[str, Any]:
        return {argument.name: argument.default for argument in self.arguments if argument.default is not None}

    def overlaid(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The handler's keywords: the defaults overlaid with what the caller gave, all checked.

        Raises:
            InvalidArgumentError: an unknown, missing or wrong argument.
        """
        known = {argument.name for argument in self.arguments}
        for name, value in given.items():
            if name not in known:
                choice = f"use {', '.join(sorted(known))}" if known else "it takes none"
                raise InvalidArgumentError(f"{self.name}.{name}", value, f"unknown argument; {choice}")
        keywords: dict[str, Any] = {}
        for argument in self.arguments:
            value = given.get(argument.name)
            value = argument.default if value is None else value
            if value is None:
                raise InvalidArgumentError(f"{self.name}.{argument.name}", None, "this argument must be given")
            keywords[argument.name] = argument.checked(self.name, value)
        return keywords


class CommandTable:
    """The commands of one service. `commands/list` is always among them."""

    def __init__(self, others: Callable[[], Iterable[Mapping[str, Any]]] = tuple) -> None:
        """`others` describes commands that are run elsewhere and listed here too: maps with `name`, `arguments` and more."""
        self._others = others
        self._commands: dict[str, Command] = {}
        self.register(LISTING, self._list)

    def register(self, name: str, handler: Handler, *arguments: Argument) -> None:
        """`name` runs `handler`, a function or coroutine function that takes the arguments as keywords.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._commands:
            raise ValueError(f"command {name} is registered already")
        self._commands[name] = Command(name, handler, arguments)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Every command's name with its default arguments."""
        return {command.name: command.defaults() for command in self._commands.values()}

    async def run_for(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """As `run`, once it is known that the caller may.

        Raises:
            PermissionDeniedError: the caller may not.
        """
        check_command(caller, name)
        return await self.run(name, arguments)

    async def run(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of the command.

        Raises:
            InvalidArgumentError: unknown command, or an unknown, missing or wrong argument.
            NarupaError: what the command itself raises.
        """
        command = self._commands.get(name)
        if command is None:
            raise InvalidArgumentError(
                "command", name, f"unknown; this service has {', '.join(sorted(self._commands))}"
            )
        result = command.handler(**command.overlaid(arguments))
        if inspect.isawaitable(result):
            result = await result
        return dict(result or {})

    def _list(self) -> dict[str, Any]:
        own = [{"name": name, "arguments": defaults} for name, defaults in self.listing().items()]
        commands = [*own, *map(dict, self._others())]
        return {"list": {item["name"]: item["arguments"] for item in commands}, "commands": commands}


def _range(minimum: float, maximum: float) -> str:
    if math.isinf(maximum):
        return f"{minimum:g} or more"
    return f"at most {maximum:g}" if math.isinf(minimum) else f"between {minimum:g} and {maximum:g}"
