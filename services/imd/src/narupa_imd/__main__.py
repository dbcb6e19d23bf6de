"""Runs the imd service: `narupa-imd --help` lists its settings."""

from __future__ import annotations

import sys

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.config import load
from narupa_shared.daemon import run


def main() -> None:
    sys.exit(run("imd", load(ImdConfig, sys.argv[1:]), ImdApp))


if __name__ == "__main__":
    main()
