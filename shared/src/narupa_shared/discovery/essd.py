"""The message by which existing clients find a session: small JSON datagrams, broadcast on the local network.

Every message names a *hub*: an address, and a port for each kind of client. Narupa's own add, in one key that other programs
ignore, which session it is and where its lobby is.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.hosts import is_loopback

ESSD_PORT: Final = 54545
ESSD_VERSION: Final = "1.0.0"
MAX_BYTES: Final = 1024
MAX_NAME: Final = 128
MAX_ID: Final = 64
MAX_SERVICES: Final = 16
MAX_LOBBIES: Final = 4
# A name that had to be cut further than this would tell nobody anything; then something else is left out instead.
_LEAST_NAME: Final = 16
_CUT: Final = "..."
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,8}}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_OURS: Final = "narupa"


@dataclass(frozen=True, slots=True)
class ServiceHub:
    """What one message says.

    Attributes:
        name: For people; printable, one line.
        address: Where the services are: an IP address or a host name.
        id: The same in all messages of one hub, which come over several interfaces.
        services: Name to port: `trajectory`, `imd`, `multiplayer` (gRPC), `ws`, `wss`, `https`.
        session: The session's id; empty for programs that are not Narupa's.
        lobbies: HOST:PORT of each lobby, or :PORT where it is at `address`.
        tls: Whether a Narupa session wants TLS.
    """

    name: str
    address: str
    id: str
    services: Mapping[str, int] = field(default_factory=dict)
    session: str = ""
    lobbies: tuple[str, ...] = ()
    tls: bool = False

    def encode(self) -> bytes:
        """The message, at most `MAX_BYTES`; a long name is cut, and what other programs ignore is left out, until it fits.

        It is ASCII, with the spaces of Python's `json.dumps`: existing clients measure a message in that form, and refuse it
        when it is longer, however it came.

        Raises:
            InvalidArgumentError: even the ports alone do not fit.
        """
        name = printable_line(self.name)[:MAX_NAME] or self.address
        for ours in self._ours():
            fields: dict[str, Any] = {
                "name": "",
                "address": self.address,
                "id": self.id,
                "essd_version": ESSD_VERSION,
                "services": dict(self.services),
                **ours,
            }
            fitting = _cut(name, MAX_BYTES - len(json.dumps(fields)))
            if fitting:
                return json.dumps({**fields, "name": fitting}).encode("ascii")
        raise InvalidArgumentError(
            "services", dict(self.services), f"more than fits into {MAX_BYTES} bytes; announce fewer"
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The hub of a message that may come from anybody.

        Raises:
            InvalidArgumentError: too long, no such JSON, or a field of the wrong kind.
        """
        fields = _object(data)
        address = _address(fields.get("address"))
        services = fields.get("services", {})
        if not isinstance(services, dict) or len(services) > MAX_SERVICES:
            raise InvalidArgumentError("services", services, f"write at most {MAX_SERVICES} names with their ports")
        for name, port in services.items():
            if not _SERVICE.fullmatch(name) or not is_port(port):
                raise InvalidArgumentError("services", {name: port}, "write a plain name and a port from 1 to 65535")
        ours = fields.get(_OURS)
        if not isinstance(ours, dict):
            ours = {}
        return cls(
            name=printable_line(_text(fields, "name"))[:MAX_NAME] or address,
            address=address,
            id=printable_line(_text(fields, "id", address))[:MAX_ID] or address,
            services=services,
            session=_session(ours.get("session")),
            lobbies=checked_lobbies(ours.get("lobbies")),
            tls=ours.get("tls") is True,
        )

    def at(self, address: str, *, loopback: bool) -> Self:
        """The hub as it is to be announced at `address`; a lobby that only this machine reaches is named to nobody else."""
        return replace(self, address=address, lobbies=self.lobbies if loopback else _far(self.lobbies))

    def seen_from(self, sender: str) -> Self:
        """The hub as who got it from the IP address `sender` can use it, with every lobby as HOST:PORT.

        An address that means "any" or "this machine" means the sender's, unless the sender is this machine.
        """
        near = is_loopback(sender)
        address = sender if _is_any(self.address) or (is_loopback(self.address) and not near) else self.address
        there = f"[{address}]" if ":" in address else address
        lobbies = tuple(there + lobby if lobby.startswith(":") else lobby for lobby in self.lobbies)
        return replace(self, address=address, lobbies=lobbies if near else _far(lobbies))

    def _ours(self) -> Iterator[dict[str, Any]]:
        if self.session:
            for lobbies in dict.fromkeys((self.lobbies, self.lobbies[:1], ())):
                said = {"session": self.session, "lobbies": list(lobbies), "tls": self.tls}
                yield {_OURS: {key: value for key, value in said.items() if value}}
        yield {}


def printable_line(text: str) -> str:
    """`text`, which others may have chosen, in one line without anything that would control a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def is_port(value: object) -> bool:
    """Whether `value` is a number to which one can connect."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def checked_lobbies(value: object) -> tuple[str, ...]:
    """The first few of a list of HOST:PORT or :PORT; whatever in it is none is left out."""
    found = []
    for item in value if isinstance(value, list | tuple) else ():
        host, colon, port = item.rpartition(":") if isinstance(item, str) else ("", "", "")
        if not (colon and len(port) <= 5 and port.isascii() and port.isdigit() and is_port(int(port))):
            continue
        try:
            address = "" if not host else _address(host)
        except InvalidArgumentError:
            continue
        if _is_any(address):
            address = ""
        found.append(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    return tuple(dict.fromkeys(found))[:MAX_LOBBIES]


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise InvalidArgumentError("message", data[:32], f"longer than {MAX_BYTES} bytes")
    try:
        fields = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidArgumentError("message", data[:64], "this is no JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise InvalidArgumentError("message", data[:64], "write a JSON object")
    return fields


def _text(fields: Mapping[str, Any], key: str, otherwise: str | None = None) -> str:
    value = fields.get(key, otherwise)
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(key, value, "write a text that is not empty")
    return value


def _address(value: object) -> str:
    """An IP address without brackets, or a host name."""
    if isinstance(value, str) and "%" not in value:  # no scope: it means nothing elsewhere, and may hold anything
        try:
            return str(ipaddress.ip_address(value.removeprefix("[").removesuffix("]")))
        except ValueError:
            # A last label that begins with a digit would be read as an address after all: 127.1, 0x7f000001.
            if len(value) <= 253 and _HOST.fullmatch(value) and not value.rpartition(".")[2][0].isdigit():
                return value.lower()
    raise InvalidArgumentError("address", value, "write an IP address or a host name")


def _session(value: object) -> str:
    return printable_line(value)[:MAX_ID] if isinstance(value, str) else ""


def _is_any(address: str) -> bool:
    return address in ("0.0.0.0", "::")


def _far(lobbies: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(lobby for lobby in lobbies if not is_loopback(lobby.rpartition(":")[0]))


def _cut(name: str, room: int) -> str:
    """`name`, or as much of it as takes `room` bytes in JSON, with a sign that it goes on; empty where that is too little."""
    sizes = [len(json.dumps(letter)) - 2 for letter in name]
    if sum(sizes) <= room:
        return name
    room -= len(_CUT)
    kept = 0
    while room >= sizes[kept]:
        room -= sizes[kept]
        kept += 1
    return name[:kept].rstrip() + _CUT if kept >= _LEAST_NAME else ""
