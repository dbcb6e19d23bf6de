"""`narupa certs`: certificates for TLS, of an authority of one's own."""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from narupa_client.cli.options import BAD_INPUT, fail, messages
from narupa_shared.errors import InvalidArgumentError

if TYPE_CHECKING:  # the other commands are not to wait for cryptography's X.509
    from narupa_shared.certificates import Issued

# A service's own machine reaches it by these, health checks for example.
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")


def certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are, or will be.")],
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME_OR_IP",
            help="What clients will call the services' machine; give it once for each name and address. "
            "Left out, those of the certificate that is there already, or only this machine's own.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3650, help="How long the server's and client's certificates are good.")
    ] = 365,
) -> None:
    """Make an authority, and certificates of it for services and clients; or renew these, if the authority is there.

    Running services take up a renewed certificate by themselves.
    """
    from narupa_shared.certificates import hosts_of

    try:
        fresh = _make(directory, host or [], days)
    except InvalidArgumentError as error:
        fail(str(error), BAD_INPUT)
    except OSError as error:
        fail(f"cannot write to {directory}: {error.strerror or error}")
    done = "made an authority and certificates" if fresh else "renewed the certificates of the authority"
    names = ", ".join(hosts_of((directory / "server.pem").read_bytes()))
    messages.print(f"{done} in {directory}, good for {days} days and the hosts {names}", markup=False)
    Console(soft_wrap=True, highlight=False).print(_advice(directory.absolute()), markup=False)


def _make(directory: Path, hosts: Iterable[str], days: int) -> bool:
    """The files are there; whether the authority is new."""
    from narupa_shared.certificates import Authority, hosts_of

    now = datetime.datetime.now(datetime.UTC)
    ca, ca_key, server = (directory / name for name in ("ca.pem", "ca-key.pem", "server.pem"))
    fresh = not ca.exists() and not ca_key.exists()
    if fresh:
        authority = Authority.new(now)
    elif not ca.exists() or not ca_key.exists():
        there, missing = (ca, ca_key) if ca.exists() else (ca_key, ca)
        reason = (
            f"there is {there.name} without {missing.name}, and an authority is never overwritten; "
            "bring the other file, or name another folder"
        )
        raise InvalidArgumentError("DIR", str(directory), reason)
    else:
        authority = Authority.read(ca.read_bytes(), ca_key.read_bytes(), now)
    named = list(hosts) or (hosts_of(server.read_bytes()) if server.exists() else [])
    server_pair = authority.server([*named, *_ALWAYS], now, days)
    client_pair = authority.client("narupa client", now, days)
    directory.mkdir(parents=True, exist_ok=True)
    if fresh:
        _write(directory, "ca", authority.issued)
    _write(directory, "server", server_pair)
    _write(directory, "client", client_pair)
    return fresh


def _write(directory: Path, name: str, issued: Issued) -> None:
    """Each file is there whole or not at all; a key is never readable by others, not even for a moment."""
    for path, data, mode in (
        (directory / f"{name}-key.pem", issued.key, 0o600),
        (directory / f"{name}.pem", issued.certificate, 0o644),
    ):
        descriptor, draft = tempfile.mkstemp(dir=directory, prefix=f".{path.name}.")  # its mode is 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(mode)
            Path(draft).replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(draft).unlink()


def _advice(directory: Path) -> str:
    return f"""
Services (each of them; or NARUPA_<SERVICE>_TLS_CERT and so on):
  --tls-cert {directory}/server.pem --tls-key {directory}/server-key.pem --tls-ca {directory}/ca.pem
  and, to let in only who has a certificate of this authority: --tls-client-ca {directory}/ca.pem

Clients (or NARUPA_TLS_CA and so on):
  narupa --tls-ca {directory}/ca.pem watch
  and, where services ask for a certificate: --tls-cert {directory}/client.pem --tls-key {directory}/client-key.pem

Clients need ca.pem and perhaps client.pem and client-key.pem. Keep ca-key.pem: whoever has it can pass for any service.
"""
