"""Sessions in containers, for the tests of `docker-compose.yml`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narupa_shared.testing.ports import unused_port

ROOT = Path(__file__).parents[2]
NARUPA = Path(sys.executable).with_name("narupa")
SERVICES = {"lobby", "imd", "trajectory", "gateway"}


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
    ports: dict[str, int] = field(
        default_factory=lambda: {name: unused_port() for name in sorted({*SERVICES, "websocket"})}
    )
    settings: dict[str, str] = field(default_factory=dict)
    profile: str = ""

    @property
    def lobby(self) -> str:
        return f"127.0.0.1:{self.ports['lobby']}"

    @property
    def environment(self) -> dict[str, str]:
        ports = {f"NARUPA_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        return {**os.environ, **ports, **self.settings}

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        profile = ["--profile", self.profile] if self.profile else []
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *profile, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, service: str, template: str) -> str:
        return self.inspect_container(f"{service}-1", template)

    def inspect_container(self, name: str, template: str) -> str:
        """As `inspect`, of one of several containers of a service: SERVICE-NUMBER."""
        command = ["docker", "inspect", "--format", template, f"{self.project}-{name}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    def kill_process(self, service: str, *, numbered: bool = False) -> None:
        """SIGKILL to the service's process, as the system's out-of-memory killer would send it.

        `docker kill` would count as the operator's wish, after which nothing is restarted. A container that sees the host's
        processes can do it wherever the engine runs.
        """
        pid = self.inspect_container(service if numbered else f"{service}-1", "{{.State.Pid}}")
        kill = ["--entrypoint", "python", "narupa-lobby", "-c", f"import os; os.kill({pid}, 9)"]
        subprocess.run(["docker", "run", "--rm", "--pid=host", "--user=0", *kill], check=True, timeout=60)

    def narupa(self, *arguments: str, timeout_s: float = 60, lobby: str = "") -> str:
        done = subprocess.run(
            [NARUPA, *arguments, "--lobby", lobby or self.lobby],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"narupa {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def watch(self, frames: int, lobby: str = "") -> subprocess.Popen[str]:
        command = [NARUPA, "watch", "--json", "--frames", str(frames), "--lobby", lobby or self.lobby]
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
