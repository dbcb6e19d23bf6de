"""The command line against small services: what it prints where, and with which status it ends."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from narupa_client.blocking import LoopThread
from narupa_client.cli.app import app
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.frames import Frame

NOBODY = "127.0.0.1:1"
WATCHED = {
    "frame_index",
    "time_ps",
    "particle_count",
    "potential_kj_mol",
    "kinetic_kj_mol",
    "temperature_k",
    "user_energy_kj_mol",
    "user_force_particles",
}


class Services:
    """A lobby, a trajectory service that keeps publishing, and an imd service, on a loop of their own."""

    def __init__(self) -> None:
        self.thread = LoopThread()
        self.thread.call(self._start())

    async def _start(self) -> None:
        self.lobby, self.trajectory, self.imd = FakeLobby(), FakeTrajectory(), FakeImd()
        for fake in (self.lobby, self.trajectory, self.imd):
            await fake.start()
        await self.lobby.add_service("trajectory", self.trajectory.address, load=2)
        await self.lobby.add_service("imd", "imd.invalid:1", self.imd.address)
        self._publishing = self.trajectory.publishing(frame)
        await self._publishing.__aenter__()

    async def stop(self) -> None:
        await self._publishing.__aexit__(None, None, None)
        for fake in (self.lobby, self.trajectory, self.imd):
            await fake.stop()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--lobby", self.lobby.address])


def frame(index: int) -> Frame:
    arrays = {
        "particle.positions": np.full((2, 3), index, np.float32),
        "forces.user.index": np.array([1], np.uint32),
        "forces.user.sparse": np.ones((1, 3), np.float32),
    }
    values = {"system.simulation.time": index / 2, "energy.potential": float("nan"), "energy.kinetic": 3.0}
    return Frame(index, values, arrays)  # type: ignore[arg-type]


@pytest.fixture
def running() -> Iterator[Services]:
    running = Services()
    yield running
    running.thread.call(running.stop())
    running.thread.close()


def test_watch_prints_one_json_object_per_frame(running: Services) -> None:
    result = running.run("watch", "--json", "--frames", "3", "--interval", "0.01")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 3
    assert set(lines[0]) >= WATCHED
    last = lines[-1]
    assert last["time_ps"] == last["frame_index"] / 2
    assert (last["particle_count"], last["user_force_particles"], last["kinetic_kj_mol"]) == (2, 1, 3.0)
    assert last["potential_kj_mol"] is None, "not finite"
    assert last["temperature_k"] is None, "the source has none"


def test_watch_for_people_without_a_terminal(running: Services) -> None:
    result = running.run("watch", "--frames", "2")
    assert result.exit_code == 0, result.stderr
    assert "frames/s" in result.stdout


def test_services_for_scripts_and_for_people(running: Services) -> None:
    result = running.run("services", "--json")
    assert result.exit_code == 0, result.stderr
    by_kind = {item["kind"]: item for item in json.loads(result.stdout)}
    assert by_kind["imd"]["endpoints"] == ["imd.invalid:1", running.imd.address]
    assert (by_kind["trajectory"]["status"], by_kind["trajectory"]["load"]) == ("running", 2.0)
    assert running.trajectory.address in running.run("services").stdout


def test_the_lobby_may_be_named_before_the_command_or_in_the_environment(
    running: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(app, ["--lobby", running.lobby.address, "services"]).exit_code == 0
    assert CliRunner().invoke(app, ["--lobby", NOBODY, "services", "--lobby", running.lobby.address]).exit_code == 0
    monkeypatch.setenv("NARUPA_LOBBY", running.lobby.address)
    assert CliRunner().invoke(app, ["state", "get"]).exit_code == 0


NOT_WAITING = ["--give-up-after", "1"]


@pytest.mark.parametrize(
    "arguments", [["watch", "--json", *NOT_WAITING], ["services", "--json"], ["command"], ["state"]]
)
def test_no_lobby_is_one_sentence_on_standard_error(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--lobby", NOBODY])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "127.0.0.1:1 (connection refused)" in result.stderr
    assert "narupa session" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_bad_address_is_named() -> None:
    result = CliRunner().invoke(app, ["watch", "--lobby", "somewhere"])
    assert result.exit_code != 0
    assert "'somewhere'" in result.stderr and "HOST:PORT" in result.stderr


def test_pull_takes_negative_coordinates_and_releases(running: Services) -> None:
    result = running.run("pull", "--particles", "1,0", "--to", "-1,0,2", "--type", "gaussian", "--seconds", "0.1")
    assert result.exit_code == 0, result.stderr
    assert running.imd.interactions == {}
    assert "released" in result.stderr and result.stdout == ""


def test_pull_relative_to_where_the_particles_are(running: Services) -> None:
    result = running.run("pull", "--particles", "0", "--to", "0,0,-1", "--relative", "--seconds", "0.05")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--particles", "99", "--to", "0,0,0"], ["99", "there are 10"], 1),
        (["--particles", "1,1", "--to", "0,0,0"], ["--particles", "named twice"], 2),
        (["--particles", "", "--to", "0,0,0"], ["--particles"], 2),
        (["--particles", "-1", "--to", "0,0,0"], ["--particles", "-1"], 2),
        (["--particles", "0", "--to", "0,0"], ["--to", "three numbers"], 2),
        (["--particles", "0", "--to", "0,nan,0"], ["--to", "nan"], 2),
        (["--particles", "0", "--to", "0,0,0", "--type", "rope"], ["--type", "rope", "spring"], 2),
        (["--particles", "0", "--to", "0,0,0", "--scale", "inf"], ["--scale", "inf"], 2),
    ],
)
def test_a_pull_that_cannot_be_says_why(running: Services, arguments: list[str], words: list[str], status: int) -> None:
    result = running.run("pull", *arguments, "--seconds", "0.1")
    assert result.exit_code == status
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


def test_commands_run_and_are_listed(running: Services) -> None:
    result = running.run("command", "playback/load", "index=2", "label=a b", "deep=[1]")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["arguments"] == {"index": 2, "label": "a b", "deep": [1]}
    assert set(json.loads(running.run("command").stdout)) == {"playback/pause", "playback/load"}
    refused = running.run("command", "playback/fly")
    assert (refused.exit_code, "playback/fly" in refused.stderr) == (1, True)
    assert running.run("command", "playback/load", "index").exit_code == 2


def test_state_is_read_written_and_watched(running: Services) -> None:
    assert running.run("state", "set", "a=1", 'scene={"x": [1, 2.5]}', "name=Ada").exit_code == 0
    assert json.loads(running.run("state").stdout) == {"a": 1, "scene": {"x": [1, 2.5]}, "name": "Ada"}
    assert json.loads(running.run("state", "get", "sc").stdout) == {"scene": {"x": [1, 2.5]}}
    assert running.run("state", "remove", "a").exit_code == 0
    first = json.loads(running.run("state", "watch", "--changes", "1").stdout)
    assert first["whole"] and set(first["updates"]) == {"scene", "name"}
    assert running.run("state", "lock", "scene", "--seconds", "0.05").exit_code == 0
    refused = running.run("state", "set", "locked.key=1")
    assert (refused.exit_code, "locked" in refused.stderr) == (1, True)
