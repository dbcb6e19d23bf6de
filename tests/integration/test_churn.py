"""Clients come and go at each door of a session, a good many of them without a word: nothing of them is left in any service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from ase.build import molecule
from ase.io import write

from benchmarks.light_clients import GrpcClient
from narupa_shared.testing.leaks import GRACE_S, Leaks
from narupa_shared.testing.waiting import until
from tests.integration.gateway_scene import LIMIT_S, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CYCLES: Final = 200
AT_A_TIME: Final = 8
# What is kept of those who are gone, up to limits of its own: the lobby's log, what was told, tokens that are void until they
# would have expired, and the accounts of pulls.
KEPT: Final = frozenset(
    ["Commit", "Told", "Event", "Revocation", "Departed", "User", "Service", "FinishedInteraction", "FinishedReport"]
)
PULL: Final = {"position": [0.0, 0.0, 0.0], "particles": [0], "interaction_type": "spring", "scale": 1.0}


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    gc.collect()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not leaks.found(), GRACE_S)


@pytest.fixture
async def scene(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Scene]:
    path = tmp_path / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    scene = Scene(free_port, tmp_path, f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01")
    await scene.start("lobby", "imd", "gateway")
    await scene.start("trajectory", recent_frames=1)
    try:
        yield scene
    finally:
        await scene.stop()


def tracked() -> Counter[str]:
    """How many objects there are of each class of this project, and tasks."""
    gc.collect()
    counts = Counter(
        type(item).__name__ for item in gc.get_objects() if str(type(item).__module__).startswith("narupa_")
    )
    counts["Task"] = len(asyncio.all_tasks())
    return counts


async def native(scene: Scene, number: int) -> None:
    """Joins, watches a view, pulls, writes a key and takes it away, and leaves."""
    async with scene.native(f"guest {number}") as session:
        async with session.frames(selection=f"index 0 to {1 + number % 5}") as frames:
            await anext(aiter(frames))
            async with session.pull([0], (0, 0, 0), scale=1.0):
                await session.state.update({"churn": number})
        await session.state.update(remove=["churn"])


async def headset(scene: Scene, number: int) -> None:
    """Has frames, an avatar and a pull, and hangs up, or crashes."""
    headset = scene.headset()
    async with headset:
        name = f"vr-{number}"
        await headset.write({f"avatar.{name}": {"name": name}, f"interaction.{name}": PULL})
        await headset.say(command=[{"register": {"name": f"vr/{name}", "arguments": {}}}])
        await until(lambda: headset.frames and f"interaction.{name}" in headset.state)
        if number % 2:
            await headset.vanish()


async def cut_off(scene: Scene, kind: str) -> None:
    """Reads frames over gRPC until its connection is reset."""
    had = asyncio.Event()
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: GrpcClient(lambda _: had.set(), "native" if kind == "trajectory" else "grpc"),
        "127.0.0.1",
        scene.ports[kind],
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            await had.wait()
    finally:
        transport.abort()


DOORS: Final[dict[str, Callable[[Scene, int], Awaitable[None]]]] = {
    "native": native,
    "websocket": headset,
    "gateway grpc": lambda scene, _: cut_off(scene, "gateway"),
    "trajectory grpc": lambda scene, _: cut_off(scene, "trajectory"),
}


async def cycles(scene: Scene, visit: Callable[[Scene, int], Awaitable[None]], count: int) -> None:
    """So many have come and gone, some at a time; nobody is there any more."""
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for number in numbers:
            await visit(scene, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(one_by_one())
    imd, gateway = scene.apps["imd"], scene.gateway
    await until(lambda: not scene.users)
    await until(lambda: not [key for key in scene.state if key.startswith(("avatar.", "interaction.", "churn"))])
    await until(lambda: not imd.session.interactions() and not len(gateway.guests.present))


@pytest.mark.parametrize("door", DOORS)
async def test_nothing_is_left_of_those_who_came_and_went(scene: Scene, door: str) -> None:
    await cycles(scene, DOORS[door], 5 * AT_A_TIME)
    before = tracked()
    await cycles(scene, DOORS[door], CYCLES)

    def left() -> dict[str, int]:
        # What is on its way, such as the last heartbeat, differs by a few; what one in four leaves behind shows.
        return {
            name: count for name, count in (tracked() - before).items() if count >= CYCLES // 10 and name not in KEPT
        }

    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while left() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.5)
    assert left() == {}
