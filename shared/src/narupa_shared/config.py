"""Typed configuration: flag over environment over file over default; a wrong value stops the service at its start."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from narupa_shared.hosts import is_loopback as is_loopback

MIB = 1024 * 1024
# Of one service, as many as the lobby lists.
MAX_ADVERTISED = 8


def settings_for(service: str) -> SettingsConfigDict:
    """The `model_config` of a service's settings class: environment variables `NARUPA_<SERVICE>_<FIELD>`."""
    return SettingsConfigDict(
        env_prefix=f"NARUPA_{service.upper()}_",
        extra="forbid",
        cli_kebab_case=True,
        cli_prog_name=f"narupa-{service}",
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
        validate_default=True,
        defer_build=True,
    )


class ServiceConfig(BaseSettings):
    """What every service is told. Subclasses add their own fields and set `model_config = settings_for(name)`."""

    model_config = SettingsConfigDict(defer_build=True)  # only those of the subclasses are ever needed

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback closes the service to callers without a token, unless opened."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    session_id: str = Field(default="default", min_length=1, max_length=64)
    """The session that this service belongs to."""

    lobby: str = "127.0.0.1:38810"
    """Where the lobby is, HOST:PORT; of several lobbies over one store all, with commas between, in the order to try them."""

    advertise: tuple[str, ...] = ()
    """HOST:PORT addresses that others should use, in the order they should try them; empty means the listening address. The host
    * is this machine's name; HOST:FIRST-LAST are several ports, behind each of which one of several replicas may listen."""

    open_access: bool | None = None
    """Whether callers without a token are let in; unset means only when listening on loopback."""

    service_key: SecretStr | None = None
    """Shared secret with which services register at a closed lobby."""

    service_id: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    """The id under which the service registers at the lobby; unset makes one. The lobby sets it for those that it starts."""

    tls_cert: Path | None = None
    """PEM file with the certificate that this service shows, and those that lead to its authority; unset means no TLS."""

    tls_key: Path | None = None
    """PEM file with the certificate's private key, without a passphrase."""

    tls_client_ca: Path | None = None
    """PEM file with the authorities of which callers must show a certificate (mTLS); unset asks them for none."""

    tls_ca: Path | None = None
    """PEM file with the authorities that this service trusts when it calls others over TLS; unset means the system's."""

    lobby_tls: bool | None = None
    """Whether the lobby is called over TLS; unset means only with tls_cert or tls_ca."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are logged."""

    log_format: Literal["console", "json"] = "console"
    """How log lines look: for people, or one JSON object per line."""

    drain_grace_s: float = Field(default=2.0, ge=0, le=60)
    """How long running calls may take to end once the service stops, s."""

    drain_move_s: float = Field(default=5.0, ge=0, le=600)
    """How long a draining service goes on serving those who have not moved to another of its kind, s."""

    max_message_bytes: Annotated[int, Field(ge=1024, le=1024 * MIB)] = 4 * MIB
    """Largest message accepted from a caller, bytes."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port for Prometheus metrics over HTTP on the same host; unset means none."""

    @field_validator("lobby")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for address in split_addresses(value):
            if len(ports_of(address)) != 1 or "-" in address.rpartition(":")[2]:
                raise ValueError(f"{address!r} is not HOST:PORT")
        return value

    @field_validator("advertise")
    @classmethod
    def _advertised(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not ports_of(address):
                raise ValueError(f"{address!r} is not HOST:PORT")
        if sum(len(ports_of(address)) for address in value) > MAX_ADVERTISED:
            raise ValueError(f"these are more than {MAX_ADVERTISED} addresses")
        return value

    @field_validator("tls_cert", "tls_key", "tls_client_ca", "tls_ca", "lobby_tls", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return None if value == "" else value  # a variable that is set to nothing, as container set-ups do

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _certificate_is_there(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        cert = info.data.get("tls_cert", value)  # not there when it is wrong itself
        if value is not None and cert is None:
            raise ValueError("it needs tls_cert, the certificate that the service shows, too")
        if info.field_name == "tls_key" and value is None and cert is not None:
            raise ValueError(f"tls_cert is {str(cert)!r}, and its private key is needed, too")
        return value

    @field_validator("lobby_tls")
    @classmethod
    def _lobby_tls(cls, value: bool | None, info: ValidationInfo) -> bool:
        if value is None:
            return any(info.data.get(field) is not None for field in ("tls_cert", "tls_ca"))
        return value

    @property
    def lobby_addresses(self) -> tuple[str, ...]:
        """Where lobbies are, each HOST:PORT, in the order to try them."""
        return split_addresses(self.lobby)

    @property
    def open(self) -> bool:
        """Whether callers without a token are let in."""
        return is_loopback(self.host) if self.open_access is None else self.open_access

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` passes what the file says as init arguments, which therefore rank below the environment.
        return (env_settings, init_settings)


def ports_of(address: str) -> range:
    """The ports that HOST:PORT or HOST:FIRST-LAST names; none where it is neither."""
    host, _, given = address.rpartition(":")
    first, dash, last = given.partition("-")
    ends = (first, last) if dash else (first, first)
    if not host or not all(end.isascii() and end.isdigit() and int(end) <= 65535 for end in ends):
        return range(0)
    return range(int(ends[0]), int(ends[1]) + 1)


def split_addresses(text: str) -> tuple[str, ...]:
    """The addresses in a list with commas between them."""
    return tuple(address.strip() for address in text.split(","))


def default_state_dir() -> Path:
    """Where services keep what outlives them: `$XDG_STATE_HOME/narupa`, or `~/.local/state/narupa`."""
    stated = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(stated) if stated.startswith("/") else Path.home() / ".local" / "state") / "narupa"


Config = TypeVar("Config", bound=ServiceConfig)


def load(config_class: type[Config], argv: Sequence[str]) -> Config:
    """The configuration from flags, environment, `--config FILE` (TOML) and defaults.

    Exits with status 2 and one line per problem on standard error when a value is wrong; nothing is started then.
    """
    arguments = list(argv)
    from_file: dict[str, Any] = {}
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 >= len(arguments):
            _stop(["--config needs the path of a TOML file"])
        path = Path(arguments[at + 1])
        del arguments[at : at + 2]
        try:
            from_file = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            _stop([f"--config {path}: {error}"])
    try:
        flags: CliSettingsSource[Any] = CliSettingsSource(config_class, cli_parse_args=arguments)
        return config_class(_cli_settings_source=flags, **from_file)
    except ValidationError as error:
        prefix = config_class.model_config.get("env_prefix", "")
        _stop(
            [
                f"--{'.'.join(map(str, item['loc'])).replace('_', '-')} "
                f"({prefix}{str(item['loc'][0]).upper() if item['loc'] else ''}) "
                f"is {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            ]
        )
    except SettingsError as error:
        _stop([str(error)])


def _stop(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        print(f"configuration: {problem}", file=sys.stderr)
    raise SystemExit(2)
