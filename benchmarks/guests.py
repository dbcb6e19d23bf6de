"""Guests of a session, each a process of its own: what somebody does from coming to going, of every family of clients.

Half of them close what they opened; the others end without a word, as programs that crash do. They are forked from a process
that has imported all this already, so that one costs some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import msgpack
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import narupa_client
from narupa_client import Session
from narupa_shared.errors import NarupaError
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as command
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as state
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory
from narupa_shared.structs import to_struct
from narupa_shared.testing.faults import GARBAGE

INTERVAL_S: Final = 0.1
# Keys that are shared are of so many names, and pulls of so many atoms, however many guests there were.
KEYS: Final = 20
ATOMS: Final = 100
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_ODD: Final = (b"\xdf\xff\xff\xff\xff", b"\x91" * 600, b"\xa4\xff\xfe\xc3\x28", b"", b"\xff" * 100)


@dataclass(frozen=True, slots=True)
class Doors:
    """Where guests come in: HOST:PORT of each."""

    lobby: str
    grpc: str
    websocket: str
    trajectory: str
    imd: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One guest.

    Attributes:
        kind: What it does, of `KINDS`.
        seed: Of all it chooses.
        stay_s: How long it stays.
        vanishes: Whether it ends without a word.
    """

    kind: str
    seed: int
    stay_s: float
    vanishes: bool


def visit(doors: Doors, what: Visit) -> None:
    """The guest has come and gone; the process ends with status 0, or 1 where something came otherwise than it should."""
    try:
        asyncio.run(_visit(doors, what))
    except NarupaError as error:
        print(f"{what}: {error!r}", flush=True)
        os._exit(1)


async def _visit(doors: Doors, what: Visit) -> None:
    rng = random.Random(what.seed)
    if what.vanishes:
        asyncio.get_running_loop().call_later(what.stay_s, os._exit, 0)
    with suppress(TimeoutError):
        async with asyncio.timeout(what.stay_s + (60 if what.vanishes else 0)):
            await KINDS[what.kind](doors, rng)


def pulled(rng: random.Random) -> dict[str, Any]:
    return {
        "position": [rng.uniform(-1, 1) for _ in range(3)],
        "particles": [rng.randrange(ATOMS)],
        "interaction_type": rng.choice(("spring", "gaussian")),
        "scale": 5.0,
    }


