"""One of several processes of a gateway: started by the first one (`workers.py`), whose ports it shares.

Started as `python -m narupa_gateway.worker NUMBER PORTS [FLAG]...`, where NUMBER counts from 1 and PORTS is a JSON object. Its
standard input is open for as long as the first process is there; the worker ends when that is gone, whatever ended it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_gateway.workers import stop_limit_s
from narupa_shared.config import load
from narupa_shared.daemon import run


def of_worker(config: GatewayConfig, number: int, ports: Mapping[str, int]) -> GatewayConfig:
    """The settings of worker `number`: with the ports that all share, and what can be one process's only as its own.

    The first one alone is announced on the network, and bears the service's id if it was given one.
    """
    changes: dict[str, Any] = dict(ports)
    if config.metrics_port:
        changes["metrics_port"] = config.metrics_port + number - 1
    if number > 1:
        changes["discovery"] = False
        if config.service_id:
            changes["service_id"] = f"{config.service_id[:60]}-{number}"
    return config.model_copy(update=changes)


def end_with_parent(limit_s: float) -> None:
    """Returns never: once standard input ends, this process stops in order, or within `limit_s` without."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(limit_s)
    os._exit(1)


def main() -> None:
    number, ports = int(sys.argv[1]), json.loads(sys.argv[2])
    config = of_worker(load(GatewayConfig, sys.argv[3:]), number, ports)
    structlog.contextvars.bind_contextvars(worker=number)
    threading.Thread(target=end_with_parent, args=(stop_limit_s(config),), name="parent", daemon=True).start()
    sys.exit(run("gateway", config, lambda settings: GatewayApp(settings, number)))


if __name__ == "__main__":
    main()
