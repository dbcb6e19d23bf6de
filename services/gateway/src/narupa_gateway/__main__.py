"""Runs the gateway: `narupa-gateway --help` lists its settings."""

from __future__ import annotations

import sys

from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_shared.config import load
from narupa_shared.daemon import run


def main() -> None:
    sys.exit(run("gateway", load(GatewayConfig, sys.argv[1:]), GatewayApp))


if __name__ == "__main__":
    main()
