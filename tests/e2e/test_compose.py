"""`docker compose up` as the README says: a whole session in containers, from the build to the last process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from narupa_shared.testing.ports import unused_port

ROOT = Path(__file__).parents[2]
NARUPA = Path(sys.executable).with_name("narupa")
SERVICES = {"lobby", "imd", "trajectory"}

pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.timeout(1200)]


def engine_problem() -> str:
    """Why containers cannot run here, or empty text."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return f"`{' '.join(command)}` fails: {done.stderr.strip()[:200]}"
    return ""


@dataclass
class ComposeSession:
    """One session of `docker-compose.yml`, on ports and under a name of its own."""

    project: str = field(default_factory=lambda: f"narupa-test-{uuid.uuid4().hex[:8]}")
    ports: dict[str, int] = field(default_factory=lambda: {name: unused_port() for name in sorted(SERVICES)})
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def lobby(self) -> str:
        return f"127.0.0.1:{self.ports['lobby']}"

    @property
    def environment(self) -> dict[str, str]:
        ports = {f"NARUPA_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        return {**os.environ, **ports, **self.settings}

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def inspect(self, service: str, template: str) -> str:
        command = ["docker", "inspect", "--format", template, self.container(service)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    def kill_process(self, service: str) -> None:
        """SIGKILL to the service's process, as the system's out-of-memory killer would send it.

        `docker kill` would count as the operator's wish, after which nothing is restarted. A container that sees the host's
        processes can do it wherever the engine runs.
        """
        pid = self.inspect(service, "{{.State.Pid}}")
        kill = ["--entrypoint", "python", "narupa-lobby", "-c", f"import os; os.kill({pid}, 9)"]
        subprocess.run(["docker", "run", "--rm", "--pid=host", "--user=0", *kill], check=True, timeout=60)

    def narupa(self, *arguments: str, timeout_s: float = 60) -> str:
        done = subprocess.run(
            [NARUPA, *arguments, "--lobby", self.lobby], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"narupa {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def watch(self, frames: int) -> subprocess.Popen[str]:
        command = [NARUPA, "watch", "--json", "--frames", str(frames), "--lobby", self.lobby]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "50")


def frames_of(watching: subprocess.Popen[str], within_s: float = 60) -> list[dict[str, Any]]:
    """All that a `narupa watch --json --frames N` prints, once it has ended well."""
    out, err = watching.communicate(timeout=within_s)
    assert watching.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def eventually(holds: Callable[[], bool], within_s: float) -> float:
    """Seconds until `holds`; fails when that is longer than `within_s`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {holds}"
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def running() -> Iterator[ComposeSession]:
    if problem := engine_problem():
        pytest.skip(problem)
    session = ComposeSession()
    try:
        session.compose("build", timeout_s=1100)
        session.compose("up", "--detach", "--no-build")
        yield session
    finally:
        session.compose("down", "--volumes", "--timeout", "8")


def test_a_first_frame_comes_without_waiting_for_anything_by_hand(running: ComposeSession) -> None:
    frames = frames_of(running.watch(3))
    assert [frame["particle_count"] > 0 for frame in frames] == [True] * 3
    assert frames[-1]["time_ps"] > 0


def test_every_container_becomes_healthy_and_runs_with_few_rights(running: ComposeSession) -> None:
    for service in SERVICES:
        eventually(lambda name=service: running.inspect(name, "{{.State.Health.Status}}") == "healthy", 60)  # type: ignore[misc]
        user = running.compose("exec", "-T", service, "id", "-u").strip()
        assert user not in ("", "0")
        assert running.inspect(service, "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}") == "true [ALL]"
        assert running.inspect(service, "{{.Config.StopSignal}}") == "SIGTERM"


def test_ports_are_published_on_loopback_only(running: ComposeSession) -> None:
    for service in SERVICES:
        published = json.loads(running.inspect(service, "{{json .NetworkSettings.Ports}}"))
        hosts = {binding["HostIp"] for bindings in published.values() for binding in bindings or ()}
        assert hosts == {"127.0.0.1"}


def test_an_image_holds_no_compiler_and_no_other_service(running: ComposeSession) -> None:
    check = "import importlib.util as u, shutil as s; print([n for n in {} if u.find_spec(n)], s.which('gcc'), s.which('cc'))"
    for service in SERVICES:
        others = sorted(f"narupa_{name}" for name in SERVICES - {service})
        assert running.compose("exec", "-T", service, "python", "-c", check.format(others)).strip() == "[] None None"


def test_the_services_are_listed_with_addresses_for_both_sides(running: ComposeSession) -> None:
    listed = {service["kind"]: service for service in json.loads(running.narupa("services", "--json"))}
    for kind, port in (("imd", 38812), ("trajectory", 38811)):
        assert listed[kind]["status"] == "running"
        assert listed[kind]["endpoints"] == [f"{kind}:{port}", f"127.0.0.1:{running.ports[kind]}"]


def test_a_pull_is_felt_and_ends(running: ComposeSession) -> None:
    watching = running.watch(150)
    running.narupa("pull", "--particles", "0", "--to", "0.3,0,0", "--relative", "--scale", "100", "--seconds", "1.5")
    frames = frames_of(watching)
    assert any(frame["user_force_particles"] == 1 and frame["user_energy_kj_mol"] > 0 for frame in frames)
    after = frames_of(running.watch(3))[-1]
    assert (after["user_force_particles"], after["user_energy_kj_mol"]) == (0, 0.0)


@pytest.mark.parametrize("victim", ["imd", "lobby"])
def test_frames_go_on_when_a_service_is_killed_and_it_comes_back(running: ComposeSession, victim: str) -> None:
    started = running.inspect(victim, "{{.State.StartedAt}}")
    watching = running.watch(180)
    time.sleep(2)
    assert watching.poll() is None
    running.kill_process(victim)
    frames = frames_of(watching)
    indices = [frame["frame_index"] for frame in frames]
    assert indices == sorted(indices), "the stream started over"
    assert len(frames) == 180

    def back() -> bool:
        return (
            running.inspect(victim, "{{.State.StartedAt}}") != started
            and running.inspect(victim, "{{.State.Running}}") == "true"
        )

    eventually(back, 20)
    wanted = {("imd", "running"), ("trajectory", "running")}
    eventually(
        lambda: wanted <= {(s["kind"], s["status"]) for s in json.loads(running.narupa("services", "--json"))}, 30
    )


def test_a_setting_that_is_wrong_is_told_and_ends_the_container(running: ComposeSession) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--env", "NARUPA_IMD_PORT=seventy", "narupa-imd"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "NARUPA_IMD_PORT" in done.stderr and "seventy" in done.stderr


def test_down_ends_everything_within_ten_seconds(running: ComposeSession) -> None:
    ids = running.compose("ps", "--quiet").split()
    assert len(ids) == len(SERVICES)
    pids = [running.inspect(service, "{{.State.Pid}}") for service in SERVICES]
    running.compose("stop")
    statuses = {service: running.inspect(service, "{{.State.ExitCode}}") for service in SERVICES}
    assert statuses == dict.fromkeys(SERVICES, "0"), "stopped only by SIGKILL:\n" + running.logs()
    running.compose("start")
    frames_of(running.watch(3))
    began = time.monotonic()
    running.compose("down", "--volumes")
    assert time.monotonic() - began < 10
    assert running.compose("ps", "--all", "--quiet") == ""
    named = ["docker", "volume", "ls", "--quiet", "--filter", f"name={running.project}"]
    assert subprocess.run(named, capture_output=True, text=True, timeout=30, check=True).stdout == ""
    # Where the engine runs on this machine itself, its processes can be seen to be gone.
    assert not [pid for pid in pids if "narupa" in _command(pid)]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
