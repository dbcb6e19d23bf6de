"""Runs the lobby: `narupa-lobby`, or `python -m narupa_lobby`."""

from __future__ import annotations

import sys

from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.config import load
from narupa_shared.daemon import run


def main() -> None:
    """Exits with the service's status."""
    sys.exit(run("lobby", load(LobbyConfig, sys.argv[1:]), LobbyApp))


if __name__ == "__main__":
    main()
