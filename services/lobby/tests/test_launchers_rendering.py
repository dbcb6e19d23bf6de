"""What launchers ask for: variables, containers, Kubernetes objects and batch scripts, down to hostile values."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pydantic import SecretStr

from narupa_lobby.catalogue.simulation import SimulationSpec
from narupa_lobby.launchers.docker_containers import container
from narupa_lobby.launchers.kubernetes_jobs import KubernetesLauncher, rendered_job, rendered_service
from narupa_lobby.launchers.launcher import Job, LaunchError, last_lines
from narupa_lobby.launchers.settings import DockerSettings, KubernetesSettings, LauncherSettings, SlurmSettings
from narupa_lobby.launchers.slurm_jobs import SlurmLauncher, script, submission

NASTY = """$(touch pwned) `touch pwned` ; touch pwned ' " \\ ${HOME} é %j && || > < * ~ #"""


def job(**fields: Any) -> Job:
    """A job of a spec with these fields."""
    spec = SimulationSpec.model_validate(
        {"kind": "simulation", "name": "peptide", "inputs": ["demo:peptide"], **fields}
    )
    return Job(
        name="peptide-0a1b2c3d-r1",
        session_id="default",
        service_id="peptide-0a1b2c3d",
        spec=spec,
        folder=Path("/catalogue"),
        lobby="192.0.2.7:38810",
        host="0.0.0.0",
        service_key=SecretStr("hush-hush"),
    )


FULL = job(
    inputs=["a.xyz?calculator=emt", "demo:peptide"],
    engine={"threads": 3},
    resources={"cpus": 1.5, "memory": "2Gi", "gpus": 1},
    defaults={"frame_interval_s": 0.05, "velocities": True, "max_subscribers": 7},
    environment={"OPENMM_PLUGIN_DIR": NASTY},
    docker={"image": "registry.example/narupa:1"},
    kubernetes={"namespace": "science", "inputs_claim": "inputs", "node_selector": {"gpu": "yes"}},
    slurm={"partition": "gpu", "account": "abc", "qos": "high", "constraint": "a100&nvme", "time_limit": "1-00:30:00"},
    idle={"pause_after_s": 30},
)


def test_a_service_is_told_all_it_needs_by_its_environment() -> None:
    variables = FULL.variables("0.0.0.0", 38811, ["a:1"])
    said = {name.removeprefix("NARUPA_TRAJECTORY_"): value for name, value in variables.items()}
    assert json.loads(said["SOURCES"]) == ["a.xyz?calculator=emt", "demo:peptide"]
    assert json.loads(said["ADVERTISE"]) == ["a:1"]
    assert (said["LOBBY"], said["SESSION_ID"], said["PORT"]) == ("192.0.2.7:38810", "default", "38811")
    assert (said["FRAME_INTERVAL_S"], said["VELOCITIES"], said["MAX_SUBSCRIBERS"]) == ("0.05", "true", "7")
    assert said["PAUSE_WHEN_IDLE_S"] == "30.0"
    assert said["OPENMM_CPU_THREADS"] == said["OMP_NUM_THREADS"] == "3"
    assert "OPEN_ACCESS" not in said
    assert "hush-hush" not in str(variables) and "hush-hush" not in str(FULL) and "hush-hush" not in str(FULL.arguments)
    assert replace(FULL, open_access=True).variables("h", 1)["NARUPA_TRAJECTORY_OPEN_ACCESS"] == "true"


def test_lines_of_a_log_are_few_short_and_harmless() -> None:
    text = "one\n\x1b[31mred\x1b[0m\x07\n" + "x" * 10_000 + "\n"
    assert last_lines(text, 2) == [" [31mred [0m", "x" * 500]
    assert last_lines(text, 0) == [] == last_lines("", 5)


