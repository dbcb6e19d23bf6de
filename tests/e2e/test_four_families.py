"""Clients of every family in one session at once: they see each other, and the same frames.

NARUPA_FOUR_FAMILIES_S says for how many seconds they stay; the figures are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from imdclient.IMDClient import IMDClient
from numpy.typing import NDArray

import narupa_client
from narupa_client import CurrentFrame, Session
from narupa_shared.testing.leaks import GRACE_S, Leaks
from tests.compat.grpc_peer import GrpcPeer, Protocol
from tests.compat.nanover_peer import Peer, nanover_peer, needs_nanover, websocket_address
from tests.e2e.helix import any_peptide, away
from tests.e2e.sessions import LIMIT_S, RunningSession, at_rest, first, session

STAY_S: Final = float(os.environ.get("NARUPA_FOUR_FAMILIES_S", "4"))
GONE_WITHIN_S: Final = 2.0
# How often each client moves its hand.
MOVE_EVERY_S: Final = 0.1
# Which atom each family pulls.
ATOMS: Final = {"native": 3, "NanoVer WebSocket": 6, "Narupa gRPC": 9, "NanoVer gRPC": 12}
ANGSTROM_IN_NM: Final = np.float32(10)

pytestmark = [pytest.mark.e2e, needs_nanover, pytest.mark.timeout(STAY_S + 180)]


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    gc.collect()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            while leaks.found():
                await asyncio.sleep(0.005)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningSession]:
    with session(tmp_path, any_peptide(), "--fps", "30", "--imd-server-port", "0") as running:
        yield running


def digest(positions: NDArray[np.float32]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(positions, np.float32).tobytes(), digest_size=16).hexdigest()


@dataclass
class Family:
    """What one client has seen: the digest of the positions by index, and all sets of particles that felt a force."""

    name: str
    frames: dict[int, str] = field(default_factory=dict)
    forces: set[tuple[int, ...]] = field(default_factory=set)

    def take(self, index: int, positions: str, users: Any) -> None:
        assert index not in self.frames, f"{self.name} had frame {index} twice"
        self.frames[index] = positions
        self.forces.add(tuple(int(i) for i in users))


@dataclass
class ImdReader:
    """A program that reads IMD, in a thread: positions by step."""

    port: int
    particles: int
    frames: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    problem: BaseException | None = None

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="imd-reader")

    def __enter__(self) -> ImdReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)

    def _read(self) -> None:
        try:
            client = IMDClient("127.0.0.1", self.port, self.particles, multithreaded=False)
            try:
                while not self._over.is_set():
                    got = client.get_imdframe()
                    self.frames[got.step] = got.positions.copy()
            finally:
                client.stop()
        except BaseException as problem:
            self.problem = problem


# What each client does: watch, and wave a hand with an atom in it.


async def watch_native(ada: Session, seen: Family, frames_seen: dict[int, CurrentFrame]) -> None:
    async with ada.frames(mode="all") as frames:
        async for frame in frames:
            seen.take(frame.index, digest(frame.positions), frame.user_forces.indices)
            frames_seen[frame.index] = frame


async def watch_nanover(peer: Peer, seen: Family) -> None:
    while True:
        for frame in await peer("digests", after=len(seen.frames)):
            seen.take(*frame)
        await asyncio.sleep(0.5)


async def watch_grpc(peer: GrpcPeer, seen: Family, every: bool) -> None:
    async with peer.frames(every=every) as frames:
        while True:
            frame = await frames.next()
            seen.take(frame.index, digest(frame.positions), frame.users)


def avatar(name: str, turn: int) -> dict[str, Any]:
    hand = {"name": "hand.left", "position": [0.25 * turn, 1.0, 0.0], "rotation": [0.0, 0.0, 0.0, 1.0]}
    return {"playerid": name, "name": name, "color": [1.0, 0.5, 0.0, 1.0], "components": [hand]}


def pull(atom: int, handle: list[float], turn: int) -> dict[str, Any]:
    position = [handle[0], handle[1], handle[2] + 0.02 * (turn % 5)]
    return {
        "position": position,
        "particles": [atom],
        "interaction_type": "spring",
        "scale": 50.0,
        "mass_weighted": False,
    }


async def wave(write: Callable[[dict[str, Any]], Any], name: str, handle: list[float]) -> None:
    """The client's avatar and pull move, until cancelled."""
    turn = 0
    while True:
        turn += 1
        await write({f"avatar.{name}": avatar(name, turn), f"interaction.{name}": pull(ATOMS[name], handle, turn)})
        await asyncio.sleep(MOVE_EVERY_S)


