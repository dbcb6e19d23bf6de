"""What becomes of simulations that are started on demand: shown, restarted, stopped, taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from launch_fakes import FakeBoard, FakeLauncher
from prometheus_client import REGISTRY

from narupa_lobby.catalogue.folder import Catalogue
from narupa_lobby.launchers.launcher import LaunchError, Seen
from narupa_lobby.launchers.settings import LauncherSettings
from narupa_lobby.launches import Launches, LobbyFacts
from narupa_lobby.services import Service, ServiceStatus
from narupa_shared.errors import FailedPreconditionError, NotFoundError, QuotaError, UnavailableError
from narupa_shared.testing.clock import FakeClock, FakeIds

SPEC = """\
kind: simulation
name: peptide
title: Alanine chain
inputs: [demo:peptide]
restart: {max_restarts: 2, window_s: 100, first_delay_s: 2, longest_delay_s: 3}
idle: {stop_after_s: 60}
start_timeout_s: 20
"""
FACTS = LobbyFacts("127.0.0.1:38810")


class Scene:
    """One lobby's launches, a step at a time."""

    def __init__(self, folder: Path, board: FakeBoard | None = None, *, shared: bool = False) -> None:
        self.clock = FakeClock()
        self.board = board or FakeBoard()
        self.launcher = FakeLauncher()
        self.far = FakeLauncher("docker", outlives_lobby=True)
        self.folder = folder
        self.shared = shared
        self.ids = FakeIds("x")
        self.launches = self.another()

    def another(self) -> Launches:
        """The launches of another lobby, or of the same one started again."""
        return Launches(
            self.board,
            Catalogue(self.folder, self.clock),
            {"local": self.launcher, "docker": self.far},
            LauncherSettings(),
            shared=self.shared,
            clock=self.clock,
            wall_clock=self.clock,
            new_id=self.ids,
        )

    async def steps(self, count: int = 3, launches: Launches | None = None) -> None:
        each = launches or self.launches
        for _ in range(count):
            await each.tick()
            await each.settled()

    async def after(self, seconds: float, launches: Launches | None = None) -> None:
        self.clock.advance(seconds)
        await self.steps(launches=launches)

    async def started(self, name: str = "peptide") -> Service:
        service = await self.launches.start("default", name)
        await self.steps()
        return service

    async def running(self, load: float = 1.0) -> Service:
        service = await self.started()
        self.board.registers(service, load=load)
        await self.after(1)
        return service

    def listed(self, service: Service) -> Service:
        found = self.board.service("default", service.id)
        assert found is not None
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "peptide.yaml").write_text(SPEC)
    (tmp_path / "far.yaml").write_text(SPEC.replace("name: peptide", "name: far\nlauncher: docker"))
    return Scene(tmp_path)


async def test_a_started_simulation_is_shown_from_its_start_until_it_runs(scene: Scene) -> None:
    service = await scene.launches.start("default", "peptide")
    assert (service.id, service.simulation, service.status) == ("peptide-x-1", "peptide", ServiceStatus.STARTING)
    await scene.steps()
    job = scene.launcher.started[0]
    assert (job.name, job.session_id, job.service_id) == (service.id, "default", service.id)
    await scene.after(1)
    shown = scene.listed(service)
    assert (shown.status, shown.log_tail) == (ServiceStatus.STARTING, ("first", "last"))
    assert 0 < shown.progress < 1
    scene.board.registers(service, ServiceStatus.STARTING)
    await scene.after(1)
    assert scene.listed(service).status is ServiceStatus.STARTING
    scene.board.registers(service)
    await scene.after(1)
    assert (scene.listed(service).status, scene.listed(service).log_tail) == (ServiceStatus.RUNNING, ())
    assert scene.listed(service).endpoints, "what the service says of itself is kept"


async def test_what_becomes_of_launches_is_counted(scene: Scene) -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("narupa_lobby_launches_total", {"outcome": outcome}) or 0.0

    outcomes = ("started", "running", "failed", "stopped")
    before = [counted(each) for each in outcomes]
    service = await scene.launches.start("default", "peptide")
    await scene.steps()
    scene.board.registers(service)
    await scene.after(1)
    assert [counted(each) for each in outcomes] == [before[0] + 1, before[1] + 1, *before[2:]]
    assert scene.launches.phases() == {"running": 1}


