"""`narupa session` as a real process, with real services."""

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        any(importlib.util.find_spec(f"narupa_{name}") is None for name in ("lobby", "imd", "trajectory")),
        reason="the services are not installed here",
    ),
]

START_S = 60.0
NARUPA = (sys.executable, "-m", "narupa_client.cli")
ANY_PORT = ("--trajectory-port=0", "--imd-port=0", "--gateway-port=0", "--websocket-port=0")


class Session:
    """A running `narupa session` and what it said."""

    def __init__(self, process: subprocess.Popen[str], lobby: str) -> None:
        self.process = process
        self.lobby = lobby
        self.said = ""

    def wait_for(self, text: str, timeout_s: float = START_S) -> None:
        """Reads until `text` was said."""
        deadline = time.monotonic() + timeout_s
        assert self.process.stderr is not None
        while text not in self.said:
            readable, _, _ = select.select([self.process.stderr], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(self.process.stderr.fileno(), 65536).decode() if readable else ""
            if not chunk:
                raise AssertionError(f"{text!r} was not said; but: {self.said}")
            self.said += chunk

    def children(self) -> dict[str, int]:
        """The process of each service, by its kind."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            # A child that was forked just now has not become a service yet.
            for service in [word.removeprefix("narupa_") for word in words if word.startswith("narupa_")]:
                found[service] = int(pid)
        return found

    def watch(self, frames: int) -> list[dict[str, object]]:
        """The frames that another process sees."""
        done = subprocess.run(
            [*NARUPA, "watch", "--json", "--frames", str(frames), "--lobby", self.lobby],
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


Start = Callable[..., Session]


@pytest.fixture
def start(free_port: Callable[[], int]) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Session:
        lobby = f"127.0.0.1:{free_port()}"
        command = [*NARUPA, "session", "--lobby", lobby, *ANY_PORT, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return Session(process, lobby)

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_it_runs_the_demos_and_comes_back_from_losses_and_ends(start: Start) -> None:
    session = start()
    session.wait_for("narupa watch")
    frames = session.watch(5)
    assert int(str(frames[-1]["particle_count"])) > 0
    assert frames[-1]["temperature_k"] is not None

    for name in ("imd", "lobby", "trajectory", "gateway"):
        wait_until(lambda name=name: name in session.children(), 10)  # type: ignore[misc]
        os.kill(session.children()[name], signal.SIGKILL)
        session.wait_for(f"{name} ended (killed by SIGKILL); starting it again", 10)
        wait_until(lambda: len(session.children()) == 4, 20)
    assert session.watch(3)

    before = session.children()
    started = time.monotonic()
    session.process.send_signal(signal.SIGINT)
    assert session.process.wait(10) == 0
    assert time.monotonic() - started < 10
    assert all(gone(pid) for pid in before.values())


def test_a_session_that_is_killed_takes_its_services_along(start: Start) -> None:
    session = start()
    session.wait_for("narupa watch")
    children = session.children()
    assert len(children) == 4
    session.process.kill()
    session.process.wait(5)
    wait_until(lambda: all(gone(pid) for pid in children.values()), 10)


def test_a_bad_input_ends_it_with_status_two(start: Start) -> None:
    session = start("nope.xml")
    assert session.process.wait(START_S) == 2
    assert session.process.stderr is not None
    said = session.process.stderr.read()
    assert "nope.xml" in said and "Traceback" not in said


@pytest.mark.parametrize("flag", ["--lobby", "--imd-port", "--trajectory-port", "--gateway-port", "--websocket-port"])
def test_a_port_in_use_is_named(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = {"--lobby": "127.0.0.1:0", **dict(flag.split("=") for flag in ANY_PORT)}
        chosen[flag] = f"127.0.0.1:{port}" if flag == "--lobby" else str(port)
        arguments = [text for pair in chosen.items() for text in pair]
        done = subprocess.run(
            [*NARUPA, "session", *arguments], capture_output=True, text=True, timeout=START_S, check=False
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr and "in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1
