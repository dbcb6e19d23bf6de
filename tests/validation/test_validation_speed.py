"""What live interactions cost.

Steps per second with 1, 10 and 100 interactions whose handles move with every frame, over those with none, in one run of
`benchmarks/interactions.py` with OpenMM on one core. Other work on the machine disturbs it, so that it fails only if it is
asked to (`--timing`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.interactions import SAMPLE
from tests.validation.conftest import Recorder

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = {1: 0.9, 10: 0.85, 100: 0.7}


def test_interactions_cost_little(request: pytest.FixtureRequest, record: Recorder) -> None:
    """Steps per second with live interactions, against none."""
    command = [sys.executable, "-m", "benchmarks.interactions", "--rounds", "20", "--cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ratios = {int(count): float(ratio) for count, ratio in re.findall(r"(\d+): (\d\.\d+)", done.stdout.splitlines()[0])}
    assert ratios.keys() == BOUNDS.keys()
    strict = bool(request.config.getoption("--timing", default=False))
    name = "17-ala" if SAMPLE.exists() else "demo:peptide"
    for count, bound in BOUNDS.items():
        met = ratios[count] >= bound
        record(
            f"Steps per processor second with {count} live interaction{'s' * (count > 1)}, over those with none",
            system=f"{name}, OpenMM's fastest platform, one core",
            bound=f"≥ {bound:g}",
            result=f"{ratios[count]:.3f}",
            passed=met if met or strict else None,
        )
