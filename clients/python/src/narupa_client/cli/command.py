"""`narupa command`: run a command of the session, or list them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from narupa_client.cli.options import joined, run
from narupa_client.cli.target import Target
from narupa_client.cli.values import parsed, shown


def command(
    at: Target,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Such as playback/pause.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values are JSON or text.")
    ] = None,
) -> None:
    """Run a command, such as playback/pause, and print its result; without a name, list the commands."""
    run(_command(at, name, parsed(arguments or [])))


async def _command(at: Target, name: str | None, arguments: dict[str, Any]) -> None:
    async with joined(at) as session:
        print(shown(await session.commands() if name is None else await session.run_command(name, arguments)))
