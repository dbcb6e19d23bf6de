"""All commands at this service: its own, and those that clients provide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from narupa_imd.origins import register_origins
from narupa_imd.provided_commands import ProvidedCommands
from narupa_imd.session import ImdSession
from narupa_imd.wire import shown_owner
from narupa_shared.access import check_command
from narupa_shared.auth import Caller
from narupa_shared.commands import CommandTable
from narupa_shared.errors import NarupaError


class ImdCommands:
    """What can be run here, by whomever and whoever runs it.

    Attributes:
        own: The service's.
        provided: The clients'.
    """

    def __init__(self, session: ImdSession, clock: Callable[[], float], answer_s: float) -> None:
        """`clock` gives s; a client has `answer_s` to answer a call."""
        self._clock = clock
        self.own = CommandTable(self._described)
        register_origins(self.own, session)
        self.provided = ProvidedCommands(clock, lambda name: name in self.own.listing(), answer_s)

    def listing(self) -> dict[str, Mapping[str, Any]]:
        """Every command's name with its default arguments."""
        return {**self.own.listing(), **{command.name: command.arguments for command in self.provided.commands()}}

    async def run_for(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of the command, once it is known that the caller may run it.

        Raises:
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: unknown command, or an unknown, missing or wrong argument.
            QuotaError: the client that provides it has too much to answer, or the arguments are too large.
            CommandFailedError, UnavailableError, NoAnswerError: that client reports a failure, is gone, is silent.
        """
        if name not in self.provided:
            return await self.own.run_for(caller, name, arguments)
        check_command(caller, name, provided=True)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def done(outcome: dict[str, Any] | NarupaError) -> None:
            if answered.done():
                return
            if isinstance(outcome, NarupaError):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)

        call = self.provided.call(name, arguments, shown_owner(caller.owner), done)
        try:
            while not answered.done():
                await asyncio.wait({answered}, timeout=max(call.deadline - self._clock(), 0.001))
                self.provided.expire()
            return answered.result()
        finally:
            self.provided.abandon(call)
            if not answered.cancel() and not answered.cancelled():
                answered.exception()  # or the loop would complain that nobody asked

    def _described(self) -> Iterator[dict[str, Any]]:
        for command in self.provided.commands():
            texts = {"label": command.label, "icon": command.icon}
            yield {
                "name": command.name,
                "arguments": dict(command.arguments),
                **{name: text for name, text in texts.items() if text},
            }
