"""The RPC edge of `narupa.imd.v1.CommandService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio
import structlog

from narupa_imd.commands import ImdCommands
from narupa_imd.provided_commands import ProvidedCommands
from narupa_imd.servicer import on_end
from narupa_imd.session import ImdSession
from narupa_imd.streams import Streams
from narupa_imd.wire import shown_owner
from narupa_shared.auth import caller
from narupa_shared.connections import Connections
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct, to_struct

log = structlog.get_logger(__name__)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["CommandService"]
Context = grpc.aio.ServicerContext[Any, Any]


class CommandServicer:
    """`narupa.imd.v1.CommandService`."""

    def __init__(self, session: ImdSession, commands: ImdCommands, connections: Connections, streams: Streams) -> None:
        self._session = session
        self._commands = commands
        self._connections = connections
        self._streams = streams

    async def ListCommands(self, request: pb.ListCommandsRequest, context: Context) -> pb.ListCommandsResponse:
        own = [
            pb.Command(name=name, arguments=to_struct(defaults))
            for name, defaults in self._commands.own.listing().items()
        ]
        provided = [
            pb.Command(
                name=command.name,
                arguments=to_struct(command.arguments),
                label=command.label,
                icon=command.icon,
                provider=shown_owner(command.owner),
            )
            for command in self._commands.provided.commands()
        ]
        return pb.ListCommandsResponse(commands=[*own, *provided])

    async def RunCommand(self, request: pb.RunCommandRequest, context: Context) -> pb.RunCommandResponse:
        who = caller(context)
        self._session.spend(who.peer, request.ByteSize())
        arguments = from_struct(request.arguments, "arguments")
        result = await self._commands.run_for(who, request.name, arguments)
        return pb.RunCommandResponse(result=to_struct(result, f"result of {request.name}"))

    async def ProvideCommands(
        self, request_iterator: AsyncIterator[pb.ProvideCommandsRequest], context: Context
    ) -> AsyncIterator[pb.ProvideCommandsResponse]:
        who = caller(context)
        provided, news = self._commands.provided, asyncio.Event()
        with self._connections.lease(who.peer) as hold:
            on_end(context, hold.end)
            provided.begin(hold.connection, who.owner, news.set)
            on_end(context, lambda _: provided.end(hold.connection))
            try:
                # The client knows that it is let in before it has anything to register.
                await context.send_initial_metadata(())
                async for request in self._streams.requests(request_iterator, news):
                    if request is not None:
                        self._session.spend(hold.connection, request.ByteSize())
                        if answer := _answer(provided, hold.connection, request):
                            yield answer
                    for call in provided.take_calls(hold.connection):
                        yield pb.ProvideCommandsResponse(
                            call=pb.CommandCall(
                                call=call.id, name=call.name, arguments=call.arguments, caller=call.caller
                            )
                        )
            finally:
                provided.end(hold.connection)

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(SERVICE, self)])


def _answer(
    provided: ProvidedCommands, provider: str, request: pb.ProvideCommandsRequest
) -> pb.ProvideCommandsResponse | None:
    """What a provider is told of its request, once it is done; None for what has no answer."""
    match request.WhichOneof("action"):
        case "register":
            command = request.register
            try:
                provided.register(provider, command.name, command.arguments, command.label, command.icon)
            except NarupaError as error:
                log.info("command_refused", provider=provider, reason=str(error))
                return pb.ProvideCommandsResponse(refused=pb.RefusedCommand(name=command.name, error=str(error)))
            return pb.ProvideCommandsResponse(registered=command.name)
        case "withdraw":
            provided.withdraw(provider, request.withdraw)
        case "result":
            provided.answer(provider, request.result.call, request.result.result, request.result.error)
        case _:
            raise InvalidArgumentError("action", None, "give one of register, withdraw and result")
    return None
