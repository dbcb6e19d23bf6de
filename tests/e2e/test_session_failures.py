"""What a session survives: its processes and its clients killed, any order of starting; and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import narupa_client
from narupa_client import CurrentFrame, Pull, Session, Subscription
from narupa_shared.errors import UnavailableError
from narupa_shared.testing.ports import unused_port
from tests.e2e.sessions import (
    KINDS,
    LIMIT_S,
    NARUPA,
    START_LIMIT_S,
    Running,
    RunningSession,
    at_rest,
    first,
    narupa,
    pulled,
    real_input,
    session,
)

pytestmark = pytest.mark.e2e

ENGINE = "narupa_trajectory.engine.process"
RELEASED_WITHIN_S = 2.0
RESUMED_WITHIN_S = 3.0
ENDED_WITHIN_S = 10.0
# A gap between frames that nobody could call a pause, on a machine that is busy with other things.
STUTTER_S = 1.5


@pytest.fixture(scope="module")
def helix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    """A session whose processes are killed one by one, and which is whole again after each."""
    with session(tmp_path_factory.mktemp("helix"), real_input("17-ala.xml")) as running:
        yield running


@asynccontextmanager
async def watching(
    running: RunningSession, name: str = "Ada"
) -> AsyncIterator[tuple[Session, Subscription[CurrentFrame]]]:
    """A client with frames flowing, and nobody pulling."""
    async with narupa_client.join(running.lobby, name) as client, client.frames() as frames:
        await first(frames, at_rest)
        yield client, frames


@asynccontextmanager
async def pulling(client: Session, frames: Subscription[CurrentFrame]) -> AsyncIterator[Pull]:
    """The client pulls, and its force is in the frames."""
    async with client.pull([0], [0.0, 0.0, 0.0], scale=1.0) as pull:
        await first(frames, pulled)
        yield pull


class Gaps:
    """Reads frames in the background, and knows the longest time without one."""

    def __init__(self, frames: Subscription[CurrentFrame]) -> None:
        self._frames = frames
        self.longest_s = 0.0
        self.seen: list[CurrentFrame] = []

    async def __aenter__(self) -> Gaps:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _read(self) -> None:
        last = time.monotonic()
        async for frame in self._frames:
            now = time.monotonic()
            self.longest_s, last = max(self.longest_s, now - last), now
            self.seen.append(frame)


def since(moment: float) -> float:
    return time.monotonic() - moment


async def test_a_killed_engine_goes_on_from_its_checkpoint(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames), pulling(client, frames):
        await asyncio.sleep(1.5)  # a checkpoint is taken each second
        before = await first(frames, pulled)
        assert before.index > 0
        helix.process(ENGINE).kill()
        killed = time.monotonic()
        told = await first(frames, lambda frame: frame.exception)
        assert "killed by SIGKILL" in str(told.exception)
        checkpoint = re.search(r"restarting from the checkpoint at (\S+) ps", str(told.exception))
        assert checkpoint, told.exception
        checkpoint_ps = float(checkpoint[1])
        after = await first(frames, lambda frame: not frame.exception and frame.time_ps != told.time_ps)
        assert since(killed) < RESUMED_WITHIN_S
        assert after.index > told.index  # the same stream, going on
        assert after.values["system.simulation.counter"] == before.values["system.simulation.counter"]
        assert before.time_ps is not None
        assert after.time_ps is not None
        assert 0 < checkpoint_ps <= after.time_ps < checkpoint_ps + 1.0
        assert checkpoint_ps > before.time_ps - 1.0  # of 0.3 ps that pass each second
        await first(frames, pulled)  # whoever pulled still does
    await helix.whole()
    print(f"frames resumed {since(killed):.2f} s after the engine was killed")


async def test_a_killed_imd_releases_every_force_and_comes_back(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames), pulling(client, frames) as pull:
        await client.state.update({f"avatar.{client.user_id}": {"name": "Ada"}})
        helix.process("narupa_imd").kill()
        killed = time.monotonic()
        await first(frames, at_rest)
        assert since(killed) < RELEASED_WITHIN_S
        print(f"forces released {since(killed):.2f} s after imd was killed")
        async with Gaps(frames) as gaps:
            await helix.whole()
            async with asyncio.timeout(LIMIT_S):
                while not pull.active or not gaps.seen or not pulled(gaps.seen[-1]):
                    await asyncio.sleep(0.02)
        assert gaps.longest_s < STUTTER_S
        print(f"the pull was back after {since(killed):.2f} s")
    async with watching(helix) as (client, frames):
        assert await client.state.get("avatar.") == {}


async def test_a_pull_that_should_not_come_back_ends_with_imd(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames):
        with pytest.raises(UnavailableError):
            async with client.pull([0], [0.0, 0.0, 0.0], scale=1.0, reestablish=False) as pull:
                await first(frames, pulled)
                helix.process("narupa_imd").kill()
                await pull.hold(LIMIT_S)
        await helix.whole()
        await first(frames, at_rest, RELEASED_WITHIN_S)


async def test_a_killed_lobby_is_not_noticed_and_comes_back(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames), pulling(client, frames) as pull:
        async with asyncio.timeout(LIMIT_S):
            while len(client.services) != len(
                KINDS
            ):  # the lease of a service that was killed before has not lapsed yet
                await asyncio.sleep(0.05)
        before = {service.id for service in client.services}
        async with Gaps(frames) as gaps:
            helix.process("narupa_lobby").kill()
            killed = time.monotonic()
            await helix.whole()
            print(f"the session was whole again {since(killed):.2f} s after the lobby was killed")
            await pull.move([0.1, 0.0, 0.0])
            await asyncio.sleep(0.5)
        assert gaps.longest_s < STUTTER_S
        assert all(pulled(frame) for frame in gaps.seen)
        indices = [frame.index for frame in gaps.seen]
        assert indices == sorted(set(indices))
        # The client joined again by itself; others see it, and the services are the same ones.
        async with narupa_client.join(helix.lobby, "Grace") as grace, asyncio.timeout(LIMIT_S):
            while {user.name for user in grace.users} != {"Ada", "Grace"}:
                await asyncio.sleep(0.05)
            while {user.name for user in client.users} != {"Ada", "Grace"}:
                await asyncio.sleep(0.05)
        assert {service.id for service in (await helix.services()).values()} == before
        await client.state.update({"after": "the lobby"})
        await client.state.update(remove=["after"])


async def test_a_killed_trajectory_service_is_found_again(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames), pulling(client, frames):
        last = await first(frames)
        before = await helix.address("trajectory")
        engine = helix.process(ENGINE)
        service = helix.process("narupa_trajectory")
        service.kill()
        killed = time.monotonic()
        await first(frames, lambda frame: (frame.time_ps or 0) < (last.time_ps or 0), START_LIMIT_S)
        print(f"frames came again {since(killed):.2f} s after the trajectory service was killed")
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
        await first(frames, lambda frame: frame.index > 3)
        await first(frames, pulled)  # imd has kept the pull
        await helix.whole()
        async with asyncio.timeout(LIMIT_S):
            while await helix.address("trajectory") == before:  # the dead one's lease has to lapse first
                await asyncio.sleep(0.05)
        await client.run_command("playback/list")
    deadline = time.monotonic() + LIMIT_S  # the dead one is listed until its lease lapses
    while (listed := narupa("services", "--json", lobby=helix.lobby)).stdout.count('"running"') != len(KINDS):
        assert time.monotonic() < deadline, listed.stdout


async def test_a_killed_gateway_costs_only_its_own_clients_a_moment(helix: RunningSession) -> None:
    async with watching(helix) as (client, frames), pulling(client, frames) as pull:
        before = await helix.websocket()
        async with connect(before) as guest:
            avatar = {"playerid": "guest", "name": "guest"}
            await guest.send(msgpack.packb({"state": {"updates": {"avatar.guest": avatar}, "removals": []}}))
            async with asyncio.timeout(LIMIT_S):
                while not await client.state.get("avatar.guest"):
                    await asyncio.sleep(0.05)
            async with Gaps(frames) as gaps:
                helix.process("narupa_gateway").kill()
                killed = time.monotonic()
                with pytest.raises(ConnectionClosed):
                    while True:
                        await guest.recv()
                async with asyncio.timeout(LIMIT_S):
                    while await client.state.get("avatar.guest"):
                        await asyncio.sleep(0.02)
                print(f"the guest's avatar was gone {since(killed):.2f} s after the gateway was killed")
                await pull.move([0.1, 0.0, 0.0])
                await asyncio.sleep(0.5)
        assert gaps.longest_s < STUTTER_S
        assert all(pulled(frame) for frame in gaps.seen)
        async with asyncio.timeout(LIMIT_S):
            while (again := await helix.websocket()) == before:  # the dead one's lease has to lapse first
                await asyncio.sleep(0.05)
        async with connect(again, max_size=None) as guest, asyncio.timeout(LIMIT_S):
            keys: set[str] = set()
            while "particle.positions" not in keys:
                keys |= set(msgpack.unpackb(await guest.recv()).get("frame", {}))


# Clients that hold an interaction and an avatar, say so, and wait for their end.
NATIVE = """
    import asyncio, sys, narupa_client
    async def main():
        async with narupa_client.join(sys.argv[1], "doomed") as client:
            await client.state.update({"avatar.doomed": {"playerid": "doomed", "name": "doomed"}})
            async with client.frames() as frames, client.pull([0], [0, 0, 0], scale=1.0, id="doomed"):
                print("holding", flush=True)
                async for frame in frames:
                    pass
    asyncio.run(main())
