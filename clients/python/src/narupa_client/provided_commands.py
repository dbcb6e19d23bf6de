"""Commands that this client provides: others run them, and it answers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from narupa_client.connection import CALL_TIMEOUT_S
from narupa_client.duplex import Duplex
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.route import Route
from narupa_client.tasks import TaskScope, ended
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as v1
from narupa_shared.structs import from_struct, to_struct

log = logging.getLogger(__name__)

# Takes the arguments as keywords.
Handler = Callable[..., Awaitable[Mapping[str, Any] | None] | Mapping[str, Any] | None]

_PATH: Final = "/narupa.imd.v1.CommandService/ProvideCommands"


@dataclass(frozen=True, slots=True)
class CommandCall:
    """Somebody runs a command of ours.

    Attributes:
        id: What the answer names.
        name: Of the command.
        arguments: The caller's over the defaults.
        caller: User id, or the address of a client without a token.
    """

    id: int
    name: str
    arguments: Mapping[str, Any]
    caller: str


class CommandProvider:
    """Commands that are there for as long as this `async with` is open, and their calls, as an async iterator.

    It does not come back by itself when the service is lost: the iterator raises why, and the commands are gone.
    """

    def __init__(self, route: Route, scope: TaskScope) -> None:
        types = (v1.ProvideCommandsRequest, v1.ProvideCommandsResponse)
        self._stream = Duplex(route, scope, _PATH, types, self._take, self._lose)
        self._registering: dict[str, deque[asyncio.Future[None]]] = {}
        self._calls: deque[CommandCall] = deque()
        self._news = asyncio.Event()

    @property
    def problem(self) -> NarupaError | None:
        """Why nothing can be provided any more; None while it can."""
        return self._stream.problem

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stream.__aexit__(*exc)

    async def register(
        self, name: str, arguments: Mapping[str, Any] | None = None, label: str = "", icon: str = ""
    ) -> None:
        """`name` can be run by everybody in the session who may; calls of it come out of the iterator.

        Args:
            name: 1 to 128 printable characters; one of ours that is there already is replaced.
            arguments: The defaults.
            label: For people.
            icon: For people, such as an emoji.

        Raises:
            InvalidArgumentError: arguments that cannot be sent.
            FailedPreconditionError: the service refuses the command, because its name is taken, or for what it says.
            UnavailableError: the service was lost, or does not answer.
        """
        command = v1.Command(name=name, arguments=to_struct(arguments or {}, "arguments"), label=label, icon=icon)
        self._stream.send(v1.ProvideCommandsRequest(register=command))
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._registering.setdefault(name, deque()).append(answer)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await answer
        except TimeoutError as error:
            raise UnavailableError(f"the imd service did not say in time whether it takes {name!r}") from error

    async def withdraw(self, name: str) -> None:
        """`name` is no command of ours; one that is gone is no error.

        Raises:
            NarupaError: the service was lost, as the iterator raises it.
        """
        self._stream.send(v1.ProvideCommandsRequest(withdraw=name))

    async def answer(self, call: CommandCall, result: Mapping[str, Any] | None = None, *, error: str = "") -> None:
        """The caller gets `result`, or `error` where there is one, or why the result cannot be sent.

        Raises:
            NarupaError: the service was lost, as the iterator raises it.
        """
        message = v1.CommandResult(call=call.id, error=error.encode(errors="replace").decode())
        try:
            message.result.CopyFrom(to_struct(result or {}, "result"))
        except InvalidArgumentError as problem:
            message.error = str(problem)
        self._stream.send(v1.ProvideCommandsRequest(result=message))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CommandCall:
        while not self._calls:
            if self._stream.problem is not None:
                raise self._stream.problem
            self._news.clear()
            await self._news.wait()
        return self._calls.popleft()

    def _take(self, reply: v1.ProvideCommandsResponse) -> None:
        match reply.WhichOneof("event"):
            case "call":
                call = reply.call
                arguments = from_struct(call.arguments, "arguments")
                self._calls.append(CommandCall(call.call, call.name, arguments, call.caller))
                self._news.set()
            case "registered":
                self._registered(reply.registered, None)
            case "refused":
                self._registered(reply.refused.name, FailedPreconditionError(reply.refused.error))

    def _registered(self, name: str, refusal: NarupaError | None) -> None:
        # Requests are answered in their order.
        waiting = self._registering.get(name)
        if not waiting:
            return
        answer = waiting.popleft()
        if not waiting:
            del self._registering[name]
        if answer.done():
            return
        if refusal:
            answer.set_exception(refusal)
        else:
            answer.set_result(None)

    def _lose(self, problem: NarupaError) -> None:
        for waiting in self._registering.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(problem)
        self._registering.clear()
        self._news.set()


class ProvidedCommand:
    """One command, run by `handler` for as long as its `async with` is open, whoever asks and wherever the service is then.

    Attributes:
        name: Under which others run it.
    """

    def __init__(
        self,
        route: Route,
        scope: TaskScope,
        policy: RetryPolicy,
        name: str,
        handler: Handler,
        arguments: Mapping[str, Any],
        label: str,
        icon: str,
    ) -> None:
        self.name = name
        self._route = route
        self._scope = scope
        self._policy = policy
        self._handler = handler
        self._arguments = arguments
        self._label = label
        self._icon = icon
        self._task: asyncio.Task[None] | None = None
        self._there: asyncio.Future[None] | None = None
        self.trouble: str | None = None
        """Why nobody can run it at present; None while they can."""

    async def __aenter__(self) -> Self:
        """Others can run it.

        Raises:
            FailedPreconditionError: the service refuses the command, because its name is taken, or for what it says.
            UnavailableError: the service cannot be reached.
        """
        self._there = asyncio.get_running_loop().create_future()
        self._task = self._scope.spawn(self._run(self._there), f"narupa-command-{self.name}")
        self._task.add_done_callback(self._over)
        try:
            await self._there
        except BaseException:
            await ended(self._task)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await ended(self._task)

    def _over(self, _: object) -> None:
        if self._there is not None and not self._there.done():
            self._there.set_exception(UnavailableError("the session is closed"))

    async def _run(self, there: asyncio.Future[None]) -> None:
        attempts = Attempts(self._policy)
        while True:
            attempts.started()
            try:
                async with CommandProvider(self._route, self._scope) as provider:
                    await self._register(provider, there.done())
                    attempts.succeeded()
                    self.trouble = None
                    if not there.done():
                        there.set_result(None)
                    await self._serve(provider)
            except NarupaError as problem:
                self.trouble = str(problem)
                if not there.done():
                    there.set_exception(problem)
                    return
                try:
                    await attempts.pause_after(problem)
                except NarupaError as error:
                    self.trouble = str(error)
                    log.warning("the command %s is provided no more: %s", self.name, error)
                    return

    async def _register(self, provider: CommandProvider, again: bool) -> None:
        try:
            await provider.register(self.name, self._arguments, self._label, self._icon)
        except FailedPreconditionError as error:
            if not again:
                raise
            # The service may have yet to notice that our earlier stream, which owns the name, is dead.
            raise UnavailableError(str(error)) from error

    async def _serve(self, provider: CommandProvider) -> None:
        answering: set[asyncio.Task[None]] = set()
        try:
            async for call in provider:
                task = asyncio.create_task(self._answer(provider, call), name=f"narupa-call-{self.name}")
                answering.add(task)
                task.add_done_callback(answering.discard)
        finally:
            for task in answering:
                task.cancel()
            await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(self, provider: CommandProvider, call: CommandCall) -> None:
        result: Mapping[str, Any] | None = None
        problem = ""
        try:
            given = self._handler(**call.arguments)
            result = await given if inspect.isawaitable(given) else given
            if not (result is None or isinstance(result, Mapping)):
                raise TypeError(f"the command's result is a {type(result).__name__}, and must be a dict or None")
        except NarupaError as error:
            problem, result = str(error), None
        except Exception as error:  # whatever it is, the caller is told
            log.warning("the command %s failed", self.name, exc_info=True)
            problem, result = f"{type(error).__name__}: {error}", None
        with suppress(NarupaError):
            await provider.answer(call, result, error=problem)
