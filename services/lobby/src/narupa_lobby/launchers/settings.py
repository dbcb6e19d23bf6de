"""What the lobby is told about starting simulations: its setting `launchers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from narupa_lobby.catalogue.fields import Word
from narupa_lobby.catalogue.simulation import LauncherName

Port = Annotated[int, Field(ge=1, le=65535)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)


class LocalSettings(_Settings):
    """Processes on this machine."""

    host: str | None = None
    """Address that they listen on; unset takes the lobby's."""

    log_bytes: int = Field(default=4 * 1024 * 1024, ge=4096)
    """Size at which a log is cut back to its last half, bytes."""


class DockerSettings(_Settings):
    """Containers."""

    image: Word = "narupa-trajectory"
    """Image of the trajectory service."""

    network: Word | None = None
    """Network of the containers; unset takes the host's when the lobby listens on loopback, else Docker's default."""

    publish_host: str = "127.0.0.1"
    """Address on which a container's port is published, unless it is in the host's network."""

    advertise_host: str | None = None
    """Name or address under which clients reach published ports; unset takes `publish_host`."""

    first_port: Port = 38820
    """First of the ports that are published."""

    last_port: Port = 38899
    """Last of the ports that are published."""

    @model_validator(mode="after")
    def _ports_in_order(self) -> Self:
        if self.last_port < self.first_port:
            raise ValueError(f"last_port {self.last_port} is less than first_port {self.first_port}")
        return self


class KubernetesSettings(_Settings):
    """Jobs on a Kubernetes cluster."""

    image: Word = "narupa-trajectory"
    """Image of the trajectory service."""

    namespace: str = Field(default="default", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
    """Where jobs are made."""

    context: str | None = None
    """Context of the kubeconfig; unset takes the cluster that the lobby runs in, else the current context."""

    service_key_secret: str | None = Field(default=None, pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")
    """Secret whose key `service-key` holds the service key."""

    image_pull_secret: str | None = Field(default=None, pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")
    """Secret with which the image is pulled."""


class SlurmSettings(_Settings):
    """Jobs on a Slurm cluster that shares its file system with the lobby."""

    partition: Word | None = None
    """Unset takes the cluster's default."""

    account: Word | None = None
    """Unset takes the user's default."""

    program: Path | None = None
    """The narupa-trajectory program on the nodes; unset takes the one beside the lobby's."""

    log_dir: Path | None = None
    """Folder for the jobs' output, seen by the nodes; unset takes one in `state_dir`."""


class LauncherSettings(_Settings):
    """How simulations of the catalogue are started."""

    default: LauncherName = "local"
    """The launcher of simulations that name none."""

    lobby: str | None = Field(default=None, pattern=r"^\S+:\d{1,5}(?:,\S+:\d{1,5})*$")
    """HOST:PORT under which started services reach the lobby, several separated by commas; unset takes what it advertises."""

    environment: dict[str, str] = Field(default={}, max_length=64)
    """Environment variables of every started service, such as NARUPA_TRAJECTORY_TLS_CA."""

    drain_s: float = Field(default=5.0, ge=0, le=600)
    """How long viewers may take to leave a service that stops, s."""

    stop_grace_s: float = Field(default=8.0, ge=0, le=600)
    """How long a stopping service may take to end before it is killed, s."""

    keep_stopped_s: float = Field(default=300.0, ge=0, le=86400)
    """How long a service that was stopped on purpose stays listed, s."""

    lost_after_s: float = Field(default=30.0, ge=1, le=3600)
    """How long a started service may be without its registration before it is restarted, s."""

    take_over_s: float = Field(default=15.0, ge=1, le=600)
    """Silence of another lobby after which its launches are taken over, s."""

    local: LocalSettings = LocalSettings()
    docker: DockerSettings = DockerSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    slurm: SlurmSettings = SlurmSettings()
