"""Fan-out stays as near to the least that its libraries allow as it was; a loss of a fifth turns this red."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
# What `python -m benchmarks.fan_out_floor` says, to which a loss of a fifth is too much.
SHARES: Final = {"websocket": 0.73, "native": 0.87}
ATTEMPTS: Final = 3


def shares() -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.fan_out_floor", "--rounds", "7"]
    told: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return told


@pytest.mark.slow
def test_delivery_costs_no_more_than_it_did() -> None:
    best = dict.fromkeys(SHARES, 0.0)
    for _ in range(ATTEMPTS):  # whatever disturbs a measurement makes it worse, hardly ever better
        best = {kind: max(best[kind], share) for kind, share in shares().items()}
        print(best)
        if all(best[kind] > 0.8 * share for kind, share in SHARES.items()):
            return
    pytest.fail(f"fan-out has become dearer: {best} of what the libraries allow, once {SHARES}")
