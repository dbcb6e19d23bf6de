"""Being together in the viewer: selections, who may what, and what happens when something goes wrong."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pytest
from websockets.asyncio.server import ServerConnection, serve

import narupa_client
from narupa_client import Session
from narupa_shared.errors import NotFoundError
from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import DRAWN, FACTS, PEOPLE, PROBLEM, SAID, TROUBLE, Browser, BrowserError, browsing, missing
from tests.e2e.helix import any_peptide
from tests.e2e.sessions import LIMIT_S, RunningSession, first
from tests.e2e.viewers import avatar_of, choose, eventually, grab, none_pull, pull_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(200),
]

# A native client, two pages, and nobody else.
MAX_USERS: Final = 3
MARKED: Final = "document.querySelector('fieldset .hint').textContent"
ROLE: Final = "document.querySelector('.role').textContent"
PLAY: Final = "document.querySelector('.bar button')"


class Place:
    """A session for few, at ports of its own, that can be killed and started again there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lobby = f"127.0.0.1:{unused_port()}"
        self._port = unused_port()
        self._lives = 0
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """It runs."""
        self._lives += 1
        self.running = RunningSession(
            self._folder / f"session-{self._lives}.log",
            f"{any_peptide()}?steps_per_frame=20",
            f"--websocket-port={self._port}",
            lobby=self._lobby,
            NARUPA_LOBBY_MAX_USERS=str(MAX_USERS),
        )
        try:
            self.running.ready()
        except BaseException:
            self.running.end()
            raise

    def client(self) -> contextlib.AbstractAsyncContextManager[Session]:
        return narupa_client.join(self._lobby, "Grace")


@contextlib.contextmanager
def placed(folder: Path) -> Iterator[Place]:
    made = Place(folder)
    try:
        yield made
    finally:
        made.running.end()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("together")) as made:
        yield made


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Place]:
    """Of this test alone, which kills it."""
    with placed(tmp_path) as made:
        yield made


@pytest.fixture
async def native(place: Place) -> AsyncIterator[Session]:
    """A client of another kind in the same session."""
    async with place.client() as client:
        await client.run_command("playback/reset")
        yield client


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path, limit_s=180) as opened:
        yield opened


async def check_open_to_all(browser: Browser, page: str) -> None:
    for theme in ("dark", "light"):
        await choose(browser, page, "theme", theme)
        assert await browser.do("axe", page) == [], theme


async def press_twice(browser: Browser, page: str, selector: str, holds: str = "") -> None:
    """A button that asks first, for a few seconds, is pressed as one that is sure: at once after it has asked.

    It is the last in the first thing that `selector` finds with `holds` in its text; where nothing is found, none is pressed.
    """
    script = """(() => {{
        const row = [...document.querySelectorAll({!r})].find((each) => each.textContent.includes({!r}));
        const button = row?.querySelector("button:last-of-type");
        if (button && !button.textContent.endsWith("?")) button.click();
        button?.click();
    }})()"""
    await browser.read(page, script.format(selector, holds))


async def selections(client: Session) -> dict[str, Any]:
    return dict(await client.state.get("selection."))


