"""The commands of a small imd service."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_Events = asyncio.Queue[imd_pb2.ProvideCommandsResponse | None]


class FakeCommands(imd_pb2_grpc.CommandServiceServicer):
    """Commands that clients provide, without limits; a name is the first one's."""

    def __init__(self, admit: Callable[[Context], Awaitable[str]]) -> None:
        self._admit = admit
        self.provided: dict[str, imd_pb2.Command] = {}
        self._providers: dict[str, _Events] = {}
        self._calls: dict[int, asyncio.Future[imd_pb2.CommandResult]] = {}
        self._numbers = itertools.count(1)

    async def ListCommands(
        self, request: imd_pb2.ListCommandsRequest, context: Context
    ) -> imd_pb2.ListCommandsResponse:
        await self._admit(context)
        return imd_pb2.ListCommandsResponse(commands=self.provided.values())

    async def RunCommand(self, request: imd_pb2.RunCommandRequest, context: Context) -> imd_pb2.RunCommandResponse:
        await self._admit(context)
        if request.name not in self.provided:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"command is {request.name!r}: unknown")
        number = next(self._numbers)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        arguments = self.provided[request.name].arguments.__class__()
        arguments.CopyFrom(self.provided[request.name].arguments)
        arguments.MergeFrom(request.arguments)
        call = imd_pb2.CommandCall(call=number, name=request.name, arguments=arguments, caller="somebody")
        self._providers[request.name].put_nowait(imd_pb2.ProvideCommandsResponse(call=call))
        result = await answer
        if result.error:
            await context.abort(grpc.StatusCode.ABORTED, result.error)
        return imd_pb2.RunCommandResponse(result=result.result)

    async def ProvideCommands(
        self, request_iterator: AsyncIterator[imd_pb2.ProvideCommandsRequest], context: Context
    ) -> AsyncIterator[imd_pb2.ProvideCommandsResponse]:
        await self._admit(context)
        await context.send_initial_metadata(())
        events: _Events = asyncio.Queue()

        async def read() -> None:
            async for request in request_iterator:
                self._take(request, events)
            events.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (event := await events.get()) is not None:
                yield event
        finally:
            reading.cancel()
            for name in [name for name, mine in self._providers.items() if mine is events]:
                del self._providers[name], self.provided[name]

    def _take(self, request: imd_pb2.ProvideCommandsRequest, events: _Events) -> None:
        match request.WhichOneof("action"):
            case "register":
                name = request.register.name
                if self._providers.get(name, events) is not events:
                    refused = imd_pb2.RefusedCommand(name=name, error=f"the command {name!r} is somebody else's")
                    events.put_nowait(imd_pb2.ProvideCommandsResponse(refused=refused))
                    return
                self.provided[name], self._providers[name] = request.register, events
                events.put_nowait(imd_pb2.ProvideCommandsResponse(registered=name))
            case "withdraw" if self._providers.get(request.withdraw) is events:
                del self._providers[request.withdraw], self.provided[request.withdraw]
            case "result" if not (answer := self._calls.pop(request.result.call)).done():
                answer.set_result(request.result)
