"""A session with a gateway, of services in this process that come and go one by one; and headsets.

These are made of a WebSocket and MessagePack alone: no code of this project is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import msgpack
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import narupa_client
from narupa_client import Session
from narupa_client.lobby import Lobby, open_lobby
from narupa_gateway.app import GatewayApp
from narupa_gateway.config import GatewayConfig
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.daemon import serving
from narupa_shared.testing.waiting import until
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

LIMIT_S: Final = 30.0
CODE, KEY, OPERATOR = "CODE-OF-SESSION", "a service key of this test", "an operator's key of this test"


class Scene:
    """Where each service runs; each can be stopped and started again at the same port.

    Attributes:
        apps: Those that run, by kind.
        ports: By kind; `websocket` is the gateway's other one.
    """

    def __init__(self, free_port: Callable[[], int], folder: Path, source: str, **common: Any) -> None:
        """`source` is simulated where a trajectory service is started; `common` are settings of every service."""
        self._folder = folder
        self._source = source
        self._common = common
        self._serving: dict[str, AsyncExitStack] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self.apps: dict[str, Any] = {}
        self.ports = {kind: free_port() for kind in ("lobby", "imd", "trajectory", "gateway", "websocket")}

    def address(self, kind: str) -> str:
        return f"127.0.0.1:{self.ports[kind]}"

    @property
    def gateway(self) -> GatewayApp:
        app: GatewayApp = self.apps["gateway"]
        return app

    @property
    def users(self) -> dict[str, str]:
        """Who is in the session, and as what."""
        return {user.name: user.role for user in self.apps["lobby"].lobby.state.users("default")}

    @property
    def state(self) -> Mapping[str, Any]:
        """The shared state as the gateway has it."""
        return self.gateway.state.values

    async def start(self, *kinds: str, **settings: Any) -> None:
        """These services run; `settings` are the last one's, and are the same when it is started again."""
        for kind in kinds:
            if kind == kinds[-1] and settings:
                self._settings[kind] = settings
            stack = AsyncExitStack()
            app, config = self._made(kind, self._settings.get(kind, {}))
            await stack.enter_async_context(serving(kind, config, app))
            self._serving[kind], self.apps[kind] = stack, app
        if "gateway" in kinds:
            gateway = self.gateway
            await until(lambda: gateway.guests.registration and gateway.guests.registration.registered)

    async def stop(self, *kinds: str) -> None:
        """These services have stopped; all that run, in order, when none is named."""
        for kind in kinds or [each for each in ("gateway", "trajectory", "imd", "lobby") if each in self._serving]:
            await self._serving.pop(kind).aclose()
            del self.apps[kind]

    def _made(self, kind: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        own: dict[str, Any] = {
            "port": self.ports[kind], "lobby": self.address("lobby"), "drain_grace_s": 0.2, "service_key": SecretStr(KEY)
        }  # fmt: skip
        own |= self._common
        match kind:
            case "lobby":
                own |= {"store": "memory", "state_dir": self._folder}
                own |= {"join_code": SecretStr(CODE), "operator_key": SecretStr(OPERATOR)}
                lobby = LobbyConfig(**(own | settings))
                return LobbyApp(lobby), lobby
            case "imd":
                imd = ImdConfig(**(own | {"store": "memory"} | settings))
                return ImdApp(imd), imd
            case "trajectory":
                trajectory = TrajectoryConfig(**(own | {"sources": (self._source,)} | settings))
                return TrajectoryApp(trajectory), trajectory
        gateway = GatewayConfig(**(own | {"websocket_port": self.ports["websocket"], "discovery": False} | settings))
        return GatewayApp(gateway), gateway

    # Who comes.

    @asynccontextmanager
    async def native(self, name: str = "Ada", **said: Any) -> AsyncIterator[Session]:
        async with narupa_client.join(self.address("lobby"), name, **said) as session:
            yield session

    @asynccontextmanager
    async def as_operator(self) -> AsyncIterator[Lobby]:
        async with open_lobby(self.address("lobby"), operator_key=OPERATOR) as lobby:
            yield lobby

    def headset(self, path: str = "/", **how: Any) -> Headset:
        return Headset(f"ws://{self.address('websocket')}{path}", **how)


class Headset:
    """A NanoVer client: `async with` is its connection. What comes is read all the time, unless told not to.

    Attributes:
        state: The shared state.
        frame: The frame, merged of all that came.
        indices: The index of every frame that came.
        said: Command messages, in their order.
    """

    def __init__(self, address: str, *, reading: bool = True, **how: Any) -> None:
        self._address = address
        self._reading = reading
        self._how = {"compression": None, "max_size": 2**27, "open_timeout": LIMIT_S, "close_timeout": 5} | how
        self._connection: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}
        self.states = 0
        self.frame: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.ended: tuple[int, str] | None = None

    async def __aenter__(self) -> Self:
        self._connection = await connect(self._address, **self._how)
        if self._reading:
            self.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connection(self) -> ClientConnection:
        assert self._connection is not None
        return self._connection

    @property
    def indices(self) -> list[int]:
        return [frame["frame.index"] for frame in self.frames]

    def read(self) -> None:
        """What comes is read from now on."""
        self._task = asyncio.create_task(self._read(), name="headset")

    async def close(self) -> None:
        """It hangs up, as programs do that are left in order."""
        if self.ended is None:
            await self.connection.close()
        await self._over()

    async def vanish(self) -> None:
        """The connection is reset, as by a program that crashed."""
        self.connection.transport.abort()
        await self._over()

    async def _over(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def say(self, **items: Any) -> None:
        await self.connection.send(msgpack.packb(items))

    async def write(self, updates: Mapping[str, Any], *removals: str) -> None:
        await self.say(state={"updates": dict(updates), "removals": list(removals)})

    async def run(self, name: str, arguments: Mapping[str, Any] | None = None, id: int = 1) -> dict[str, Any]:
        """The answer to a command of this id."""
        before = len(self.said)
        await self.say(command={"request": {"name": name, "arguments": arguments or {}, "id": id}})

        def answers() -> list[dict[str, Any]]:
            return [each for each in self.said[before:] if each["request"].get("id") == id and set(each) != {"request"}]

        await until(lambda: answers() or self.ended)
        return answers()[0]

    async def until_ended(self) -> tuple[int, str]:
        """How the gateway closed the connection."""
        await until(lambda: self.ended)
        assert self.ended is not None
        return self.ended

    async def _read(self) -> None:
        try:
            async for data in self.connection:
                self._take(msgpack.unpackb(data))  # type: ignore[arg-type]
        except ConnectionClosed:
            pass
        self.ended = (self.connection.close_code or 1006, self.connection.close_reason or "")

    def _take(self, message: Mapping[str, Any]) -> None:
        if "state" in message:
            self.states += 1
            self.state |= message["state"]["updates"]
            for key in message["state"]["removals"]:
                self.state.pop(key, None)
        if "frame" in message:
            frame = message["frame"]
            self.frame = dict(frame) if frame["frame.index"] == 0 else {**self.frame, **frame}
            self.frames.append(frame)
        if "command" in message:
            said = message["command"]
            self.said += said if isinstance(said, list) else [said]


async def refused(headset: Headset) -> tuple[int, str]:
    """How a headset is turned away that has connected."""
    async with headset:
        return await headset.until_ended()
