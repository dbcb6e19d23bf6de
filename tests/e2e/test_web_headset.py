"""The viewer in an emulated headset: a real page in a real session, beside a native client.

NARUPA_SCREENSHOTS names a folder in which the pictures are kept.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pytest

import narupa_client
from narupa_client import Session
from narupa_gateway.pages import packaged_files
from narupa_shared.sdk.narupa.trajectory.v1 import EngineState
from narupa_shared.testing.ports import unused_port
from tests.e2e.browsers import FACTS, PEOPLE, Browser, browsing, missing
from tests.e2e.headsets import (
    AHEAD,
    EYES,
    MIDDLE,
    PALM_TO_FACE,
    UNTURNED,
    Headset,
    Room,
    Vector,
    beside,
    seen_by_others,
)
from tests.e2e.helix import any_peptide, distance
from tests.e2e.sessions import LIMIT_S, RunningSession, at_rest, first, narupa, session

T = TypeVar("T")

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(missing()), reason=missing())]

# How far a hand goes with what it holds, m: a few tenths of a nanometre in the room.
PULL: Final = np.array([0.08, 0.05, 0.1])
# What browsers are led to this machine by, and do not take for it.
HOST: Final = "lab.example.org"
MAGENTA: Final = "#ff00ff"
LIME: Final = (0, 255, 0)
# Whether the page shows the simulation where it begins.
BEGAN: Final = f"{FACTS}.includes('· 0 fs ·')"
SET: Final = "(document.querySelector('#set-{name}').value)"


@pytest.fixture(scope="module")
def port() -> int:
    """Of the page: the same for as long as the session runs, whatever happens to the gateway."""
    return unused_port()


@pytest.fixture(scope="module")
def address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def peptide(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[RunningSession]:
    arguments = (f"{any_peptide()}?steps_per_frame=20", f"--websocket-port={port}")
    with session(tmp_path_factory.mktemp("peptide"), *arguments, **allowing(f"http://{HOST}:{port}")) as running:
        yield running


@pytest.fixture
async def native(peptide: RunningSession) -> AsyncIterator[Session]:
    """A client of another kind in the same session, in which nothing moves yet and the box is where it is at first."""
    async with narupa_client.join(peptide.lobby, "Grace") as client:
        await client.run_command("playback/pause")
        await client.run_command("playback/reset")
        await client.state.update({"scene": list(UNTURNED)})
        yield client


@pytest.fixture
async def browser(peptide: RunningSession, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path) as opened:
        yield opened


@pytest.fixture
async def headset(browser: Browser, native: Session, address: str) -> Headset:
    """That of Ada, who is in the session, and has yet to put it on."""
    await browser.join("Ada", address, "Ada", headset=True)
    return Headset(browser, "Ada")


@pytest.fixture
async def room(native: Session, headset: Headset) -> Room:
    """Ada's, who has put the headset on."""
    await headset.put_on()
    return Room((await native.get_frame()).positions)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(os.environ.get("NARUPA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def allowing(origin: str) -> dict[str, str]:
    """The environment of a session on loopback to which pages of that origin may connect."""
    return {"NARUPA_GATEWAY_ALLOW_ORIGINS": json.dumps([origin])}


async def eventually(look: Callable[[], Awaitable[T]], within_s: float = LIMIT_S) -> T:
    """The first truthy value of `look`."""
    async with asyncio.timeout(within_s):
        while not (value := await look()):
            await asyncio.sleep(0.05)
    return value


async def pulls(client: Session, condition: Callable[[list[Mapping[str, Any]]], object]) -> list[Mapping[str, Any]]:
    """All interactions of the state, by their particles, once they are as they should be."""

    async def look() -> list[Mapping[str, Any]]:
        found = sorted((await client.state.get("interaction.")).values(), key=lambda each: list(each["particles"]))
        return found if condition(found) else []

    return await eventually(look)


async def none_pull(client: Session) -> bool:
    return not await client.state.get("interaction.")


async def avatar(client: Session, name: str, part: str) -> list[float]:
    """Where a part of somebody is in the shared room; empty while it is not told."""
    for each in (await client.state.get("avatar.")).values():
        if each["name"] == name:
            for component in each.get("components", []):
                if component["name"] == part:
                    return [float(x) for x in component["position"]]
    return []


def ends(positions: np.ndarray) -> tuple[int, int]:
    """Two atoms that are far apart."""
    one = int(np.linalg.norm(positions - positions.mean(axis=0), axis=1).argmax())
    return one, int(np.linalg.norm(positions - positions[one], axis=1).argmax())


def test_what_is_served_knows_nothing_of_emulated_headsets() -> None:
    assert not [name for name, body in packaged_files().items() if b"IWER" in body or b"Emulat" in body]


async def test_a_controller_pulls_an_atom_and_lets_go(native: Session, headset: Headset, room: Room) -> None:
    frame = await native.get_frame()
    atom, _ = ends(frame.positions)
    at = room.place(frame.positions[atom])
    await headset.move("right", at)
    await headset.press("right", "trigger")
    (pull,) = await pulls(native, len)
    assert list(pull["particles"]) == [atom]
    np.testing.assert_allclose(pull["position"], frame.positions[atom], atol=1e-3)
    assert max(await headset.pulses("right")) >= 0.5  # it is felt

    async with native.frames() as frames:
        await native.run_command("playback/play")
        await headset.move("right", at + PULL)
        handle = room.point(at + PULL)
        await pulls(native, lambda found: np.allclose(found[0]["position"], handle, atol=1e-3))
        before = float(np.linalg.norm(handle - frame.positions[atom]))

        def towards(frame: Any) -> bool:
            if frame.user_forces.indices.tolist() != [atom]:
                return False
            force, way = frame.user_forces.forces[0], handle - frame.positions[atom]
            return bool(force @ way > 0.9 * np.linalg.norm(force) * np.linalg.norm(way) > 0)

        await first(frames, towards)
        await first(frames, lambda frame: distance(frame, list(handle), atom) < 0.75 * before)
        await headset.release("right", "trigger")
        await eventually(lambda: none_pull(native))
        await first(frames, at_rest)


async def test_two_hands_pull_two_atoms_and_a_bare_one_pinches(
    browser: Browser, native: Session, headset: Headset, room: Room
) -> None:
    positions = (await native.get_frame()).positions
    one, other = ends(positions)
    await headset.move("left", room.place(positions[one]))
    await headset.move("right", room.place(positions[other]))
    await headset.press("left", "trigger")
    await headset.press("right", "trigger")
    found = await pulls(native, lambda found: len(found) == 2)
    assert [list(each["particles"]) for each in found] == [[each] for each in sorted((one, other))]
    assert len({each["owner.id"] for each in found}) == 1
    await native.run_command("playback/play")
    async with native.frames() as frames:
        await headset.move("left", room.place(positions[one]) + PULL)
        await headset.move("right", room.place(positions[other]) - PULL)
        await first(frames, lambda frame: sorted(frame.user_forces.indices.tolist()) == sorted((one, other)))
    await headset.release("left", "trigger")
    await pulls(native, lambda found: [list(each["particles"]) for each in found] == [[other]])
    await headset.release("right", "trigger")
    await eventually(lambda: none_pull(native))

    # What the page shows is where it began, once it has shown something else.
    await browser.until("Ada", f"!{BEGAN}")
    await native.run_command("playback/pause")
    await native.run_command("playback/reset")
    await browser.until("Ada", BEGAN)
    # The emulated right hand has its palm where its back should be, so it is left out.
    await browser.read("Ada", "void (headset.hands.right.connected = false, headset.primaryInputMode = 'hand')")
    await headset.drawn()
    await headset.move("left", room.place(positions[one]), kind="hands")
    await headset.pinch("left")
    (pull,) = await pulls(native, len)
    assert list(pull["particles"]) == [one]
    await headset.pinch("left", 0.0)
    await eventually(lambda: none_pull(native))


async def test_two_hands_move_the_box_for_everybody(
    browser: Browser, native: Session, headset: Headset, room: Room
) -> None:
    await browser.read("Ada", "document.querySelector('#share-place').click()")
    # Turned by a quarter about the vertical, twice as large, and a little up.
    left, right = beside(MIDDLE, -0.3, 0.0, 0.4), beside(MIDDLE, 0.3, 0.0, 0.4)
    middle = (left + right) / 2
    to = beside(middle, 0.0, 0.2, 0.0)
    await headset.move("left", left)
    await headset.move("right", right)
    await headset.press("left", "squeeze")
    await headset.press("right", "squeeze")
    await headset.move("left", beside(to, 0.0, 0.0, 0.6))
    await headset.move("right", beside(to, 0.0, 0.0, -0.6))
    await headset.release("left", "squeeze")
    await headset.release("right", "squeeze")

    async def scene() -> list[float]:
        numbers = [float(x) for x in (await native.state.get("scene")).get("scene", [])]
        return numbers if np.allclose(numbers[7:], 2.0, rtol=1e-3) else []

    shared = await eventually(scene)
    assert await none_pull(native)

    # What others see of Ada is what is so in her room: her head is at the same point of the simulation.
    back = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # takes -z to x
    head = room.point(middle + back @ (EYES - to) / 2)

    async def agrees() -> bool:
        place = await avatar(native, "Ada", "headset")
        return bool(place) and np.allclose(seen_by_others(shared, place), head, atol=5e-3)

    await eventually(agrees)


async def test_others_see_head_and_hands_upright(browser: Browser, native: Session, address: str, album: Path) -> None:
    await browser.open("Ada", f"{address}/?name=Ada", headset=True)
    await browser.do("type", "Ada", selector="#join-color", text=MAGENTA)
    await browser.do("focus", "Ada", selector="#join-name")
    await browser.press("Ada", "Enter")
    await browser.join("Bob", address, "Bob")
    headset = Headset(browser, "Ada")
    await headset.put_on()
    room = Room((await native.get_frame()).positions)
    await browser.until("Bob", f"{PEOPLE}.some((each) => /^Ada .*in a headset/.test(each))")

    # In the molecule, and no taller than what Bob sees of it, however it lies.
    head, hands = beside(MIDDLE, 0.0, 0.2, 0.0), beside(MIDDLE, 0.0, -0.2, 0.0)
    await headset.look_from(head)
    await headset.move("left", beside(hands, -0.04, 0.0, 0.0))
    await headset.move("right", beside(hands, 0.04, 0.0, 0.0))

    async def told() -> bool:
        place = await avatar(native, "Ada", "headset")
        return bool(place) and np.allclose(seen_by_others(UNTURNED, place), room.point(head), atol=5e-3)

    await eventually(told)

    async def standing() -> bool:
        spot = await browser.do("spot", "Bob", color=[225, 20, 225], within=60)
        high, wide = spot["bottom"] - spot["top"], spot["right"] - spot["left"]
        print(f"magenta is seen at {spot}")
        return bool(spot["count"] > 20 and high > 100 and high > 2 * wide)

    try:
        await eventually(standing, 2 * LIMIT_S)
    finally:
        await browser.picture("Bob", album / "headset-seen.png")


async def test_the_menu_is_used_by_pointing(
    browser: Browser, native: Session, headset: Headset, room: Room, album: Path
) -> None:
    async def state(wanted: EngineState) -> None:
        async def look() -> bool:
            return (await native.status()).state == wanted

        await eventually(look)

    left = beside(EYES, -0.2, -0.3, -0.45)
    await headset.move("left", left, PALM_TO_FACE)

    async def still() -> list[Vector]:
        """Where the left hand is held, once that is told."""
        place = await avatar(native, "Ada", "hand.left")
        held = room.place(seen_by_others(UNTURNED, place)) if place else EYES
        return [held] if np.linalg.norm(held - left) < 0.1 else []

    (grip,) = await eventually(still)
    await headset.choose("Play", grip)
    await state(EngineState.RUNNING)
    await headset.says("Playing")
    await headset.choose("Pause", grip)
    await state(EngineState.PAUSED)
    await browser.picture("Ada", album / "headset-menu.png")
    before = (await native.get_frame()).time_ps or 0.0
    assert before > 0
    await browser.until("Ada", f"!{BEGAN}")
    await headset.choose("Reset", grip)

    async def anew() -> bool:
        return ((await native.get_frame()).time_ps or 0.0) < before

    await eventually(anew)
    await browser.until("Ada", BEGAN)
    await headset.choose("Gaussian", grip)
    assert await browser.read("Ada", SET.format(name="law")) == "gaussian"
    strength = float(await browser.read("Ada", SET.format(name="strength")))
    for label, more in (("Stronger", 0.1), ("Stronger", 0.2), ("Weaker", 0.1)):
        await headset.choose(label, grip)
        assert float(await browser.read("Ada", SET.format(name="strength"))) == pytest.approx(strength + more)
    assert await none_pull(native)
    await headset.choose("Move for all", grip)
    assert await browser.read("Ada", "document.querySelector('#share-place').checked") is True

    await headset.choose("Bring here", grip)
    positions = (await native.get_frame()).positions
    atom, _ = ends(positions)
    await headset.move("right", Room(positions).place(positions[atom]), AHEAD)
    await headset.press("right", "trigger")
    (pull,) = await pulls(native, len)
    assert pull["interaction_type"] == "gaussian" and list(pull["particles"]) == [atom]
    assert pull["scale"] == pytest.approx(10 ** (strength + 0.1))
    await headset.release("right", "trigger")
    await headset.choose("Leave", grip)
    await headset.is_off()


async def test_the_desktop_is_as_it_was_after_the_headset(browser: Browser, headset: Headset, album: Path) -> None:
    await headset.drawn()
    before = await browser.picture("Ada")
    await headset.put_on()
    worn = await browser.picture("Ada", album / "headset.png")
    assert worn["colors"] > 16
    assert np.abs(np.subtract(worn["cells"], before["cells"])).max() > 16
    await headset.take_off()

    async def same() -> bool:
        after = await browser.picture("Ada")
        return bool(np.abs(np.subtract(after["cells"], before["cells"])).mean() < 1)

    await eventually(same)
    log = await browser.do("log", "Ada")
    assert log["errors"] == []


async def test_the_room_is_seen_through_in_ar(browser: Browser, headset: Headset, album: Path) -> None:
    room = "document.documentElement.style.background = document.body.style.background = 'rgb(0, 255, 0)'"
    bare = "document.querySelector('main').style.visibility = 'hidden'"
    await headset.put_on()
    await browser.read("Ada", f"void ({room}, {bare})")
    assert (await browser.do("spot", "Ada", color=LIME, within=8))["count"] == 0
    await headset.take_off()
    await browser.read("Ada", "void (document.querySelector('main').style.visibility = '')")
    await headset.put_on("AR")
    await browser.read("Ada", f"void ({bare})")
    seen = await browser.do("spot", "Ada", color=LIME, within=8)
    assert 0.5 < seen["count"] / (640 * 480) < 0.99  # the room, and the molecule in it
    await browser.picture("Ada", album / "headset-ar.png")


async def test_a_lost_session_is_said_in_the_headset_and_comes_back(
    browser: Browser, peptide: RunningSession, native: Session, headset: Headset, room: Room
) -> None:
    positions = (await native.get_frame()).positions
    atom, _ = ends(positions)
    await headset.move("right", room.place(positions[atom]))
    await headset.press("right", "trigger")
    await pulls(native, len)
    await headset.says("menu")  # how it is used, at first
    peptide.process("narupa_gateway").kill()
    await headset.says("again")
    await eventually(lambda: none_pull(native))
    await headset.release("right", "trigger")
    await headset.says("is back")
    await peptide.whole()
    assert await browser.read("Ada", "!!headset.activeSession")
    await headset.press("right", "trigger")
    (pull,) = await pulls(native, len)
    assert list(pull["particles"]) == [atom]
    await headset.release("right", "trigger")
    await eventually(lambda: none_pull(native))


async def test_headsets_are_offered_over_tls(tmp_path: Path) -> None:
    """Browsers let only pages of their own machine, and those that came over TLS, use a headset."""
    narupa("certs", str(tmp_path / "certs"), "--host", HOST, "--host", "127.0.0.1")
    port = unused_port()
    page = f"https://{HOST}:{port}"
    arguments = (any_peptide(), f"--websocket-port={port}", f"--certs={tmp_path / 'certs'}")
    with session(tmp_path, *arguments, **allowing(page)) as running:
        assert f"https://127.0.0.1:{port}" in running.written()
        async with browsing(tmp_path) as browser:
            await browser.join("Ada", page, "Ada", headset=True, trusting=True)
            assert await browser.read("Ada", "isSecureContext")
            await Headset(browser, "Ada").put_on()
            log = await browser.do("log", "Ada")
            assert log["errors"] == [] and any(url.startswith(f"wss://{HOST}") for url in log["requests"])


async def test_who_came_without_tls_is_told_why_there_is_no_headset(browser: Browser, address: str) -> None:
    await browser.join("Eve", address.replace("127.0.0.1", HOST), "Eve")
    assert not await browser.read("Eve", "isSecureContext")
    await browser.until("Eve", "document.body.textContent.includes('open the session\\'s https address')")
