"""Which launchers there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from narupa_lobby.launchers.docker_containers import DockerLauncher
from narupa_lobby.launchers.kubernetes_jobs import KubernetesLauncher
from narupa_lobby.launchers.launcher import Launcher
from narupa_lobby.launchers.local_processes import LocalLauncher
from narupa_lobby.launchers.settings import LauncherSettings
from narupa_lobby.launchers.slurm_jobs import SlurmLauncher


def all_launchers(settings: LauncherSettings, log_dir: Path) -> Mapping[str, Launcher]:
    """Every launcher by name. None has looked yet whether what it needs is there.

    Args:
        settings: The lobby's.
        log_dir: Folder for logs; made when it is needed.
    """
    launchers: tuple[Launcher, ...] = (
        LocalLauncher(settings.local, log_dir),
        DockerLauncher(settings.docker),
        KubernetesLauncher(settings.kubernetes),
        SlurmLauncher(settings.slurm, log_dir),
    )
    return {launcher.name: launcher for launcher in launchers}
