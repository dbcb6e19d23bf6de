"""Runs the gateway: `narupa-gateway --help` lists its settings."""

from __future__ import annotations

import sys

from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_gateway.workers import run_workers
from narupa_shared.config import load
from narupa_shared.daemon import run


def main() -> None:
    config = load(GatewayConfig, sys.argv[1:])
    if config.processes > 1:
        sys.exit(run_workers(config, sys.argv[1:]))
    sys.exit(run("gateway", config, GatewayApp))


if __name__ == "__main__":
    main()
