"""`narupa lobby sessions | create | show | end | watch`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from narupa_client.cli.naming import named
from narupa_client.cli.options import BAD_INPUT, INTERRUPTED, JsonOption, fail, messages, no_lobby, run
from narupa_client.cli.tables import (
    ago,
    ahead,
    in_words,
    print_facts,
    print_json,
    print_services,
    print_table,
    printable,
    service_facts,
)
from narupa_client.cli.target import Target, password_for
from narupa_client.lobby import Lobby, LobbyEvent, open_lobby
from narupa_client.records import NO_GUESTS, ROLES, Invite, SessionDetails, SessionFacts
from narupa_client.session import account_name
from narupa_shared.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError

NEW_PASSWORD_VARIABLE = "NARUPA_NEW_PASSWORD"


@asynccontextmanager
async def asked(at: Target) -> AsyncIterator[Lobby]:
    """The lobby, as an operator, or as a user who is in the session for as long as the command takes."""
    opened = open_lobby(at.lobby, account_name(), **at.admission())
    try:
        lobby = await opened.__aenter__()
    except UnavailableError as error:
        raise no_lobby(error) from error
    try:
        await _find_session(lobby)
        yield lobby
    except BaseException as error:
        if not await opened.__aexit__(type(error), error, error.__traceback__):
            raise _with_advice(error, lobby) from error
    else:
        await opened.__aexit__(None, None, None)


async def _find_session(lobby: Lobby) -> None:
    """The session that the command is about may be named by its name, or by the beginning of its id."""
    if lobby.session_id and lobby.member is None:
        found = await lobby.sessions()
        lobby.session_id = named("session", lobby.session_id, found, lambda item: item.id, lambda item: item.name).id


def _with_advice(error: BaseException, lobby: Lobby) -> BaseException:
    """`error` with what to do about it, where that is something about this command line."""
    if isinstance(error, UnavailableError) and not lobby.heard:
        return no_lobby(error)
    if isinstance(error, UnauthenticatedError):
        return UnauthenticatedError(f"{error}; say who asks with --operator-key, --invite, --join-code or --password")
    return error


def sessions(at: Target, as_json: JsonOption = False) -> None:
    """List the sessions: all of them for the lobby's operator, otherwise your own."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.sessions()
        if as_json:
            print_json([asdict(session) for session in found])
            return
        print_table(
            ("name", "users", "services", "joins as", "template", "age", "id"),
            (
                (
                    session.name,
                    _of(session.user_count, session.max_users),
                    _of(session.service_count, session.max_services),
                    session.join_role,
                    session.template or "-",
                    ago(session.created_at),
                    session.id,
                )
                for session in found
            ),
            "There is no session.",
        )

    run(work())


