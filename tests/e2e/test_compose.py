"""`docker compose up` as the README says: a whole session in containers, from the build to the last process."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from websockets.sync.client import connect

from tests.e2e.compose import SERVICES, ComposeSession, engine_problem, eventually, frames_of

pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.timeout(1200)]


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


def test_a_nanover_client_joins_through_the_gateway_and_pulls(running: ComposeSession) -> None:
    frame: dict[str, Any] = {}
    pull = {"position": [0.0, 0.0, 5.0], "particles": [0], "interaction_type": "spring", "scale": 10.0}
    with connect(f"ws://127.0.0.1:{running.ports['websocket']}") as socket:
        socket.send(msgpack.packb({"state": {"updates": {"interaction.mine": pull}, "removals": []}}))
        deadline = time.monotonic() + 30
        while frame.get("forces.user.index") != b"\0\0\0\0":
            assert time.monotonic() < deadline, sorted(frame)
            frame |= msgpack.unpackb(socket.recv(timeout=30)).get("frame", {})
    assert len(frame["particle.positions"]) == 12 * frame["particle.count"]
    assert frame["energy.user.total"] > 0


def test_an_image_holds_no_compiler_and_no_other_service(running: ComposeSession) -> None:
    check = "import importlib.util as u, shutil as s; print([n for n in {} if u.find_spec(n)], s.which('gcc'), s.which('cc'))"
    for service in SERVICES:
        others = sorted(f"narupa_{name}" for name in SERVICES - {service})
        assert running.compose("exec", "-T", service, "python", "-c", check.format(others)).strip() == "[] None None"


def test_the_services_are_listed_with_addresses_for_both_sides(running: ComposeSession) -> None:
    listed = {service["kind"]: service for service in json.loads(running.narupa("services", "--json"))}
    names = {"trajectory": running.inspect("trajectory", "{{.Config.Hostname}}")}
    for kind, port in (("imd", 38812), ("trajectory", 38811), ("gateway", 38802)):
        assert listed[kind]["status"] == "running"
        assert listed[kind]["endpoints"] == [f"{names.get(kind, kind)}:{port}", f"127.0.0.1:{running.ports[kind]}"]


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
    wanted = {(kind, "running") for kind in SERVICES - {"lobby"}}
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
