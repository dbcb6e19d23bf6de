"""Where a session is to be found: lobbies, and what an invite link says besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qs, quote, unquote, urlencode

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
        join_code: Of a link that holds the session's join code instead.
    """

    lobbies: tuple[Endpoint, ...]
    session_id: str = ""
    invite: str = field(default="", repr=False)
    join_code: str = field(default="", repr=False)

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
        if (
            set(asked) - {"invite", "join_code"}
            or any(len(values) > 1 for values in asked.values())
            or "/" in session_id
        ):
            # Without the query: the secret in it must not end up in a log.
            raise InvalidArgumentError(field, SCHEME + place, f"this is no invite link; {_LINK}")
        return cls(lobbies, unquote(session_id), asked.get("invite", [""])[0], asked.get("join_code", [""])[0])


def session_link(lobbies: Sequence[Endpoint], session_id: str, *, invite: str = "", join_code: str = "") -> str:
    """The link in which `SessionAddress.parse` finds the session, and the invite or the join code, again."""
    secrets = {"invite": invite, "join_code": join_code}
    query = urlencode({key: value for key, value in secrets.items() if value}, quote_via=quote)
    return f"{SCHEME}{','.join(map(str, lobbies))}/{quote(session_id, safe='')}{'?' if query else ''}{query}"
