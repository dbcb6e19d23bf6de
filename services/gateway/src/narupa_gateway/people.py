"""Who is in the session, and what a host may change about that: commands for clients that know of no lobby.

The lobby decides what each of them may, by the role of the user that the client is.
"""

from __future__ import annotations

from typing import Any

from narupa_gateway.guests import Guest
from narupa_shared.commands import Argument, CommandTable

PREFIX = "session/"


def people_commands(guest: Guest) -> CommandTable:
    """Every command with what it does in the name of `guest`.

    Each raises what the lobby says: PermissionDeniedError for who is no host, NotFoundError for who is not there (any more),
    FailedPreconditionError where no host would be left, InvalidArgumentError for what is no role, and UnavailableError.
    """
    lobby = guest.session.lobby

    def get_people() -> dict[str, Any]:
        avatars = {each.session.user_id: sorted(each.avatars) for each in guest.neighbours()}
        return {
            "user": guest.session.user_id,
            "role": guest.session.role,
            "people": [
                {"id": user.id, "name": user.name, "role": user.role, "avatars": avatars.get(user.id, [])}
                for user in guest.session.users
            ],
        }

    async def get_guest_role() -> dict[str, Any]:
        return {"role": (await lobby.session()).session.guest_role}

    async def set_role(user: str, role: str) -> None:
        await lobby.set_role(user, role)

    async def remove(user: str) -> None:
        await lobby.kick(user)

    async def set_guest_role(role: str) -> None:
        await lobby.set_guest_role(role or None)

    table = CommandTable()
    user, role = Argument("user", "str"), Argument("role", "str")
    table.register(f"{PREFIX}get-people", get_people)
    table.register(f"{PREFIX}set-role", set_role, user, role)
    table.register(f"{PREFIX}remove", remove, user)
    table.register(f"{PREFIX}get-guest-role", get_guest_role)
    table.register(f"{PREFIX}set-guest-role", set_guest_role, role)
    return table
