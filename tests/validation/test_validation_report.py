"""The page of results says what failed, and a failed check fails the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKS = '''
"""A section.

How it is done.
"""
import pytest

def test_good(record):
    record("good", system="any", bound="> 0", result="1 | 2", passed=True)

def test_bad(record):
    """Bad."""
    record("bad", system="any", bound="> 0", result="-1", passed=False)
    record("after it", system="any", bound="> 0", result="1", passed=True)

def test_broken(record):
    """Broken before it was measured."""
    raise ValueError("no reason\\nat all")

def test_absent(record):
    """Absent."""
    pytest.skip("nothing to run it with")

def test_measured(record):
    record("speed", system="any", bound="> 0", result="3", passed=None)
'''


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_checks.py").write_text(CHECKS)
    (folder / "empty.ini").write_text("[pytest]\n")
    options = ["-c", str(folder / "empty.ini"), "-p", "tests.validation.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(folder / "test_checks.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_page_tells_all_that_happened(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run(tmp_path, "--validation-report", str(page))
    assert done.returncode == 1 and "bad, any: -1; > 0" in done.stdout
    text = page.read_text()
    assert "**6 checks: 2 passed, 2 failed, 2 not run or only measured.**" in text
    assert "## A section\n\nHow it is done.\n\n| what |" in text
    for row in (
        "| good | any | > 0 | 1 \\| 2 | passed |",
        "| bad | any | > 0 | -1 | FAILED |",
        "| after it | any | > 0 | 1 | passed |",
        "| Broken before it was measured. |  |  | no reason | FAILED |",
        "| Absent. |  |  | nothing to run it with | not run |",
        "| speed | any | > 0 | 3 | measured |",
    ):
        assert row in text
    assert str(tmp_path) not in text and str(ROOT) not in text


def test_a_run_without_failures_succeeds(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "good or measured")
    assert done.returncode == 0, done.stdout