def create(
    at: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the session, 1 to 64 characters.")],
    template: Annotated[str, typer.Option("--template", metavar="T", help="A session template of the catalogue.")] = "",
    host_name: Annotated[
        str, typer.Option("--host-name", metavar="NAME", help="Join a first user, who hosts the session.")
    ] = "",
    join_role: Annotated[
        str, typer.Option("--join-role", metavar="ROLE", help="Of who joins: viewer, participant or host.")
    ] = "",
    guest_role: Annotated[
        str,
        typer.Option(
            "--guests",
            metavar="ROLE",
            help="Of clients without a code that come through a gateway: viewer, participant, host, or none.",
        ),
    ] = "",
    max_users: Annotated[int, typer.Option("--max-users", min=0, help="0 is the template's, or the lobby's.")] = 0,
    max_services: Annotated[int, typer.Option("--max-services", min=0, help="0 as for --max-users.")] = 0,
    idle_timeout: Annotated[
        float | None,
        typer.Option("--idle-timeout", min=0.0, help="End it when nobody was in it for so long, s; 0 for never."),
    ] = None,
    new_code: Annotated[str, typer.Option("--code", metavar="CODE", help="Its join code; otherwise one is made.")] = "",
    password: Annotated[
        bool, typer.Option("--password", help=f"Ask for a password that joining needs ({NEW_PASSWORD_VARIABLE}).")
    ] = False,
    simulation: Annotated[
        list[str] | None, typer.Option("--start", metavar="SIMULATION", help="Start it too; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a session, and print how to join it."""
    if not name.strip():  # unset, the lobby would choose one
        fail(f"NAME is {name!r}: give 1 to 64 characters, by which people will know the session", BAD_INPUT)
    if guest_role not in ("", NO_GUESTS, *ROLES):
        fail(f"--guests is {guest_role!r}: use {', '.join(ROLES)} or {NO_GUESTS}", BAD_INPUT)
    secret = password_for("the new session", NEW_PASSWORD_VARIABLE, confirm=True) if password else ""

    async def work() -> None:
        async with asked(at) as lobby:
            made = await lobby.create_session(
                name,
                template=template,
                host_name=host_name,
                join_role=join_role,
                max_users=max_users,
                max_services=max_services,
                idle_timeout_s=idle_timeout,
                join_code=new_code,
                password=secret,
                simulations=simulation or (),
                guest_role=guest_role,
            )
            link = _link(lobby, made.session, made.join_code)
        if as_json:
            host = None if made.host is None else {**asdict(made.host), "token": made.host_token}
            facts = {"session": asdict(made.session), "join_code": made.join_code, "link": link, "host": host}
            print_json(facts)
            return
        print_facts(
            [
                *_session_rows(made.session, made.join_code, link),
                ("host", "" if made.host is None else f"{made.host.name} ({made.host.id})"),
            ]
        )

    run(work())


def show(
    at: Target,
    which: Annotated[str, typer.Argument(metavar="[SESSION]", help="Its id or name, or the beginning of it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show one session: limits, people, services; to hosts and operators also its join code, link and invites."""

    async def work() -> None:
        async with asked(at) as lobby:
            id = await session_id(lobby, which)
            details = await lobby.session(id)
            services = await lobby.services(session_id=id)
            invites = await _invites(lobby, id)
            link = _link(lobby, details.session, details.join_code)
        if as_json:
            print_json(
                {
                    "session": asdict(details.session),
                    "join_code": details.join_code,
                    "link": link,
                    "users": [asdict(user) for user in details.users],
                    "services": [service_facts(service) for service in services],
                    "invites": [invite_facts(invite) for invite in invites],
                }
            )
            return
        print_facts(_session_rows(details.session, details.join_code, link))
        _print_people(details)
        print()
        print_services(services)
        if invites:
            print()
            print_invites(invites)

    run(work())


def end(
    at: Target,
    which: Annotated[str, typer.Argument(metavar="SESSION", help="Its id or name, or the beginning of it.")],
    as_json: JsonOption = False,
) -> None:
    """End a session: everybody leaves, what was started for it stops."""

    async def work() -> None:
        async with asked(at) as lobby:
            id = await session_id(lobby, which)
            await lobby.end_session(id)
        if as_json:
            print_json({"session_id": id, "ended": True})
        else:
            messages.print(f"the session {printable(id)} has ended", markup=False)

    run(work())


def watch(
    at: Target,
    as_json: JsonOption = False,
    events: Annotated[int | None, typer.Option("--events", min=1, help="End after this many.")] = None,
) -> None:
    """Print one line per event of the session: who and what comes, changes and goes. The first tells what is there."""

    async def work() -> None:
        count = 0
        async with asked(at) as lobby, lobby.watch() as news:
            async for event in news:
                print(json.dumps(event_facts(event), ensure_ascii=False) if as_json else _line(event), flush=True)
                count += 1
                if count == events:
                    return

    run(work(), interrupted=0 if events is None else INTERRUPTED)


async def session_id(lobby: Lobby, text: str) -> str:
    """The id of the session that `text` names; without it, the one that the command is about."""
    if not text:
        return lobby.session_id
    found = await lobby.sessions()
    return named("session", text, found, lambda item: item.id, lambda item: item.name).id


def invite_facts(invite: Invite) -> dict[str, Any]:
    """An invite as scripts get it; without its secret."""
    return {
        "id": invite.id,
        "role": invite.role,
        "expires_at": invite.expires_at,
        "uses_left": invite.uses_left,
        "made_by": invite.made_by,
    }


def print_invites(invites: list[Invite]) -> None:
    """The invites as a table."""
    print_table(
        ("role", "uses left", "expires in", "made by", "id"),
        (
            (invite.role, invite.uses_left, ahead(invite.expires_at), invite.made_by or "-", invite.id)
            for invite in invites
        ),
        "There is no invite.",
    )


def event_facts(event: LobbyEvent) -> dict[str, Any]:
    """An event as scripts get it."""
    return {
        "event": event.kind,
        "epoch": event.epoch,
        "revision": event.revision,
        "session": None if event.session is None else asdict(event.session),
        "users": [asdict(user) for user in event.users],
        "services": [service_facts(service) for service in event.services],
        "reason": event.reason,
    }


def _line(event: LobbyEvent) -> str:
    if event.kind == "snapshot":
        name = event.session.name if event.session else ""
        about = [f"{name}: {len(event.users)} users, {len(event.services)} services"]
    else:
        about = [f"{user.name} ({user.id}) {user.role}".rstrip() for user in event.users]
        for service in event.services:
            progress = f" {service.progress:.0%}" if service.status == "starting" else ""
            about.append(f"{service.kind} {service.id} {service.status}{progress}")
            if service.reason and not event.reason:
                about.append(service.reason)
        about += [event.session.name] if event.session else []
    about += [event.reason] if event.reason else []
    clock = time.strftime("%H:%M:%S")
    return printable(f"{clock}  {event.revision:>5}  {event.kind:<15}  {', '.join(about)}")


async def _invites(lobby: Lobby, id: str) -> list[Invite]:
    """The session's invites; none where we may not know."""
    try:
        return await lobby.invites(id)
    except (PermissionDeniedError, UnauthenticatedError):
        return []


def _link(lobby: Lobby, session: SessionFacts, join_code: str) -> str:
    return lobby.link(session.id, join_code="" if session.has_password else join_code)


def _session_rows(session: SessionFacts, join_code: str, link: str) -> list[tuple[str, object]]:
    return [
        ("session", session.name),
        ("id", session.id),
        ("join code", "" if session.has_password else join_code),
        ("password", "is needed to join" if session.has_password else ""),
        ("link", link),
        ("joins as", session.join_role),
        ("guests", guests_in_words(session)),
        ("users", _of(session.user_count, session.max_users)),
        ("services", _of(session.service_count, session.max_services)),
        ("template", session.template),
        ("ends when idle", f"for {in_words(session.idle_timeout_s)}" if session.idle_timeout_s else "never"),
    ]


def guests_in_words(session: SessionFacts) -> str:
    """As what clients without a code come in through a gateway, as the end of a sentence about guests."""
    match session.guest_role:
        case "":
            return "come in only through a gateway that is open itself"
        case "none":
            return "do not come in"
        case role:
            return f"come in as {role}"


def _print_people(details: SessionDetails) -> None:
    print()
    print_table(("user", "role", "id"), ((user.name, user.role, user.id) for user in details.users), "Nobody is in it.")


def _of(count: int, limit: int) -> str:
    return f"{count} / {limit}" if limit else str(count)