def test_a_container_has_few_rights_and_its_resources() -> None:
    asked = container(FULL, DockerSettings(advertise_host="gpu.example", first_port=40000, last_port=40000))
    assert asked["image"] == "registry.example/narupa:1"
    assert asked["command"] == ["--service-id", "peptide-0a1b2c3d"]
    assert asked["name"] == "narupa-peptide-0a1b2c3d-r1"
    assert (asked["read_only"], asked["cap_drop"], asked["restart_policy"]) == (True, ["ALL"], {"Name": "no"})
    assert asked["security_opt"] == ["no-new-privileges:true"] and asked["init"]
    assert (asked["nano_cpus"], asked["mem_limit"]) == (1_500_000_000, 2 * 1024**3)
    assert asked["device_requests"] == [{"Driver": "", "Count": 1, "Capabilities": [["gpu"]]}]
    assert asked["volumes"] == {"/catalogue": {"bind": "/inputs", "mode": "ro"}} and asked["working_dir"] == "/inputs"
    assert asked["ports"] == {"38811/tcp": ("127.0.0.1", 40000)}
    assert json.loads(asked["environment"]["NARUPA_TRAJECTORY_ADVERTISE"]) == ["gpu.example:40000"]
    assert asked["environment"]["NARUPA_TRAJECTORY_SERVICE_KEY"] == "hush-hush"
    assert "volumes" not in container(job(), DockerSettings())


def test_a_container_reaches_a_lobby_on_loopback_through_the_hosts_network_only() -> None:
    here = replace(job(), lobby="127.0.0.1:38810", host="127.0.0.1")
    asked = container(here, DockerSettings())
    assert asked["network_mode"] == "host" and asked["ports"] == {}
    assert asked["environment"]["NARUPA_TRAJECTORY_HOST"] == "127.0.0.1"
    assert asked["environment"]["NARUPA_TRAJECTORY_PORT"] == "0"
    with pytest.raises(LaunchError, match=r"in the network 'narupa' cannot reach the lobby at 127.0.0.1:38810"):
        container(here, DockerSettings(network="narupa"))
    asked = container(job(), DockerSettings(network="narupa"))
    inside, _ = json.loads(asked["environment"]["NARUPA_TRAJECTORY_ADVERTISE"])
    assert asked["network"] == "narupa" and inside == "narupa-peptide-0a1b2c3d-r1:38811"


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("each", [job(), FULL], ids=["least", "full"])
def test_kubernetes_objects_are_valid_by_the_published_schemas(each: Job, version: str) -> None:
    settings = KubernetesSettings(service_key_secret="narupa", image_pull_secret="registry")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": each.name, "uid": "1"}
    for rendered in (rendered_job(each, settings), rendered_service(each, settings, owner)):
        kubernetes_validate.validate(rendered, version, strict=True)


def test_a_kubernetes_job_has_few_rights_its_resources_and_no_secret_in_plain_text() -> None:
    rendered = rendered_job(FULL, KubernetesSettings(service_key_secret="narupa"))
    assert "hush-hush" not in json.dumps(rendered)
    pod = rendered["spec"]["template"]["spec"]
    box = pod["containers"][0]
    assert rendered["spec"]["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert box["securityContext"]["readOnlyRootFilesystem"] and box["securityContext"]["capabilities"] == {
        "drop": ["ALL"]
    }
    assert box["resources"]["limits"] == {"cpu": "1500m", "memory": str(2 * 1024**3), "nvidia.com/gpu": "1"}
    assert box["startupProbe"]["grpc"] == {"port": 38811} and box["startupProbe"]["failureThreshold"] == 90
    assert pod["nodeSelector"] == {"gpu": "yes"} and box["workingDir"] == "/inputs"
    key = next(each for each in box["env"] if each["name"] == "NARUPA_TRAJECTORY_SERVICE_KEY")
    assert key["valueFrom"] == {"secretKeyRef": {"name": "narupa", "key": "service-key"}}
    address = next(each["value"] for each in box["env"] if each["name"] == "NARUPA_TRAJECTORY_ADVERTISE")
    assert json.loads(address) == ["peptide-0a1b2c3d-r1.science.svc:38811"]
    service = rendered_service(FULL, KubernetesSettings())
    assert service["spec"]["selector"].items() <= rendered["spec"]["template"]["metadata"]["labels"].items()


