"""Ports for processes that must be told theirs beforehand; whatever can should listen on port 0 instead."""

from __future__ import annotations

import socket


def unused_port() -> int:
    """A port of the loopback address that nothing listens on, just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