async def test_selections_are_made_kept_pulled_and_deleted(browser: Browser, native: Session, place: Place) -> None:
    await browser.join("Ada", place.address, "Ada", width=960, height=600)
    await native.run_command("playback/pause")
    await browser.press("Ada", "3")

    # By keys, a residue; by a click with Shift, an atom more or less; and by clicks alone while marking is on.
    await choose(browser, "Ada", "unit", "residue")
    x, y = await browser.atom("Ada", 320, 300)
    await browser.press("Ada", "Enter")
    residue = int((await browser.until("Ada", f"/^[0-9]+ atoms/.test({MARKED}) && {MARKED}")).split()[0])
    assert residue > 1
    await choose(browser, "Ada", "unit", "atom")
    await browser.do("mouse", "Ada", kind="click", x=x, y=y, key="Shift")
    await browser.until("Ada", f"{MARKED}.startsWith({str(residue - 1)!r})")
    await browser.press("Ada", "e")
    await browser.do("mouse", "Ada", kind="click", x=x, y=y)
    await browser.until("Ada", f"{MARKED}.startsWith({str(residue)!r})")
    await browser.press("Ada", "e")
    assert await none_pull(native)
    await check_open_to_all(browser, "Ada")

    # Kept, it is there for everybody, in the form that other clients know.
    await browser.do("type", "Ada", selector="#selection-name", text="Ring")
    await browser.do("click", "Ada", selector="text=Keep as a selection")
    await browser.until("Ada", f"{MARKED}.startsWith('Nothing')")
    kept = await eventually(lambda: selections(native))
    ((key, ring),) = kept.items()
    assert (ring["id"], ring["name"]) == (key, "Ring")
    particles = [int(each) for each in ring["selected"]["particle_ids"]]
    assert len(particles) == residue and particles == sorted(particles)
    assert (
        ring["properties"]["narupa.interaction.method"] == ring["properties"]["nanover.interaction.method"] == "group"
    )

    async def property_is(name: str, value: object) -> bool:
        properties = (await selections(native))[key]["properties"]
        return bool(properties.get(f"narupa.{name}") == properties.get(f"nanover.{name}") == value)

    before = await browser.picture("Ada", x=0, y=0, width=640, height=480)
    await browser.do("click", "Ada", selector=".selections summary")
    shape, color = (f".selections details[open] .field:nth-of-type({at}) select" for at in (2, 3))
    await choose(browser, "Ada", shape, "liquorice")
    await eventually(lambda: property_is("rendering.renderer", "liquorice"))
    await choose(browser, "Ada", color, "#d43d3d")
    await eventually(lambda: property_is("rendering.renderer", {"render": "liquorice", "color": "#d43d3d"}))
    await check_open_to_all(browser, "Ada")
    after = await browser.picture("Ada", x=0, y=0, width=640, height=480)
    assert np.abs(np.subtract(before["cells"], after["cells"])).max() > 5
    await browser.do("click", "Ada", selector=".selections input[type=checkbox]")
    await eventually(lambda: property_is("rendering.hide", True))
    await browser.do("click", "Ada", selector=".selections input[type=checkbox]")
    await eventually(lambda: property_is("rendering.hide", False))

    # One that is made elsewhere is listed, and whichever an atom is in is pulled as a whole.
    theirs = {"id": "selection.n", "name": "Native", "selected": {"particle_ids": particles}, "properties": {}}
    await native.state.update({"selection.n": theirs}, remove=[key])
    await browser.until("Ada", "document.querySelector('.selections .name')?.textContent === 'Native'")
    await choose(browser, "Ada", "target", "selection")
    await browser.do("mouse", "Ada", kind="move", x=x, y=y)
    await browser.until("Ada", "document.querySelector('.hovered').textContent !== ''")
    await native.run_command("playback/play")
    await browser.do("mouse", "Ada", kind="down")
    pull = await pull_of(native)
    assert [int(each) for each in pull["particles"]] == particles and pull["mass_weighted"] is True
    await browser.do("mouse", "Ada", kind="move", x=x + 40, y=y - 40)
    async with native.frames() as frames:
        await first(frames, lambda frame: frame.user_forces.indices.tolist() == particles)
    await browser.do("mouse", "Ada", kind="up")
    await eventually(lambda: none_pull(native))

    # A reset keeps it; a delete, which is asked about, does not.
    await native.run_command("playback/reset")
    assert "selection.n" in await selections(native)
    await browser.do("click", "Ada", selector=".selections summary")
    await browser.do("click", "Ada", selector=".selections >> text=Delete")
    assert "selection.n" in await selections(native)
    await press_twice(browser, "Ada", ".selections .row")
    await browser.until("Ada", "document.querySelectorAll('.selections li').length === 0")
    await eventually(lambda: _is_empty(native))


async def _is_empty(client: Session) -> bool:
    return not await selections(client)


