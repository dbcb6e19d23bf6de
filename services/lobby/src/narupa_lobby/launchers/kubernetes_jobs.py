"""Simulations as Kubernetes Jobs, each with a Service of its own that goes with it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, Final

from narupa_lobby.launchers.launcher import (
    CONTAINER_PORT,
    ENVIRONMENT_PREFIX,
    SERVICE_KEY,
    Job,
    LaunchError,
    Seen,
    last_lines,
)
from narupa_lobby.launchers.settings import KubernetesSettings

CALL_LIMIT_S: Final = 30.0
LABEL: Final = "narupa.dev/"
INPUTS_FOLDER: Final = "/inputs"
SECRET_KEY: Final = "service-key"
USER: Final = 10001  # of the images
CONTAINER: Final = "trajectory"


class KubernetesLauncher:
    """Kubernetes places each Job and holds it to its resources; the lobby decides on restarts. The ref is NAMESPACE/NAME."""

    name = "kubernetes"
    outlives_lobby = True

    def __init__(self, settings: KubernetesSettings, connect: Callable[[], Any] | None = None) -> None:
        """Nothing is asked of the cluster yet.

        Args:
            settings: Image, namespace, secrets.
            connect: Gives the `kubernetes.client.ApiClient` to use; by default that of the cluster or the kubeconfig.
        """
        self._settings = settings
        self._connect = connect or (lambda: _api_client(settings.context))
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def start(self, job: Job) -> str:
        if job.lobby_is_loopback and not job.lobby_named:
            raise LaunchError(
                f"a pod cannot reach the lobby at {job.lobby}; let it listen on another address (--host), or name it in "
                "launchers.lobby",
                lasting=True,
            )
        if job.secrets and self._settings.service_key_secret is None:
            raise LaunchError(
                "pods need the service key from a Secret: kubectl create secret generic narupa "
                f"--from-literal={SECRET_KEY}=..., and name it in launchers.kubernetes.service_key_secret",
                lasting=True,
            )
        namespace = job.spec.kubernetes.namespace or self._settings.namespace
        made = await self._call(
            "BatchV1Api", "create_namespaced_job", namespace, rendered_job(job, self._settings), absent=None
        )
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": made.metadata.uid}
        service = rendered_service(job, self._settings, owner)
        try:
            await self._call("CoreV1Api", "create_namespaced_service", namespace, service, absent=None)
        except LaunchError:
            await self.remove(f"{namespace}/{job.name}")
            raise
        return f"{namespace}/{job.name}"

    async def find(self, job: Job) -> str | None:
        ref = f"{job.spec.kubernetes.namespace or self._settings.namespace}/{job.name}"
        return ref if (await self.look(ref)).state != "gone" else None

    async def look(self, ref: str) -> Seen:
        namespace, name = _parts(ref)
        found = await self._call("BatchV1Api", "read_namespaced_job", name, namespace)
        if found is None:
            return Seen("gone", reason="its Job was deleted")
        pod = await self._pod(namespace, name)
        conditions = {each.type: each for each in found.status.conditions or [] if each.status == "True"}
        code, why = _end_of(pod)
        if "Complete" in conditions:
            return Seen("ended", 0, "ended with exit status 0")
        if failed := conditions.get("Failed"):
            return Seen("ended", code, why or str(failed.message or failed.reason or "its Job failed"))
        if pod is not None and pod.status.phase == "Running":
            return Seen("running")
        return Seen("pending", reason=_wait_of(pod))

    async def _pod(self, namespace: str, name: str) -> Any:
        """The newest pod of the Job, or None."""
        pods = await self._call("CoreV1Api", "list_namespaced_pod", namespace, label_selector=f"job-name={name}")
        items = pods.items if pods is not None else []
        return max(items, key=lambda pod: str(pod.metadata.creation_timestamp), default=None)

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        namespace, name = _parts(ref)
        pod = await self._pod(namespace, name)
        if pod is None or pod.status.phase == "Pending":
            return []
        text = await self._call(
            "CoreV1Api", "read_namespaced_pod_log", pod.metadata.name, namespace, container=CONTAINER, tail_lines=lines
        )
        return last_lines(str(text or ""), lines)

    async def stop(self, ref: str, grace_s: float) -> None:
        namespace, name = _parts(ref)
        pods = await self._call("CoreV1Api", "list_namespaced_pod", namespace, label_selector=f"job-name={name}")
        # The Job first, which else would count its pod as failed; deleted with it, in the background, with their own grace.
        await self._call("BatchV1Api", "delete_namespaced_job", name, namespace, propagation_policy="Background")
        for pod in pods.items if pods is not None else []:
            grace = max(1, round(grace_s))
            await self._call(
                "CoreV1Api", "delete_namespaced_pod", pod.metadata.name, namespace, grace_period_seconds=grace
            )

    async def remove(self, ref: str) -> None:
        await self.stop(ref, 0.0)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def _call(self, api: str, method: str, *arguments: Any, absent: int | None = 404, **options: Any) -> Any:
        """What the API answers, or None for the status `absent`; LaunchError for all that it says against it."""
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                async with self._connecting:
                    if self._client is None:
                        self._client = await asyncio.to_thread(self._connect)
                return await asyncio.to_thread(_called, self._client, api, method, arguments, options, absent)
        except TimeoutError as error:
            raise LaunchError(f"the cluster did not answer within {CALL_LIMIT_S:g} s", lasting=False) from error


def _called(
    client: Any, api: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any], absent: int | None
) -> Any:
    module = _library("kubernetes.client")
    transport = importlib.import_module("urllib3.exceptions")
    try:
        call = getattr(getattr(module, api)(client), method)
        return call(*arguments, **options, _request_timeout=CALL_LIMIT_S)
    except module.ApiException as error:
        if absent is not None and error.status == absent:
            return None
        what = f"the cluster refuses {method}: {error.status} {error.reason}"
        # Of what was asked, 409 and 429 and the server's own errors may pass; anything else has to be changed by somebody.
        lasting = 400 <= (error.status or 500) < 500 and error.status not in (409, 429)
        raise LaunchError(f"{what}: {_message(error)}"[:500], lasting=lasting) from error
    except (transport.HTTPError, OSError) as error:
        raise LaunchError(f"the cluster cannot be reached ({str(error)[:200]})", lasting=False) from error


def _message(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "")[:200]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LaunchError(
            "the Python package `kubernetes` is not installed; install it where the lobby runs", lasting=True
        ) from error


def _api_client(context: str | None) -> Any:
    config, client = _library("kubernetes.config"), _library("kubernetes.client")
    settings = client.Configuration()
    try:
        if context is None:
            try:
                config.load_incluster_config(client_configuration=settings)
                return client.ApiClient(settings)
            except config.ConfigException:
                pass
        config.load_kube_config(context=context, client_configuration=settings)
        return client.ApiClient(settings)
    except config.ConfigException as error:
        raise LaunchError(
            f"no cluster is configured ({error}); run the lobby in the cluster, or give it a kubeconfig in KUBECONFIG",
            lasting=True,
        ) from error


def labels(job: Job) -> dict[str, str]:
    """Labels of everything that is made for `job`."""
    return {
        "app.kubernetes.io/name": "narupa-trajectory",
        "app.kubernetes.io/managed-by": "narupa-lobby",
        LABEL + "service": job.service_id,
        LABEL + "simulation": job.spec.name,
    }


def rendered_job(job: Job, settings: KubernetesSettings) -> dict[str, Any]:
    """The `batch/v1` Job of `job`."""
    spec = job.spec
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, settings)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if spec.kubernetes.inputs_claim:
        claim = {"claimName": spec.kubernetes.inputs_claim, "readOnly": True}
        pod["volumes"].append({"name": "inputs", "persistentVolumeClaim": claim})
    if spec.kubernetes.node_selector:
        pod["nodeSelector"] = dict(spec.kubernetes.node_selector)
    if settings.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job.name,
            "namespace": spec.kubernetes.namespace or settings.namespace,
            "labels": labels(job),
            "annotations": {LABEL + "session": job.session_id},
        },
        "spec": {
            "backoffLimit": 0,  # the lobby decides whether it runs again
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": 86400,  # should no lobby ever come back
            "template": {
                "metadata": {
                    "labels": labels(job),
                    "annotations": {LABEL + "session": job.session_id, **_scraping(job)},
                },
                "spec": pod,
            },
        },
    }


def _metrics_port(job: Job) -> int | None:
    """Where the service tells Prometheus what it does, if it has been told to."""
    said = job.variables("", 0).get(ENVIRONMENT_PREFIX + "METRICS_PORT", "")
    return int(said) if said.isascii() and said.isdigit() and 0 < int(said) < 65536 else None


def _scraping(job: Job) -> dict[str, str]:
    """What the usual configuration of Prometheus goes by when it looks for pods."""
    port = _metrics_port(job)
    return {} if port is None else {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}


def _container(job: Job, settings: KubernetesSettings) -> dict[str, Any]:
    spec = job.spec
    address = f"{job.name}.{spec.kubernetes.namespace or settings.namespace}.svc:{CONTAINER_PORT}"
    variables = job.variables("0.0.0.0", CONTAINER_PORT, [address])
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in variables.items()]
    if settings.service_key_secret:
        key = {"name": settings.service_key_secret, "key": SECRET_KEY}
        environment.append({"name": SERVICE_KEY, "valueFrom": {"secretKeyRef": key}})
    amounts: dict[str, str] = {}
    if spec.resources.cpus is not None:
        amounts["cpu"] = f"{round(spec.resources.cpus * 1000)}m"
    if spec.resources.memory is not None:
        amounts["memory"] = str(spec.resources.memory)
    limits = {**amounts, **({"nvidia.com/gpu": str(spec.resources.gpus)} if spec.resources.gpus else {})}
    # The kubelet speaks no TLS with gRPC health checks.
    tls = ENVIRONMENT_PREFIX + "TLS_CERT" in variables
    check: dict[str, Any] = {"tcpSocket" if tls else "grpc": {"port": CONTAINER_PORT}}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.kubernetes.image or settings.image,
        "args": job.arguments,
        "env": environment,
        "ports": [{"name": "grpc", "containerPort": CONTAINER_PORT, "protocol": "TCP"}],
        "resources": {"requests": amounts, "limits": limits} if limits else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {**check, "periodSeconds": 2, "failureThreshold": max(1, round(spec.start_timeout_s / 2))},
        "readinessProbe": {**check, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {**check, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if (metrics_port := _metrics_port(job)) is not None:
        container["ports"].append({"name": "metrics", "containerPort": metrics_port, "protocol": "TCP"})
    if spec.kubernetes.inputs_claim:
        container["volumeMounts"].append({"name": "inputs", "mountPath": INPUTS_FOLDER, "readOnly": True})
        container["workingDir"] = INPUTS_FOLDER
    return container


def rendered_service(job: Job, settings: KubernetesSettings, owner: dict[str, Any] | None = None) -> dict[str, Any]:
    """The `v1` Service under whose name others reach `job`; it goes with its `owner`."""
    metadata: dict[str, Any] = {
        "name": job.name,
        "namespace": job.spec.kubernetes.namespace or settings.namespace,
        "labels": labels(job),
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            # A service registers before it is ready to be probed.
            "publishNotReadyAddresses": True,
            "selector": {LABEL + "service": job.service_id},
            "ports": [{"name": "grpc", "port": CONTAINER_PORT, "targetPort": "grpc", "protocol": "TCP"}],
        },
    }


def _end_of(pod: Any) -> tuple[int | None, str]:
    """Exit status and reason of the pod's container, where it has ended."""
    statuses = (pod.status.container_statuses or []) if pod is not None else []
    for status in statuses:
        ended = status.state.terminated if status.state else None
        if ended is not None:
            if ended.reason == "OOMKilled":
                return ended.exit_code, "ran out of memory; give it more in resources.memory"
            return ended.exit_code, f"ended with exit status {ended.exit_code}"
    return None, str(pod.status.message or "") if pod is not None else ""


def _wait_of(pod: Any) -> str:
    """What a pod that does not run yet waits for."""
    if pod is None:
        return "waits for its pod"
    for status in pod.status.container_statuses or []:
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason not in (None, "ContainerCreating"):
            return f"its container waits: {waiting.reason} {waiting.message or ''}".strip()[:300]
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"waits for a node: {condition.message or condition.reason}"[:300]
    return "its container is being started"


def _parts(ref: str) -> tuple[str, str]:
    namespace, separator, name = ref.partition("/")
    if not separator or not namespace or not name:
        raise LaunchError(f"{ref[:80]!r} is no job of the kubernetes launcher", lasting=True)
    return namespace, name
