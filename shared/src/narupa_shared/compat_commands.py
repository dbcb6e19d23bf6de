"""The command service of existing Narupa and NanoVer clients, answered from a `CommandTable`."""

from __future__ import annotations

from typing import Any

import grpc.aio

from narupa_shared.access import check_command
from narupa_shared.auth import caller
from narupa_shared.commands import CommandTable
from narupa_shared.gen.nanover.protocol.command import command_service_pb2 as nanover_pb2
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as narupa_pb2
from narupa_shared.rpc_services import generic_handler
from narupa_shared.structs import from_struct, to_struct

SERVICES = tuple(module.DESCRIPTOR.services_by_name["Command"] for module in (narupa_pb2, nanover_pb2))
SERVICE_NAMES: tuple[str, ...] = tuple(service.full_name for service in SERVICES)


class CompatCommandServicer:
    """`Command` under both families' names: the messages are the same on the wire."""

    def __init__(self, table: CommandTable) -> None:
        self._table = table

    def add_to(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([generic_handler(service, self) for service in SERVICES])

    async def GetCommands(
        self, request: narupa_pb2.GetCommandsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> narupa_pb2.GetCommandsReply:
        return narupa_pb2.GetCommandsReply(
            commands=[
                narupa_pb2.CommandMessage(name=name, arguments=to_struct(defaults))
                for name, defaults in self._table.listing().items()
            ]
        )

    async def RunCommand(
        self, request: narupa_pb2.CommandMessage, context: grpc.aio.ServicerContext[Any, Any]
    ) -> narupa_pb2.CommandReply:
        check_command(caller(context), request.name)
        result = await self._table.run(request.name, from_struct(request.arguments, "arguments"))
        return narupa_pb2.CommandReply(result=to_struct(result, f"result of {request.name}"))
