"""`narupa lobby users | kick | role | guests | invite | invites | revoke | rotate-keys`."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Final

import typer

from narupa_client.cli.lobby_sessions import asked, guests_in_words, invite_facts, print_invites
from narupa_client.cli.naming import named
from narupa_client.cli.options import BAD_INPUT, JsonOption, fail, messages, run
from narupa_client.cli.tables import ahead, print_facts, print_json, print_table, printable
from narupa_client.cli.target import Target
from narupa_client.lobby import Lobby
from narupa_client.records import NO_GUESTS, ROLES, User

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}

_UNCHOSEN: Final = "default"

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="Id or name, or the beginning of it.")]


def users(at: Target, as_json: JsonOption = False) -> None:
    """List who is in the session."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.users()
        if as_json:
            print_json([asdict(user) for user in found])
            return
        rows = ((user.name, user.role, user.id) for user in found)
        print_table(("user", "role", "id"), rows, "Nobody is in the session.")

    run(work())


def kick(
    at: Target,
    user: UserArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to the user.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a user, who cannot come back as the same one."""

    async def work() -> None:
        async with asked(at) as lobby:
            removed = await _user(lobby, user)
            await lobby.kick(removed.id, reason)
        if as_json:
            print_json({"user": asdict(removed), "kicked": True})
        else:
            messages.print(f"{printable(removed.name)} ({removed.id}) was removed", markup=False)

    run(work())


def role(
    at: Target,
    user: UserArgument,
    new_role: Annotated[str, typer.Argument(metavar="ROLE", help="viewer, participant or host.")],
    as_json: JsonOption = False,
) -> None:
    """Make a user a viewer, participant or host."""
    _check_role("ROLE", new_role)

    async def work() -> None:
        async with asked(at) as lobby:
            changed = await lobby.set_role((await _user(lobby, user)).id, new_role)
        if as_json:
            print_json(asdict(changed))
        else:
            messages.print(f"{printable(changed.name)} ({changed.id}) is {changed.role} now", markup=False)

    run(work())


def guests(
    at: Target,
    new_role: Annotated[
        str,
        typer.Argument(
            metavar="ROLE",
            help="viewer, participant or host; none lets nobody in; default lets in only who finds an open gateway.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Choose as what guests come in, who join through a gateway without a code, or show it."""
    if new_role not in ("", _UNCHOSEN, NO_GUESTS, *ROLES):
        fail(f"ROLE is {new_role!r}: use {', '.join(ROLES)}, {NO_GUESTS} or {_UNCHOSEN}", BAD_INPUT)

    async def work() -> None:
        async with asked(at) as lobby:
            if new_role:
                session = await lobby.set_guest_role(None if new_role == _UNCHOSEN else new_role)
            else:
                session = (await lobby.session()).session
        if as_json:
            print_json({"session_id": session.id, "guest_role": session.guest_role})
        elif new_role:
            messages.print(f"guests {guests_in_words(session)} from now on; who is in stays as they are", markup=False)
        else:
            print(f"guests {guests_in_words(session)}")

    run(work())


def invite(
    at: Target,
    new_role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="viewer, participant or host; as the session has it.")
    ] = "",
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many may join with it.")] = 1,
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="Such as 30m, 12h or 7d.")] = "1d",
    as_json: JsonOption = False,
) -> None:
    """Make an invite, and print the link to send; it is not shown again."""
    if new_role:
        _check_role("--role", new_role)
    expires_in_s = _seconds("--expires", expires)

    async def work() -> None:
        async with asked(at) as lobby:
            made = await lobby.create_invite(new_role, uses=uses, expires_in_s=expires_in_s)
            link = lobby.link(invite=made.secret)
        if as_json:
            print_json({**invite_facts(made), "secret": made.secret, "link": link})
            return
        print_facts(
            [
                ("invite", made.id),
                ("link", link),
                ("role", made.role),
                ("uses", made.uses_left),
                ("expires in", ahead(made.expires_at)),
            ]
        )

    run(work())


def invites(at: Target, as_json: JsonOption = False) -> None:
    """List the invites that still work."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.invites()
        if as_json:
            print_json([invite_facts(item) for item in found])
        else:
            print_invites(found)

    run(work())


def revoke(
    at: Target,
    invite_id: Annotated[str, typer.Argument(metavar="INVITE", help="Its id, or the beginning of it.")],
    as_json: JsonOption = False,
) -> None:
    """Let nobody in with an invite any more; who came with it stays."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.invites()
            revoked = named("invite", invite_id, found, lambda item: item.id, lambda item: "")
            await lobby.revoke_invite(revoked.id)
        if as_json:
            print_json({"id": revoked.id, "revoked": True})
        else:
            messages.print(f"the invite {printable(revoked.id)} lets nobody in any more", markup=False)

    run(work())


def rotate_keys(
    at: Target,
    void: Annotated[
        bool, typer.Option("--revoke", help="Void every token there is; who is here comes back as a new user.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign tokens with a new key from now on."""

    async def work() -> None:
        async with asked(at) as lobby:
            keys = await lobby.rotate_keys(revoke=void)
        if as_json:
            print_json({"key_ids": keys, "revoked": void})
        else:
            kept = "every earlier token is void" if void else "earlier tokens are good until they expire"
            messages.print(f"tokens are signed with a new key; {kept}", markup=False)

    run(work())


async def _user(lobby: Lobby, text: str) -> User:
    mine = lobby.member.user_id if lobby.member else None
    others = [user for user in await lobby.users() if user.id != mine]
    return named("user", text, others, lambda user: user.id, lambda user: user.name)


def _check_role(flag: str, text: str) -> None:
    if text not in ROLES:
        fail(f"{flag} is {text!r}: use {', '.join(ROLES[:-1])} or {ROLES[-1]}", BAD_INPUT)


def _seconds(flag: str, text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        fail(f"{flag} is {text!r}: write a time, such as 30m, 12h or 7d", BAD_INPUT)
    return float(found[1]) * _UNITS[found[2]]
