"""Which session a command is about, and what it says at the lobby's door: options that every command understands."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from narupa_client.session import DEFAULT_LOBBY
from narupa_shared.tls import TlsConfig

PASSWORD_VARIABLE: Final = "NARUPA_PASSWORD"
_PANEL: Final = "Where, and who asks"

LobbyOption = Annotated[
    str | None,
    typer.Option(
        "--lobby",
        metavar="HOST:PORT",
        help=f"Where the lobby is, or an invite link (NARUPA_LOBBY; default {DEFAULT_LOBBY}).",
        rich_help_panel=_PANEL,
    ),
]
SessionOption = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="Which session (NARUPA_SESSION).", rich_help_panel=_PANEL),
]
JoinCodeOption = Annotated[
    str | None,
    typer.Option(
        "--join-code",
        metavar="CODE",
        help="Needed where the lobby is closed (NARUPA_JOIN_CODE).",
        rich_help_panel=_PANEL,
    ),
]
InviteOption = Annotated[
    str | None,
    typer.Option(
        "--invite", metavar="SECRET", help="Come with this invite instead (NARUPA_INVITE).", rich_help_panel=_PANEL
    ),
]
PasswordOption = Annotated[
    bool,
    typer.Option("--password", help=f"Ask for the session's password ({PASSWORD_VARIABLE}).", rich_help_panel=_PANEL),
]
OperatorKeyOption = Annotated[
    str | None,
    typer.Option(
        "--operator-key",
        metavar="KEY",
        help="Come as the lobby's operator (NARUPA_OPERATOR_KEY).",
        rich_help_panel=_PANEL,
    ),
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Speak TLS, and trust the authorities in this PEM file (NARUPA_TLS_CA).",
        rich_help_panel=_PANEL,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="Show this certificate (NARUPA_TLS_CERT).", rich_help_panel=_PANEL),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option("--tls-key", metavar="FILE", help="Its private key (NARUPA_TLS_KEY).", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, slots=True)
class Target:
    """Which session a command is about, and how it gets in."""

    lobby: str = DEFAULT_LOBBY
    session: str | None = None
    join_code: str | None = field(default=None, repr=False)
    invite: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    operator_key: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def tls(self) -> TlsConfig | None:
        """None where no TLS option was given."""
        if self.tls_ca is None and self.tls_cert is None and self.tls_key is None:
            return None
        return TlsConfig(self.tls_ca, self.tls_cert, self.tls_key)

    def admission(self) -> dict[str, Any]:
        """Arguments of `join` and `open_lobby`."""
        return {
            "session": self.session or "",
            "join_code": self.join_code,
            "invite": self.invite,
            "password": self.password,
            "operator_key": self.operator_key,
            "tls": self.tls,
        }

    def overlaid(self, **said: Any) -> Target:
        """This one, with what was said set; None and empty are nothing said."""
        return replace(self, **{name: value for name, value in said.items() if value})


def target(context: typer.Context, **said: Any) -> Target:
    """What was said after the command, or else before it, or else in the environment."""
    before: Target = context.find_object(Target) or Target()
    return before.overlaid(**said)


def aimed(command: Callable[..., None], *, password: bool = True) -> Callable[..., None]:
    """`command`, whose first parameter is the `Target`, as one that understands the options for it.

    Args:
        password: Whether `--password` is the one to join with; otherwise `command` may have another.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    options = {
        "lobby": LobbyOption,
        "session": SessionOption,
        "join_code": JoinCodeOption,
        "invite": InviteOption,
        "ask_password": PasswordOption,
        "operator_key": OperatorKeyOption,
        "tls_ca": TlsCaOption,
        "tls_cert": TlsCertOption,
        "tls_key": TlsKeyOption,
    }
    if not password:
        del options["ask_password"]

    @functools.wraps(command)
    def asked(context: typer.Context, **values: Any) -> None:
        said = {name: values.pop(name) for name in options}
        if said.pop("ask_password", False):
            said["password"] = password_for("the session")
        command(target(context, **said), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, annotation=option, default=False if name == "ask_password" else None)
            for name, option in options.items()
        ),
    ]
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asked.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del asked.__wrapped__  # its annotations are not those of this one
    return asked


def password_for(what: str, variable: str = PASSWORD_VARIABLE, confirm: bool = False) -> str:
    """A password from the environment, the terminal (without an echo), or a line of standard input."""
    if text := os.environ.get(variable):
        return text
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    text = getpass.getpass(f"Password of {what}: ")
    if confirm and getpass.getpass("Again: ") != text:
        raise typer.BadParameter("the two passwords differ", param_hint="--password")
    return text


def from_environment() -> Target:
    """What the environment says, besides what the options of `narupa` read from it."""
    return Target(password=os.environ.get(PASSWORD_VARIABLE) or None)
