"""Commands of one NanoVer client, both ways: those that it runs, and those that it provides for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from narupa_client.provided_commands import CommandCall, CommandProvider
from narupa_gateway.guests import Guest
from narupa_gateway.people import PREFIX, people_commands
from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError, UnavailableError, shown

log = structlog.get_logger(__name__)

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# A client that its provider's stream was lost for provides its commands again after this, s.
_RETRY_S: Final = 0.5
# Commands that one client provides; the service has a limit of its own.
MAX_PROVIDED: Final = 256
# Characters of what a client says about a failure of its command.
MAX_PROBLEM: Final = 1000


class ClientCommands:
    """Takes the client's command messages, and sends it answers and calls."""

    def __init__(self, guest: Guest, send: Send, max_running: int) -> None:
        """`send` sends the items of one message; `max_running` is how many of its commands may run at a time."""
        self._guest = guest
        self._send = send
        self._max_running = max_running
        self._running: set[asyncio.Task[None]] = set()
        self._wanted: dict[str, dict[str, Any]] = {}
        self._taken: set[str] = set()  # names that the service has taken from this client
        self._news = asyncio.Event()
        self._calls: dict[int, CommandCall] = {}
        self._provider: CommandProvider | None = None

    async def take(self, said: object) -> None:
        """A command message, or a list of them, has come.

        Raises:
            InvalidArgumentError: it is none.
        """
        for each in said if isinstance(said, list) else [said]:
            item = _map("command", each)
            if "register" in item:
                self._register(_map("command.register", item["register"]))
            elif "exception" in item or "response" in item:
                await self._answered(item)
            else:
                await self._requested(_map("command.request", item.get("request")))

    async def run(self) -> None:
        """What the client registers is provided, until cancelled."""
        while True:
            await self._news.wait()
            if not self._guest.may_write:  # until a host lets it
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                async with self._guest.session.command_provider() as provider:
                    await self._provide(provider)
            except NarupaError as error:
                if ended := self._guest.ended:
                    raise ended from error
                log.info("commands_not_provided", guest=self._guest.number, reason=str(error))
            finally:
                self._provider = None
                self._calls.clear()
            await asyncio.sleep(_RETRY_S)
            self._news.set()

    @property
    def wanted(self) -> bool:
        """Whether the client has registered any, so that there is something to `run`."""
        return bool(self._wanted)

    async def close(self) -> None:
        """Nothing that the client runs is left running. Idempotent."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # Commands that the client runs.

    async def _requested(self, request: dict[str, Any]) -> None:
        if len(self._running) >= self._max_running:
            problem = QuotaError(f"{self._max_running} commands of yours are running, which is the limit; wait for one")
            await self._send({"command": {"request": request, "exception": str(problem)}})
            return
        task = asyncio.create_task(self._run(request), name=f"command of guest-{self._guest.number}")
        self._running.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # an answer that cannot be sent is nobody's any more; who receives meets the same

    async def _run(self, request: dict[str, Any]) -> None:
        try:
            name, arguments = request.get("name"), request.get("arguments")
            if not isinstance(name, str):
                raise InvalidArgumentError("command.request.name", name, "must be a command's name")
            given = _map("command.request.arguments", {} if arguments is None else arguments)
            if name.startswith(PREFIX):
                result = await people_commands(self._guest).run(name, given)
            else:
                result = await self._guest.session.run_command(name, given)
        except NarupaError as error:
            answer: dict[str, Any] = {"request": request, "exception": str(error)}
        else:
            answer = {"request": request, "response": result or None}
        self._guest.commands["response" in answer] += 1
        await self._send({"command": answer})

    # Commands that the client provides.

    def _register(self, said: dict[str, Any]) -> None:
        name = said.get("name")
        if not isinstance(name, str):
            raise InvalidArgumentError("command.register.name", name, "must be a text")
        if len(self._wanted) >= MAX_PROVIDED and name not in self._wanted:
            raise QuotaError(f"a client provides at most {MAX_PROVIDED} commands")
        self._wanted.pop(name, None)
        self._wanted[name] = {
            "arguments": _map("command.register.arguments", said.get("arguments") or {}),
            "label": _text("command.register.label", said.get("label")),
            "icon": _text("command.register.icon", said.get("icon")),
        }
        self._news.set()

    async def _provide(self, provider: CommandProvider) -> None:
        """Registers what is wanted, and passes calls on, until the stream is lost."""
        self._provider = provider
        known: dict[str, dict[str, Any]] = {}
        calling = asyncio.create_task(self._pass_calls(provider), name=f"calls of guest-{self._guest.number}")
        try:
            while True:
                self._news.clear()
                for name, facts in list(self._wanted.items()):
                    if known.get(name) is facts:
                        continue
                    known[name] = facts
                    try:
                        await provider.register(name, **facts)
                    except NarupaError as error:
                        if provider.problem:
                            raise
                        if name in self._taken:  # of a stream of ours that the service may have yet to give up
                            raise UnavailableError(str(error)) from error
                        # The protocol has no answer to this.
                        log.info("command_refused", guest=self._guest.number, command=name, reason=str(error))
                        self._wanted.pop(name, None)
                    else:
                        self._taken.add(name)
                news = asyncio.create_task(self._news.wait())
                try:
                    await asyncio.wait((news, calling), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                if calling.done():
                    calling.result()
                    return
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def _pass_calls(self, provider: CommandProvider) -> None:
        async for call in provider:
            self._calls[call.id] = call
            while len(self._calls) > MAX_PROVIDED:  # those that the client never answers have failed at the service
                del self._calls[next(iter(self._calls))]
            request = {"name": call.name, "arguments": dict(call.arguments), "id": call.id}
            await self._send({"command": {"request": request}})

    async def _answered(self, said: dict[str, Any]) -> None:
        request = _map("command.request", said.get("request"))
        id = request.get("id")
        call = self._calls.pop(id, None) if isinstance(id, int) else None
        if call is None or self._provider is None:
            return  # too late
        problem = said.get("exception")
        if problem is not None:
            problem = (problem if isinstance(problem, str) else shown(problem, MAX_PROBLEM))[
                :MAX_PROBLEM
            ] or "it failed"
        response = said.get("response")
        if problem is None and response is not None and not isinstance(response, dict):
            problem = f"the command's result is a {type(response).__name__}, and must be a map or nil"
        result = response if isinstance(response, dict) else None
        try:
            await self._provider.answer(call, result, error=problem or "")
        except NarupaError as error:
            log.info("answer_lost", guest=self._guest.number, command=call.name, reason=str(error))


def _map(field: str, item: object) -> dict[str, Any]:
    if not isinstance(item, dict) or not all(isinstance(key, str) for key in item):
        raise InvalidArgumentError(field, type(item).__name__, "must be a map with texts for keys")
    return item


def _text(field: str, item: object) -> str:
    if item is None:
        return ""
    if not isinstance(item, str):
        raise InvalidArgumentError(field, type(item).__name__, "must be a text")
    return item