async def test_every_family_sees_the_others_and_the_same_frames(
    running: RunningSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = await running.address("gateway")
    imd_port = int((await running.services())["gateway"].metadata["imd"])
    seen = {name: Family(name) for name in ATOMS}
    frames: dict[int, CurrentFrame] = {}
    async with contextlib.AsyncExitStack() as stack:
        ada = await stack.enter_async_context(narupa_client.join(running.lobby, "Ada"))
        writer = await stack.enter_async_context(ada.state.writer())
        nanover = await stack.enter_async_context(nanover_peer(await websocket_address(running)))
        narupa_grpc, nanover_grpc = [
            await stack.enter_async_context(GrpcPeer(Protocol(family, tmp_path), address, address))
            for family in ("narupa", "nanover")
        ]
        states = [await stack.enter_async_context(peer.states()) for peer in (narupa_grpc, nanover_grpc)]
        start = await ada.get_frame()
        reader = stack.enter_context(ImdReader(imd_port, start.particle_count))

        async def told(peer: GrpcPeer, changes: dict[str, Any]) -> None:
            assert await peer.update(changes)

        writes: dict[str, Callable[[dict[str, Any]], Any]] = {
            "native": writer.write,
            "NanoVer WebSocket": lambda changes: nanover("update", updates=changes),
            "Narupa gRPC": lambda changes: told(narupa_grpc, changes),
            "NanoVer gRPC": lambda changes: told(nanover_grpc, changes),
        }
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(watch_native(ada, seen["native"], frames)),
                group.create_task(watch_nanover(nanover, seen["NanoVer WebSocket"])),
                group.create_task(watch_grpc(narupa_grpc, seen["Narupa gRPC"], every=False)),
                group.create_task(watch_grpc(nanover_grpc, seen["NanoVer gRPC"], every=True)),
            ]
            waving = [
                group.create_task(wave(write, name, away(start, ATOMS[name], 0.2))) for name, write in writes.items()
            ]
            # Everybody sees everybody's avatar and pull.
            wanted = {f"{kind}.{name}" for kind in ("avatar", "interaction") for name in ATOMS}
            for stream in states:
                await stream.first(lambda state: wanted <= state.keys())
            await nanover.until("state", lambda state: wanted <= state.keys())
            assert wanted <= (await ada.state.get()).keys()
            pulled = tuple(sorted(ATOMS.values()))
            async with asyncio.timeout(LIMIT_S):
                while not all(pulled in family.forces for family in seen.values()):
                    await asyncio.sleep(0.05)

            await asyncio.sleep(STAY_S)
            for task in waving:
                task.cancel()
            await asyncio.wait(waving)
            stayed_s = time.monotonic() - began
            async with asyncio.timeout(LIMIT_S):
                last = max(seen["native"].frames)
                while not all(max(family.frames) >= last for family in seen.values()):
                    await asyncio.sleep(0.05)
            for task in watching:
                task.cancel()
        assert await nanover.complaints() == []
        assert reader.problem is None

        gone = sorted(wanted)
        await writer.write({}, remove=[key for key in gone if key.endswith(".native")])
        await nanover("update", removals=[key for key in gone if key.endswith("NanoVer WebSocket")])
        await narupa_grpc.update({key: None for key in gone if key.endswith("Narupa gRPC")})
        await nanover_grpc.update({key: None for key in gone if key.endswith("NanoVer gRPC")})
        async with ada.frames() as latest:
            await first(latest, at_rest, GONE_WITHIN_S)

    # A change of who pulls makes another frame of the same step, which those who are not due one do without.
    step_of = {index: frame.step for index, frame in frames.items() if frame.step is not None}
    at_step = {step: frames[index] for index, step in step_of.items()}
    lines = [f"{stayed_s:.0f} s in one session, {len(frames)} frames of {len(at_step)} steps:"]

    def note(name: str, count: int, compared: int, steps: set[int]) -> None:
        assert compared >= 10 * STAY_S, f"{name} had {count} frames"
        dropped = sum(min(steps) < step < max(steps) for step in at_step.keys() - steps)
        lines.append(f"  {name}: {count} frames, {compared} compared; {dropped} steps of {len(at_step)} not seen")

    ours = seen["native"].frames
    for family in seen.values():
        common = ours.keys() & family.frames.keys()
        assert all(ours[index] == family.frames[index] for index in common)
        note(family.name, len(family.frames), len(common), {step_of[index] for index in common})
    read = reader.frames.keys() & at_step.keys()
    for step in read:
        np.testing.assert_allclose(reader.frames[step], at_step[step].positions * ANGSTROM_IN_NM, rtol=1e-6)
    note("IMDv3", len(reader.frames), len(read), set(read))
    every = sorted(seen["NanoVer gRPC"].frames)
    assert every == list(range(every[0], every[-1] + 1))
    with capsys.disabled():
        print("\n" + "\n".join(lines))
