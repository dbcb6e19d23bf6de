"""The commands, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from narupa_client.cli import certs, command, convert, discover, pull, record, services, session, state, watch
from narupa_client.cli import lobby as lobby_commands
from narupa_client.cli.target import aimed, from_environment
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
        str,
        typer.Option(
            "--lobby", envvar="NARUPA_LOBBY", metavar="HOST:PORT", help="Where the lobby is, or an invite link."
        ),
    ] = DEFAULT_LOBBY,
    session: Annotated[
        str | None, typer.Option("--session", envvar="NARUPA_SESSION", metavar="ID", help="Which session.")
    ] = None,
    join_code: Annotated[
        str | None,
        typer.Option(
            "--join-code", envvar="NARUPA_JOIN_CODE", metavar="CODE", help="Needed where the lobby is closed."
        ),
    ] = None,
    invite: Annotated[
        str | None,
        typer.Option("--invite", envvar="NARUPA_INVITE", metavar="SECRET", help="Come with this invite instead."),
    ] = None,
    operator_key: Annotated[
        str | None,
        typer.Option(
            "--operator-key", envvar="NARUPA_OPERATOR_KEY", metavar="KEY", help="Come as the lobby's operator."
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option("--tls-ca", envvar="NARUPA_TLS_CA", metavar="FILE", help="Speak TLS, trusting this PEM file."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", envvar="NARUPA_TLS_CERT", metavar="FILE", help="Show this certificate."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", envvar="NARUPA_TLS_KEY", metavar="FILE", help="Its private key.")
    ] = None,
) -> None:
    """Start, watch and take part in interactive molecular dynamics sessions."""
    context.obj = from_environment().overlaid(
        lobby=lobby,
        session=session,
        join_code=join_code,
        invite=invite,
        operator_key=operator_key,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )


app.command("session")(session.session)
app.command("services")(aimed(services.services))
app.command("watch")(aimed(watch.watch))
app.command("pull")(aimed(pull.pull))
app.command("record")(aimed(record.record))
app.command("convert")(convert.convert)
app.command("command")(aimed(command.command))
app.command("discover")(discover.discover_sessions)
app.command("certs")(certs.certs)
app.add_typer(state.app, name="state")
app.add_typer(lobby_commands.app, name="lobby")
