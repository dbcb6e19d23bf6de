"""The page that a browser gets which opens the gateway's address: what this is, and how to join."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from narupa_shared.hosts import is_loopback

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}"
    "pre{overflow-x:auto;padding:.7rem 1rem;border:1px solid #8886;border-radius:.4rem}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The page loads nothing and runs nothing; of styles, its own only.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_UNKNOWN: Final = "HOST"


def landing_page(
    session: str,
    requested: str = "",
    *,
    websocket_port: int,
    grpc_port: int,
    imd_port: int | None = None,
    lobbies: Sequence[str] = (),
    tls: bool = False,
    viewer: bool = False,
) -> bytes:
    """HTML in UTF-8 without anything secret, which loads nothing from anywhere.

    Args:
        session: The session's id.
        requested: The request's `Host` header, which may be anything; the page says how to join at that host.
        websocket_port: Where NanoVer clients connect.
        grpc_port: Where Narupa and NanoVer gRPC clients connect.
        imd_port: Where programs that read IMD connect; None for nowhere.
        lobbies: HOST:PORT of the lobbies; those on loopback are told to this machine only.
        tls: Whether clients connect over TLS.
        viewer: Whether browsers can take part at that port, too.
    """
    host = requested_host(requested)
    url = f"{'wss' if tls else 'ws'}://{host}:{websocket_port}"
    lobby = _lobby(lobbies, host)
    ca = " --tls-ca ca.pem" if tls else ""
    parts = [
        _paragraph(
            f"This is the gateway of the Narupa session <b>{html.escape(session)}</b>: a molecular simulation that several "
            "people watch, and pull on, while it runs."
            + ("" if viewer else " It is an address for programs; a browser sees no more of it than this.")
        ),
        _paragraph(
            "Whoever runs the session may ask for a code, and gives it to you. NanoVer clients put it behind the address, as in "
            f"{html.escape(url)}/CODE; the narupa command has --join-code and --invite."
        ),
    ]
    if viewer:
        parts.append(_way("A browser, or a headset's", "Open this page:", url.replace("ws", "http", 1)))
    parts += [
        _way("NanoVer iMD-XR", "Look for the session in its list of servers, or type its address:", url),
        _way(
            "NanoVer, from Python",
            "With the package nanover-server:",
            f'from nanover.websocket import NanoverImdClient\nclient = NanoverImdClient.from_url("{url}")',
        ),
        _way(
            "Narupa iMD-VR, and Narupa or older NanoVer from Python",
            "Trajectory, interactions and multiplayer are at one gRPC address:",
            f"{host}:{grpc_port}",
        ),
    ]
    if imd_port is not None:
        parts.append(_way("VMD, MDAnalysis and others that read IMD", "Over TCP:", f"imd://{host}:{imd_port}"))
    if lobby:
        at = lobby + (f" --session {session}" if _NAME.fullmatch(session) and session != "default" else "")
        parts += [
            _way(
                "The narupa command", "Watches the session, and pulls on its atoms:", f"narupa watch --lobby {at}{ca}"
            ),
            _way(
                "Narupa, from Python",
                "With the package narupa-client:",
                _program(lobby, session, tls),
            ),
        ]
    body = "\n".join(parts)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Narupa session {html.escape(session)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Narupa session {html.escape(session)}</h1>\n{body}\n</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace")


def requested_host(header: str) -> str:
    """The host in a `Host` header, without its port; the word HOST where it is none."""
    host = header.strip()
    if host.startswith("["):
        inner, closed, port = host[1:].partition("]")
        try:
            address = ipaddress.IPv6Address(inner)
        except ValueError:
            return _UNKNOWN
        return f"[{address}]" if closed and not address.scope_id and _is_port(port) else _UNKNOWN
    name, colon, port = host.partition(":")
    return name if _NAME.fullmatch(name) and _is_port(colon + port) else _UNKNOWN


def _is_port(text: str) -> bool:
    return text == "" or (text[0] == ":" and len(text) <= 6 and text.isascii() and (text[1:].isdigit() or text == ":"))


def _lobby(lobbies: Sequence[str], host: str) -> str:
    """The first lobby that who asked for `host` can reach; empty where there is none."""
    for lobby in lobbies:
        name, _, port = lobby.rpartition(":")
        if name in ("", "0.0.0.0", "[::]"):
            return f"{host}:{port}"
        if is_loopback(host) or not is_loopback(name):
            return lobby
    return ""


def _program(lobby: str, session: str, tls: bool) -> str:
    which = "" if session == "default" else f", session={session!r}"
    trusting = ', tls=narupa_client.TlsConfig("ca.pem")' if tls else ""
    return (
        f'import narupa_client\nsession = narupa_client.connect("{lobby}"{which}{trusting})\n'
        "print(session.wait_frame().temperature)"
    )


def _paragraph(text: str) -> str:
    return f"<p>{text}</p>"


def _way(title: str, text: str, typed: str) -> str:
    return f"<h2>{title}</h2>\n<p>{text}</p>\n<pre>{html.escape(typed)}</pre>"
