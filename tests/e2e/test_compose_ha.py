"""`docker compose --profile ha up`: two lobbies over one Redis, either of which may be lost."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

import narupa_client
from narupa_shared.testing.ports import unused_port
from tests.e2e.compose import ComposeSession, engine_problem, eventually, frames_of

pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.timeout(1200)]

LOBBIES = ("lobby-1", "lobby-2")


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
        eventually(lambda at=address: kinds(running, at) == {"imd": "running", "trajectory": "running"}, 30)  # type: ignore[misc]


@pytest.mark.parametrize("victim", LOBBIES)
async def test_either_lobby_may_die(running: ComposeSession, ada: narupa_client.Session, victim: str) -> None:
    survivor = addresses(running)[1 - LOBBIES.index(victim)]
    user_id = ada.user_id
    async with ada.frames(mode="all") as frames:
        first = (await anext(frames)).index
        running.kill_process(victim)
        # The other one has lost nobody and nothing, and lets people in.
        assert kinds(running, survivor) == {"imd": "running", "trajectory": "running"}
        async with narupa_client.join(survivor, "Grace") as grace:
            assert user_id in {user.id for user in grace.users}
            deadline = time.monotonic() + 20
            while grace.user_id not in {user.id for user in ada.users}:
                await anext(frames)
                assert time.monotonic() < deadline, "Ada has not heard of Grace"
        assert ada.user_id == user_id
        last = [(await anext(frames)).index for _ in range(30)]
        assert min(last) > first, "the stream started over"
        assert last == sorted(last)
    eventually(lambda: running.inspect(victim, "{{.State.Health.Status}}") == "healthy", 60)
    again = addresses(running)[LOBBIES.index(victim)]
    assert kinds(running, again) == {"imd": "running", "trajectory": "running"}


def test_redis_cannot_be_reached_by_the_other_services(running: ComposeSession) -> None:
    check = "import socket\ntry: socket.create_connection(('redis', 6379), 2)\nexcept OSError: print('no')"
    assert running.compose("exec", "-T", "imd", "python", "-c", check).strip() == "no"
    assert running.compose("exec", "-T", "lobby-1", "python", "-c", check).strip() == ""


def test_frames_come_through_either_lobby(running: ComposeSession) -> None:
    for address in addresses(running):
        assert frames_of(running.watch(3, lobby=address))[-1]["particle_count"] > 0
