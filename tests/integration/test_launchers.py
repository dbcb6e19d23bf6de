"""One contract for all launchers: local processes, Slurm jobs, Kubernetes Jobs and containers, each with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from narupa_lobby.catalogue.simulation import Defaults, SimulationSpec
from narupa_lobby.launchers.docker_containers import DockerLauncher
from narupa_lobby.launchers.kubernetes_jobs import KubernetesLauncher
from narupa_lobby.launchers.launcher import Job, Launcher, LaunchError, Seen
from narupa_lobby.launchers.local_processes import LocalLauncher
from narupa_lobby.launchers.settings import DockerSettings, KubernetesSettings, LocalSettings, SlurmSettings
from narupa_lobby.launchers.slurm_jobs import SlurmLauncher
from narupa_shared.config import load
from narupa_trajectory.config import TrajectoryConfig
from tests.integration.launcher_fakes.kubernetes_api import KubernetesApi

FAKES = Path(__file__).with_name("launcher_fakes")
SERVICE = FAKES / "service.py"
SECRET = "hush-hush-hush"
LIMIT_S = 20.0


@dataclass
class Bench:
    """A launcher, another that knows nothing of the first's doings, and the folder they use."""

    launcher: Launcher
    again: Launcher
    folder: Path

    def job(self, behaviour: str = "serves", **fields: Any) -> Job:
        spec = SimulationSpec.model_validate(
            {
                "kind": "simulation",
                "name": "peptide",
                "inputs": ["demo:peptide"],
                "environment": {"BEHAVIOUR": behaviour},
                **fields,
            }
        )
        name = f"peptide-{uuid.uuid4().hex[:8]}"
        return Job(
            name, "default", name, spec, self.folder, "127.0.0.1:9", lobby_named=True, service_key=SecretStr(SECRET)
        )