def test_prometheus_finds_a_pod_that_has_metrics() -> None:
    def pod(each: Job) -> tuple[dict[str, str], list[Any]]:
        template = rendered_job(each, KubernetesSettings())["spec"]["template"]
        return template["metadata"]["annotations"], template["spec"]["containers"][0]["ports"]

    def told(port: str) -> Job:
        return replace(FULL, environment={"NARUPA_TRAJECTORY_METRICS_PORT": port})

    kubernetes_validate.validate(rendered_job(told("9100"), KubernetesSettings()), "1.37", strict=True)
    annotations, ports = pod(told("9100"))
    assert (annotations["prometheus.io/scrape"], annotations["prometheus.io/port"]) == ("true", "9100")
    assert {"name": "metrics", "containerPort": 9100, "protocol": "TCP"} in ports
    for none in ("", "0", "many", "99999"):
        annotations, ports = pod(told(none))
        assert "prometheus.io/scrape" not in annotations and len(ports) == 1


async def test_pods_and_nodes_are_not_sent_to_a_lobby_that_they_cannot_reach(tmp_path: Path) -> None:
    here = replace(job(), lobby="127.0.0.1:38810")
    for launcher in (KubernetesLauncher(KubernetesSettings()), SlurmLauncher(SlurmSettings(), tmp_path)):
        with pytest.raises(LaunchError, match=r"cannot reach the lobby at 127.0.0.1:38810; let it listen") as told:
            await launcher.start(here)
        assert told.value.lasting


async def test_pods_need_the_service_key_as_a_secret() -> None:
    with pytest.raises(LaunchError, match="kubectl create secret generic narupa"):
        await KubernetesLauncher(KubernetesSettings()).start(job())


def test_a_batch_job_is_asked_for_without_a_shell() -> None:
    asked = submission(FULL, SlurmSettings(partition="other"))
    assert asked[0] == "--parsable"
    for option in (
        "--partition=gpu", "--account=abc", "--qos=high", "--constraint=a100&nvme", "--time=1-00:30:00",
        "--cpus-per-task=3", "--mem=2048M", "--gpus=1", "--chdir=/catalogue", "--job-name=narupa-peptide-0a1b2c3d-r1",
        "--export=HOME,LANG,LOGNAME,PATH,USER,NARUPA_TRAJECTORY_SERVICE_KEY",
    ):  # fmt: skip
        assert option in asked
    assert "hush-hush" not in str(asked)
    assert not any(option.startswith(("--mem", "--time", "--gpus")) for option in submission(job(), SlurmSettings()))


def test_a_batch_script_says_nasty_values_and_does_not_run_them(tmp_path: Path) -> None:
    program = tmp_path / "a program's name"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, json\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    program.chmod(0o755)
    nasty = job(inputs=[NASTY, "demo:a"], environment={"A": NASTY, "B": "-n"}, title=NASTY)
    text = script(replace(nasty, session_id=NASTY), SlurmSettings(program=program))
    assert "hush-hush" not in text
    done = subprocess.run(
        ["/bin/sh"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    arguments, environment = json.loads(done.stdout)
    assert arguments == ["--service-id", "peptide-0a1b2c3d"]
    assert environment["A"] == NASTY and environment["NARUPA_TRAJECTORY_SESSION_ID"] == NASTY
    assert json.loads(environment["NARUPA_TRAJECTORY_SOURCES"]) == [NASTY.strip(), "demo:a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a program's name"]
    assert all(len(shlex.split(line)) == 2 for line in text.splitlines()[1:-1])


def test_no_launcher_loads_its_library_before_it_is_used() -> None:
    check = (
        "import sys, pathlib; from narupa_lobby.launchers.choice import all_launchers as a;"
        "from narupa_lobby.launchers.settings import LauncherSettings as S;"
        "print(sorted(a(S(), pathlib.Path('x'))), [m for m in ('docker', 'kubernetes', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['docker', 'kubernetes', 'local', 'slurm'] []"


def test_settings_name_what_is_wrong() -> None:
    for wrong in ({"lobby": "nowhere"}, {"docker": {"first_port": 9, "last_port": 8}}, {"default": "ssh"}):
        with pytest.raises(ValueError, match=r"lobby|last_port|default"):
            LauncherSettings.model_validate(wrong)
