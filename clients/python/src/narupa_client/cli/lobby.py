"""`narupa lobby`: what its operator, and the hosts of its sessions, do with a lobby."""

from __future__ import annotations

import typer

from narupa_client.cli import lobby_people, lobby_services, lobby_sessions
from narupa_client.cli.target import aimed

app = typer.Typer(
    help="Sessions, people, invites, services and keys of a lobby; for its operator, and for hosts.",
    no_args_is_help=True,
)

_SESSIONS = "Sessions"
_PEOPLE = "People"
_SERVICES = "Services"

app.command("sessions", rich_help_panel=_SESSIONS)(aimed(lobby_sessions.sessions))
app.command("create", rich_help_panel=_SESSIONS)(aimed(lobby_sessions.create, password=False))
app.command("show", rich_help_panel=_SESSIONS)(aimed(lobby_sessions.show))
app.command("end", rich_help_panel=_SESSIONS)(aimed(lobby_sessions.end))
app.command("watch", rich_help_panel=_SESSIONS)(aimed(lobby_sessions.watch))
app.command("users", rich_help_panel=_PEOPLE)(aimed(lobby_people.users))
app.command("kick", rich_help_panel=_PEOPLE)(aimed(lobby_people.kick))
app.command("role", rich_help_panel=_PEOPLE)(aimed(lobby_people.role))
app.command("guests", rich_help_panel=_PEOPLE)(aimed(lobby_people.guests))
app.command("invite", rich_help_panel=_PEOPLE)(aimed(lobby_people.invite))
app.command("invites", rich_help_panel=_PEOPLE)(aimed(lobby_people.invites))
app.command("revoke", rich_help_panel=_PEOPLE)(aimed(lobby_people.revoke))
app.command("rotate-keys", rich_help_panel=_PEOPLE)(aimed(lobby_people.rotate_keys))
app.command("catalogue", rich_help_panel=_SERVICES)(aimed(lobby_services.catalogue))
app.command("services", rich_help_panel=_SERVICES)(aimed(lobby_services.services))
app.command("start", rich_help_panel=_SERVICES)(aimed(lobby_services.start))
app.command("stop", rich_help_panel=_SERVICES)(aimed(lobby_services.stop))
app.command("drain", rich_help_panel=_SERVICES)(aimed(lobby_services.drain))
app.command("log", rich_help_panel=_SERVICES)(aimed(lobby_services.log))
