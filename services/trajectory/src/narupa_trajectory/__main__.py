"""`python -m narupa_trajectory`: one trajectory service."""

from __future__ import annotations

import sys

from narupa_shared.config import load
from narupa_shared.daemon import run
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig


def main() -> None:
    sys.exit(run("trajectory", load(TrajectoryConfig, sys.argv[1:]), TrajectoryApp))


if __name__ == "__main__":
    main()
