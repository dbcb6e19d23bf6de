"""Runs the lobby: `narupa-lobby`, or `python -m narupa_lobby`."""

from __future__ import annotations

import sys
from typing import Final

from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.config import load
from narupa_shared.daemon import run

# The store's thread asks for the interpreter several times per commit; by default the event loop, when busy, lets go of it only
# every 5 ms.
SWITCH_INTERVAL_S: Final = 0.0005


def main() -> None:
    """Exits with the service's status."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(run("lobby", load(LobbyConfig, sys.argv[1:]), LobbyApp))


if __name__ == "__main__":
    main()