def shared(rng: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Keys to be written, and to be removed."""
    name = f"churn.{rng.randrange(KEYS)}"
    chosen = {"particle_ids": rng.sample(range(ATOMS), rng.randrange(1, 40))}
    selection = {"id": "", "name": f"text {rng.random()}", "selected": chosen, "properties": {}}
    updates = {name: "x" * rng.randrange(500), f"selection.churn-{rng.randrange(KEYS)}": selection}
    return updates, [f"churn.{(int(name[6:]) + 1) % KEYS}", f"selection.churn-{rng.randrange(KEYS)}.gone"]


@asynccontextmanager
async def joined(doors: Doors, rng: random.Random) -> AsyncIterator[Session]:
    async with narupa_client.join(doors.lobby, f"guest {rng.randrange(1000)}", wait_s=20) as session:
        await asyncio.sleep(rng.choice((0, 0.2)))
        places = [service for service in session.services if service.kind == "trajectory"]
        session.use(rng.choice(places))
        yield session


async def native(doors: Doors, rng: random.Random) -> None:
    """Watches a view that nobody else has, pulls, writes."""
    async with joined(doors, rng) as session, session.state.writer() as writer:
        view = rng.choice(
            (
                {},
                {"selection": f"index 0 to {rng.randrange(2, ATOMS)}"},
                {"particles": rng.sample(range(ATOMS), rng.randrange(1, 40)), "precision": 0.001},
                {"fields": ["particle.positions", "energy"]},
            )
        )
        reads = asyncio.create_task(read_frames(session, view, rng))
        watches = asyncio.create_task(read_state(session))
        try:
            while not reads.done() and not watches.done():
                updates, removals = shared(rng)
                await writer.write(updates, remove=removals)
                with suppress(NarupaError):  # the simulation may have been reset meanwhile
                    async with session.pull([rng.randrange(ATOMS)], (0, 0, 0), scale=5.0) as pull:
                        for _ in range(rng.randrange(1, 10)):
                            await pull.move([rng.uniform(-1, 1) for _ in range(3)])
                            await asyncio.sleep(INTERVAL_S)
                await asyncio.sleep(rng.uniform(0, 1))
        finally:
            for task in (reads, watches):
                task.cancel()
            await asyncio.gather(reads, watches, return_exceptions=True)


async def read_frames(session: Session, view: Mapping[str, Any], rng: random.Random) -> None:
    async with session.frames(INTERVAL_S, rng.choice(("latest", "latest", "all")), **view) as frames:
        async for _ in frames:
            pass


async def read_state(session: Session) -> None:
    async with session.state.watch(interval_s=INTERVAL_S) as changes:
        async for _ in changes:
            pass


async def passing(doors: Doors, rng: random.Random) -> None:
    """Joins and leaves, time and again."""
    while True:
        async with joined(doors, rng) as session:
            await session.get_frame()
        await asyncio.sleep(rng.uniform(0, 0.5))


async def host(doors: Doors, rng: random.Random) -> None:
    """Has the simulation stand, step, begin anew and go on; provides a command."""
    async with joined(doors, rng) as session:

        async def answer(**arguments: Any) -> dict[str, Any]:
            return {"had": len(arguments)}

        async with session.provide_command(f"guest/{rng.randrange(KEYS)}-{rng.random()}", answer) as provided:
            names = ("pause", "step", "step", "play", *(("reset",) if rng.random() < 0.3 else ()))
            for name in (provided.name, *(f"playback/{name}" for name in names)):
                with suppress(NarupaError):  # another host may be here
                    await session.run_command(name, {"a": 1} if name == provided.name else None)
                await asyncio.sleep(0.1)
            await session.commands()
            await session.status()
            await asyncio.sleep(1)


async def recorder(doors: Doors, rng: random.Random) -> None:
    """Records all there is."""
    with tempfile.TemporaryDirectory() as folder:
        async with joined(doors, rng) as session, session.record(Path(folder) / "churn.nanover.zip"):
            await asyncio.Event().wait()


def gateway_guest(family: str) -> Callable[[Doors, random.Random], Awaitable[None]]:
    """A client of one of the two families with the same messages."""

    async def guest(doors: Doors, rng: random.Random) -> None:
        async with grpc.aio.insecure_channel(doors.grpc, options=list(_OPTIONS)) as channel:
            prefix = f"/{family}.protocol"

            async def read(path: str, request: Any) -> None:
                # Whatever comes is not taken apart.
                call: Any = channel.unary_stream(path, type(request).SerializeToString, bytes)(request)
                async for _ in call:
                    pass

            async def ask(path: str, request: Any) -> None:
                with suppress(grpc.aio.AioRpcError):
                    ask: Any = channel.unary_unary(path, type(request).SerializeToString, bytes)
                    await ask(request, timeout=10)

            def change(updates: Mapping[str, Any]) -> Any:
                return state.UpdateStateRequest(
                    access_token="guest", update=state.StateUpdate(changed_keys=to_struct(updates))
                )

            name = f"{rng.random()}"
            latest = rng.choice(("SubscribeLatestFrames", "SubscribeLatestFrames", "SubscribeFrames"))
            frames = trajectory.GetFrameRequest(frame_interval=INTERVAL_S)
            states = state.SubscribeStateUpdatesRequest(update_interval=INTERVAL_S)
            reading = [
                asyncio.create_task(read(f"{prefix}.trajectory.TrajectoryService/{latest}", frames)),
                asyncio.create_task(read(f"{prefix}.state.State/SubscribeStateUpdates", states)),
            ]
            update = f"{prefix}.state.State/UpdateState"
            try:
                while not any(task.done() for task in reading):
                    updates, removals = shared(rng)
                    avatar = {f"avatar.{name}": {"name": name, "components": []}, f"update.index.{name}": 1}
                    await ask(update, change({**updates, **dict.fromkeys(removals), **avatar}))
                    await ask(update, change({f"interaction.{name}": pulled(rng)}))
                    locks = state.UpdateLocksRequest(access_token="guest", lock_keys=to_struct({"scene": 0.5}))
                    await ask(f"{prefix}.state.State/UpdateLocks", locks)
                    run = command.CommandMessage(name=rng.choice(("playback/list", "commands/list", "no/such")))
                    await ask(f"{prefix}.command.Command/RunCommand", run)
                    await asyncio.sleep(rng.uniform(0.2, 1))
                    await ask(update, change({f"interaction.{name}": None}))
                with suppress(grpc.aio.AioRpcError):
                    await asyncio.gather(*reading)
            finally:
                # Such clients take away what is theirs, as they are told to, unless they vanish.
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)
                await ask(update, change(dict.fromkeys((f"avatar.{name}", f"update.index.{name}"))))

    return guest


async def headset(doors: Doors, rng: random.Random) -> None:
    """Over a WebSocket, with and without compression."""
    name = f"{rng.random()}"
    compression = rng.choice((None, "deflate"))
    async with connect(f"ws://{doors.websocket}", max_size=2**27, compression=compression, close_timeout=2) as socket:

        async def say(**items: Any) -> None:
            await socket.send(msgpack.packb(items))

        async def read() -> None:
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass

        reading = asyncio.create_task(read())
        try:
            with suppress(ConnectionClosed):
                await say(command=[{"register": {"name": f"guest/{name}", "arguments": {}}}])
                while not reading.done():
                    updates, removals = shared(rng)
                    avatar = {f"avatar.{name}": {"name": name, "components": []}, f"update.index.{name}": 1}
                    await say(state={"updates": {**updates, **avatar}, "removals": removals})
                    for _ in range(rng.randrange(1, 8)):
                        await say(state={"updates": {f"interaction.{name}": pulled(rng)}, "removals": []})
                        await asyncio.sleep(INTERVAL_S)
                    await say(state={"updates": {}, "removals": [f"interaction.{name}"]})
                    asked = rng.choice(("commands/list", "playback/list", "no/such", f"guest/{name}"))
                    await say(command={"request": {"name": asked, "arguments": {}, "id": 1}})
                    await asyncio.sleep(rng.uniform(0, 1))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def stranger(doors: Doors, rng: random.Random) -> None:
    """Sends what means nothing to every door."""
    for door in (doors.lobby, doors.grpc, doors.websocket, doors.trajectory, doors.imd):
        name, _, port = door.rpartition(":")
        with suppress(OSError):
            _, writer = await asyncio.open_connection(name, int(port))
            writer.write(rng.choice((*GARBAGE, rng.randbytes(300))))
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()
    async with connect(f"ws://{doors.websocket}", compression=None, close_timeout=2) as socket:
        with suppress(ConnectionClosed):
            for odd in rng.sample(_ODD, 3):
                await socket.send(odd)
    async with grpc.aio.insecure_channel(doors.grpc, options=list(_OPTIONS)) as channel:
        for path in ("/narupa.protocol.state.State/UpdateState", "/narupa.no.such.Service/Call"):
            with suppress(grpc.aio.AioRpcError):
                call: Any = channel.unary_unary(path, bytes, bytes)
                await call(rng.randbytes(40), timeout=5)


async def silent(doors: Doors, rng: random.Random) -> None:
    """Connects, and says and reads nothing."""
    name, _, port = rng.choice((doors.lobby, doors.grpc, doors.websocket, doors.trajectory, doors.imd)).rpartition(":")
    with socket.create_connection((name, int(port))):
        await asyncio.Event().wait()


KINDS: Final[Mapping[str, Callable[[Doors, random.Random], Awaitable[None]]]] = {
    "native": native,
    "passing": passing,
    "host": host,
    "recorder": recorder,
    "narupa": gateway_guest("narupa"),
    "nanover": gateway_guest("nanover"),
    "headset": headset,
    "stranger": stranger,
    "silent": silent,
}