async def test_starting_again_is_the_same_service(scene: Scene) -> None:
    first = await scene.launches.start("default", "peptide")
    assert (await scene.launches.start("default", "peptide")).id == first.id
    await scene.steps()
    assert (await scene.launches.start("default", "peptide")).id == first.id
    assert len(scene.launcher.started) == 1


async def test_each_session_has_its_own(scene: Scene) -> None:
    scene.board.sessions.add("other")
    ids = {(await scene.launches.start(session, "peptide")).id for session in ("default", "other")}
    await scene.steps()
    assert len(ids) == len(scene.launcher.started) == 2


async def test_what_cannot_be_started_is_told(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match=r"penguin.*the catalogue has: far, peptide"):
        await scene.launches.start("default", "penguin")
    with pytest.raises(NotFoundError, match="no session"):
        await scene.launches.start("nowhere", "peptide")
    (scene.folder / "files.yaml").write_text("kind: simulation\nname: files\ninputs: ['../a.xyz']\n")
    scene.launches._settings = LauncherSettings(default="docker")
    scene.clock.advance(1)
    with pytest.raises(FailedPreconditionError, match="outside of the folder"):
        await scene.launches.start("default", "files")
    scene.board.max_services = 0
    with pytest.raises(QuotaError):
        await scene.launches.start("default", "peptide")
    assert scene.board.records("launches") == {}, "nothing is left of what was refused"
    await scene.steps()
    assert scene.launcher.started == []


async def test_progress_is_shown_at_most_once_a_second(scene: Scene) -> None:
    service = await scene.started()
    count = len(scene.board.shown)
    for number in range(30):
        scene.launcher.lines.append(str(number))
        await scene.after(0.1)
    assert len(scene.board.shown) - count <= 4
    assert scene.listed(service).log_tail[-1] != "last"
    assert scene.launcher.looks <= 5


async def test_one_that_fails_starts_again_after_longer_and_longer_and_then_no_more(scene: Scene) -> None:
    service = await scene.running()
    scene.launcher.ends(service.id, -11, "killed by SIGSEGV")
    await scene.after(1)
    shown = scene.listed(service)
    assert (shown.status, shown.restarts, shown.log_tail) == (ServiceStatus.UNHEALTHY, 1, ("first", "last"))
    assert shown.reason == "killed by SIGSEGV; it starts again after 2 s (restart 1 of 2)"
    assert scene.launcher.removed == [service.id]
    await scene.after(1)
    assert len(scene.launcher.started) == 1
    await scene.after(1)
    assert [job.name for job in scene.launcher.started] == [service.id, f"{service.id}-r1"]
    assert scene.launcher.started[1].service_id == service.id, "clients know it again"
    assert scene.listed(service).status is ServiceStatus.STARTING

    scene.launcher.ends(f"{service.id}-r1", 1, "ended with exit status 1")
    await scene.after(1)
    assert "after 3 s (restart 2 of 2)" in scene.listed(service).reason
    await scene.after(3)
    scene.launcher.ends(f"{service.id}-r2", 1, "ended with exit status 1")
    await scene.after(1)
    shown = scene.listed(service)
    assert shown.status is ServiceStatus.STOPPED
    assert "ended with exit status 1; it failed 3 times within 100 s" in shown.reason
    assert shown.log_tail == ("first", "last")
    await scene.after(10_000)
    assert scene.listed(service).status is ServiceStatus.STOPPED, "shown until it is started again"
    assert len(scene.launcher.started) == 3
    assert await scene.launches.log_lines("default", service.id, 1) == ["last"]

    again = await scene.launches.start("default", "peptide")
    await scene.steps()
    assert again.id != service.id and scene.board.service("default", service.id) is None
    assert f"{service.id}-r2" in scene.launcher.removed


async def test_a_lease_from_before_a_failure_does_not_count_as_running(scene: Scene) -> None:
    service = await scene.running()
    scene.launcher.ends(service.id, 1)
    await scene.after(1)
    assert not scene.board.registered("default", service.id)
    await scene.after(2)
    assert scene.listed(service).status is ServiceStatus.STARTING


