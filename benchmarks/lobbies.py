"""Real lobby processes over one store, for a measurement: started, killed and started again on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc.aio

from narupa_shared.testing.ports import unused_port

START_LIMIT_S: Final = 30.0
# A lobby that was killed is back within a second; gRPC would by itself wait longer and longer before it tries.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


class LobbyProcess:
    """One lobby on a port of its own, which it keeps over restarts."""

    def __init__(self, store: str, flags: Sequence[str] = ()) -> None:
        self.port = unused_port()
        self._flags = ("--port", str(self.port), "--store", store, "--log-format", "json", *flags)
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.store_troubles = 0
        """How often it had to wait for its store."""
        self.complaints: list[str] = []
        """What it logged as an error, and what was no log line."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """It is ready."""
        ready = asyncio.Event()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "narupa_lobby", *self._flags, stderr=PIPE
        )
        self._reading = asyncio.create_task(self._read(self._process, ready))
        async with asyncio.timeout(START_LIMIT_S):
            await ready.wait()
        if self._process.returncode is not None:
            raise RuntimeError(f"the lobby ended at its start: {self.complaints}")

    async def _read(self, process: Process, ready: asyncio.Event) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                self.complaints.append(line.decode(errors="replace").rstrip())
                continue
            if entry.get("event") == "service_ready":
                ready.set()
            if entry.get("event") in ("store_trouble", "store_not_there_yet"):
                self.store_troubles += 1
            elif entry.get("level") in ("error", "critical"):
                self.complaints.append(line.decode().rstrip())
        await process.wait()
        ready.set()

    async def end(self, number: signal.Signals) -> None:
        """It has ended. Idempotent."""
        if self._process is None or self._reading is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self._process.wait()
        await self._reading

    async def kill_and_restart(self) -> float:
        """It is killed without notice and started again; how long nobody answered, s."""
        began = time.perf_counter()
        await self.end(signal.SIGKILL)
        await self.start()
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def lobbies(kind: str, folder: Path, flags: Sequence[str] = ()) -> AsyncIterator[list[LobbyProcess]]:
    """Lobbies over a new store: one for "memory" and "sqlite", two for "redis"."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "redis":
            from narupa_shared.testing.redis_server import RedisServer

            server = stack.enter_context(RedisServer(folder))
            running = [LobbyProcess(server.url, flags) for _ in range(2)]
        else:
            running = [LobbyProcess("memory" if kind == "memory" else f"sqlite:{folder / 'lobby.sqlite'}", flags)]
        for lobby in running:
            await lobby.start()
            stack.push_async_callback(lobby.end, signal.SIGTERM)
        yield running


@contextlib.asynccontextmanager
async def channels(running: Sequence[LobbyProcess], count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """`count` connections to each lobby, in random order."""
    made = [grpc.aio.insecure_channel(lobby.address, list(CHANNEL_OPTIONS)) for lobby in running for _ in range(count)]
    random.shuffle(made)
    try:
        yield made
    finally:
        for channel in made:
            await channel.close()
