"""Real browsers for the end-to-end tests of the viewer, driven by `clients/web/e2e/browser.mjs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from tests.e2e.sessions import LIMIT_S, ROOT

WEB: Final = ROOT / "clients" / "web"
DRIVER: Final = WEB / "e2e" / "browser.mjs"
BROWSER_LIMIT_S: Final = 110
CLOSED_WITHIN_S: Final = 20.0
# A page's picture with everything in it comes as one line.
_LONGEST_LINE: Final = 32 * 1024 * 1024

# What a page shows, as JavaScript.
FACTS: Final = "(document.querySelector('.facts')?.textContent ?? '')"
PEOPLE: Final = "[...document.querySelectorAll('.people li')].map((each) => each.textContent)"
TROUBLE: Final = "document.querySelector('.trouble').textContent"
SAID: Final = "document.querySelector('.said').textContent"
PROBLEM: Final = "document.querySelector('.problem')?.textContent"
DRAWN: Final = f"document.querySelector('.stage canvas') && {FACTS}.includes('particles') && {FACTS}"


def chromium() -> str:
    """The path of a Chromium; empty where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


def missing() -> str:
    """What a browser needs and this machine lacks; empty where it lacks nothing."""
    if shutil.which("node") is None:
        return "there is no node"
    if not all((WEB / "node_modules" / name).is_dir() for name in ("playwright-core", "axe-core", "iwer")):
        return f"there is no {WEB.relative_to(ROOT)}/node_modules (make web)"
    return "" if chromium() else "there is no chromium"


class BrowserError(AssertionError):
    """A page did not come to what it was asked for."""


class Browser:
    """A browser, whose pages are known by names of the test's choosing."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def do(self, what: str, page: str = "", *, within_s: float = 2 * LIMIT_S, **arguments: Any) -> Any:
        """What the driver answers. Raises BrowserError: it could not."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"do": what, "page": page, **arguments}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(within_s):
            line = await self._process.stdout.readline()
        if not line:
            raise BrowserError(f"the browser is gone: {self._log.read_text()}")
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserError(f"{page}: {answer['error']}")
        return answer["value"]

    async def open(self, page: str, url: str, **options: Any) -> dict[str, Any]:
        """A page of its own, with nothing kept from others; returns status and headers of the response."""
        opened: dict[str, Any] = await self.do("open", page, url=url, **options)
        return opened

    async def join(self, page: str, address: str, name: str, **options: Any) -> None:
        """Somebody of that name is in the session, and sees it."""
        await self.open(page, f"{address}/?name={name}", **options)
        await self.press(page, "Enter")
        await self.until(page, DRAWN)

    async def read(self, page: str, script: str) -> Any:
        return await self.do("read", page, script=script)

    async def until(self, page: str, script: str, within_s: float = LIMIT_S) -> Any:
        """The first truthy value of the script."""
        return await self.do("until", page, script=script, limit_s=within_s)

    async def press(self, page: str, *keys: str) -> None:
        await self.do("press", page, keys=keys)

    async def atom(self, page: str, x: int = 320, y: int = 190) -> tuple[int, int]:
        """The mouse is over an atom near x, y; returns where that is."""
        found = await self.do("atom", page, x=x, y=y, step=5, count=120)
        return found["x"], found["y"]

    async def fingers(self, page: str, *at: Sequence[tuple[int, int]], down: bool = True) -> None:
        """Fingers are at these points, one after another, without waiting for what each does; none of them is lifted.

        Args:
            page: Which.
            *at: Where each finger is; none means that all are lifted.
            down: Whether they touch it first with this; otherwise they did before.
        """
        steps = [{"kind": "touchMove" if points else "touchEnd", "points": points} for points in at]
        if down:
            steps[0]["kind"] = "touchStart"
        await self.do("touch", page, steps=steps)

    async def picture(self, page: str, path: Path | None = None, **clip: int) -> dict[str, Any]:
        """What is to be seen: how many colours, the share that is not background, and a coarse grid of grey values.

        Args:
            page: Which.
            path: Where the picture is kept as a PNG.
            **clip: x, y, width and height of the part that counts; everything otherwise.
        """
        where = None if path is None else str(path)
        picture: dict[str, Any] = await self.do("picture", page, path=where, clip=clip or None)
        return picture


@asynccontextmanager
async def browsing(folder: Path, limit_s: float = BROWSER_LIMIT_S) -> AsyncIterator[Browser]:
    """A browser; at the end every process of it is gone. It ends by itself after `limit_s`, whatever became of the test."""
    log = folder / "browser.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(DRIVER),
            chromium(),
            str(limit_s),
            cwd=WEB,
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LONGEST_LINE,
        )
    try:
        yield Browser(process, log)
    finally:
        await asyncio.shield(_closed(process))


async def _closed(process: asyncio.subprocess.Process) -> None:
    """The driver has ended, and its browser with it; what has not by then is killed."""
    assert process.stdin is not None and process.stdout is not None
    everything: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        everything = psutil.Process(process.pid).children(recursive=True)
    process.stdin.close()
    try:
        async with asyncio.timeout(CLOSED_WITHIN_S):
            await process.stdout.read()
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3.0):
            while any(map(_runs, everything)):
                await asyncio.sleep(0.02)
    for each in filter(_runs, everything):
        with contextlib.suppress(psutil.Error):
            each.kill()


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