@asynccontextmanager
async def local(folder: Path, _: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    program = [sys.executable, str(SERVICE)]
    yield Bench(*(LocalLauncher(LocalSettings(), folder / "logs", program) for _ in range(2)), folder)


@asynccontextmanager
async def slurm(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    commands, jobs = folder / "bin", folder / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel"):
        shutil.copy(FAKES / "slurm.py", commands / name)
        (commands / name).chmod(0o755)
    program = folder / "narupa trajectory"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SERVICE}" "$@"\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    patch.setenv("FAKE_SLURM", str(jobs))
    patch.setenv("NARUPA_LOBBY_OPERATOR_KEY", "not for jobs")
    patch.setenv("SBATCH_PARTITION", "nowhere")
    settings = SlurmSettings(program=program)
    yield Bench(*(SlurmLauncher(settings, folder / "logs %j") for _ in range(2)), folder)
    for path in jobs.glob("*.json"):
        told = json.loads(path.read_text())
        assert SECRET not in told["script"] and SECRET not in str(told["asked"])
        assert "NARUPA_LOBBY_OPERATOR_KEY" not in told["environment"]


@asynccontextmanager
async def kubernetes(folder: Path, _: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    import kubernetes.client

    api = KubernetesApi(folder, "a-token", {("narupa", "service-key"): SECRET})

    def connect() -> Any:
        configuration = kubernetes.client.Configuration(
            host=api.url, api_key={"authorization": "a-token"}, api_key_prefix={"authorization": "Bearer"}
        )
        configuration.retries = False
        return kubernetes.client.ApiClient(configuration)

    settings = KubernetesSettings(namespace="science", service_key_secret="narupa")
    bench = Bench(*(KubernetesLauncher(settings, connect) for _ in range(2)), folder)
    try:
        yield bench
        assert api.complaints == []
        assert set(api.services) == set(api.jobs)
    finally:
        await bench.launcher.close()
        await bench.again.close()
        await asyncio.to_thread(api.close)


@asynccontextmanager
async def containers(folder: Path, _: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    import docker

    try:
        client = await asyncio.to_thread(docker.from_env)
        client.images.get("narupa-trajectory")
    except docker.errors.ImageNotFound:
        client.close()
        pytest.skip("there is no image narupa-trajectory; docker compose build makes it")
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    name = f"narupa-launcher-test-{uuid.uuid4().hex[:8]}"
    context = folder / "image"
    context.mkdir()
    shutil.copy(SERVICE, context / "service.py")
    (context / "Dockerfile").write_text(
        'FROM narupa-trajectory\nCOPY service.py /\nENTRYPOINT ["python", "/service.py"]\n'
    )
    await asyncio.to_thread(lambda: client.images.build(path=str(context), tag=name, rm=True))
    bench = Bench(*(DockerLauncher(DockerSettings(image=name)) for _ in range(2)), folder)
    try:
        yield bench
    finally:
        for launcher in (bench.launcher, bench.again):
            await launcher.close()
        await asyncio.to_thread(client.images.remove, name, force=True)
        client.close()


KINDS = [
    pytest.param(local, id="local"),
    pytest.param(slurm, id="slurm"),
    pytest.param(kubernetes, id="kubernetes"),
    pytest.param(containers, id="docker", marks=pytest.mark.containers),
]


@pytest.fixture(autouse=True)
async def threads_ended() -> AsyncIterator[None]:
    """The threads in which launchers wait are the event loop's, and end with it."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each launcher in turn; what it still runs at the end is removed."""
    with pytest.MonkeyPatch.context() as patch:
        async with request.param(tmp_path, patch) as bench:
            refs: list[str] = []
            start = bench.launcher.start

            async def noting(job: Job) -> str:
                refs.append(await start(job))
                return refs[-1]

            bench.launcher.start = noting  # type: ignore[method-assign]
            try:
                yield bench
            finally:
                for ref in refs:
                    await bench.launcher.remove(ref)


async def seen(launcher: Launcher, ref: str, *states: str) -> Seen:
    """What the launcher sees, once it is one of these."""
    async with asyncio.timeout(LIMIT_S):
        while (what := await launcher.look(ref)).state not in states:
            await asyncio.sleep(0.05)
    return what


async def says(launcher: Launcher, ref: str, text: str) -> list[str]:
    """The log's tail, once it has a line with this."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            lines = await launcher.log_tail(ref, 20)
            if any(text in line for line in lines):
                return lines
            await asyncio.sleep(0.05)


async def test_a_job_runs_and_ends_when_it_is_asked_to(bench: Bench) -> None:
    job = bench.job()
    ref = await bench.launcher.start(job)
    await seen(bench.launcher, ref, "running")
    lines = await says(bench.launcher, ref, "ready")
    assert lines == [f"arguments: --service-id {job.service_id}", f"key of {len(SECRET)} characters", "ready"]
    assert await bench.launcher.log_tail(ref, 1) == ["ready"]
    began = time.monotonic()
    await bench.launcher.stop(ref, 10)
    assert time.monotonic() - began < 8
    assert (await seen(bench.launcher, ref, "ended", "gone")).exit_code in (0, None)
    await bench.launcher.stop(ref, 10)
    await bench.launcher.remove(ref)
    await bench.launcher.remove(ref)
    assert await bench.launcher.log_tail(ref, 5) == []


async def test_a_job_that_fails_leaves_its_exit_status_and_its_log(bench: Bench) -> None:
    ref = await bench.launcher.start(bench.job("fails"))
    ended = await seen(bench.launcher, ref, "ended")
    assert ended.exit_code == 3 and "3" in ended.reason
    assert (await says(bench.launcher, ref, "cannot go on"))[-1] == "cannot go on"


async def test_a_job_that_does_not_heed_is_killed_with_all_that_it_started(bench: Bench) -> None:
    ref = await bench.launcher.start(bench.job("stubborn"))
    await says(bench.launcher, ref, "ready")
    began = time.monotonic()
    await bench.launcher.stop(ref, 0.5)
    await seen(bench.launcher, ref, "ended", "gone")
    assert time.monotonic() - began < LIMIT_S


async def test_a_job_is_found_and_stopped_by_a_launcher_that_did_not_start_it(bench: Bench) -> None:
    job = bench.job()
    ref = await bench.launcher.start(job)
    await says(bench.launcher, ref, "ready")
    found = await bench.again.find(job)
    assert found is not None
    assert (await bench.again.look(found)).state == "running"
    assert (await bench.again.look(ref)).state == "running"
    assert (await bench.again.log_tail(found, 1)) == ["ready"]
    await bench.again.stop(found, 10)
    await seen(bench.launcher, ref, "ended", "gone")
    assert await bench.again.find(bench.job()) is None


async def test_jobs_side_by_side_do_not_disturb_each_other(bench: Bench) -> None:
    first, second = await asyncio.gather(*(bench.launcher.start(bench.job()) for _ in range(2)))
    await says(bench.launcher, first, "ready")
    await says(bench.launcher, second, "ready")
    await bench.launcher.stop(first, 10)
    assert (await bench.launcher.look(second)).state == "running"


def test_the_service_takes_everything_that_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set(Defaults.model_fields) <= set(TrajectoryConfig.model_fields)
    defaults = {
        "paused": True, "frame_interval_s": 0.5, "steps_per_frame": 7, "velocities": True, "subscriber_interval_s": 0.25,
        "minimum_subscriber_interval_s": 0.125, "max_subscribers": 9, "recent_frames": 11, "recent_bytes": 13,
        "checkpoint_interval_s": 2.0, "load_limit_s": 30.0, "silence_limit_s": 40.0,
    }  # fmt: skip
    assert set(defaults) == set(Defaults.model_fields)
    launcher = LocalLauncher(LocalSettings(), tmp_path)
    bench = Bench(launcher, launcher, tmp_path)
    job = replace(bench.job(defaults=defaults, idle={"pause_after_s": 45}), open_access=True)
    for name, value in {**job.variables("127.0.0.1", 38811, ["a:1", "b:2"]), **job.secrets}.items():
        monkeypatch.setenv(name, value)
    config = load(TrajectoryConfig, job.arguments)
    assert {name: getattr(config, name) for name in defaults} == defaults
    assert (config.sources, config.advertise, config.lobby) == (("demo:peptide",), ("a:1", "b:2"), job.lobby)
    assert (config.service_id, config.session_id, config.port) == (job.service_id, "default", 38811)
    assert config.open_access and config.pause_when_idle_s == 45.0
    assert config.service_key is not None and config.service_key.get_secret_value() == SECRET


# What is one launcher's own.


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Bench]:
    async with local(tmp_path, pytest.MonkeyPatch()) as bench:
        yield bench


async def test_a_process_has_its_own_session_a_private_log_and_no_secret_on_its_command_line(
    processes: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NARUPA_LOBBY_OPERATOR_KEY", "not for services")
    job = processes.job()
    ref = await processes.launcher.start(job)
    await says(processes.launcher, ref, "ready")
    process = psutil.Process(json.loads(ref)["pid"])
    assert os.getsid(process.pid) == process.pid
    assert SECRET not in " ".join(process.cmdline()) and SECRET not in ref
    environment = process.environ()
    assert "NARUPA_LOBBY_OPERATOR_KEY" not in environment
    assert (environment["PYTHONSAFEPATH"], process.cwd()) == ("1", str(processes.folder))
    log = processes.folder / "logs" / f"{job.name}.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert SECRET not in log.read_text()
    await processes.launcher.remove(ref)
    assert not log.exists()


async def test_what_a_crashed_process_leaves_is_ended_too(processes: Bench) -> None:
    ref = await processes.launcher.start(processes.job("stubborn"))
    await says(processes.launcher, ref, "ready")
    process = psutil.Process(json.loads(ref)["pid"])
    children = process.children(recursive=True)
    assert children
    process.send_signal(signal.SIGKILL)
    ended = await seen(processes.launcher, ref, "ended")
    assert (ended.exit_code, ended.reason) == (-9, "killed by SIGKILL")
    await processes.launcher.stop(ref, 1)
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


async def test_another_process_with_the_same_number_is_left_alone(processes: Bench) -> None:
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    try:
        job = processes.job()
        facts = {"machine": os.uname().nodename, "pid": stranger.pid, "name": job.name, "service_id": job.service_id}
        ref = json.dumps(facts | {"created": psutil.Process(stranger.pid).create_time()})
        assert (await processes.launcher.look(ref)).state == "gone"
        await processes.launcher.stop(ref, 0.1)
        assert stranger.returncode is None and psutil.pid_exists(stranger.pid)
        elsewhere = json.dumps(json.loads(ref) | {"machine": "elsewhere"})
        with pytest.raises(LaunchError, match="machine 'elsewhere'"):
            await processes.launcher.look(elsewhere)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_log_is_cut_back_while_the_process_goes_on_writing(tmp_path: Path) -> None:
    chatty = "import time\nfor n in range(10**9):\n print('line', n, flush=True)\n time.sleep(0.0001)\n"
    launcher = LocalLauncher(LocalSettings(log_bytes=20_000), tmp_path / "logs", [sys.executable, "-c", chatty])
    job = Bench(launcher, launcher, tmp_path).job()
    ref = await launcher.start(job)
    log = tmp_path / "logs" / f"{job.name}.log"
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                while log.stat().st_size < 25_000:
                    await asyncio.sleep(0.02)
                await launcher.look(ref)
                assert log.stat().st_size < 25_000
        assert b"\0" not in log.read_bytes()
        numbers = [int(line.split()[1]) for line in (await launcher.log_tail(ref, 50))[1:]]
        assert numbers == sorted(numbers)
    finally:
        await launcher.remove(ref)


async def test_a_program_or_folder_that_is_not_there_is_told(processes: Bench, tmp_path: Path) -> None:
    launcher = LocalLauncher(LocalSettings(), tmp_path / "logs", ["/nowhere/narupa-trajectory"])
    with pytest.raises(LaunchError, match="cannot run /nowhere/narupa-trajectory: No such file"):
        await launcher.start(processes.job())
    with pytest.raises(LaunchError, match=r"the folder .*gone of the spec is gone"):
        await processes.launcher.start(replace(processes.job(), folder=tmp_path / "gone"))
    with pytest.raises(LaunchError, match="no process of the local launcher"):
        await processes.launcher.look("nonsense")


async def test_slurm_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with slurm(tmp_path, monkeypatch) as bench:
        job = bench.job(slurm={"partition": "nowhere"})
        with pytest.raises(LaunchError, match=r"sbatch refuses: sbatch: error: Batch job.*Invalid partition") as told:
            await bench.launcher.start(job)
        assert told.value.lasting
        assert (await bench.launcher.look("99999:x")).state == "gone"
        with pytest.raises(LaunchError, match="no job of the slurm launcher"):
            await bench.launcher.look("1; rm -rf /")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LaunchError, match=r"cannot run sbatch .*run the lobby on a submit host"):
        await bench.launcher.start(bench.job())


async def test_kubernetes_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with kubernetes(tmp_path, monkeypatch) as bench:
        job = bench.job(kubernetes={"namespace": "forbidden"})
        with pytest.raises(
            LaunchError, match=r"the cluster refuses create_namespaced_job: 403 .*cannot create"
        ) as told:
            await bench.launcher.start(job)
        assert told.value.lasting
    away = KubernetesLauncher(KubernetesSettings(context="nowhere"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(LaunchError, match="no cluster is configured"):
        await away.look("science/x")
    await away.close()


@pytest.mark.containers
async def test_docker_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with containers(tmp_path, monkeypatch) as bench:
        with pytest.raises(LaunchError, match=r"no such image.*docker compose build") as told:
            await bench.launcher.start(bench.job(docker={"image": "narupa-no-such-image"}))
        assert told.value.lasting
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    away = DockerLauncher(DockerSettings())
    with pytest.raises(LaunchError, match=r"Docker cannot be reached.*set DOCKER_HOST"):
        await away.look("x")
    await away.close()
