"""The objects in deploy/kubernetes: valid by the published schemas, understood by the services, and of one piece."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from narupa_gateway.config import GatewayConfig
from narupa_imd.config import ImdConfig
from narupa_lobby.config import LobbyConfig
from narupa_shared.config import ServiceConfig
from narupa_trajectory.config import TrajectoryConfig

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
CONFIGS: dict[str, type[ServiceConfig]] = {
    "lobby": LobbyConfig,
    "imd": ImdConfig,
    "trajectory": TrajectoryConfig,
    "gateway": GatewayConfig,
}
Objects = dict[tuple[str, str], dict[str, Any]]


def kustomization(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


def plain() -> Objects:
    documents = [
        document
        for name in kustomization(FOLDER / "session")["resources"]
        for document in yaml.safe_load_all((FOLDER / "session" / name).read_text())
    ]
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert len(found) == len(documents)
    return found


def patched(objects: Objects, patches: list[dict[str, Any]]) -> Objects:
    """As kustomize makes of it, as far as these patches go: JSON patches that add or replace, and the deletion of an object."""
    found = copy.deepcopy(objects)
    for each in patches:
        key = each["target"]["kind"], each["target"]["name"]
        operations = yaml.safe_load(each["patch"])
        if isinstance(operations, dict):
            assert operations["$patch"] == "delete"
            del found[key]
            continue
        for operation in operations:
            at: Any = found[key]
            *way, last = operation["path"].lstrip("/").split("/")
            for part in way:
                at = at[int(part) if isinstance(at, list) else part]
            if isinstance(at, list) and last == "-":
                at.append(operation["value"])
            else:
                last = int(last) if isinstance(at, list) else last
                assert operation["op"] == "add" or at[last] is not None
                at[last] = operation["value"]
    return found


def made(overlay: str) -> Objects:
    if overlay == "session":
        return plain()
    found = kustomization(FOLDER / overlay)
    assert found["resources"] == ["../session"]
    return patched(plain(), found["patches"])


@pytest.fixture(params=["session", "object-store"])
def objects(request: pytest.FixtureRequest) -> Objects:
    return made(request.param)


def workloads(objects: Objects) -> dict[str, dict[str, Any]]:
    return {name: each for (_, name), each in objects.items() if "template" in each.get("spec", {})}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(objects: Objects, workload: dict[str, Any]) -> dict[str, str]:
    """What the container is told, with a stand-in for what only the cluster knows; a secret is one that says so."""
    told: dict[str, str] = {}
    box = container(workload)
    for source in box.get("envFrom", []):
        if "configMapRef" in source:
            told |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    for each in box["env"]:
        if "value" in each:
            # Only what comes before is put in.
            told[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: told[found[1]], each["value"])
        elif secret := each["valueFrom"].get("secretKeyRef"):
            told[each["name"]] = f"secret {secret['name']} {secret['key']}"
        elif field := each["valueFrom"].get("fieldRef"):
            told[each["name"]] = {"metadata.name": "trajectory-1", "metadata.namespace": "lab"}[field["fieldPath"]]
        else:
            told[each["name"]] = "4"
    return told


def configured(name: str, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> ServiceConfig:
    told = environment(objects, workloads(objects)[name])
    prefix = f"NARUPA_{name.upper()}_"
    for variable, value in told.items():
        if variable.startswith("NARUPA_"):
            assert variable.startswith(prefix)
            assert variable.removeprefix(prefix).lower() in CONFIGS[name].model_fields, variable
            monkeypatch.setenv(variable, value)
    return CONFIGS[name]()


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_object_is_valid_by_the_published_schemas(objects: Objects, version: str) -> None:
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)
    assert set(workloads(objects)) == set(CONFIGS)
    assert objects["StatefulSet", "trajectory"]["spec"]["replicas"] > 1


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", ["session", "object-store"])
def test_kubectl_makes_the_same_of_it(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(FOLDER / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}
    assert found == made(overlay)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_service_understands_its_settings_and_is_where_it_is_said_to_be(
    name: str, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(name, objects, monkeypatch)
    workload, service = workloads(objects)[name], objects["Service", name]
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    assert (config.host, config.port, config.metrics_port) == ("0.0.0.0", ports["grpc"], ports["metrics"])
    assert not config.open_access
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    own = f"trajectory-1.{name}" if name == "trajectory" else name
    assert config.advertise == (f"{own}.lab.svc:{config.port}",)
    if name != "lobby":
        host, _, port = config.lobby.rpartition(":")
        assert int(port) in [each["port"] for each in objects["Service", host]["spec"]["ports"]]
    if workload["kind"] == "StatefulSet":
        assert workload["spec"]["serviceName"] == name
    if name == "trajectory":
        assert service["spec"]["clusterIP"] == "None"  # without which pods have no names


@pytest.mark.parametrize("name", CONFIGS)
def test_secrets_come_from_a_secret_only(name: str, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(name, objects, monkeypatch)
    secrets = {field: value for field, value in config if isinstance(value, SecretStr)}
    assert "service_key" in secrets
    for field, value in secrets.items():
        assert value.get_secret_value() == f"secret narupa {field.replace('_', '-')}"
    assert not [key for key in objects if key[0] == "Secret"]
    assert not re.search(r"SECRET_ACCESS_KEY|PASSWORD", json.dumps(list(objects.values())))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pod_has_few_rights_limits_probes_and_room_for_what_it_keeps(name: str, objects: Objects) -> None:
    workload = workloads(objects)[name]
    pod, box = workload["spec"]["template"]["spec"], container(workload)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert not pod["automountServiceAccountToken"] and not pod["enableServiceLinks"]
    assert box["securityContext"]["readOnlyRootFilesystem"]
    assert not box["securityContext"]["allowPrivilegeEscalation"]
    assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for amounts in (box["resources"]["requests"], box["resources"]["limits"]):
        assert set(amounts) == {"cpu", "memory"}
    grpc = next(port["containerPort"] for port in box["ports"] if port["name"] == "grpc")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert box[probe]["grpc"] == {"port": grpc}
    claims = [each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])]
    volumes = {each["name"]: each for each in pod["volumes"]}
    for mount in box["volumeMounts"]:
        assert mount["name"] in claims or mount["name"] in volumes
    for each in volumes.values():
        if claim := each.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in objects


def test_replicas_share_where_their_checkpoints_are(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured("trajectory", objects, monkeypatch)
    assert isinstance(config, TrajectoryConfig) and config.group and config.checkpoint_dir
    claim = objects.get(("PersistentVolumeClaim", "checkpoints"))
    if claim is not None:
        mounts = {
            each["name"]: each["mountPath"] for each in container(workloads(objects)["trajectory"])["volumeMounts"]
        }
        assert mounts["checkpoints"] == config.checkpoint_dir
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    else:
        assert config.checkpoint_dir.startswith("s3://")
        sources = container(workloads(objects)["trajectory"])["envFrom"]
        assert {"secretRef": {"name": "narupa-object-store", "optional": True}} in sources
