"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from narupa_client.cli import certs, command, pull, services, session, state, watch
from narupa_client.cli.options import Target
from narupa_client.session import DEFAULT_LOBBY

app = typer.Typer(
    name="narupa",
    help="Start, watch and take part in interactive molecular dynamics sessions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def narupa(
    context: typer.Context,
    lobby: Annotated[
        str, typer.Option("--lobby", envvar="NARUPA_LOBBY", metavar="HOST:PORT", help="Where the lobby is.")
    ] = DEFAULT_LOBBY,
    join_code: Annotated[
        str | None,
        typer.Option(
            "--join-code", envvar="NARUPA_JOIN_CODE", metavar="CODE", help="Needed where the lobby is closed."
        ),
    ] = None,
) -> None:
    """Start, watch and take part in interactive molecular dynamics sessions."""
    context.obj = Target(lobby, join_code)


app.command("session")(session.session)
app.command("services")(services.services)
app.command("watch")(watch.watch)
app.command("pull")(pull.pull)
app.command("command")(command.command)
app.command("certs")(certs.certs)
app.add_typer(state.app, name="state")
