"""The README's two commands, from a clean clone with nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from narupa_shared.testing.ports import unused_port

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.clean_clone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a newcomer gets: the last commit, and nothing that lies about in this working tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folder = tmp_path_factory.mktemp("clean") / "narupa"
    subprocess.run(["git", "clone", "--quiet", "--no-local", str(ROOT), str(folder)], check=True, timeout=120)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """This test's own environment without what `make`, a virtual environment or a session put into it."""
    ours = ("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHON", "NARUPA_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def ended(pids: set[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while alive := {pid for pid in pids if psutil.pid_exists(pid)}:
        if time.monotonic() > deadline:
            print("still there:", [psutil.Process(pid).cmdline() for pid in alive])
            return False
        time.sleep(0.05)
    return True


def test_make_session_and_a_first_frame_in_a_second_terminal(clone: Path, tmp_path: Path) -> None:
    lobby = f"127.0.0.1:{unused_port()}"
    log = tmp_path / "session.log"
    with log.open("wb") as output:
        session = subprocess.Popen(
            ["make", "session", f"ARGS=--lobby {lobby} --trajectory-port 0 --imd-port 0 --gateway-port 0 --websocket-port 0"],
            cwd=clone, env=environment(), stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    everything: set[int] = set()
    try:
        deadline = time.monotonic() + 600
        while "Ctrl-C ends the session" not in log.read_text():
            assert session.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        watch = [clone / ".venv/bin/narupa", "watch", "--json", "--frames", "3", "--lobby", lobby]
        seen = subprocess.run(watch, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert seen.returncode == 0, seen.stderr
        frames = [json.loads(line) for line in seen.stdout.splitlines()]
        assert len(frames) == 3
        assert all(frame["particle_count"] > 0 and frame["temperature_k"] > 0 for frame in frames)
        everything = {child.pid for child in psutil.Process(session.pid).children(recursive=True)}
        assert len(everything) >= 5, "narupa, three services and an engine"
    finally:
        os.killpg(session.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        try:
            session.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(session.pid, signal.SIGKILL)
            session.wait()
            pytest.fail("the session did not end within 10 s of Ctrl-C:\n" + log.read_text())
    assert ended(everything, within_s=1)


def test_nothing_is_installed_twice_and_the_checkout_stays_clean(clone: Path) -> None:
    again = subprocess.run(
        ["make", "setup"], cwd=clone, env=environment(), capture_output=True, text=True, timeout=300, check=True
    )
    assert "Nothing to be done" in again.stdout
    status = ["git", "status", "--porcelain"]
    assert subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True, timeout=30).stdout == ""
