"""Simulations as containers, each with as few rights as it needs."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from narupa_lobby.launchers.launcher import CONTAINER_PORT, Job, LaunchError, Seen, last_lines
from narupa_lobby.launchers.settings import DockerSettings

if TYPE_CHECKING:
    import docker

T = TypeVar("T")

INPUTS_FOLDER: Final = "/inputs"
CALL_LIMIT_S: Final = 30
PORT_TRIES: Final = 5
LABEL: Final = "narupa."
HOST_NETWORK: Final = "host"


class DockerLauncher:
    """Each simulation is a container that Docker never restarts by itself; the ref is its name."""

    name = "docker"
    outlives_lobby = True

    def __init__(self, settings: DockerSettings) -> None:
        """Nothing is asked of Docker yet."""
        self._settings = settings
        self._client: docker.DockerClient | None = None
        self._connecting = asyncio.Lock()

    async def start(self, job: Job) -> str:
        for _ in range(PORT_TRIES):
            arguments = container(job, self._settings)
            try:
                await self._call(lambda client, arguments=arguments: _run(client, arguments))  # type: ignore[misc]
                return str(arguments["name"])
            except LaunchError as error:
                await self.remove(str(arguments["name"]))
                if not _port_taken(str(error)):
                    raise
        raise LaunchError(
            f"no free port found from {self._settings.first_port} to {self._settings.last_port}; "
            "give the lobby a wider range in launchers.docker.first_port and last_port",
            lasting=False,
        )

    async def find(self, job: Job) -> str | None:
        name = container_name(job)
        return name if (await self.look(name)).state != "gone" else None

    async def look(self, ref: str) -> Seen:
        state = await self._call(lambda client: _state(client, ref))
        if state is None:
            return Seen("gone", reason="its container was removed")
        if state["Status"] in ("running", "paused"):
            return Seen("running")
        if state["Status"] in ("created", "restarting"):
            return Seen("pending", reason="its container is being started")
        code = int(state.get("ExitCode", 0))
        if state.get("OOMKilled"):
            return Seen("ended", code, "ran out of memory; give it more in resources.memory")
        return Seen("ended", code, str(state.get("Error") or f"ended with exit status {code}"))

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        raw = await self._call(lambda client: _logs(client, ref, lines))
        return last_lines(raw.decode(errors="replace"), lines)

    async def stop(self, ref: str, grace_s: float) -> None:
        await self._call(lambda client: _stop(client, ref, round(grace_s)), limit_s=grace_s + CALL_LIMIT_S)

    async def remove(self, ref: str) -> None:
        await self._call(lambda client: _remove(client, ref))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def _call(self, what: Callable[[docker.DockerClient], T], limit_s: float = CALL_LIMIT_S) -> T:
        """What `what` gives, in a thread; LaunchError for all that Docker says against it."""
        try:
            async with asyncio.timeout(limit_s), self._connecting:
                if self._client is None:
                    self._client = await asyncio.to_thread(_connect)
            async with asyncio.timeout(limit_s):
                return await asyncio.to_thread(partial(_explained, what, self._client))
        except TimeoutError as error:
            raise LaunchError(f"Docker did not answer within {limit_s:g} s", lasting=False) from error


def container_name(job: Job) -> str:
    """The container's name."""
    return f"narupa-{job.name}"


def container(job: Job, settings: DockerSettings) -> dict[str, Any]:
    """The arguments with which Docker makes the container of `job`."""
    spec = job.spec
    network = spec.docker.network or settings.network or (HOST_NETWORK if job.lobby_is_loopback else None)
    if network == HOST_NETWORK:
        variables = job.variables(job.host, 0)
        ports: dict[str, Any] = {}
    else:
        if job.lobby_is_loopback:
            raise LaunchError(
                f"a container in the network {network!r} cannot reach the lobby at {job.lobby}; let it listen on another "
                "address (--host), name it in launchers.lobby, or use the host's network",
                lasting=True,
            )
        port = random.randint(settings.first_port, settings.last_port)
        ports = {f"{CONTAINER_PORT}/tcp": (settings.publish_host, port)}
        outside = f"{settings.advertise_host or settings.publish_host}:{port}"
        # Within a network of one's own, containers know each other by name.
        inside = [f"{container_name(job)}:{CONTAINER_PORT}"] if network else []
        variables = job.variables("0.0.0.0", CONTAINER_PORT, [*inside, outside])
    arguments: dict[str, Any] = {
        "image": spec.docker.image or settings.image,
        "command": job.arguments,
        "name": container_name(job),
        "environment": {**variables, **job.secrets},
        "labels": {
            LABEL + "session": job.session_id,
            LABEL + "service": job.service_id,
            LABEL + "simulation": spec.name,
        },
        "detach": True,
        "init": True,
        "restart_policy": {"Name": "no"},
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 1024,
        "log_config": {"type": "json-file", "config": {"max-size": "10m", "max-file": "2"}},
        "ports": ports,
    }
    if network == HOST_NETWORK:
        arguments["network_mode"] = HOST_NETWORK
    elif network:
        arguments["network"] = network
    if spec.relative_inputs:
        arguments["volumes"] = {str(job.folder): {"bind": INPUTS_FOLDER, "mode": "ro"}}
        arguments["working_dir"] = INPUTS_FOLDER
    if spec.resources.cpus is not None:
        arguments["nano_cpus"] = round(spec.resources.cpus * 1e9)
    if spec.resources.memory is not None:
        arguments["mem_limit"] = spec.resources.memory
    if spec.resources.gpus:
        arguments["device_requests"] = [{"Driver": "", "Count": spec.resources.gpus, "Capabilities": [["gpu"]]}]
    return arguments


def _connect() -> docker.DockerClient:
    try:
        import docker
    except ImportError as error:
        raise LaunchError(
            "the Python package `docker` is not installed; install it where the lobby runs", lasting=True
        ) from error
    try:
        return docker.from_env(timeout=CALL_LIMIT_S)
    except docker.errors.DockerException as error:
        raise _unreachable(error) from error


def _explained(what: Callable[[docker.DockerClient], T], client: docker.DockerClient) -> T:
    import docker
    import requests

    try:
        return what(client)
    except docker.errors.ImageNotFound as error:
        reason = str(error.explanation or error)
        raise LaunchError(
            f"Docker has no such image ({reason}); build it (docker compose build) or pull it (docker pull)",
            lasting=True,
        ) from error
    except docker.errors.APIError as error:
        refused = 400 <= (error.status_code or 500) < 500 and error.status_code != 409
        raise LaunchError(f"Docker refuses: {error.explanation or error}"[:500], lasting=refused) from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> LaunchError:
    return LaunchError(
        f"Docker cannot be reached ({str(error)[:200]}); start it, let this user use it, or set DOCKER_HOST",
        lasting=False,
    )


def _port_taken(reason: str) -> bool:
    return "port is already allocated" in reason or "address already in use" in reason


def _run(client: docker.DockerClient, arguments: dict[str, Any]) -> None:
    client.containers.create(**{k: v for k, v in arguments.items() if k not in ("detach",)}).start()


def _state(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    import docker

    try:
        return dict(client.containers.get(name).attrs["State"])
    except docker.errors.NotFound:
        return None


def _logs(client: docker.DockerClient, name: str, lines: int) -> bytes:
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        return bytes(client.containers.get(name).logs(tail=lines))
    return b""


def _stop(client: docker.DockerClient, name: str, grace_s: int) -> None:
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        client.containers.get(name).stop(timeout=grace_s)


def _remove(client: docker.DockerClient, name: str) -> None:
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        client.containers.get(name).remove(force=True)