async def test_failures_of_long_ago_are_forgotten(scene: Scene) -> None:
    service = await scene.running()
    for number in range(6):
        scene.launcher.ends(f"{service.id}-r{number}" if number else service.id, 1)
        await scene.after(1)
        await scene.after(3)
        scene.board.registers(service, load=1)
        await scene.after(100)
    assert scene.listed(service).status is ServiceStatus.RUNNING
    assert scene.listed(service).restarts == 6


async def test_a_wrong_setting_is_not_tried_again(scene: Scene) -> None:
    scene.launcher.lines = ["narupa-trajectory: input is 'x': no such file"]
    service = await scene.started()
    scene.launcher.ends(service.id, 2, "ended with exit status 2")
    await scene.after(1)
    shown = scene.listed(service)
    assert shown.status is ServiceStatus.STOPPED
    assert shown.reason == "ended with exit status 2: narupa-trajectory: input is 'x': no such file"


@pytest.mark.parametrize("code", [0, None])
async def test_one_that_was_drained_and_ended_is_listed_so(scene: Scene, code: int | None) -> None:
    service = await scene.running()
    await scene.board.drain_service("default", service.id)
    scene.launcher.ends(service.id, code)
    await scene.after(1)
    assert (scene.listed(service).status, scene.listed(service).reason) == (ServiceStatus.STOPPED, "drained")


async def test_one_that_fails_while_it_drains_has_failed(scene: Scene) -> None:
    service = await scene.running()
    await scene.board.drain_service("default", service.id)
    scene.launcher.ends(service.id, 1)
    await scene.after(1)
    assert scene.listed(service).restarts == 1


async def test_one_that_ends_by_itself_is_stopped_and_not_failed(scene: Scene) -> None:
    service = await scene.running()
    scene.launcher.ends(service.id, 0)
    await scene.after(1)
    assert (scene.listed(service).status, scene.listed(service).reason) == (
        ServiceStatus.STOPPED,
        "it has ended by itself",
    )
    assert scene.launches.simulations("default")[1].status is ServiceStatus.AVAILABLE


@pytest.mark.parametrize(("lasting", "starts"), [(True, ServiceStatus.STOPPED), (False, ServiceStatus.UNHEALTHY)])
async def test_a_launcher_that_cannot_start_it_is_told(scene: Scene, lasting: bool, starts: ServiceStatus) -> None:
    scene.launcher.refuses = LaunchError("sbatch is not there; use another launcher", lasting=lasting)
    service = await scene.started()
    assert scene.listed(service).status is starts
    assert "sbatch is not there" in scene.listed(service).reason
    scene.launcher.refuses = None
    await scene.after(5)
    assert len(scene.launcher.started) == (0 if lasting else 1)


async def test_one_that_does_not_run_in_time_is_stopped_and_tried_again(scene: Scene) -> None:
    service = await scene.started()
    await scene.after(15)
    assert scene.listed(service).status is ServiceStatus.STARTING
    await scene.after(10)
    assert "did not run within 20 s" in scene.listed(service).reason
    assert scene.launcher.stopped == [service.id]


async def test_waiting_in_a_queue_is_shown_and_does_not_count_as_starting(scene: Scene) -> None:
    service = await scene.launches.start("default", "peptide")
    scene.launcher.jobs.clear()
    await scene.steps(1)
    scene.launcher.jobs[service.id] = Seen("pending", reason="waits in Slurm's queue (Resources)")
    for _ in range(100):
        await scene.after(10)
    shown = scene.listed(service)
    assert (shown.status, shown.reason) == (ServiceStatus.STARTING, "waits in Slurm's queue (Resources)")


async def test_one_that_is_out_of_touch_is_restarted_and_one_that_comes_back_is_not(scene: Scene) -> None:
    service = await scene.running()
    scene.board.lapses(service)
    await scene.after(20)
    scene.board.registers(service, load=1)
    await scene.after(20)
    scene.board.lapses(service)
    await scene.steps()
    await scene.after(20)
    assert len(scene.launcher.started) == 1
    await scene.after(20)
    assert "has not been in touch with the lobby for" in scene.listed(service).reason
    assert scene.launcher.stopped == [service.id]


