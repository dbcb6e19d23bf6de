"""The command line against small services: what it prints where, and with which status it ends."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from narupa_client.blocking import LoopThread
from narupa_client.cli import pull
from narupa_client.cli.app import app
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.imd.v1 import imd_pb2

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
    "user_work_kj_mol",
    "interactions",
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
        "interaction.ids": ["a-pull"],
        "interaction.energies": np.array([2.5], np.float32),
        "interaction.work": np.array([-1.5], np.float32),
        "interaction.forces": np.ones((1, 3), np.float32),
    }
    values = {"system.simulation.time": index / 2, "energy.potential": float("nan"), "energy.kinetic": 3.0}
    return Frame(index, values, arrays)  # type: ignore[arg-type]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setattr(pull, "_ACCOUNT_LIMIT_S", 0.3)  # the small service tells of no work by itself
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
    assert last["interactions"] == {"a-pull": {"energy_kj_mol": 2.5, "work_kj_mol": -1.5}}
    assert last["temperature_k"] is None, "the source has none"


def test_watch_for_people_without_a_terminal(running: Services) -> None:
    result = running.run("watch", "--frames", "2")
    assert result.exit_code == 0, result.stderr
    assert "frames/s" in result.stdout and "pulls 1" in result.stdout and "users' work" in result.stdout


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


def test_pull_with_parameters_and_groups_tells_the_work(running: Services) -> None:
    async def finished(made: list[imd_pb2.Interaction]) -> None:
        while not running.imd.interactions:
            await asyncio.sleep(0.005)
        made.extend(running.imd.interactions.values())
        facts: dict[str, Any] = {"duration_s": 1.5, "start_time_ps": 1.0, "end_time_ps": 3.25, "potential": "distance"}
        await running.trajectory.finish("somebody-else's", work=7.0)
        await running.trajectory.finish(made[0].id, work=-1234.5, **facts)

    made: list[imd_pb2.Interaction] = []
    arguments = [
        "--kind",
        "distance",
        "--group",
        "1,0",
        "--group",
        "3",
        "--parameter",
        "target=0.5",
        "--seconds",
        "0.2",
    ]
    telling = asyncio.run_coroutine_threadsafe(finished(made), running.thread._loop)
    result = running.run("pull", *arguments, "--json")
    telling.result()
    assert result.exit_code == 0, result.stderr
    assert made[0].potential == "distance" and made[0].scale == 1.0 and made[0].parameters["target"] == 0.5
    assert [list(group.particles) for group in made[0].groups] == [[0, 1], [3]]
    assert "released after 0.2 s: -1,234.50 kJ/mol of work done in 1.5 s, 2.250 ps" in result.stderr
    assert json.loads(result.stdout)["work"] == -1234.5


def test_pull_takes_a_vector_with_or_without_brackets(running: Services) -> None:
    for vector in ("0,0,0.01", "[0, 0, 0.01]"):
        arguments = ["--particles", "0", "--to", "0,0,0", "--kind", "steered", "--parameter", f"velocity={vector}"]
        result = running.run("pull", *arguments, "--seconds", "0.01")
        assert result.exit_code == 0, result.stderr


def test_a_pull_that_the_service_ends_says_why(running: Services) -> None:
    async def end() -> None:
        while not running.imd.interactions:
            await asyncio.sleep(0.005)
        running.imd.end(next(iter(running.imd.interactions)), "the simulation blew up at 3 ps")

    ending = asyncio.run_coroutine_threadsafe(end(), running.thread._loop)
    result = running.run("pull", "--particles", "0", "--to", "0,0,0", "--seconds", "30")
    ending.result()
    assert result.exit_code == 1 and "was ended: the simulation blew up at 3 ps" in result.stderr


def test_pull_relative_to_where_the_particles_are(running: Services) -> None:
    result = running.run("pull", "--particles", "0", "--to", "0,0,-1", "--relative", "--seconds", "0.05")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--particles", "99", "--to", "0,0,0"], ["--particles is 99", "the system has 10 particles"], 1),
        (["--particles", "1,1", "--to", "0,0,0"], ["--particles", "named twice"], 2),
        (["--particles", "", "--to", "0,0,0"], ["--particles"], 2),
        (["--particles", "-1", "--to", "0,0,0"], ["--particles", "-1"], 2),
        (["--particles", "0", "--to", "0,0"], ["--to", "three numbers"], 2),
        (["--particles", "0", "--to", "0,nan,0"], ["--to", "nan"], 2),
        (["--particles", "0", "--to", "0,0,0", "--kind", "rope"], ["--kind is 'rope'", "spring", "steered"], 1),
        (["--to", "0,0,0"], ["--particles", "--group"], 2),
        (["--particles", "0"], ["--to X,Y,Z"], 2),
        (["--particles", "0", "--to", "0,0,0", "--parameter", "stiffness"], ["--parameter", "NAME=VALUE"], 2),
        (
            ["--particles", "0", "--to", "0,0,0", "--parameter", "stifness=1"],
            ["--parameter stifness is 1", "spring"],
            2,
        ),
        (["--particles", "0", "--to", "0,0,0", "--parameter", "stiffness=-1"], ["--parameter stiffness is -1"], 2),
        (["--kind", "distance", "--group", "0,x"], ["--group is '0,x'"], 2),
        (
            ["--kind", "distance", "--group", "0", "--parameter", "target=1"],
            ["--group is given 1 times", "2 groups"],
            2,
        ),
        (["--kind", "steered", "--particles", "0", "--to", "0,0,0"], ["--parameter velocity is missing"], 2),
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