"""
EXISTING = """
    import sys, grpc, threading
    from narupa_shared.gen.{family}.protocol.state import state_service_pb2 as pb, state_service_pb2_grpc as stubs
    from narupa_shared.structs import to_struct
    channel = grpc.insecure_channel(sys.argv[2], [("grpc.use_local_subchannel_pool", 1)])
    state = stubs.StateStub(channel)
    changes = state.SubscribeStateUpdates(pb.SubscribeStateUpdatesRequest(update_interval=0.03))
    next(changes)
    pull = {{"position": [0, 0, 0], "particles": [0], "interaction_type": "spring", "scale": 1.0}}
    both = {{"interaction.doomed": pull, "avatar.doomed": {{"playerid": "doomed", "name": "doomed"}}}}
    assert state.UpdateState(pb.UpdateStateRequest(update=pb.StateUpdate(changed_keys=to_struct(both)))).success
    print("holding", flush=True)
    for change in changes:
        pass
"""


@pytest.mark.parametrize(
    "script",
    [NATIVE, EXISTING.format(family="narupa"), EXISTING.format(family="nanover")],
    ids=["native", "narupa", "nanover"],
)
async def test_nothing_is_left_of_a_killed_client(helix: RunningSession, script: str) -> None:
    async with watching(helix) as (client, frames):
        arguments = (helix.lobby, await helix.address("imd"))
        doomed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(script), *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert doomed.stdout is not None
            assert await asyncio.wait_for(doomed.stdout.readline(), LIMIT_S) == b"holding\n"
            await first(frames, pulled)
            assert "avatar.doomed" in await client.state.get("avatar.")
            doomed.kill()
            killed = time.monotonic()
            await first(frames, at_rest)
            released = since(killed)
            while await client.state.get("avatar.") or await client.state.get("interaction."):
                assert since(killed) < RELEASED_WITHIN_S
                await asyncio.sleep(0.01)
            print(f"force gone after {released:.2f} s, avatar after {since(killed):.2f} s")
            assert released < RELEASED_WITHIN_S
        finally:
            with contextlib.suppress(ProcessLookupError):
                doomed.kill()
            await doomed.wait()


async def test_a_pull_that_is_interrupted_is_released(helix: RunningSession, tmp_path: Path) -> None:
    command = (NARUPA, "pull", "--particles", "0", "--to", "0,0,0", "--scale", "1", "--seconds", "60")
    async with watching(helix) as (_, frames):
        pull = Running(command, tmp_path / "pull.log", NARUPA_LOBBY=helix.lobby)
        try:
            await first(frames, pulled)
            pull.interrupt()
            await first(frames, at_rest, RELEASED_WITHIN_S)
            assert pull.ended(ENDED_WITHIN_S) == 130
        finally:
            pull.end()


@pytest.mark.parametrize(
    "order", [("trajectory", "imd", "lobby"), ("imd", "lobby", "trajectory"), ("lobby", "trajectory", "imd")]
)
async def test_any_order_of_starting_works(tmp_path: Path, order: tuple[str, ...]) -> None:
    ports = {kind: unused_port() for kind in order}
    lobby = f"127.0.0.1:{ports['lobby']}"
    flags = {kind: ["--port", str(port), "--lobby", lobby] for kind, port in ports.items()}
    flags["lobby"] = ["--port", str(ports["lobby"])]
    flags["trajectory"] += ["--sources", f'["{real_input("nanotube.xml")}"]']
    for kind in (
        "lobby",
        "imd",
    ):  # which would else remember services of other sessions here, at ports that are others' now
        flags[kind] += ["--state-dir", str(tmp_path / f"{kind}-state")]
    with contextlib.ExitStack() as stack:
        for kind in order:
            command = (sys.executable, "-m", f"narupa_{kind}", *flags[kind])
            service = Running(command, tmp_path / f"{kind}.log")
            stack.callback(service.end)
            service.wait_for("service_ready")
        started = time.monotonic()
        async with narupa_client.join(lobby, "Ada", wait_s=LIMIT_S) as client, client.frames() as frames:
            async with asyncio.timeout(LIMIT_S):
                while {service.kind for service in client.services} != {"imd", "trajectory"}:
                    await asyncio.sleep(0.02)
            async with client.pull([60], [0.0, 0.0, 0.0], scale=1.0):
                await first(frames, pulled)
            await first(frames, at_rest)
        print(f"{order}: a pull reached the frames {since(started):.2f} s after the last start")


SLOW_CALCULATOR = """
    import itertools, pathlib, time
    import numpy as np
    from ase.calculators.calculator import Calculator, all_changes

    class Slow(Calculator):
        implemented_properties = ["energy", "forces"]
        calls = itertools.count()

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            if next(self.calls) >= {quick_calls}:
                (pathlib.Path(__file__).parent / "in-a-step").touch()
                ends = time.monotonic() + 30
                while time.monotonic() < ends:
                    pass
            self.results = {{"energy": 0.0, "forces": np.zeros((len(atoms), 3))}}