async def test_a_launcher_that_cannot_see_changes_nothing_while_the_service_is_in_touch(scene: Scene) -> None:
    service = await scene.running()
    scene.launcher.blind = True
    for _ in range(10):
        await scene.after(100)
    assert scene.listed(service).status is ServiceStatus.RUNNING


async def test_one_that_nobody_watches_stops_and_is_available_again(scene: Scene) -> None:
    service = await scene.running(load=0)
    await scene.after(50)
    scene.board.registers(service, load=1)
    await scene.after(50)
    scene.board.registers(service, load=0)
    await scene.steps()
    await scene.after(50)
    assert scene.listed(service).status is ServiceStatus.RUNNING
    await scene.after(20)
    assert scene.board.drained == [service.id]
    assert scene.launcher.stopped == [service.id]
    shown = scene.listed(service)
    assert (shown.status, shown.reason, shown.log_tail) == (ServiceStatus.STOPPED, "nobody watched it for 60 s", ())
    offer = scene.launches.simulations("default")[1]
    assert (offer.name, offer.status, offer.service_id) == ("peptide", ServiceStatus.AVAILABLE, "")
    await scene.after(301)
    assert scene.board.service("default", service.id) is None
    assert scene.board.records("launches") == {} and scene.launcher.jobs == {}


async def test_a_stop_drains_first_and_waits_for_viewers_a_while(scene: Scene) -> None:
    service = await scene.running(load=3)
    stopping = await scene.launches.stop("default", service.id)
    assert (stopping.id, stopping.status) == (service.id, ServiceStatus.DRAINING)
    with pytest.raises(UnavailableError, match="being stopped"):
        await scene.launches.start("default", "peptide")
    await scene.steps()
    assert scene.board.drained == [service.id] and scene.launcher.stopped == []
    assert scene.listed(service).status is ServiceStatus.DRAINING
    await scene.after(6)
    assert scene.launcher.stopped == [service.id]
    assert scene.listed(service).reason == "stopped on request"
    assert (await scene.launches.stop("default", service.id)).status is ServiceStatus.STOPPED


async def test_a_stop_while_it_starts_or_waits_to_start_again_is_carried_out(scene: Scene) -> None:
    service = await scene.launches.start("default", "peptide")
    await scene.launches.stop("default", service.id)
    await scene.steps()
    assert scene.launcher.started == [] and scene.listed(service).status is ServiceStatus.STOPPED
    second = await scene.started()
    scene.launcher.ends(second.id, 1)
    await scene.after(1)
    await scene.launches.stop("default", second.id)
    await scene.after(10)
    assert len(scene.launcher.started) == 1
    assert scene.listed(second).status is ServiceStatus.STOPPED


async def test_only_what_the_lobby_started_can_be_stopped(scene: Scene) -> None:
    scene.board.listed["default", "imd-1"] = Service("imd-1", "imd")
    with pytest.raises(FailedPreconditionError, match="did not start the service 'imd-1'"):
        await scene.launches.stop("default", "imd-1")
    with pytest.raises(NotFoundError):
        await scene.launches.stop("default", "imd-2")
    with pytest.raises(NotFoundError):
        await scene.launches.log_lines("default", "imd-1", 5)
    service = await scene.started()
    with pytest.raises(NotFoundError):
        await scene.launches.stop("other", service.id)


async def test_the_end_of_a_session_stops_what_runs_in_it(scene: Scene) -> None:
    service = await scene.running()
    scene.board.sessions.clear()
    scene.board.listed.clear()
    scene.board.leases.clear()
    await scene.after(1)
    assert scene.launcher.stopped[0] == service.id
    assert scene.board.records("launches") == {} and scene.launcher.jobs == {} and scene.board.listed == {}


async def test_simulations_tell_how_they_are_in_a_session(scene: Scene) -> None:
    service = await scene.started()
    scene.board.registers(service)
    far, peptide = scene.launches.simulations("default")
    assert (far.name, far.title, far.launcher, far.status) == (
        "far",
        "Alanine chain",
        "docker",
        ServiceStatus.AVAILABLE,
    )
    assert (peptide.kind, peptide.status, peptide.service_id) == ("trajectory", ServiceStatus.RUNNING, service.id)
    (scene.folder / "peptide.yaml").unlink()
    scene.clock.advance(1)
    assert [offer.name for offer in scene.launches.simulations("default")] == ["far", "peptide"]
    assert [offer.name for offer in scene.launches.simulations("other")] == ["far"]


