"""`make` as the README uses it, as far as that needs no set-up."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PUBLIC = (
    "help",
    "setup",
    "session",
    "test",
    "validate",
    "verify",
    "fix",
    "protos",
    "web",
    "bench",
    "peers",
    "up",
    "down",
    "lock",
)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_target() -> None:
    done = make("help")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  make (\w+) ", done.stdout, re.M) == list(PUBLIC)


def test_help_is_what_make_does_by_default() -> None:
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", PUBLIC)
def test_every_target_is_phony_and_can_be_planned(target: str) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert phony is not None
    assert target in phony[1].split()
    assert make("--dry-run", target).returncode == 0


@pytest.mark.parametrize("target", ["setup", "session", "test", "verify"])
def test_what_is_served_needs_no_node(target: str) -> None:
    assert not re.search(r"\b(node|npm|npx)\b", make("--dry-run", target).stdout)


def test_inputs_reach_the_session_as_they_are_written() -> None:
    planned = make("--dry-run", "session", "INPUT=a.xml?x=1&y=2 demo:nanotube", "ARGS=--paused").stdout
    assert planned.splitlines()[-1].endswith("narupa session --paused 'a.xml?x=1&y=2' 'demo:nanotube'")


def test_a_machine_without_a_new_enough_python_is_told_so(tmp_path: Path) -> None:
    done = make(f"VENV={tmp_path}/none", "PYTHON=", "setup")
    assert done.returncode != 0
    assert "no Python 3.11 or newer found" in done.stderr


def test_a_python_without_ensurepip_is_told_what_to_install(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo "Python 3.11.2"; exit 0; }\nexit 1\n')
    python.chmod(0o755)
    done = make(f"VENV={tmp_path}/none", f"PYTHON={python}", "setup")
    assert done.returncode != 0
    assert "Python 3.11.2 cannot make virtual environments" in done.stderr
    assert "python3-venv" in done.stderr
