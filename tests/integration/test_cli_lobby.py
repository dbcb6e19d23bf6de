"""`narupa lobby`: what it prints where, with which status it ends, and how it finds what is named."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from narupa_client.cli.app import app
from narupa_client.loop_thread import LoopThread
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb

KEY = "an operator's key"
STARTING, RUNNING, STOPPED = (
    pb.SERVICE_STATUS_STARTING,
    pb.SERVICE_STATUS_RUNNING,
    pb.SERVICE_STATUS_STOPPED,
)


class Running:
    """A closed lobby with Ada, Alan and a hostile name in it, on a loop of its own."""

    def __init__(self) -> None:
        self.thread = LoopThread()
        self.thread.call(self._start())

    async def _start(self) -> None:
        self.lobby, self.trajectory, self.water, self.imd = FakeLobby(), FakeTrajectory(), FakeTrajectory(), FakeImd()
        for fake in (self.lobby, self.trajectory, self.water, self.imd):
            await fake.start()
        self.trajectory.publish(frame("nanotube"))
        self.water.publish(frame("water"))
        self.lobby.operator_key = KEY
        for number, name in enumerate(("Ada", "Alan", "[red]\x1b[2JEve"), start=1):
            user = pb.User(id=f"{number}{number}aa", name=name, role=pb.ROLE_PARTICIPANT)
            self.lobby.users[f"a token {number}"] = user
        await self.lobby.add_service("trajectory", self.trajectory.address, id="trajectory-1")
        await self.lobby.add_service("imd", self.imd.address, id="imd-1")
        self.lobby.add_simulation(
            "water",
            started("water-1", STARTING, progress=0.1, log_tail=["first"]),
            started("water-1", STARTING, progress=0.6, log_tail=["first", "second"]),
            started("water-1", RUNNING, self.water.address),
        )
        self.lobby.add_simulation(
            "lead",
            started("lead-1", STARTING, log_tail=["no such potential"]),
            started("lead-1", STOPPED, reason="it ended with status 2", log_tail=["no such potential"]),
        )

    async def stop(self) -> None:
        for fake in (self.lobby, self.trajectory, self.water, self.imd):
            await fake.stop()

    def run(self, *arguments: str, key: str = KEY, input: str | None = None) -> Result:
        flags = ["--operator-key", key] if key else []
        return CliRunner().invoke(app, [*arguments, "--lobby", self.lobby.address, *flags], input=input)

    def ok(self, *arguments: str, **options: Any) -> Result:
        result = self.run(*arguments, **options)
        assert result.exit_code == 0, result.stderr
        return result

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.ok(*arguments, "--json", **options).stdout)


def frame(name: str) -> Frame:
    arrays: dict[str, Any] = {"particle.positions": np.zeros((2, 3), np.float32)}
    return Frame(0, {"system.simulation.name": name}, arrays)


def started(id: str, status: pb.ServiceStatus, address: str = "", **facts: Any) -> pb.Service:
    service = pb.Service(id=id, kind="trajectory", status=status, simulation=id.partition("-")[0], **facts)
    if address:
        host, _, port = address.rpartition(":")
        service.endpoints.add(protocol="grpc", host=host, port=int(port))
    return service


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.thread.call(running.stop())
    running.thread.close()


def test_sessions_are_made_shown_and_ended(running: Running) -> None:
    made = running.json("lobby", "create", "Kinase", "--template", "tutorial", "--max-users", "5", "--host-name", "Ada")
    id = made["session"]["id"]
    assert (made["session"]["name"], made["session"]["max_users"], made["host"]["name"]) == ("Kinase", 5, "Ada")
    assert made["link"] == f"narupa://{running.lobby.address}/{id}?join_code={made['join_code']}"
    assert {item["id"] for item in running.json("lobby", "sessions")} == {"default", id}
    table = running.ok("lobby", "sessions").stdout
    assert "Kinase" in table and "0 / 5" in table
    shown = running.json("lobby", "show", "Kin")
    assert set(shown) == {"session", "join_code", "link", "users", "services", "invites"}
    assert f"narupa://{running.lobby.address}/session-" in running.ok("lobby", "create", "Other").stdout
    assert running.json("lobby", "end", "Kinase") == {"session_id": id, "ended": True}
    assert id not in running.lobby.memory.sessions


def test_a_password_comes_from_the_environment_or_a_line_and_is_not_shown(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = running.json("lobby", "create", "Closed", "--password", input="a secret word\n")
    assert made["session"]["has_password"]
    assert "join_code" not in made["link"]
    monkeypatch.setenv("NARUPA_NEW_PASSWORD", "another word")
    result = running.ok("lobby", "create", "Closed too", "--password")
    assert "password" in result.stdout and "another word" not in result.output


def test_people_are_found_by_name_or_by_the_beginning_of_an_id(running: Running) -> None:
    users = running.json("lobby", "users")
    assert [user["name"] for user in users][:2] == ["Ada", "Alan"]
    assert running.json("lobby", "role", "Al", "host") == {"id": "22aa", "name": "Alan", "role": "host"}
    assert running.json("lobby", "kick", "11", "--reason", "late") == {
        "user": {"id": "11aa", "name": "Ada", "role": "participant"},
        "kicked": True,
    }
    assert "Ada" not in running.ok("lobby", "users").stdout


def test_hosts_choose_as_what_guests_come_in(running: Running) -> None:
    unset = "guests come in only through a gateway that is open itself\n"
    assert running.ok("lobby", "guests").stdout == unset
    assert running.json("lobby", "guests") == {"session_id": "default", "guest_role": ""}
    chosen = running.ok("lobby", "guests", "participant")
    assert "guests come in as participant from now on" in chosen.stderr and chosen.stdout == ""
    assert running.ok("lobby", "guests").stdout == "guests come in as participant\n"
    assert "come in as participant" in running.ok("lobby", "show").stdout
    assert running.json("lobby", "guests", "none") == {"session_id": "default", "guest_role": "none"}
    assert "do not come in" in running.ok("lobby", "show").stdout
    assert running.json("lobby", "show")["session"]["guest_role"] == "none"
    running.ok("lobby", "guests", "default")
    assert running.ok("lobby", "guests").stdout == unset


def test_a_session_is_made_with_its_role_of_guests(running: Running) -> None:
    made = running.json("lobby", "create", "Open day", "--guests", "viewer")
    assert made["session"]["guest_role"] == "viewer"
    assert running.json("lobby", "create", "Closed", "--guests", "none")["session"]["guest_role"] == "none"
    shown = running.ok("lobby", "guests", "--session", "Open day").stdout
    assert shown == "guests come in as viewer\n"


def test_names_cannot_control_the_terminal(running: Running) -> None:
    table = running.ok("lobby", "users").stdout
    assert "\x1b" not in table
    assert "[red]\N{REPLACEMENT CHARACTER}[2JEve" in table


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["kick", "A"], 1, "Ada (11aa) or Alan (22aa)"),
        (["kick", "nobody"], 1, "there are Ada (11aa), Alan (22aa)"),
        (["create", " "], 2, "NAME is ' '"),
        (["role", "Ada", "boss"], 2, "'boss'"),
        (["guests", "boss"], 2, "ROLE is 'boss': use viewer, participant, host, none or default"),
        (["create", "Open", "--guests", "boss"], 2, "--guests is 'boss': use viewer, participant, host or none"),
        (["invite", "--role", "boss"], 2, "--role is 'boss'"),
        (["invite", "--expires", "soon"], 2, "30m, 12h or 7d"),
        (["end", "Nowhere"], 1, "'Nowhere'"),
        (["show", "--session", "Nowhere"], 1, "'Nowhere'"),
        (["start", "nosuch"], 1, "'nosuch'"),
        (["stop", "nosuch"], 1, "trajectory (trajectory-1)"),
        (["revoke", "nosuch"], 1, "there is no invite here"),
    ],
)
def test_what_is_wrong_is_one_sentence(running: Running, arguments: list[str], status: int, says: str) -> None:
    result = running.run("lobby", *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_invites_are_links_that_let_hosts_host(running: Running) -> None:
    invite = running.json("lobby", "invite", "--role", "host", "--uses", "5", "--expires", "2h")
    assert invite["link"].endswith(f"/default?invite={invite['secret']}")
    assert (invite["role"], invite["uses_left"]) == ("host", 5)
    assert set(running.json("lobby", "invites")[0]) == set(invite) - {"secret", "link"}
    link = CliRunner().invoke(app, ["lobby", "users", "--json", "--lobby", invite["link"]])
    assert link.exit_code == 0, link.stderr
    assert len(json.loads(link.stdout)) == 4, "the host too, for as long as the command takes"
    secret = running.ok("lobby", "kick", "Alan", "--invite", invite["secret"], key="")
    assert "Alan" in secret.stderr
    assert len(running.lobby.users) == 2
    assert running.json("lobby", "revoke", invite["id"][:8])["revoked"]
    assert "There is no invite." in running.ok("lobby", "invites").stdout


def test_who_does_not_say_who_asks_is_told_how(running: Running) -> None:
    result = running.run("lobby", "sessions", key="")
    assert result.exit_code == 1
    assert "--operator-key" in result.stderr and "--invite" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_key_comes_from_the_environment(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARUPA_OPERATOR_KEY", KEY)
    running.ok("lobby", "sessions", key="")


def test_the_catalogue_tells_what_is_wrong_in_it(running: Running) -> None:
    found = running.json("lobby", "catalogue")
    assert [item["name"] for item in found["simulations"]] == ["water", "lead"]
    result = running.ok("lobby", "catalogue")
    assert "water, as a title" in result.stdout and "session templates: tutorial" in result.stdout
    assert "broken.yaml:3" in result.stderr


def test_a_start_is_waited_for_and_shown(running: Running) -> None:
    result = running.ok("lobby", "start", "water", "--wait")
    assert "water-1" in result.stdout and running.water.address in result.stdout
    assert running.json("lobby", "start", "lead")["status"] == "starting"
    assert "lead is starting as lead-1" in running.ok("lobby", "start", "lead").stderr


def test_a_start_that_fails_says_why(running: Running) -> None:
    result = running.run("lobby", "start", "lead", "--wait", "--within", "20")
    assert result.exit_code == 1
    assert "lead did not start: it ended with status 2" in result.stderr
    assert "no such potential" in result.stderr


def test_services_are_named_by_their_simulation(running: Running) -> None:
    running.ok("lobby", "start", "water", "--wait")
    assert running.json("lobby", "drain", "water")["status"] == "draining"
    assert running.json("lobby", "stop", "wat")["status"] == "stopped"
    assert "stopped" in running.ok("lobby", "services").stdout
    running.ok("lobby", "start", "lead")
    assert running.ok("lobby", "log", "lead").stdout == "no such potential\n"
    by_id = {item["id"]: item for item in running.json("lobby", "services")}
    assert (by_id["lead-1"]["reason"], by_id["lead-1"]["simulation"]) == ("it ended with status 2", "lead")


def test_one_command_starts_a_simulation_and_watches_it(running: Running) -> None:
    result = running.ok("watch", "--start", "water", "--json", "--frames", "1")
    assert json.loads(result.stdout)["simulation"] == "water"
    assert running.trajectory.subscriptions == 0
    failed = running.run("watch", "--start", "lead", "--json", "--frames", "1")
    assert failed.exit_code == 1 and "status 2" in failed.stderr


def test_events_are_one_line_each(running: Running) -> None:
    line = running.ok("lobby", "watch", "--events", "1").stdout
    assert "snapshot" in line and "3 users, 2 services" in line
    event = json.loads(running.ok("lobby", "watch", "--events", "1", "--json").stdout)
    assert set(event) == {"event", "epoch", "revision", "session", "users", "services", "reason"}


def test_keys_are_rotated(running: Running) -> None:
    assert running.json("lobby", "rotate-keys", "--revoke") == {"key_ids": ["key-2"], "revoked": True}


def test_every_command_speaks_json(running: Running) -> None:
    commands: list[Callable[[], Any]] = [
        lambda: running.json("lobby", "sessions"),
        lambda: running.json("lobby", "show"),
        lambda: running.json("lobby", "services"),
        lambda: running.json("lobby", "log", "trajectory"),
        lambda: running.json("services"),
    ]
    for command in commands:
        assert command() is not None