async def test_a_lobby_started_again_goes_on_with_what_runs(scene: Scene) -> None:
    service = await scene.running()
    later = scene.another()
    await scene.after(1, later)
    assert len(scene.launcher.started) == 1
    assert (await later.start("default", "peptide")).id == service.id
    scene.launcher.ends(service.id, 1)
    await scene.after(1, later)
    await scene.after(2, later)
    assert len(scene.launcher.started) == 2
    await scene.after(1)
    assert len(scene.launcher.started) == 2, "the earlier lobby, should it live, leaves it alone"


async def test_a_job_whose_ref_was_never_noted_is_found_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await scene.launches.start("default", "peptide")
    put = scene.launches._supervision.put

    async def dies(*_: object, **__: object) -> None:
        raise KeyError("the lobby dies here")

    monkeypatch.setattr(scene.launches._supervision, "put", dies)
    await scene.steps(1)
    assert len(scene.launcher.started) == 1
    monkeypatch.setattr(scene.launches._supervision, "put", put)
    later = scene.another()
    await scene.after(1, later)
    await scene.after(1, later)
    assert len(scene.launcher.started) == 1
    scene.board.registers(service)
    await scene.after(1, later)
    assert scene.listed(service).status is ServiceStatus.RUNNING


async def test_another_lobby_takes_over_only_when_the_first_is_silent(tmp_path: Path) -> None:
    (tmp_path / "peptide.yaml").write_text(SPEC)
    scene = Scene(tmp_path, shared=True)
    second, third = scene.another(), scene.another()
    service = await scene.running()
    for _ in range(8):
        scene.clock.advance(5)
        for each in (scene.launches, second, third):
            await scene.steps(1, each)
    assert len(scene.launcher.started) == 1
    first = next(iter(scene.board.records("launches").values()))
    for _ in range(4):  # the first is dead from here on
        scene.clock.advance(5)
        await scene.steps(1, second)
        await scene.steps(1, third)
    assert next(iter(scene.board.records("launches").values())) != first
    scene.launcher.ends(service.id, 1)
    for _ in range(3):
        scene.clock.advance(2)
        await scene.steps(1, second)
        await scene.steps(1, third)
    assert [job.name for job in scene.launcher.started] == [service.id, f"{service.id}-r1"]
    await scene.after(1)
    assert len(scene.launcher.started) == 2
    assert len(scene.board.records("lobbies")) == 3, "the first beats again, and is alive after all"


async def test_two_lobbies_asked_at_once_start_one(tmp_path: Path) -> None:
    (tmp_path / "peptide.yaml").write_text(SPEC)
    scene = Scene(tmp_path, shared=True)
    second = scene.another()
    services = await asyncio.gather(*(each.start("default", "peptide") for each in (scene.launches, second) * 3))
    assert len({service.id for service in services}) == 1
    for _ in range(3):
        await scene.steps(1)
        await scene.steps(1, second)
    assert len(scene.launcher.started) == 1


async def test_at_the_end_of_the_lobby_local_services_stop_and_containers_stay(scene: Scene) -> None:
    async with scene.launches.running(FACTS):
        here = await scene.launches.start("default", "peptide")
        far = await scene.launches.start("default", "far")
        await with_limit(lambda: bool(scene.launcher.started and scene.far.started))
    assert scene.launcher.stopped == [here.id] and scene.far.stopped == []
    assert scene.launcher.closed and scene.far.closed
    later = scene.another()
    await scene.after(1, later)
    assert scene.listed(here).reason == "its lobby was stopped"
    scene.board.registers(far)
    await scene.after(1, later)
    assert scene.listed(far).status is ServiceStatus.RUNNING
    assert len(scene.far.started) == 1


async def test_a_record_that_cannot_be_read_harms_no_other(scene: Scene) -> None:
    await scene.board.put_record("launches", "default/odd", "{nonsense")
    service = await scene.started()
    assert scene.listed(service).status is ServiceStatus.STARTING


async def with_limit(holds: Callable[[], bool], limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.01)
