"""The commands of a session: of its simulation, of its imd service, and of the clients in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from narupa_client.route import Route
from narupa_client.tasks import ended
from narupa_shared.commands import LISTING
from narupa_shared.errors import CommandFailedError, ConflictError, NarupaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2
from narupa_shared.structs import from_struct, to_struct

# Loading a large system is a command.
COMMAND_TIMEOUT_S: Final = 150.0
_TRAJECTORY: Final = "/narupa.trajectory.v1.TrajectoryService/"
_IMD: Final = "/narupa.imd.v1.CommandService/"
# No command of a client's begins so, and none of imd's.
_SIMULATION: Final = ("playback/", "trajectory/")

Listing = dict[str, dict[str, Any]]
_Answer = Awaitable[dict[str, Any]]


class SessionCommands:
    """Finds and runs commands at the two services that have some."""

    def __init__(self, trajectory: Route, imd: Route) -> None:
        self._trajectory = trajectory
        self._imd = imd

    async def listing(self) -> Listing:
        """Every command by name, with its default arguments; those of imd only where it can be reached.

        Raises:
            UnavailableError: the trajectory service cannot be reached.
        """
        theirs, others = await self._of_both(self._of_trajectory(), self._of_imd())
        return {**others, **theirs}

    async def run(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """The result of the command, run where it is; as `Session.run_command`."""
        if name == LISTING:
            theirs, others = await self._of_both(
                self._run_at_trajectory(name, arguments, timeout_s), self._run_at_imd(name, arguments, timeout_s)
            )
            return _merged(theirs, others)
        if await self._is_at_imd(name):
            return await self._run_at_imd(name, arguments, timeout_s)
        return await self._run_at_trajectory(name, arguments, timeout_s)

    async def _of_both(self, theirs: _Answer, others: _Answer) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both answers; nothing in place of imd's where it has none."""

        async def or_nothing() -> dict[str, Any]:
            try:
                return await others
            except NarupaError:
                return {}

        of_imd = asyncio.create_task(or_nothing(), name="narupa-imd-commands")
        try:
            return await theirs, await of_imd
        finally:
            await ended(of_imd)

    async def _is_at_imd(self, name: str) -> bool:
        if name.startswith(_SIMULATION):
            return False
        try:
            return name in await self._of_imd()
        except NarupaError:
            return False

    async def _of_trajectory(self) -> Listing:
        reply = await self._trajectory.call(
            f"{_TRAJECTORY}ListCommands", trajectory_pb2.ListCommandsRequest(), trajectory_pb2.ListCommandsResponse
        )
        return {command.name: from_struct(command.arguments, command.name) for command in reply.commands}

    async def _of_imd(self) -> Listing:
        reply = await self._imd.call(f"{_IMD}ListCommands", imd_pb2.ListCommandsRequest(), imd_pb2.ListCommandsResponse)
        return {command.name: from_struct(command.arguments, command.name) for command in reply.commands}

    async def _run_at_trajectory(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        request = trajectory_pb2.RunCommandRequest(name=name, arguments=to_struct(arguments, "arguments"))
        reply = await self._trajectory.call(
            f"{_TRAJECTORY}RunCommand", request, trajectory_pb2.RunCommandResponse, timeout_s
        )
        return from_struct(reply.result, "result")

    async def _run_at_imd(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        request = imd_pb2.RunCommandRequest(name=name, arguments=to_struct(arguments, "arguments"))
        try:
            reply = await self._imd.call(f"{_IMD}RunCommand", request, imd_pb2.RunCommandResponse, timeout_s)
        except ConflictError as error:  # which has the same status
            raise CommandFailedError(str(error)) from error
        return from_struct(reply.result, "result")


def _merged(theirs: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Two results of `commands/list` as one; the first is right where both have a name."""
    listed = dict(theirs.get("list") or {})
    more = [item for item in others.get("commands") or [] if item["name"] not in listed]
    return {
        "list": {**(others.get("list") or {}), **listed},
        "commands": [*(theirs.get("commands") or []), *more],
    }
