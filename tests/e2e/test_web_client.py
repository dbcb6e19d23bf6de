"""The viewer in a real browser, in a real session, beside a native client.

NARUPA_SCREENSHOTS names a folder in which the pictures are kept.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame, Session, Subscription
from narupa_gateway.pages import VIEWER_POLICY, packaged_files
from narupa_shared.sdk.narupa.trajectory.v1 import EngineState
from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import DRAWN, FACTS, PEOPLE, PROBLEM, TROUBLE, Browser, browsing, missing
from tests.e2e.helix import any_peptide, distance
from tests.e2e.sessions import RunningSession, at_rest, first, pulled, session
from tests.e2e.viewers import avatar_of, choose, eventually, grab, guests, none_pull, pull_of

pytestmark = pytest.mark.e2e
in_a_browser = pytest.mark.skipif(bool(missing()), reason=missing())

CODE: Final = "7KQM-2XRD"
MAX_COMPRESSED_BYTES: Final = 500_000
# How far a pull goes, px: some tenths of a nanometre in a picture of a peptide that is 640 px wide.
DRAG: Final = (60, -90)
# Where nothing but the simulation is to be seen of a page of 640 by 480 pixels.
PICTURE: Final = {"x": 0, "y": 0, "width": 640, "height": 370}
SHAPES: Final = ("ball and stick", "liquorice", "spheres", "ribbon", "lines")
# A little more than at first, as a power of ten: enough to take a hydrogen along, and too little to tear anything apart.
STRENGTH: Final = 2.2


@pytest.fixture(scope="module")
def port() -> int:
    """Of the page: the same for as long as the session runs, whatever happens to the gateway."""
    return unused_port()


@pytest.fixture(scope="module")
def address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def peptide(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[RunningSession]:
    """A session of a peptide and a nanotube."""
    arguments = (
        f"{any_peptide()}?steps_per_frame=20",
        "demo:nanotube",
        f"--websocket-port={port}",
        f"--join-code={CODE}",
    )
    with session(tmp_path_factory.mktemp("peptide"), *arguments) as running:
        yield running


@pytest.fixture
async def native(peptide: RunningSession) -> AsyncIterator[Session]:
    """A client of another kind in the same session."""
    async with narupa_client.join(peptide.lobby, "Grace") as client:
        await client.run_command("playback/reset")
        yield client


@pytest.fixture
async def browser(peptide: RunningSession, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path) as opened:
        yield opened


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(os.environ.get("NARUPA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def test_what_a_browser_loads_is_small() -> None:
    sizes = {name: len(gzip.compress(body, 9)) for name, body in packaged_files().items()}
    print(f"{sum(sizes.values()) / 1000:.0f} kB compressed: {sizes}")
    assert "index.html" in sizes
    assert sum(sizes.values()) < MAX_COMPRESSED_BYTES


@in_a_browser
async def test_a_link_leads_into_the_session(browser: Browser, native: Session, address: str) -> None:
    async with guests(native, "none"):
        await browser.open("nobody", f"{address}/?name=Eve")
        await browser.press("nobody", "Enter")
        assert "asks for a code" in await browser.until("nobody", PROBLEM)
        await browser.do("type", "nobody", selector="#join-code", text="WRONG-CODE")
        await browser.press("nobody", "Enter")
        assert "not right" in await browser.until("nobody", f"{PROBLEM}.includes('right') && {PROBLEM}")
        for code, said in (("x" * 40, "invitation is used up"), ("x" * 300, "link is not right")):
            await browser.do("leave", "nobody")
            await browser.open("nobody", f"{address}/?name=Eve&code={code}")
            await browser.press("nobody", "Enter")
            assert said in await browser.until("nobody", PROBLEM)
        await browser.do("leave", "nobody")

        page = await browser.open("Ada", f"{address}/?name=Ada&code={CODE.lower()}")
        assert page["status"] == 200
        assert page["headers"]["content-security-policy"] == VIEWER_POLICY
        assert "unsafe" not in VIEWER_POLICY and "*" not in VIEWER_POLICY
        await browser.press("Ada", "Enter")
        facts = await browser.until("Ada", DRAWN)
        particles = (await native.get_frame()).particle_count
        assert f"{particles} particles" in facts
        await browser.until("Ada", f"{FACTS} !== {facts!r}")
        assert await eventually(lambda: avatar_of(native, "Ada"))
    picture = await browser.picture("Ada", **PICTURE)
    assert picture["covered"] > 0.01 and picture["colors"] > 16
    paint = await browser.read("Ada", "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
    print(f"first paint after {paint:.0f} ms")
    log = await browser.do("log", "Ada")
    assert {urlsplit(url).netloc for url in log["requests"]} == {urlsplit(address).netloc}
    assert any(url.startswith("ws:") for url in log["requests"])
    assert log["errors"] == []


async def strong(browser: Browser, page: str) -> None:
    await choose(browser, page, "strength", str(STRENGTH))


async def check_pulled(
    native: Session, frames: Subscription[CurrentFrame], start: Mapping[str, Any], by_nm: float = 0.1
) -> None:
    """The handle of the pull has gone away from where it was, its particle feels that, and follows."""
    there = np.asarray(start["position"])
    pull = await pull_of(native, lambda handle: np.linalg.norm(handle - there) > by_nm)
    assert pull["scale"] == pytest.approx(10**STRENGTH)
    handle = [float(x) for x in pull["position"]]
    particles = [int(index) for index in pull["particles"]]
    assert len(particles) == 1

    def towards(frame: CurrentFrame) -> bool:
        if frame.user_forces.indices.tolist() != particles:
            return False
        force, way = frame.user_forces.forces[0], handle - frame.positions[particles[0]]
        return bool(force @ way > 0.9 * np.linalg.norm(force) * np.linalg.norm(way) > 0)

    await first(frames, towards)
    way_nm = float(np.linalg.norm(handle - there))
    await first(frames, lambda frame: distance(frame, handle, particles[0]) < 0.75 * way_nm)


async def check_released(native: Session, frames: Subscription[CurrentFrame]) -> None:
    await eventually(lambda: none_pull(native))
    await first(frames, at_rest)


@in_a_browser
async def test_an_atom_is_pulled_by_keys_mouse_and_finger(browser: Browser, native: Session, address: str) -> None:
    async with native.frames() as frames:
        await browser.join("Ada", address, "Ada", touch=True)
        await browser.press("Ada", "3")
        await strong(browser, "Ada")

        await browser.press("Ada", "ArrowRight")
        start = await pull_of(native)
        await browser.press("Ada", *["ArrowRight", "ArrowUp"] * 4)
        await check_pulled(native, frames, start, by_nm=0.25)
        await browser.press("Ada", "Escape")
        await check_released(native, frames)

        x, y = await grab(browser, "Ada", native)
        start = await pull_of(native)
        await browser.do("mouse", "Ada", kind="move", x=x + DRAG[0], y=y + DRAG[1])
        await check_pulled(native, frames, start)
        await browser.do("mouse", "Ada", kind="up")
        await check_released(native, frames)

        x, y = await grab(browser, "Ada", native, finger=True)
        start = await pull_of(native)
        await browser.fingers("Ada", [(x + DRAG[0], y + DRAG[1])], down=False)
        await check_pulled(native, frames, start)
        await browser.fingers("Ada", [], down=False)
        await check_released(native, frames)


@in_a_browser
async def test_two_browsers_see_each_other(browser: Browser, native: Session, address: str) -> None:
    await browser.join("Ada", address, "Ada")
    await browser.join("Bob", address, "Bob")
    await browser.until("Ada", f"{PEOPLE}.join() === 'Ada (you),Bob,Grace'")
    await browser.until("Bob", f"{PEOPLE}.join() === 'Bob (you),Ada,Grace'")
    await browser.press("Ada", "3")
    await grab(browser, "Ada", native)
    await browser.until("Bob", f"{PEOPLE}.join() === 'Bob (you),Ada (pulling),Grace'")
    await browser.until("Ada", f"{PEOPLE}.join() === 'Ada (you, pulling),Bob,Grace'")
    await browser.do("leave", "Ada")  # in the middle of a pull
    await browser.until("Bob", f"{PEOPLE}.join() === 'Bob (you),Grace'")
    await eventually(lambda: none_pull(native))


@in_a_browser
async def test_the_simulation_is_run_by_keys_and_by_buttons(browser: Browser, native: Session, address: str) -> None:
    async def state(wanted: EngineState) -> None:
        async def look() -> bool:
            return (await native.status()).state == wanted

        await eventually(look)

    async def time_ps() -> float:
        return (await native.get_frame()).time_ps or 0.0

    def button(label: str) -> str:
        return f"button[aria-label='{label}']"

    def shown(label: str) -> str:
        return f'document.querySelector("{button(label)}") !== null'

    async def by_key(key: str, _: str) -> None:
        await browser.press("Ada", key)

    async def by_button(_: str, label: str) -> None:
        await browser.do("click", "Ada", selector=button(label))

    await native.run_command("playback/pause")
    await browser.join("Ada", address, "Ada")
    await browser.until("Ada", shown("Play"))
    await native.run_command("playback/play")
    for act in (by_key, by_button):
        await browser.until("Ada", shown("Pause"))
        await act("Space", "Pause")
        await state(EngineState.PAUSED)
        await browser.until("Ada", shown("Play"))
        paused = await time_ps()
        await act(".", "One step")

        async def stepped(paused: float = paused) -> bool:
            return await time_ps() > paused

        await eventually(stepped)
        await state(EngineState.PAUSED)
        before = await time_ps()
        await act("r", "Reset the simulation")

        async def reset(before: float = before) -> bool:
            return await time_ps() < before

        await eventually(reset)
        if (await native.status()).state == EngineState.PAUSED:
            await browser.until("Ada", shown("Play"))
            await act("Space", "Play")
        await state(EngineState.RUNNING)

    first_name, other_name = (await native.status()).sources
    await browser.press("Ada", "p")
    await browser.until("Ada", "document.querySelectorAll('#simulation option').length === 2")
    await browser.do("choose", "Ada", selector="#simulation", index=1)
    await browser.until("Ada", f"{FACTS}.includes({other_name!r})")
    assert (await native.status()).source_index == 1
    await browser.until("Ada", "document.querySelector('#simulation').selectedIndex === 1")
    await browser.do("focus", "Ada", selector="#simulation")
    await browser.press("Ada", "ArrowUp")
    await browser.until("Ada", f"{FACTS}.includes({first_name!r})")


@in_a_browser
async def test_a_page_comes_back_by_itself_when_the_gateway_does(
    browser: Browser, peptide: RunningSession, native: Session, address: str
) -> None:
    await browser.join("Ada", address, "Ada")
    before = await eventually(lambda: avatar_of(native, "Ada"))
    peptide.process("narupa_gateway").kill()
    said = await browser.until("Ada", TROUBLE)
    assert re.search(r"(lost|reach).*again", said), said
    await browser.until("Ada", f"{TROUBLE} === ''")
    facts = await browser.read("Ada", FACTS)
    await browser.until("Ada", f"{FACTS} !== {facts!r}")
    assert await eventually(lambda: avatar_of(native, "Ada")) == before
    await browser.until("Ada", f"{PEOPLE}.join() === 'Ada (you),Grace'")
    await peptide.whole()


@in_a_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out_by_how_it_is_written(browser: Browser, address: str, album: Path, dark: bool) -> None:
    async def check(what: str) -> None:
        assert await browser.do("axe", "Ada") == [], what

    await browser.open("Ada", f"{address}/?name=Ada", width=960, height=600, dark=dark)
    await check("the page to join")
    await browser.picture("Ada", album / f"join-{'dark' if dark else 'light'}.png")
    await browser.press("Ada", "Enter")
    await browser.until("Ada", DRAWN)
    await browser.until("Ada", "document.querySelectorAll('#simulation option').length === 2")
    await check("the session")
    for label in ("Keys and gestures", "Invite"):
        await browser.do("click", "Ada", selector=f"button[aria-label='{label}']")
        await browser.until("Ada", "document.querySelector('dialog[open]') !== null")
        await check(label)
        await browser.press("Ada", "Escape")
        await browser.until("Ada", "document.querySelector('dialog[open]') === null")
    await browser.picture("Ada", album / f"session-{'dark' if dark else 'light'}.png")


@in_a_browser
async def test_every_shape_is_a_picture_of_its_own(
    browser: Browser, native: Session, address: str, album: Path
) -> None:
    await native.run_command("playback/reset")
    await browser.join("Ada", address, "Ada", width=960, height=600)
    x, y = await grab(browser, "Ada", native, 320, 290)
    there = np.asarray((await pull_of(native))["position"])
    await browser.do("mouse", "Ada", kind="move", x=x + DRAG[0], y=y + DRAG[1])
    await pull_of(native, lambda handle: np.linalg.norm(handle - there) > 0.1)
    async with native.frames() as frames:
        await first(frames, pulled)
    await browser.picture("Ada", album / "pull.png")
    await browser.do("mouse", "Ada", kind="up")
    await browser.do("mouse", "Ada", kind="move", x=5, y=5)
    await native.run_command("playback/reset")
    await native.run_command("playback/pause")
    try:
        await browser.until("Ada", "document.querySelector(\"button[aria-label='Play']\") !== null")
        pictures = {}
        for shape in SHAPES:
            await choose(browser, "Ada", "representation", shape)
            path = album / f"{shape.replace(' ', '-')}.png"
            await browser.picture("Ada", path)
            pictures[shape] = await browser.picture("Ada", x=0, y=0, width=640, height=490)
    finally:
        await native.run_command("playback/play")
    for shape, picture in pictures.items():
        assert picture["covered"] > 0.002 and picture["colors"] > 8, shape
    for one, other in itertools.combinations(SHAPES, 2):
        cells = np.subtract(pictures[one]["cells"], pictures[other]["cells"])
        assert np.abs(cells).max() > 3, f"{one} looks like {other}"


@in_a_browser
async def test_a_phone_shows_all_of_it(browser: Browser, address: str, album: Path) -> None:
    await browser.open("Ada", f"{address}/?name=Ada", width=390, height=844, touch=True)
    await browser.picture("Ada", album / "phone-join.png")
    await browser.press("Ada", "Enter")
    await browser.until("Ada", DRAWN)
    fits = "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight"
    assert await browser.read("Ada", fits)
    await browser.picture("Ada", album / "phone.png")
    await browser.do("click", "Ada", selector="button[aria-label='Panel']")
    await browser.until("Ada", "!document.querySelector('#side').hidden")
    assert await browser.read("Ada", fits)
    await browser.picture("Ada", album / "phone-panel.png")
