"""A session's viewer in a cell of a real JupyterLab, in a real browser, beside a native client.

NARUPA_SCREENSHOTS names a folder in which the pictures are kept.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import pytest

import narupa_client
from narupa_client import Session
from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import Browser, browsing, missing
from tests.e2e.helix import any_peptide
from tests.e2e.sessions import LIMIT_S, Running, RunningSession, at_rest, first, pulled, session

_LACKS: Final = missing() or next(
    (f"there is no {name}" for name in ("jupyterlab", "ipykernel", "anywidget") if find_spec(name) is None), ""
)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.skipif(bool(_LACKS), reason=_LACKS)]

CODE: Final = "7KQM-2XRD"
# A notebook's page, and the first view in it.
SIZE: Final = {"width": 1000, "height": 760}
VIEW: Final = "document.querySelector('.narupa-view')"
FACTS: Final = f"{VIEW}?.shadowRoot.querySelector('.facts').textContent"
DRAWN: Final = f"({FACTS} ?? '').includes('particles') && {FACTS}"
ALARM: Final = f"{VIEW}.shadowRoot.querySelector('.trouble').textContent"
HOVERED: Final = f"{VIEW}.shadowRoot.querySelector('.hovered').textContent"
MARKED: Final = f"{VIEW}.shadowRoot.querySelector('.marked').textContent"
AREA: Final = f"(({{x, y, width, height}}) => ({{x, y, width, height}}))({VIEW}.getBoundingClientRect())"
NOTEBOOK: Final = "jupyterapp.shell.currentWidget"
KERNEL: Final = f"{NOTEBOOK}.sessionContext.session.kernel"
TICKED: Final = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
DRAG: Final = (60, -90)
# JupyterLab's page is large, and a kernel takes a while to start.
PAGE_LIMIT_S: Final = 50.0


class Lab(Running):
    """A JupyterLab of this machine alone, with a folder of notebooks."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._port, self._token = unused_port(), secrets.token_hex(16)
        self.folder = folder / "notebooks"
        self.folder.mkdir()
        places = {
            name: folder / name.lower() for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
        }
        places["JUPYTER_RUNTIME_DIR"] = folder / "runtime"
        settings = places["JUPYTER_CONFIG_DIR"] / "labconfig" / "default_setting_overrides.json"
        settings.parent.mkdir(parents=True)
        quiet = {"checkForUpdates": False, "fetchNews": "false"}
        settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}))
        arguments = (
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self._port}",
            f"--IdentityProvider.token={self._token}",
            f"--ServerApp.root_dir={self.folder}",
            "--LabApp.expose_app_in_browser=True",
        )
        where = {name: str(place) for name, place in places.items()}
        super().__init__((sys.executable, "-m", "jupyterlab", *arguments), folder / "lab.log", **where, **environment)

    def notebook(self, name: str, *cells: str) -> str:
        """The address of a new notebook with these cells."""
        made = [
            {
                "cell_type": "code",
                "id": f"c{at}",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": cell,
            }
            for at, cell in enumerate(cells)
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        text = json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
        (self.folder / f"{name}.ipynb").write_text(text)
        return f"http://127.0.0.1:{self._port}/lab/workspaces/{name}/tree/{name}.ipynb?token={self._token}"


@contextmanager
def jupyterlab(folder: Path, **environment: str) -> Iterator[Lab]:
    """A JupyterLab that is ready; whatever happens, nothing is left of it, kernels included."""
    lab = Lab(folder, **environment)
    try:
        lab.wait_for("Jupyter Server")
        yield lab
    finally:
        lab.end()


@pytest.fixture(scope="module")
def peptide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    arguments = (f"{any_peptide()}?steps_per_frame=20", f"--join-code={CODE}")
    with session(tmp_path_factory.mktemp("peptide"), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def lab(peptide: RunningSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with jupyterlab(tmp_path_factory.mktemp("lab"), LOBBY=peptide.lobby, CODE=CODE) as running:
        yield running


@pytest.fixture
async def native(peptide: RunningSession) -> AsyncIterator[Session]:
    """A client of another kind in the same session."""
    async with narupa_client.join(peptide.lobby, "Grace", join_code=CODE) as client:
        await client.run_command("playback/reset")
        yield client


@pytest.fixture
async def browser(lab: Lab, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path, 250) as opened:
        yield opened


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(os.environ.get("NARUPA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


BLOCKING: Final = (
    "import os\n"
    "import narupa_client\n\n"
    'session = narupa_client.connect(os.environ["LOBBY"], "Ada", join_code=os.environ["CODE"])',
    "view = session.view()\nview",
)
ASYNC: Final = (
    "import os\n"
    "import narupa_client\n\n"
    'joining = narupa_client.join(os.environ["LOBBY"], "Lin", join_code=os.environ["CODE"])\n'
    "session = await joining.__aenter__()",
    "view = session.view(height=300, colors='chain')\nview",
)


async def shown(browser: Browser, lab: Lab, name: str, *cells: str, **options: Any) -> None:
    """The notebook is open, its cells run, and the view in it shows the simulation."""
    await browser.open(name, lab.notebook(name, *cells), **SIZE, **options)
    ready = f"{NOTEBOOK}.context.isReady && {NOTEBOOK}.sessionContext.isReady && {KERNEL}.status === 'idle'"
    await browser.until(name, f"typeof jupyterapp === 'object' && {NOTEBOOK}?.sessionContext && {ready}", PAGE_LIMIT_S)
    await browser.read(name, "void jupyterapp.commands.execute('notebook:run-all-cells')")
    await browser.until(name, DRAWN, PAGE_LIMIT_S)
    # What is drawn takes a browser without a graphics card longer, the first time, than what is said of it.
    area = {key: round(value) for key, value in (await browser.read(name, AREA)).items()}
    above_controls = area | {"height": round(0.7 * area["height"])}
    async with asyncio.timeout(PAGE_LIMIT_S):
        while (await browser.picture(name, **above_controls))["covered"] < 0.01:
            await asyncio.sleep(0.1)


async def kernel(browser: Browser, page: str, code: str = "", value: str = "None") -> Any:
    """Runs code in the notebook's kernel; the value of an expression there, of plain types."""
    request = json.dumps({"code": code, "silent": True, "user_expressions": {"value": value}})
    script = f"{KERNEL}.requestExecute({request}).done.then((reply) => reply.content)"
    reply = await browser.read(page, script)
    assert reply["status"] == "ok", reply
    told = reply["user_expressions"]["value"]
    assert told["status"] == "ok", told
    return ast.literal_eval(told["data"]["text/plain"])


async def until_kernel(browser: Browser, page: str, condition: str, value: str) -> Any:
    """The value of an expression in the kernel, once a condition holds there."""
    async with asyncio.timeout(LIMIT_S):
        while not await kernel(browser, page, value=f"bool({condition})"):
            await asyncio.sleep(0.1)
    return await kernel(browser, page, value=value)


async def pause(browser: Browser, page: str, native: Session) -> None:
    """The simulation rests, and the view shows it as it does."""
    await native.run_command("playback/pause")
    async with asyncio.timeout(LIMIT_S):
        while abs(shown_ps(await browser.read(page, FACTS)) - ((await native.get_frame()).time_ps or 0.0)) > 0.006:
            await asyncio.sleep(0.05)


def shown_ps(facts: str) -> float:
    """The time that is in what a view says of its simulation, to two digits."""
    number, unit = facts.split(" · ")[1].split()
    return float(number) * {"fs": 1e-3, "ps": 1.0}[unit]


async def atom(browser: Browser, page: str) -> tuple[int, int]:
    """The mouse is over an atom near the middle of the view; returns where that is."""
    area = await browser.read(page, AREA)
    x, y = round(area["x"] + area["width"] / 2), round(area["y"] + area["height"] / 2)
    found = await browser.do("atom", page, x=x, y=y, step=7, count=600, said=HOVERED)
    return found["x"], found["y"]


async def background(browser: Browser, page: str) -> tuple[int, int]:
    """The mouse is near an edge of the view, where no atom is: how the molecule lies there is not up to the test."""
    area = await browser.read(page, AREA)
    for right, down in ((0.05, 0.15), (0.9, 0.15), (0.5, 0.1), (0.05, 0.5), (0.9, 0.5)):
        x, y = round(area["x"] + right * area["width"]), round(area["y"] + down * area["height"])
        await browser.do("mouse", page, kind="move", x=x, y=y)
        await browser.read(page, TICKED)
        if await browser.read(page, HOVERED) == "":
            return x, y
    raise AssertionError("there are atoms everywhere")


async def press(browser: Browser, page: str, x: int, y: int, *moves: tuple[int, int]) -> None:
    """The mouse goes down at x, y, and along the moves."""
    await browser.do("mouse", page, kind="move", x=x, y=y)
    await browser.do("mouse", page, kind="down", x=x, y=y)
    for right, down in moves:
        await browser.do("mouse", page, kind="move", x=x + right, y=y + down)


async def release(browser: Browser, page: str) -> None:
    await browser.do("mouse", page, kind="up", x=0, y=0)


async def test_a_view_shows_the_session_and_shares_selection_and_camera_with_the_kernel(
    browser: Browser, lab: Lab, native: Session, album: Path
) -> None:
    page = "blocking"
    await shown(browser, lab, page, *BLOCKING)
    area = {name: round(value) for name, value in (await browser.read(page, AREA)).items()}
    picture = await browser.picture(page, album / "notebook.png", **area)
    assert picture["colors"] > 40 and picture["covered"] > 0.02

    # Whoever pulls here is the user of the notebook, and everybody feels it. An atom holds still while it is taken hold of.
    await pause(browser, page, native)
    x, y = await atom(browser, page)
    await press(browser, page, x, y, DRAG)
    async with native.frames() as frames:
        await native.run_command("playback/play")
        frame = await first(frames, pulled)
        assert len(frame.user_forces.indices) == 1
        assert np.linalg.norm(frame.user_forces.forces[0]) > 0
        ada = next(user.id for user in native.users if user.name == "Ada")
        assert [each["owner"] for each in await native.interactions()] == [ada]
        await release(browser, page)
        await first(frames, at_rest)

    # What is marked here is selected there, and what is selected there is marked here.
    await pause(browser, page, native)
    await kernel(browser, page, "seen = []\nview.observe(lambda change: seen.append(change.new), 'selection')")
    await browser.press(page, "e")
    x, y = await atom(browser, page)
    await press(browser, page, x, y)
    await release(browser, page)
    selected = await until_kernel(browser, page, "view.selection", "view.selection")
    hovered = await browser.read(page, HOVERED)
    assert selected == [int(hovered.split("(")[1].split(")")[0])]
    assert await kernel(browser, page, value="seen") == [selected]
    before = await browser.picture(page, **area)
    await kernel(browser, page, "view.selection = range(40)\nview.representation = 'spheres'")
    await browser.until(page, f"{MARKED} === '40 atoms are marked'")
    await browser.until(page, f"{VIEW}.shadowRoot.querySelector('#set-representation').value === 'spheres'")
    after = await browser.picture(page, album / "notebook-selected.png", **area)
    assert after["covered"] > before["covered"] + 0.02
    await browser.press(page, "e")

    # The camera, both ways: it is told when it has come to rest, and moved from the kernel.
    turned = "view.camera['position']"
    from_here = await kernel(browser, page, value="view.camera")
    assert set(from_here) == {"position", "target"}
    x, y = await background(browser, page)
    await press(browser, page, x, y, (80, 20))
    await release(browser, page)
    moved = await until_kernel(browser, page, f"{turned} != {from_here['position']}", "view.camera")
    assert np.allclose(moved["target"], from_here["target"], atol=1e-3)
    radius = [np.linalg.norm(np.subtract(each["position"], each["target"])) for each in (from_here, moved)]
    assert np.isclose(*radius, rtol=1e-3)
    near = await browser.picture(page, **area)
    far = [float(x) for x in np.add(moved["target"], 4 * np.subtract(moved["position"], moved["target"]))]
    await kernel(browser, page, f"view.camera = {{'position': {far}, 'target': {moved['target']}}}")

    async def further() -> bool:
        seen = await browser.picture(page, **area)
        return bool(seen["covered"] < near["covered"] / 2)

    async with asyncio.timeout(LIMIT_S):
        while not await further():
            await asyncio.sleep(0.1)
    assert np.allclose(await kernel(browser, page, value=turned), far)

    # Nothing was asked of any other host, and nothing went wrong.
    log = await browser.do("log", page)
    assert not [each for each in log["requests"] if urlsplit(each).hostname not in (None, "127.0.0.1")]
    assert not [each for each in log["errors"] if "narupa" in each.lower()]


# Runs until it is told to end, and shows by a file that it does.
CELL: Final = """
import os, time
open("{running}", "w").close()
while not os.path.exists("{end}"):
    time.sleep(0.02)
os.remove("{running}")
"""


async def test_a_view_goes_on_while_a_cell_runs(browser: Browser, lab: Lab, native: Session, tmp_path: Path) -> None:
    page = "running"
    await shown(browser, lab, page, *BLOCKING)
    # JupyterLab sends over a subshell, so that the kernel hears the view, and who pulls is felt; without one, it does not.
    async with cell_running(browser, page, tmp_path / "heard"):
        await pause(browser, page, native)
        x, y = await atom(browser, page)
        await press(browser, page, x, y, DRAG)
        async with native.frames() as frames:
            await native.run_command("playback/play")
            await first(frames, pulled)
            await release(browser, page)
            await first(frames, at_rest)
        await goes_on(browser, page)
    await browser.read(page, f"{KERNEL}.commsOverSubshells = 'disabled'")
    await kernel(browser, page)
    async with cell_running(browser, page, tmp_path / "unheard"):
        await goes_on(browser, page)
    await goes_on(browser, page)


@asynccontextmanager
async def cell_running(browser: Browser, page: str, running: Path) -> AsyncIterator[None]:
    """A cell runs for as long as this does, and keeps the kernel's main thread."""
    end = running.with_suffix(".end")
    request = json.dumps({"code": CELL.format(running=running, end=end)})
    await browser.read(page, f"void (window.ran = {KERNEL}.requestExecute({request}))")
    try:
        await until_path(running.exists)
        yield
        assert running.exists()
    finally:
        end.touch()
    reply = await browser.read(page, "window.ran.done.then((reply) => reply.content.status)")
    assert reply == "ok"


async def until_path(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def goes_on(browser: Browser, page: str) -> None:
    """The view has shown more of the simulation than can have been under way to it."""
    for _ in range(12):
        told = await browser.read(page, FACTS)
        await browser.until(page, f"({FACTS} ?? {told!r}) !== {told!r}", PAGE_LIMIT_S)
    assert await browser.read(page, ALARM) == ""


async def test_a_view_opens_while_the_cell_after_it_runs(browser: Browser, lab: Lab, tmp_path: Path) -> None:
    running, end = tmp_path / "running", tmp_path / "end"
    try:
        await shown(browser, lab, "at-once", *BLOCKING, CELL.format(running=running, end=end))
        await until_path(running.exists)
        await goes_on(browser, "at-once")
        assert running.exists()
    finally:
        end.touch()
    await until_path(lambda: not running.exists())


async def test_an_asyncio_session_has_views_that_go_on_after_a_restart_and_end_with_it(
    browser: Browser, lab: Lab, peptide: RunningSession, native: Session, album: Path
) -> None:
    page = "asyncio"
    await shown(browser, lab, page, *ASYNC, dark=True)
    await browser.read(
        page, "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}).then(() => null)"
    )
    await browser.until(page, f"{VIEW}.dataset.theme === 'dark'")
    await browser.until(page, f"{VIEW}.getBoundingClientRect().height === 300")
    await browser.picture(page, album / "notebook-dark.png")

    # Keys that are the notebook's own are the view's while it has the focus: this would have added a cell.
    cells = "document.querySelectorAll('.jp-CodeCell').length"
    count = await browser.read(page, cells)
    await browser.do("focus", page, selector=".narupa-view canvas")
    await browser.press(page, "b", "2")
    await until_kernel(browser, page, "view.representation == 'liquorice'", "view.representation")
    assert await browser.read(page, cells) == count

    # The simulation goes away, and comes back: the view says so, and goes on.
    with kept_away(peptide, "narupa_trajectory"):
        await browser.until(page, f"{ALARM}.includes('cannot be reached')", PAGE_LIMIT_S)
    await peptide.whole()
    await browser.until(page, f"{ALARM} === '' && {DRAWN}", PAGE_LIMIT_S)
    told = await browser.read(page, FACTS)
    await browser.until(page, f"{FACTS} !== {told!r}", PAGE_LIMIT_S)

    # The session ends; the view says that, and is not there for others any more.
    assert await avatars(native, "Lin")
    await kernel(browser, page, "import asyncio\nleaving = asyncio.ensure_future(joining.__aexit__(None, None, None))")
    await browser.until(page, f"{ALARM}.includes('left the session')", PAGE_LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        while await avatars(native, "Lin"):
            await asyncio.sleep(0.1)


@contextmanager
def kept_away(running: RunningSession, module: str) -> Iterator[None]:
    """A service is gone, and is started again no earlier than this ends: it may be back before anybody has missed it."""
    running.kill(signal.SIGSTOP)
    try:
        running.process(module).kill()
        yield
    finally:
        running.kill(signal.SIGCONT)


async def avatars(client: Session, name: str) -> list[str]:
    """The keys of somebody's avatars."""
    return [key for key, value in (await client.state.get("avatar.")).items() if value.get("name") == name]
