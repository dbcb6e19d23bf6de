"""`docker compose --profile ha up`: two lobbies over one Redis, either of which may be lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

import narupa_client
from narupa_shared.testing.ports import unused_port
from tests.e2e.compose import SERVICES, ComposeSession, engine_problem, eventually, frames_of

pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.timeout(1200)]

LOBBIES = ("lobby-1", "lobby-2")
RUNNING = dict.fromkeys(SERVICES - {"lobby"}, "running")


@pytest.fixture(scope="module")
def running() -> Iterator[ComposeSession]:
    if problem := engine_problem():
        pytest.skip(problem)
    session = ComposeSession(profile="ha")
    session.ports["lobby_2"] = unused_port()
    try:
        session.compose("build", timeout_s=1100)
        session.compose("up", "--detach", "--no-build")
        for lobby in LOBBIES:
            eventually(lambda name=lobby: session.inspect(name, "{{.State.Health.Status}}") == "healthy", 60)  # type: ignore[misc]
        yield session
    finally:
        session.compose("down", "--volumes", "--timeout", "8")


def addresses(running: ComposeSession) -> list[str]:
    return [f"127.0.0.1:{running.ports[name]}" for name in ("lobby", "lobby_2")]


def kinds(running: ComposeSession, address: str) -> dict[str, str]:
    listed = json.loads(running.narupa("services", "--json", lobby=address))
    return {service["kind"]: service["status"] for service in listed}


@pytest.fixture
async def ada(running: ComposeSession) -> AsyncIterator[narupa_client.Session]:
    async with narupa_client.join(",".join(addresses(running)), "Ada") as session:
        yield session


def test_both_lobbies_see_one_session(running: ComposeSession) -> None:
    for address in addresses(running):
        eventually(lambda at=address: kinds(running, at) == RUNNING, 30)  # type: ignore[misc]


@pytest.mark.parametrize("victim", LOBBIES)
async def test_either_lobby_may_die(running: ComposeSession, ada: narupa_client.Session, victim: str) -> None:
    survivor = addresses(running)[1 - LOBBIES.index(victim)]
    user_id = ada.user_id
    async with ada.frames(mode="all") as frames:
        first = (await anext(frames)).index
        # In threads, so that Ada's connections are looked after meanwhile.
        await asyncio.to_thread(running.kill_process, victim)
        # The other one has lost nobody and nothing, and lets people in.
        assert await asyncio.to_thread(kinds, running, survivor) == RUNNING
        async with narupa_client.join(survivor, "Grace") as grace, asyncio.timeout(20):
            both = {user_id, grace.user_id}
            while not both <= {user.id for user in grace.users} or not both <= {user.id for user in ada.users}:
                await anext(frames)
        assert ada.user_id == user_id
        last = [(await anext(frames)).index for _ in range(30)]
        assert min(last) > first, "the stream started over"
        assert last == sorted(last)
    healthy = partial(running.inspect, victim, "{{.State.Health.Status}}")
    await asyncio.to_thread(eventually, lambda: healthy() == "healthy", 60)
    again = addresses(running)[LOBBIES.index(victim)]
    assert await asyncio.to_thread(kinds, running, again) == RUNNING
    await asyncio.get_running_loop().shutdown_default_executor()


def test_redis_cannot_be_reached_by_the_other_services(running: ComposeSession) -> None:
    check = "import socket\ntry: socket.create_connection(('redis', 6379), 2)\nexcept OSError: print('no')"
    assert running.compose("exec", "-T", "imd", "python", "-c", check).strip() == "no"
    assert running.compose("exec", "-T", "lobby-1", "python", "-c", check).strip() == ""


def test_frames_come_through_either_lobby(running: ComposeSession) -> None:
    for address in addresses(running):
        assert frames_of(running.watch(3, lobby=address))[-1]["particle_count"] > 0
