"""Recorders that are killed leave recordings that can be played, without the last second at most."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLER = Path(__file__).with_name("recording_killer.py")
PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
READ_ALL = """
import sys
from nanover.recording import NanoverRecordingReader, PlaybackSimulation
for path in sys.argv[1:]:
    with NanoverRecordingReader.from_path(path) as reader:
        assert [frame.frame_index for _, frame in reader.iter_frame_updates()] == list(range(len(reader)))
    simulation = PlaybackSimulation.from_path(path=path)
    simulation.load()
    assert len(simulation.entries) == len(simulation.reader) > 0
print(len(sys.argv) - 1)
"""


def killed(folder: Path, kills: int, hurry: float, longest_s: float) -> list[dict[str, Any]]:
    arguments = [str(folder), str(kills), str(hurry), str(longest_s), "2607"]
    ran = subprocess.run([sys.executable, str(KILLER), *arguments], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    findings: list[dict[str, Any]] = json.loads(ran.stdout)
    assert len(findings) == kills
    return findings


def test_a_recorder_that_is_killed_loses_a_second_at_most(tmp_path: Path) -> None:
    for finding in killed(tmp_path, kills=4, hurry=1, longest_s=1.2):
        assert finding["lost_s"] <= 1.0, finding
        assert finding["kept"] > 0, finding


def test_whenever_it_is_killed_the_recording_can_be_played(tmp_path: Path) -> None:
    # A hundred commits for one: few kills meet one otherwise.
    findings = killed(tmp_path, kills=21, hurry=200, longest_s=0.25)
    assert max(finding["kept"] for finding in findings) > 50
    if not PEERS.exists():
        pytest.skip("NanoVer's own reader is not installed here: make peers")
    paths = [str(path) for path in tmp_path.glob("*.nanover.zip")]

    ran = subprocess.run([str(PEERS), "-c", READ_ALL, *paths], capture_output=True, text=True, timeout=100)
    assert ran.stdout.strip() == "21", ran.stderr