async def test_fingers_move_the_picture_pull_and_mark(browser: Browser, native: Session, place: Place) -> None:
    await browser.open("Ada", f"{place.address}/?name=Ada", width=390, height=844, touch=True)
    await browser.press("Ada", "Enter")
    await browser.until("Ada", DRAWN)
    await native.run_command("playback/pause")
    await browser.press("Ada", "3")
    clip = {"x": 0, "y": 0, "width": 390, "height": 740}

    async def moved(*at: list[tuple[int, int]]) -> tuple[float, float]:
        """How much of the picture is covered, beside what was, after a gesture; which pulls nothing."""
        before = await browser.picture("Ada", **clip)
        await browser.fingers("Ada", *at, [])
        after = await browser.picture("Ada", **clip)
        assert np.abs(np.subtract(before["cells"], after["cells"])).max() > 3
        assert await none_pull(native)
        return before["covered"], after["covered"]

    before, after = await moved([(40, 60)], [(80, 100)], [(140, 130)])  # one, beside: turns
    before, after = await moved([(175, 400), (215, 440)], [(135, 360), (255, 480)], [(95, 320), (295, 520)])
    assert after > 1.2 * before  # two, apart: closer
    before, after = await moved([(95, 320), (295, 520)], [(175, 400), (215, 440)])
    assert after < before
    await moved([(175, 400), (215, 440)], [(215, 430), (255, 470)], [(255, 460), (295, 500)])  # two, along: moves
    await moved([(145, 380), (245, 380)], [(160, 340), (230, 420)], [(195, 330), (195, 430)])  # two, around: turns
    await browser.press("Ada", "c")
    assert await browser.read("Ada", "document.querySelector('.hovered').textContent") == ""

    x, y = await browser.atom("Ada", 195, 380)
    await browser.fingers("Ada", [(x, y)])
    said = await browser.until("Ada", f"{SAID}.includes('marked') && {SAID}")
    assert said == "1 atom is marked"
    await browser.fingers("Ada", [], down=False)
    await browser.do("click", "Ada", selector="button[aria-label='Mark atoms']")
    await browser.fingers("Ada", [(x, y)], [])
    await browser.until("Ada", f"{MARKED}.startsWith('Nothing')")
    await browser.do("click", "Ada", selector="button[aria-label='Mark atoms']")
    assert await none_pull(native)
    await native.run_command("playback/play")


async def test_a_host_runs_the_session_from_the_page(browser: Browser, native: Session, place: Place) -> None:
    def role_of(name: str) -> str:
        return next((user.role for user in native.users if user.name == name), "")

    async def became(name: str, role: str) -> bool:
        return role_of(name) == role

    async def guests_are(role: str) -> bool:
        return (await native.lobby.session()).session.guest_role == role

    def row(name: str, what: str) -> str:
        return f".manage li:has-text({name!r}) {what}"

    await browser.join("Ada", place.address, "Ada", width=960, height=600)
    await browser.join("Bob", place.address, "Bob", width=390, height=700, dark=True)
    await browser.open("Eve", f"{place.address}/?name=Eve")
    await browser.press("Eve", "Enter")
    assert await browser.until("Eve", PROBLEM) == "The session is full: 3 people are in it. Try again later."

    await browser.until("Ada", f"{PEOPLE}.join() === 'Ada (you),Bob,Grace'")
    await browser.do("click", "Ada", selector="text=Manage people")
    await browser.until("Ada", "document.querySelectorAll('.manage li').length === 3")
    await check_open_to_all(browser, "Ada")

    # Watching, it is said and shown what is not to be done, and it has no effect.
    await browser.do("choose", "Ada", selector=row("Bob", "select"), index=0)
    await eventually(lambda: became("Bob", "viewer"))
    assert await browser.until("Bob", ROLE) == "You are watching"
    await browser.until("Bob", f"{PLAY}.getAttribute('aria-disabled') === 'true'")
    await browser.until("Ada", f"{PEOPLE}.includes('Bob (watching)')")
    await check_open_to_all(browser, "Bob")
    await browser.press("Bob", "3", "r")
    assert "does not allow" in await browser.until("Bob", f"{SAID}.includes('role') && {SAID}")
    await browser.atom("Bob", 195, 320)
    await browser.do("mouse", "Bob", kind="down")
    assert "only watch" in await browser.until("Bob", f"{SAID}.includes('host') && {SAID}")
    await browser.do("mouse", "Bob", kind="up")
    assert await none_pull(native)

    # Taking part, he pulls, and does not run the simulation.
    await browser.do("choose", "Ada", selector=row("Bob", "select"), index=1)
    await browser.until("Bob", f"{ROLE} === ''")
    await eventually(lambda: avatar_of(native, "Bob"))
    await grab(browser, "Bob", native, 195, 320)
    assert (await pull_of(native))["label"] == "Bob"
    assert await browser.read("Bob", f"{PLAY}.getAttribute('aria-disabled')") == "true"
    assert await browser.read("Bob", "document.querySelector('#simulation').disabled")
    assert "Hosts run" in await browser.read("Bob", "document.querySelector('#playback-why').textContent")

    # Removed, in the middle of a pull, he is told so.
    await browser.do("click", "Ada", selector=row("Bob", "button"))
    assert role_of("Bob") == "participant"
    problem = ""
    while not problem:  # a press that is not followed by another soon enough is forgotten
        await press_twice(browser, "Ada", ".manage li", "Bob")
        with contextlib.suppress(BrowserError):
            problem = await browser.until("Bob", PROBLEM, 8.0)
    assert problem == "A host has removed you from the session."
    await eventually(lambda: none_pull(native))
    await browser.until("Ada", "document.querySelectorAll('.manage li').length === 2")

    await browser.do("choose", "Ada", selector="#guest-role", index=1)
    await browser.until("Ada", "document.querySelector('.manage ~ .hint').textContent.includes('from now on')")
    await eventually(lambda: guests_are("none"))
    await browser.press("Eve", "Enter")
    await browser.until("Eve", f"{PROBLEM}.includes('asks for a code')")
    await browser.do("choose", "Ada", selector="#guest-role", index=0)
    await eventually(lambda: guests_are(""))
    await browser.press("Eve", "Enter")
    await browser.until("Eve", DRAWN)


