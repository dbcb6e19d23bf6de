"""`python -m narupa_shared.healthcheck HOST:PORT`: exit status 0 when the service there says that it is serving.

Instead of an address, the name of a service (`lobby`) stands for this machine and the port in `NARUPA_LOBBY_PORT`, so that
one container health check fits every service. With `NARUPA_LOBBY_TLS_CERT` the service is called over TLS, and has to show
that certificate. To an address, `NARUPA_TLS_CA`, `NARUPA_TLS_CERT` and `NARUPA_TLS_KEY` say how to call it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from narupa_shared.certificates import hosts_of
from narupa_shared.errors import NarupaError
from narupa_shared.tls import TlsConfig

LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Tls:
    """How to call over TLS.

    Attributes:
        config: What to trust, and to show.
        name: What to look for in the certificate, where it is not the address called.
    """

    config: TlsConfig
    name: str = ""


def problem(address: str, limit_s: float = LIMIT_S, tls: Tls | None = None) -> str:
    """Why the service at `address` does not serve, or empty text when it does; over TLS when `tls` says how."""
    try:
        opened = _channel(address, tls)
    except NarupaError as error:
        return str(error)
    with opened as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=limit_s)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
    status = reply.status
    return (
        ""
        if status == health_pb2.HealthCheckResponse.SERVING
        else health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    )


def _channel(address: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address)
    options = [("grpc.ssl_target_name_override", tls.name)] if tls.name else []
    return grpc.secure_channel(address, tls.config.channel_credentials(), options)


def tls_of(argument: str, environment: Mapping[str, str] = os.environ) -> Tls | None:
    """How the service that `argument` stands for is to be called; None without TLS."""
    prefix = "NARUPA_" if ":" in argument else f"NARUPA_{argument.upper()}_"
    ca, cert, key = (
        Path(value) if (value := environment.get(f"{prefix}TLS_{name}")) else None for name in ("CA", "CERT", "KEY")
    )
    if ":" in argument:
        return Tls(TlsConfig(ca, cert, key)) if ca or cert else None
    if cert is None:
        return None
    # On its own machine the service is known by the very certificate that it is to show, whatever names are in it.
    names = hosts_of(cert.read_bytes()) if cert.exists() else []
    return Tls(TlsConfig(cert, cert, key), names[0].replace("*", "healthcheck") if names else "")


def address_of(argument: str) -> str | None:
    """HOST:PORT as it is, or that of the named service on this machine; None when its port is not known."""
    if ":" in argument:
        return argument
    port = os.environ.get(f"NARUPA_{argument.upper()}_PORT", "")
    return f"127.0.0.1:{port}" if port.isdigit() else None


def main() -> int:
    if len(sys.argv) != 2 or (address := address_of(sys.argv[1])) is None:
        print(
            "usage: python -m narupa_shared.healthcheck HOST:PORT (or a SERVICE whose NARUPA_<SERVICE>_PORT is set)",
            file=sys.stderr,
        )
        return 2
    if why := problem(address, tls=tls_of(sys.argv[1])):
        print(f"healthcheck: {address} is not serving: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
