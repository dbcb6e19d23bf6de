"""A client that speaks IMD in a real session: it sees the simulation, pulls it, and is a guest like any other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

import narupa_client
from narupa_client.session import Session
from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_gateway.imd_server import ImdServer, imd_server
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import serving
from narupa_shared.errors import UnavailableError
from narupa_shared.imd_protocol import ClientSession, Frame, MessageType, forces_message, header
from narupa_shared.testing.waiting import until
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

LIMIT_S = 30.0
ATOMS = 9


@dataclass
class Running:
    """A whole session with one person in it, and the port of its IMD listener."""

    session: Session
    app: GatewayApp
    server: ImdServer


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("inputs") / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    return f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"


@contextlib.asynccontextmanager
async def running(source: str, version: Any = 3) -> AsyncIterator[Running]:
    every: dict[str, Any] = {"port": 0, "drain_grace_s": 0.2}
    async with contextlib.AsyncExitStack() as stack:
        lobby = LobbyConfig(**every, store="memory")
        at = (await stack.enter_async_context(serving("lobby", lobby, LobbyApp(lobby)))).address
        every["lobby"] = at
        imd = ImdConfig(**every)
        await stack.enter_async_context(serving("imd", imd, ImdApp(imd)))
        trajectory = TrajectoryConfig(**every, sources=(source,))
        await stack.enter_async_context(serving("trajectory", trajectory, TrajectoryApp(trajectory)))
        config = GatewayConfig(**every, websocket_port=0, imd_version=version, discovery=False)
        app = GatewayApp(config)
        await stack.enter_async_context(serving("gateway", config, app))
        session = await stack.enter_async_context(narupa_client.join(at, "Ada"))
        await until(lambda: {"imd", "trajectory", "gateway"} <= {item.kind for item in session.services})
        server = await stack.enter_async_context(imd_server(config, app.guests, app.feed, 0))
        yield Running(session, app, server)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.protocol = ClientSession(ATOMS)
        self._frames: list[Frame] = []

    async def frame(self) -> Frame:
        async with asyncio.timeout(LIMIT_S):
            while not self._frames:
                greeted = self.protocol.info is not None
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._frames += self.protocol.feed(data)
                if not greeted and self.protocol.info is not None:
                    self.writer.write(header(MessageType.GO))
        return self._frames.pop(0)

    def push(self, indices: Any, forces: Any) -> None:
        self.writer.write(forces_message(indices, forces, self.protocol.byte_order))


@contextlib.asynccontextmanager
async def connected(made: Running) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", made.server.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def guests(made: Running) -> list[str]:
    return [user.name for user in made.session.users if user.name.startswith("IMD guest")]


@pytest.mark.parametrize("version", [2, 3])
async def test_a_client_sees_the_simulation_and_pulls_it(ethanol: str, version: int) -> None:
    async with running(ethanol, version) as made:
        assert not made.app.feed.received
        async with connected(made) as client:
            first = await client.frame()
            assert first.positions.shape == (ATOMS, 3) and first.energies is not None
            if version == 3:
                later = await client.frame()
                while later.time.step <= first.time.step:  # type: ignore[union-attr]
                    later = await client.frame()
                assert later.time is not None and later.time.time > 0 and 0 < later.time.timestep < 0.1
            await until(lambda: len(guests(made)) == 1)
            unit = 41.84 if version == 2 else 10.0
            acting: dict[str, Any] = {}
            async with made.session.frames() as frames:
                while not acting:
                    client.push([4, 1], [[0, 0, 2], [1, 0, 0]])
                    frame = await anext(frames)
                    acting = dict(frame.interactions)
                (name,) = acting
                assert name.startswith("imd-")
                forces = frame.user_forces
                assert forces.indices.tolist() == [1, 4]
                np.testing.assert_allclose(forces.forces, np.array([[1, 0, 0], [0, 0, 2]]) * unit, rtol=1e-5)
                (told,) = await made.session.interactions()
                assert (told["kind"], told["particles"]) == ("force", [1, 4])
                client.push([], [])
                async with asyncio.timeout(LIMIT_S):
                    while (await anext(frames)).interactions:
                        pass
                client.push([0], [[1, 1, 1]])
                async with asyncio.timeout(LIMIT_S):
                    while not (await anext(frames)).interactions:
                        pass
                client.writer.close()
                async with asyncio.timeout(LIMIT_S):
                    while (await anext(frames)).interactions:
                        pass
        await until(lambda: not guests(made) and not made.server.clients)


async def test_a_client_is_a_guest_whom_a_host_can_lessen_and_remove(ethanol: str) -> None:
    async with running(ethanol) as made, connected(made) as client:
        await client.frame()
        await until(lambda: guests(made))
        (guest,) = (user for user in made.session.users if user.name in guests(made))
        await made.session.lobby.set_role(guest.id, "viewer")
        await until(lambda: [present.may_write for present in made.app.guests.present.values()] == [False])
        client.push([0], [[1, 0, 0]])
        for _ in range(5):
            await client.frame()
        assert await made.session.interactions() == []
        await made.session.lobby.kick(guest.id, "enough")
        with pytest.raises((UnavailableError, EOFError)):
            while True:
                await client.frame()
        await until(lambda: not made.server.clients)


async def test_another_simulation_of_another_size_ends_the_session(ethanol: str) -> None:
    async with running(ethanol) as made, connected(made) as client:
        await client.frame()
        positions = {keys.POSITIONS: np.zeros((ATOMS + 1, 3))}
        await made.session.publish_frame(arrays=positions, index=0)
        with pytest.raises(UnavailableError, match="DISCONNECT"):
            while True:
                await client.frame()
