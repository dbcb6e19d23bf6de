"""What images are made of and judged by: the part of the lock that a service needs, and the health check."""

from __future__ import annotations

import asyncio
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from narupa_shared import healthcheck

ROOT = Path(__file__).parents[2]
PINNED = ROOT / "deploy" / "pinned.py"
LOCK = """
alpha==1.0 \\
    --hash=sha256:aa
    # via
    #   -r requirements.in
    #   delta
beta==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:bb
    # via alpha
beta==3.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
    # via alpha
delta==1.0 \\
    --hash=sha256:dd
    # via -r requirements.in
gamma-x==1.0 \\
    --hash=sha256:ee
    # via
    #   beta
    #   delta
""".lstrip()


@pytest.fixture
def pinned() -> dict[str, Any]:
    return runpy.run_path(str(PINNED))


def names(entries: list[str]) -> list[str]:
    return [entry.split()[0] for entry in entries]


def test_a_package_brings_all_that_it_needs_and_nothing_else(pinned: dict[str, Any]) -> None:
    lock = pinned["entries"](LOCK)
    assert names(pinned["closure"](lock, {"alpha"})) == ["alpha==1.0", "beta==2.0", "beta==3.0", "gamma-x==1.0"]
    assert names(pinned["closure"](lock, {"gamma-x"})) == ["gamma-x==1.0"]


def test_versions_markers_and_hashes_stay_as_they_are(pinned: dict[str, Any]) -> None:
    entries = pinned["closure"](pinned["entries"](LOCK), {"alpha"})
    assert all(text in LOCK and "--hash=sha256:" in text for text in entries)


def test_a_package_that_the_lock_does_not_have_is_named(pinned: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match="not in the lock: omega; add to requirements"):
        pinned["closure"](pinned["entries"](LOCK), {"omega"})


@pytest.mark.parametrize("service", ["lobby", "imd", "trajectory", "gateway"])
def test_a_service_gets_its_own_dependencies_each_with_a_hash(service: str) -> None:
    client = ["clients/python/pyproject.toml"] if service == "gateway" else []
    projects = ["shared/pyproject.toml", *client, f"services/{service}/pyproject.toml"]
    command = [sys.executable, str(PINNED), "requirements.lock", *projects]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.findall(r"^([a-z0-9][a-z0-9._-]*)==", text, re.M | re.I)
    assert {"grpcio", "protobuf", "cryptography", "cffi"} <= set(found)
    assert ("openmm" in found) is (service == "trajectory")
    assert not {"pytest", "ruff", "mypy"} & set(found)
    assert ("typer" in found) is (service == "gateway")
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()))


def test_a_health_check_by_name_takes_the_port_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARUPA_LOBBY_PORT", "38810")
    monkeypatch.delenv("NARUPA_IMD_PORT", raising=False)
    assert healthcheck.address_of("lobby") == "127.0.0.1:38810"
    assert healthcheck.address_of("imd") is None
    assert healthcheck.address_of("host:1") == "host:1"


async def test_a_health_check_tells_serving_from_draining_and_from_nobody(free_port: Callable[[], int]) -> None:
    servicer, server = health.aio.HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()

    async def asked() -> tuple[int, str]:
        return await run_check(address)

    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert await asked() == (0, "")
    await servicer.enter_graceful_shutdown()
    status, text = await asked()
    assert status == 1 and "NOT_SERVING" in text
    await server.stop(None)
    status, text = await run_check(f"127.0.0.1:{free_port()}")
    assert status == 1 and "UNAVAILABLE" in text


async def run_check(address: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "narupa_shared.healthcheck", address, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()
