"""Where a session is to be found: lobbies, and what an invite link says besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qs, quote, unquote

from narupa_client.connection import Endpoint
from narupa_shared.errors import InvalidArgumentError

SCHEME: Final = "narupa://"
_LINK: Final = "write narupa://HOST:PORT/SESSION?invite=SECRET, or HOST:PORT"


@dataclass(frozen=True, slots=True)
class SessionAddress:
    """Which lobbies to ask, in order, for which session.

    Attributes:
        lobbies: They share one store, so that each knows the sessions of the others.
        session_id: Empty where the address does not say.
        invite: The secret of an invite link; empty without one.
    """

    lobbies: tuple[Endpoint, ...]
    session_id: str = ""
    invite: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, field: str = "address") -> Self:
        """What `HOST:PORT`, several of them with commas between, or an invite link says.

        Raises:
            InvalidArgumentError: not of that form.
        """
        text = text.strip()
        if not text.startswith(SCHEME):
            return cls(tuple(Endpoint.parse(part, field) for part in text.split(",")))
        place, _, query = text.removeprefix(SCHEME).partition("?")
        hosts, _, session_id = place.partition("/")
        lobbies = tuple(Endpoint.parse(part, field) for part in hosts.split(","))
        asked = parse_qs(query, keep_blank_values=True)
        if set(asked) - {"invite"} or any(len(values) > 1 for values in asked.values()) or "/" in session_id:
            # Without the query: the secret in it must not end up in a log.
            raise InvalidArgumentError(field, SCHEME + place, f"this is no invite link; {_LINK}")
        return cls(lobbies, unquote(session_id), asked.get("invite", [""])[0])


def invite_link(lobbies: Sequence[Endpoint], session_id: str, secret: str) -> str:
    """The link with which `SessionAddress.parse` finds the session and the invite again."""
    return f"{SCHEME}{','.join(map(str, lobbies))}/{quote(session_id, safe='')}?invite={quote(secret, safe='')}"
