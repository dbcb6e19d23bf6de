"""The viewer with many atoms that move, for long: its frames stay as fast as they were, and its memory as small.

`NARUPA_WEB_SOAK_S=300 pytest tests/e2e/test_web_soak.py -s` watches for five minutes and says what it measured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import FACTS, Browser, browsing, missing
from tests.e2e.crowd import write_crowd
from tests.e2e.sessions import session

SECONDS: Final = float(os.environ.get("NARUPA_WEB_SOAK_S", "20"))
# Frames are compared between the first and the last of these.
WINDOW_S: Final = min(60.0, SECONDS / 3)
ATOMS: Final = 20_000
# Until the page has loaded, drawn, and made once what it makes once.
WARM_UP_S: Final = max(4.0, SECONDS / 20)
# The page's own memory varies by a frame or two that are on their way.
SPARE_BYTES: Final = 3e6
READY_S: Final = 200.0
MEASURED: Final = ("Buffer", "Texture", "VertexArray", "Framebuffer", "Program")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(SECONDS + READY_S),
]


class Memory(NamedTuple):
    """What a page holds after its garbage was collected: bytes in the heap and in arrays, and things on the graphics card."""

    heap_bytes: float
    held: Mapping[str, int]


async def memory(browser: Browser) -> Memory:
    await browser.do("tool", "Ada", method="HeapProfiler.collectGarbage")
    usage: dict[str, float] = await browser.do("tool", "Ada", method="Runtime.getHeapUsage")
    held: dict[str, int] = await browser.read("Ada", "measures.held")
    return Memory(usage["usedSize"] + usage.get("backingStorageSize", 0.0), {kind: held[kind] for kind in MEASURED})


async def frame_times(browser: Browser, seconds: float) -> dict[str, Any]:
    """Of the frames drawn meanwhile: how long after the one before, and how long on the processor, ms; messages a second."""
    await browser.read("Ada", "measures.frames()")
    before = await browser.read("Ada", "measures.received.messages")
    await asyncio.sleep(seconds)
    after = await browser.read("Ada", "measures.received.messages")
    frames: dict[str, Any] = await browser.read("Ada", "measures.frames()")
    return {name: np.array(values) for name, values in frames.items()} | {"messages": (after - before) / seconds}


def words(frames: Mapping[str, Any]) -> str:
    apart, work = (np.percentile(frames[name], (50, 95)) for name in ("apart", "work"))
    return (
        f"{len(frames['apart'])} frames, {apart[0]:.1f} ms apart (95 %: {apart[1]:.1f}), of which {work[0]:.2f} ms"
        f" (95 %: {work[1]:.2f}) in scripts; {frames['messages']:.1f} messages a second"
    )


async def test_neither_slower_nor_larger_with_time(tmp_path: Path) -> None:
    port = unused_port()
    crowd = write_crowd(tmp_path, ATOMS)
    with session(tmp_path, crowd, f"--websocket-port={port}"):
        async with browsing(tmp_path, SECONDS + READY_S) as browser:
            await browser.join("Ada", f"http://127.0.0.1:{port}", "Ada", measured=True, width=480, height=360)
            facts = await browser.read("Ada", FACTS)
            await browser.until("Ada", f"{FACTS} !== {facts!r}")
            await asyncio.sleep(WARM_UP_S)
            start = await memory(browser)
            first = await frame_times(browser, WINDOW_S)
            await asyncio.sleep(max(0.0, SECONDS - 2 * WINDOW_S))
            last = await frame_times(browser, WINDOW_S)
            end = await memory(browser)
            log = await browser.do("log", "Ada")
    print(f"\n{facts}\nfirst {WINDOW_S:.0f} s: {words(first)}\nlast {WINDOW_S:.0f} s: {words(last)}")
    print(f"heap: {start.heap_bytes / 1e6:.1f} MB, after {SECONDS:.0f} s {end.heap_bytes / 1e6:.1f} MB; {end.held}")
    assert log["errors"] == []
    assert min(first["messages"], last["messages"]) > 10
    assert end.held == start.held
    assert end.heap_bytes < 1.05 * start.heap_bytes + SPARE_BYTES
    # A machine that is busy otherwise slows down either.
    assert np.median(last["apart"]) < 3 * np.median(first["apart"]) + 50
    assert np.median(last["work"]) < 3 * np.median(first["work"]) + 2