"""


@contextlib.contextmanager
def slow_session(folder: Path, quick_calls: int) -> Iterator[RunningSession]:
    """A session that is in the middle of a step of 30 s: of its first ones, or (no quick calls) while loading."""
    (folder / "slow_calculator.py").write_text(textwrap.dedent(SLOW_CALCULATOR).format(quick_calls=quick_calls))
    (folder / "two.xyz").write_text("2\n\nAr 0 0 0\nAr 0 0 4\n")
    source = f"{folder / 'two.xyz'}?calculator=slow_calculator:Slow"
    running = RunningSession(folder / "session.log", source, PYTHONPATH=str(folder))
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not (folder / "in-a-step").exists():
            assert time.monotonic() < deadline, running.written()
            time.sleep(0.02)
        yield running
    finally:
        running.end()


def check_end(running: RunningSession, how: signal.Signals, again: bool = False) -> None:
    """The session ends in time, with everything it started."""
    assert len(running.processes()) == 6  # the command, lobby, imd, gateway, trajectory and its engine
    started = time.monotonic()
    if how is signal.SIGINT:
        running.interrupt()
        if again:
            time.sleep(0.1)
            running.interrupt()
    else:
        running.kill(how)
    status = running.ended(ENDED_WITHIN_S)
    running.gone(ENDED_WITHIN_S - since(started))
    print(f"{how.name}: all gone after {since(started):.2f} s")
    assert "Traceback" not in running.written()
    expected = {signal.SIGINT: 0, signal.SIGTERM: 0, signal.SIGKILL: -signal.SIGKILL}
    assert status == expected[how]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_session_ends_as_a_whole(tmp_path: Path, how: signal.Signals) -> None:
    with session(tmp_path, real_input("nanotube.xml")) as running:
        check_end(running, how)


def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with session(tmp_path, real_input("nanotube.xml")) as running:
        check_end(running, signal.SIGINT, again=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
@pytest.mark.parametrize("quick_calls", [0, 3], ids=["loading", "stepping"])
def test_a_session_ends_in_the_middle_of_a_long_step(tmp_path: Path, how: signal.Signals, quick_calls: int) -> None:
    with slow_session(tmp_path, quick_calls) as running:
        check_end(running, how)


async def test_watchers_are_told_that_the_session_ends(tmp_path: Path) -> None:
    with session(tmp_path, real_input("nanotube.xml")) as running:
        async with narupa_client.join(running.lobby, "Ada") as client, client.frames(reconnect=False) as frames:
            await first(frames)
            running.interrupt()
            with pytest.raises(UnavailableError, match="stopping"):
                async with asyncio.timeout(ENDED_WITHIN_S):
                    async for _ in frames:
                        pass
        assert running.ended(ENDED_WITHIN_S) == 0


def test_the_watch_command_goes_on_over_a_killed_engine(helix: RunningSession, tmp_path: Path) -> None:
    command = (NARUPA, "watch", "--json", "--frames", "150")
    watch = Running(command, tmp_path / "watch.log", NARUPA_LOBBY=helix.lobby)
    try:
        watch.wait_for('"frame_index"')
        helix.process(ENGINE).kill()
        watch.wait_for("killed by SIGKILL", 10.0)
        assert watch.ended(START_LIMIT_S) == 0
        lines = watch.written().splitlines()
        assert len(lines) == 150
        assert '"exception": null' in lines[-1]
    finally:
        watch.end()
