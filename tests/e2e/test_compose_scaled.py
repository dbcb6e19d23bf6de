"""`docker compose up --scale trajectory=3`: one replica leads, and its death is the end of no viewer's stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import narupa_client
from narupa_client import Service
from tests.e2e.compose import ComposeSession, engine_problem

pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.timeout(1200)]

REPLICAS = 3
LIMIT_S = 120.0


def free_range(length: int) -> str:
    """FIRST-LAST of ports that nobody uses at this moment."""
    for first in range(39100, 60000, length):
        with ExitStack() as stack:
            try:
                for port in range(first, first + length):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"{first}-{first + length - 1}"
    raise AssertionError("no ports are free")


@pytest.fixture(scope="module")
def running() -> Iterator[ComposeSession]:
    if problem := engine_problem():
        pytest.skip(problem)
    session = ComposeSession(settings={"NARUPA_TRAJECTORY_PORT": free_range(5)})
    try:
        session.compose("build", timeout_s=1100)
        session.compose("up", "--detach", "--no-build", "--scale", f"trajectory={REPLICAS}")
        yield session
    finally:
        session.compose("down", "--volumes", "--timeout", "8")


async def replicas(session: narupa_client.Session, epoch: int) -> dict[str, Service]:
    """The replicas by their container's name, once all run and one leads in `epoch` or a later one."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = [each for each in session.services if each.kind == "trajectory" and each.status == "running"]
            if len(found) == REPLICAS and max(each.epoch for each in found) >= epoch:
                return {each.endpoints[0].host: each for each in found}
            await asyncio.sleep(0.2)


async def test_another_replica_goes_on_when_the_leader_is_killed(running: ComposeSession) -> None:
    names = [f"trajectory-{number}" for number in range(1, REPLICAS + 1)]
    containers = {running.inspect_container(name, "{{.Config.Hostname}}"): name for name in names}
    async with narupa_client.join(running.lobby, "Ada", wait_s=LIMIT_S) as session:
        before = await replicas(session, 1)
        assert before.keys() == containers.keys()
        leading = next(host for host, service in before.items() if service.epoch)
        seen = []
        async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
            async for frame in frames:
                seen.append(frame)
                if len(seen) == 30:
                    running.kill_process(containers[leading], numbered=True)
                if frame.epoch > seen[0].epoch:
                    break
        assert [each.index for each in seen] == sorted({each.index for each in seen})
        assert {each.run_id for each in seen} == {seen[0].run_id}
        after = await replicas(session, seen[0].epoch + 1)  # the one that was killed is restarted, and relays
        assert len([service for service in after.values() if service.epoch]) == 1
    await asyncio.get_running_loop().shutdown_default_executor()  # which looks up names
