"""What the clients of a gateway cost together: one place at the lobby's door, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc.aio
import psutil
import pytest

from narupa_gateway.guests import Credentials, Guest
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc
from narupa_shared.testing.waiting import until
from tests.integration.gateway_scene import Scene

MANY: Final = 12
# Of one client on a WebSocket, as long as it only watches: frames, state, and what it says.
TASKS_OF_A_VIEWER: Final = 3


@pytest.fixture
async def scene(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(free_port, tmp_path, "harmonic:3")
    await scene.start("lobby", "imd", "gateway")
    yield scene
    await scene.stop()


def connections(port: int) -> int:
    """How many there are from this process to that port."""
    found = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and bool(each.raddr) and each.raddr.port == port for each in found)


async def test_a_guest_more_is_no_connection_no_stream_and_no_task_more(scene: Scene) -> None:
    lobby, guests = scene.apps["lobby"].lobby, scene.gateway.guests
    async with AsyncExitStack() as stack:

        async def come(number: int) -> Guest:
            return await stack.enter_async_context(guests.joined("test", f"10.0.0.{number}", Credentials()))

        inside = [await come(1)]
        await until(lambda: len(guests.book.users) == 1)
        costs = connections(scene.ports["lobby"]), lobby.watcher_count("default"), len(asyncio.all_tasks())
        people = guests.book.users
        inside += await asyncio.gather(*map(come, range(2, MANY + 1)))
        async with scene.native("Ada"):
            await until(lambda: len(people) == MANY + 1)
        await until(lambda: len(people) == MANY)
        # What the gateway and the lobby do for all may be some tasks, for a while.
        await until(lambda: len(asyncio.all_tasks()) < costs[2] + MANY // 2)
        await until(lambda: (connections(scene.ports["lobby"]), lobby.watcher_count("default")) == costs[:2])
        assert all(guest.session._directory.users is people for guest in inside)
        # All of them are held: without that, the lobby would have let them go by now.
        held = [f"user/default/{guest.session.user_id}" for guest in inside]
        await until(lambda: all(map(lobby._presence.watched, held)))
    await until(lambda: not scene.users and not any(map(lobby._presence.watched, held)))


async def test_a_viewer_is_few_tasks(scene: Scene) -> None:
    def tasks_of(guest: Guest) -> int:
        return sum(task.get_name() == f"guest-{guest.number}" for task in asyncio.all_tasks())

    async with scene.headset() as one, scene.headset() as other:
        await until(lambda: one.state is not None and other.state is not None)
        present = scene.gateway.guests.present
        await until(lambda: len(present) == 2)
        await until(lambda: all(tasks_of(guest) == TASKS_OF_A_VIEWER for guest in present.values()))


async def test_users_of_a_gateway_that_is_gone_are_gone_after_a_moment(scene: Scene) -> None:
    """Here its end of the stream is closed without a word, as by a kill."""
    registration = scene.gateway.guests.registration
    assert registration is not None
    lobby, gateways = scene.apps["lobby"].lobby, (("authorization", f"Bearer {registration.token}"),)
    request = lobby_pb2.JoinRequest(user_name="guest", guest=True, guests_welcome=True)
    async with grpc.aio.insecure_channel(scene.address("lobby")) as channel:
        stub = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
        joined = [(await stub.Join(request, metadata=gateways)).user.id for _ in range(3)]
        call = stub.HoldUsers(metadata=gateways)
        await call.write(lobby_pb2.HoldUsersRequest(begin=[*joined, "stranger"]))
        assert list((await call.read()).missing) == ["stranger"]
        assert all(lobby._presence.watched(f"user/default/{user_id}") for user_id in joined)
    await until(lambda: not scene.users)
