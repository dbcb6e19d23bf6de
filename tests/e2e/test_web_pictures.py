"""What the viewer draws, against pictures that somebody has looked at.

`NARUPA_NEW_PICTURES=1` writes those anew instead; NARUPA_SCREENSHOTS names a folder in which differences are kept.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

import narupa_client
from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import Browser, browsing, missing
from tests.e2e.likeness import difference, read_picture, side_by_side
from tests.e2e.sessions import RunningSession, session
from tests.e2e.still_life import write_still_life

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(missing()), reason=missing())]

PICTURES: Final = Path(__file__).with_name("pictures")
MAX_BYTES: Final = 60_000
WIDTH, HEIGHT = 440, 332
SHAPES: Final = ("ball and stick", "liquorice", "spheres", "ribbon", "lines")

Look = Mapping[str, Any]
# What is set, one after the other, by name of the picture.
LIGHT: Final[Mapping[str, Look]] = {
    **{shape.replace(" ", "-"): {"representation": shape} for shape in SHAPES},
    "liquorice-by-residue": {"representation": "liquorice", "colors": "residue"},
    "spheres-by-chain-without-box": {"representation": "spheres", "colors": "chain", "box": False},
}
DARK: Final[Mapping[str, Look]] = {
    "ball-and-stick-dark": {"representation": "ball and stick"},
    "ribbon-dark": {"representation": "ribbon"},
}
# As clients of all kinds write them, of the particles of residues 1 to 14, 21 to 36, and of the water.
SELECTIONS: Final = {
    "selection.helix": {
        "selected": {"particle_ids": list(range(109))},
        "properties": {"narupa.rendering.renderer": {"render": "goodsell", "color": "residue name"}},
    },
    "selection.hairpin": {
        "selected": {"particle_ids": list(range(156, 281))},
        "properties": {"nanover.rendering.renderer": {"render": {"type": "liquorice"}, "color": [0.9, 0.4, 0.1]}},
    },
    "selection.water": {
        "selected": {"particle_ids": list(range(281, 305))},
        "properties": {"narupa.rendering.hide": True},
    },
}
SET: Final = """(() => {{
    const field = document.querySelector('#set-{name}');
    if (field.type === 'checkbox') field.checked = {value};
    else field.value = {value};
    field.dispatchEvent(new Event('change'));
}})()"""
# What has come to rest is drawn as finely as the canvas can.
SHARP: Final = "document.querySelector('.stage canvas').width === innerWidth"


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningSession, str]]:
    """A session of a molecule that holds still, and the address of its page."""
    folder = tmp_path_factory.mktemp("still")
    port = unused_port()
    write_still_life(folder / "still.pdb")
    with session(folder, f"{folder / 'still.pdb'}?calculator=none", f"--websocket-port={port}") as running:
        yield running, f"http://127.0.0.1:{port}"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path) as opened:
        yield opened


async def check(
    browser: Browser, name: str, folder: Path, renew: bool = bool(os.environ.get("NARUPA_NEW_PICTURES"))
) -> None:
    """The page shows what the reference of that name does; or the reference is what it shows, where new ones are wanted."""
    await browser.until("Ada", SHARP)
    shot, reference = folder / f"{name}.png", PICTURES / f"{name}.png"
    await browser.picture("Ada", shot)
    if renew:
        PICTURES.mkdir(exist_ok=True)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(reference, optimize=True)
    picture, known = read_picture(shot), read_picture(reference)
    found = difference(picture, known)
    print(f"{name}: {found.mean:.2f} levels off, {100 * found.share:.2f} % of what is drawn looks another")
    if not found.small:
        kept = Path(os.environ.get("NARUPA_SCREENSHOTS") or folder)
        kept.mkdir(parents=True, exist_ok=True)
        side_by_side(picture, known).save(kept / f"difference-{name}.png")
    assert found.small, f"{name} is not what it was: {found}; see {name}.png in NARUPA_SCREENSHOTS"


async def come_in(browser: Browser, address: str, dark: bool = False) -> None:
    await browser.join("Ada", address, "Ada", width=WIDTH, height=HEIGHT, dark=dark)
    await browser.read("Ada", "document.querySelector('.foot').style.visibility = 'hidden'")


async def choose(browser: Browser, look: Look) -> None:
    for name, value in look.items():
        await browser.read("Ada", SET.format(name=name, value=json.dumps(value)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_looks_as_it_did(
    browser: Browser, still: tuple[RunningSession, str], tmp_path: Path, dark: bool
) -> None:
    await come_in(browser, still[1], dark)
    for name, look in (DARK if dark else LIGHT).items():
        await choose(browser, look)
        await check(browser, name, tmp_path)


async def test_selections_of_other_people_are_drawn_as_they_say(
    browser: Browser, still: tuple[RunningSession, str], tmp_path: Path
) -> None:
    running, address = still
    await come_in(browser, address)
    async with narupa_client.join(running.lobby, "Grace") as client:
        await client.state.update(SELECTIONS)
        try:
            await check(browser, "selections", tmp_path)
        finally:
            await client.state.update(remove=SELECTIONS)


async def test_a_lost_graphics_card_comes_back_with_the_same_picture(
    browser: Browser, still: tuple[RunningSession, str], tmp_path: Path
) -> None:
    await come_in(browser, still[1])
    await check(browser, "ball-and-stick", tmp_path, renew=False)
    lose = "document.querySelector('.stage canvas').getContext('webgl2').getExtension('WEBGL_lose_context')"
    await browser.read("Ada", f"(window.card = {lose}).loseContext()")
    await browser.until("Ada", "document.querySelector('.scene-notice:not([hidden])') !== null")
    await browser.read("Ada", "window.card.restoreContext()")
    await browser.until("Ada", "document.querySelector('.scene-notice:not([hidden])') === null")
    for shape in SHAPES:
        await choose(browser, {"representation": shape})
        await check(browser, shape.replace(" ", "-"), tmp_path, renew=False)
    log = await browser.do("log", "Ada")
    assert log["errors"] == []
    assert [said for said in log["warnings"] if "CONTEXT_LOST" not in said] == []


def test_references_are_small_and_unlike_each_other() -> None:
    references = {path.stem: read_picture(path) for path in sorted(PICTURES.glob("*.png"))}
    assert set(references) == {*LIGHT, *DARK, "selections"}
    assert all(path.stat().st_size < MAX_BYTES for path in PICTURES.iterdir())
    for one, other in itertools.combinations(references, 2):
        assert not difference(references[one], references[other]).small, f"{one} looks like {other}"