async def test_what_goes_wrong_is_said_with_a_way_out(browser: Browser, native: Session, place: Place) -> None:
    async def other_version(connection: ServerConnection) -> None:
        await connection.send("Welcome to version 9!")
        await connection.wait_closed()

    await browser.join("Ada", place.address, "Ada", width=390, height=700, dark=True)

    # Asleep, as a page that is hidden for long, and awake again: it goes on with what is so now.
    await browser.do("lifecycle", "Ada", state="frozen")
    there = await native.get_frame()
    async with native.frames() as frames:
        await first(frames, lambda frame: frame.index > there.index + 60)
    now_ps = (await native.get_frame()).time_ps or 0.0
    await browser.do("lifecycle", "Ada", state="active")
    await browser.until("Ada", f"parseFloat({FACTS}.split('\u00b7')[1]) >= {now_ps}")
    assert await browser.read("Ada", TROUBLE) == ""
    assert await eventually(lambda: avatar_of(native, "Ada"))

    # A simulation that somebody has torn apart can be reset where that is said.
    wild = native.pull([40], [50.0, 0.0, 0.0], scale=1e9, max_force=math.inf)
    with pytest.raises(NotFoundError, match="blow up"):
        async with wild as pull:
            await pull.hold(LIMIT_S)
    assert "A pull of Grace made" in await browser.until("Ada", f"{TROUBLE}.includes('blow up') && {TROUBLE}")
    await check_open_to_all(browser, "Ada")
    await browser.do("click", "Ada", selector=".alarm button")
    await browser.until("Ada", f"{TROUBLE} === ''")
    assert not (await native.get_frame()).exception

    async with serve(other_version, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await browser.open("Old", f"{place.address}/?name=Old&server=127.0.0.1:{port}")
        await browser.press("Old", "Enter")
        await browser.until("Old", "document.querySelector('.trouble')?.textContent.includes('different versions')")
        await browser.do("leave", "Old")


async def test_a_page_outlives_each_service_and_the_whole_session(browser: Browser, mortal: Place) -> None:
    async def goes_on() -> None:
        """The page sees the simulation move."""
        facts = await browser.read("Ada", FACTS)
        await browser.until("Ada", f"{FACTS} !== {facts!r}")

    async def avatar() -> tuple[str, Mapping[str, Any]]:
        async with mortal.client() as client:
            key = await eventually(lambda: avatar_of(client, "Ada"))
            return key, (await client.state.get(key))[key]

    async def pulls() -> None:
        async with mortal.client() as client:
            await grab(browser, "Ada", client)
            await browser.do("mouse", "Ada", kind="up")
            await eventually(lambda: none_pull(client))

    await browser.join("Ada", mortal.address, "Ada")
    await browser.press("Ada", "3")
    key, before = await avatar()
    for module in ("narupa_trajectory", "narupa_lobby"):
        mortal.running.process(module).kill()
        await mortal.running.whole()
        await browser.until("Ada", f"{TROUBLE} === ''")
        await goes_on()
        await pulls()
        assert (await avatar())[0] == key

    async with mortal.client() as client:
        await grab(browser, "Ada", client)
    for process in mortal.running.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert "again" in await browser.until("Ada", TROUBLE)
    mortal.running.end()
    mortal.start()
    await browser.until("Ada", f"{TROUBLE} === ''")
    await goes_on()
    again, after = await avatar()
    assert (again, after["name"], after["color"]) == (key, "Ada", before["color"])
    async with mortal.client() as client:
        assert await none_pull(client)
        await browser.do("mouse", "Ada", kind="up")
        await browser.until("Ada", f"{PEOPLE}.join() === 'Ada (you),Grace'")
    await pulls()
