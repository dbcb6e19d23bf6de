"""`python -m narupa_shared.healthcheck HOST:PORT`: exit status 0 when the service there says that it is serving.

Instead of an address, the name of a service (`lobby`) stands for this machine and the port in `NARUPA_LOBBY_PORT`, so that
one container health check fits every service.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIMIT_S = 3.0


def problem(address: str, limit_s: float = LIMIT_S) -> str:
    """Why the service at `address` does not serve, or empty text when it does."""
    with grpc.insecure_channel(address) as channel:
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
    if why := problem(address):
        print(f"healthcheck: {address} is not serving: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
