"""The command service of existing Narupa and NanoVer clients, answered from a service's commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import grpc.aio

from narupa_shared.auth import Caller, caller
from narupa_shared.gen.nanover.protocol.command import command_service_pb2 as nanover_pb2
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as narupa_pb2
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct, to_struct

SERVICES = tuple(module.DESCRIPTOR.services_by_name["Command"] for module in (narupa_pb2, nanover_pb2))
SERVICE_NAMES: tuple[str, ...] = tuple(service.full_name for service in SERVICES)


class Commands(Protocol):
    """What can be run at a service, such as a `CommandTable`."""

    def listing(self) -> Mapping[str, Mapping[str, Any]]:
        """Every command's name with its default arguments."""

    async def run_for(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of the command, once it is known that the caller may run it.

        Raises:
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: unknown command, or an unknown, missing or wrong argument.
            NarupaError: what the command itself raises.
        """


class CompatCommandServicer:
    """`Command` under both families' names: the messages are the same on the wire."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(service, self) for service in SERVICES])

    async def GetCommands(
        self, request: narupa_pb2.GetCommandsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> narupa_pb2.GetCommandsReply:
        return narupa_pb2.GetCommandsReply(
            commands=[
                narupa_pb2.CommandMessage(name=name, arguments=to_struct(defaults))
                for name, defaults in self._commands.listing().items()
            ]
        )

    async def RunCommand(
        self, request: narupa_pb2.CommandMessage, context: grpc.aio.ServicerContext[Any, Any]
    ) -> narupa_pb2.CommandReply:
        arguments = from_struct(request.arguments, "arguments")
        result = await self._commands.run_for(caller(context), request.name, arguments)
        return narupa_pb2.CommandReply(result=to_struct(result, f"result of {request.name}"))
