"""`narupa command`: run a command of the session, or list them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from narupa_client.cli.options import JoinCodeOption, LobbyOption, Target, joined, run, target
from narupa_client.cli.values import parsed, shown


def command(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Such as playback/pause.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values are JSON or text.")
    ] = None,
    lobby: LobbyOption = None,
    join_code: JoinCodeOption = None,
) -> None:
    """Run a command, such as playback/pause, and print its result; without a name, list the commands."""
    run(_command(target(context, lobby, join_code), name, parsed(arguments or [])))


async def _command(at: Target, name: str | None, arguments: dict[str, Any]) -> None:
    async with joined(at) as session:
        print(shown(await session.commands() if name is None else await session.run_command(name, arguments)))
