"""NanoVer's own client, from PyPI, in a process of its own; `make peers` sets up what it needs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.sessions import LIMIT_S, ROOT, RunningSession

PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
PROGRAM: Final = ROOT / "tests" / "compat" / "nanover" / "peer.py"
# One line of an answer, with many frames in it.
_MAX_LINE: Final = 256 * 1024 * 1024

needs_nanover = pytest.mark.skipif(
    not (PYTHON.parent.parent / ".requirements").is_file(),
    reason="the NanoVer client is not there: `make peers` sets it up in .venv-peers, with Python 3.12 or newer",
)


class PeerError(Exception):
    """NanoVer's client could not do what it was told; the text is its own."""


class Peer:
    """A NanoVer client that is connected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    async def __call__(self, order: str, within_s: float = 2 * LIMIT_S, **arguments: Any) -> Any:
        """The answer to an order, which is the name of a method of `Peer` in `nanover/peer.py`, and its arguments.

        Raises:
            PeerError: it failed.
        """
        assert self._process.stdin is not None
        async with self._lock:
            self._process.stdin.write(json.dumps({"do": order, **arguments}).encode() + b"\n")
            return await self._answer(within_s)

    async def _answer(self, within_s: float) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(within_s):
            line = await self._process.stdout.readline()
        assert line, f"the peer has ended with status {await self._process.wait()}"
        said = json.loads(line)
        if "error" in said:
            raise PeerError(said["error"])
        return said["is"]

    async def until(
        self, order: str, condition: Callable[[Any], object], within_s: float = LIMIT_S, **arguments: Any
    ) -> Any:
        """The first answer to an order, given again and again, that meets the condition."""
        deadline = time.monotonic() + within_s
        while not condition(answer := await self(order, **arguments)):
            assert time.monotonic() < deadline, f"not within {within_s:g} s; the last answer was {str(answer)[:2000]}"
            await asyncio.sleep(0.02)
        return answer

    async def complaints(self) -> list[str]:
        """What NanoVer's code logged as having gone wrong."""
        return list((await self("counts"))["complaints"])

    def kill(self) -> None:
        """As `kill -9`, or a headset whose battery is empty."""
        self._process.kill()


@contextlib.asynccontextmanager
async def nanover_peer(address: str) -> AsyncIterator[Peer]:
    """A client that is connected to `address`; at the end it closes its connection, unless it was killed."""
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        PROGRAM,
        address,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE,
    )
    peer = Peer(process)
    try:
        assert await peer._answer(LIMIT_S) == "ready"
        yield peer
        if process.returncode is None:
            with contextlib.suppress(ConnectionError):
                await peer("close")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def websocket_address(running: RunningSession) -> str:
    """Where a session's gateway takes NanoVer clients."""
    gateway = (await running.services())["gateway"]
    return f"ws://{gateway.endpoints[0].host}:{gateway.metadata['ws']}"


def positions(frame: dict[str, Any]) -> NDArray[np.float32]:
    """(N, 3) float32, nm, of a frame that the peer described."""
    return np.frombuffer(base64.b64decode(frame["positions"]), np.float32).reshape(-1, 3)
