"""`narupa discover`: the sessions on the local network, and how to join each."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Final

import typer

from narupa_client.cli.options import FAILED, JsonOption, messages, run
from narupa_client.cli.tables import print_json, print_table
from narupa_client.discovery import FoundSession, discover
from narupa_shared.discovery.essd import ESSD_PORT

_DEFAULT_SESSION: Final = "default"
_NOTHING: Final = (
    "nothing was announced here: institutional Wi-Fi, VPNs, guest networks and firewalls often hold announcements back. "
    "Ask who runs the session for its address, and type it: narupa watch --lobby HOST:PORT; or for an invite link, "
    "which goes in the same place. To run a session of your own: narupa session"
)


def discover_sessions(
    as_json: JsonOption = False,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=3600, help="How long to listen, s.")] = 2.0,
    port: Annotated[
        int,
        typer.Option("--port", min=1, max=65535, envvar="NARUPA_DISCOVERY_PORT", help="The UDP port of announcements."),
    ] = ESSD_PORT,
    mdns: Annotated[bool, typer.Option("--mdns/--no-mdns", help="Ask by multicast DNS as well.")] = True,
) -> None:
    """List the sessions, and NanoVer and Narupa servers, that are announced on this network, and how to join each.

    Ends with status 1 where there are none.
    """
    run(_discover(as_json, seconds, port, mdns))


async def _discover(as_json: bool, seconds: float, port: int, mdns: bool) -> int | None:
    found = await discover(seconds, port=port, mdns=mdns, on_problem=lambda text: messages.print(text, markup=False))
    if as_json:
        print_json([session_facts(session) for session in found])
    elif found:
        columns = ("name", "session", "address", "join it with")
        print_table(columns, [_row(session) for session in found], "")
    if found:
        return None
    messages.print(_NOTHING, markup=False)
    return FAILED


def session_facts(session: FoundSession) -> dict[str, Any]:
    """A session as scripts get it."""
    return {
        "name": session.name,
        "session_id": session.session_id,
        "address": session.address,
        "addresses": list(session.addresses),
        "lobbies": [str(lobby) for lobby in session.lobbies],
        "services": dict(session.services),
        "websocket": session.websocket,
        "tls": session.tls,
        "command": join_command(session),
        "found_by": list(session.found_by),
    }


def join_command(session: FoundSession) -> str:
    """What to type to watch the session; empty where only other programs can join it from here."""
    if not session.lobbies:
        return ""
    words = ["narupa", "watch", "--lobby", str(session.lobbies[0])]
    if session.session_id not in ("", _DEFAULT_SESSION):
        words += ["--session", session.session_id]
    return shlex.join(words) + (" --tls-ca FILE" if session.tls else "")


def _row(session: FoundSession) -> tuple[str, ...]:
    places = session.websocket or ", ".join(f"{name} {place}" for name, place in session.grpc.items())
    other = "a NanoVer client" if session.websocket else "a Narupa client"
    return session.name, session.session_id or "-", places or session.address, join_command(session) or other
